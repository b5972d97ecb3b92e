"""From the results of operations to responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import falcon
import msgspec

from queues.checksum import checksum
from queues.errors import MessageNotFound
from queues.models import Json, JsonObject, Landmark, Message, PendingDelivery, Pool, Posted
from queues.service.claims import SeenClaim
from queues.service.flavors import Flavor
from queues.service.health import StoreHealth
from queues.service.messages import Page
from queues.service.moving import Drain
from queues.service.queues import QueueService
from queues.service.subscriptions import Made
from queues.signing import SignedUrl
from transport import views
from transport.operations.queues import QueuePage, SeenStats
from transport.operations.subscriptions import SubscriptionPage, SubscriptionStatus
from transport.problems import Problem, problem_of
from transport.wsgi.request import RestRequest

_encode: Callable[[Json], bytes] = msgspec.json.Encoder().encode


def document(response: falcon.Response, value: Json, status: int = 200) -> None:
    """Answer a JSON document."""
    response.status = status
    response.data = _encode(value)


def problem(response: falcon.Response, found: Problem) -> None:
    """Answer what went wrong."""
    body = {"title": found.title}
    if found.description is not None:
        body["description"] = found.description
    document(response, body, found.status)
    response.set_header("Vary", "Accept")
    for name, value in found.headers.items():
        response.set_header(name, value)


def no_content(_request: RestRequest, response: falcon.Response, _value: object) -> None:
    """Answer that it was done."""
    response.status = 204


def found(_request: RestRequest, response: falcon.Response, _value: object) -> None:
    """Answer that it exists."""
    response.status = 200


def queue_page(request: RestRequest, response: falcon.Response, page: QueuePage) -> None:
    """Answer a page of queues."""
    detailed = request.boolean("detailed")
    path = f"/v2/{request.collection}"
    complete = _declared(request).complete
    queues = []
    for queue in page.queues:
        name = queue.address.queue
        entry: JsonObject = {"name": name, "href": f"{path}/{name}"}
        if detailed:
            entry["metadata"] = complete(queue.metadata)
        queues.append(entry)
    marker = page.queues[-1].address.queue if page.queues else None
    # Whatever the client asked for goes on: every parameter here is a filter or one of the listing's own.
    kept = {name: text for name in request.http.params if (text := request.text(name))}
    for name in ("detailed", "with_count"):
        if name in kept:
            kept[name] = str(request.boolean(name)).lower()
    answer: JsonObject = {request.collection: queues, "links": _next_page(path, kept, marker)}
    if page.count:
        answer["count"] = page.count
    document(response, answer)


def queue_created(request: RestRequest, response: falcon.Response, new: bool) -> None:
    """Answer that a queue was created, or existed."""
    response.status = 201 if new else 204
    response.set_header("Location", request.queue_path)


def metadata(request: RestRequest, response: falcon.Response, value: JsonObject) -> None:
    """Answer a queue's metadata with the reserved defaults."""
    document(response, _declared(request).complete(value))


def stats(request: RestRequest, response: falcon.Response, seen: SeenStats) -> None:
    """Answer a queue's statistics."""
    messages: JsonObject = {
        "free": seen.stats.free,
        "claimed": seen.stats.claimed,
        "total": seen.stats.total,
    }
    for name, landmark in (("oldest", seen.stats.oldest), ("newest", seen.stats.newest)):
        if landmark is not None:
            messages[name] = _landmark(request.queue_path, landmark, seen.now)
    document(response, {"messages": messages})


def shared(_request: RestRequest, response: falcon.Response, signed: SignedUrl) -> None:
    """Answer a pre-signed URL."""
    document(response, views.signed_url(signed))


def posted(request: RestRequest, response: falcon.Response, value: Posted) -> None:
    """Answer where the messages are."""
    base = f"{request.queue_path}/messages"
    document(response, {"resources": [f"{base}/{id_}" for id_ in value.ids]}, 201)
    response.set_header("Location", f"{base}?ids={','.join(value.ids)}")


def posted_events(request: RestRequest, response: falcon.Response, value: Posted) -> None:
    """Answer where the events are."""
    base = f"{request.queue_path}/messages"
    document(response, {"resources": [f"{base}/{id_}" for id_ in value.ids]}, 201)


def message_page(request: RestRequest, response: falcon.Response, page: Page) -> None:
    """Answer a page of messages, with the way to the next one."""
    kept = {
        name: str(request.boolean(name)).lower()
        for name in ("echo", "include_claimed", "include_delayed")
        if request.text(name)
    }
    if limit := request.text("limit"):
        kept["limit"] = limit
    marker = page.messages[-1].id if page.messages else None
    links = _next_page(f"{request.queue_path}/messages", kept, marker)
    document(response, {"messages": _messages(request, page.messages, page.now), "links": links})


def messages_by_id(request: RestRequest, response: falcon.Response, page: Page) -> None:
    """Answer the messages that were found, or that there are none."""
    if not page.messages:
        problem(response, problem_of(MessageNotFound("None of these messages is in this queue.")))
        return
    document(response, {"messages": _messages(request, page.messages, page.now)})


def message(request: RestRequest, response: falcon.Response, page: Page) -> None:
    """Answer one message."""
    document(response, _messages(request, page.messages, page.now)[0])


def deleted_or_popped(request: RestRequest, response: falcon.Response, page: Page | None) -> None:
    """Answer that messages were deleted, or what was popped."""
    if page is None:
        response.status = 204
        return
    with_checksum = request.service.settings.wire.enable_checksum
    popped = []
    for taken in page.messages:
        entry = {
            "id": taken.id,
            "ttl": taken.ttl,
            "age": taken.age(page.now),
            "body": msgspec.Raw(taken.body),
            "claim_id": None,
            "claim_count": taken.claim_count,
        }
        popped.append(_with_checksum(entry, taken.body) if with_checksum else entry)
    document(response, {"messages": popped})


def claimed(request: RestRequest, response: falcon.Response, seen: SeenClaim | None) -> None:
    """Answer the messages that were claimed, or that nothing could be."""
    if seen is None:
        response.status = 204
        return
    document(response, {"messages": _messages(request, seen.claim.messages, seen.now)}, 201)
    response.set_header("Location", f"{request.queue_path}/claims/{seen.claim.id}")


def claim(request: RestRequest, response: falcon.Response, seen: SeenClaim) -> None:
    """Answer a claim."""
    document(
        response,
        {
            "age": seen.claim.age(seen.now),
            "ttl": seen.claim.ttl,
            "href": f"{request.queue_path}/claims/{seen.claim.id}",
            "messages": _messages(request, seen.claim.messages, seen.now),
        },
    )


def health(request: RestRequest, response: falcon.Response, report: dict[str, StoreHealth]) -> None:
    """Answer how the stores are."""
    document(response, views.health(report, pooling=request.service.pools.enabled))


def subscription_page(request: RestRequest, response: falcon.Response, page: SubscriptionPage) -> None:
    """Answer a page of subscriptions."""
    path = f"{request.queue_path}/subscriptions"
    marker = page.subscriptions[-1].id if page.subscriptions else None
    kept = {"limit": limit} if (limit := request.text("limit")) else {}
    shown = [views.subscription(each, page.now) for each in page.subscriptions]
    document(response, {"subscriptions": shown, "links": _next_page(path, kept, marker)})


def subscription(_request: RestRequest, response: falcon.Response, page: SubscriptionPage) -> None:
    """Answer a subscription."""
    document(response, views.subscription(page.subscriptions[0], page.now))


def subscribed(request: RestRequest, response: falcon.Response, made: Made) -> None:
    """Answer the id of a subscription."""
    document(response, {"subscription_id": made.subscription.id}, 201)
    response.set_header("Location", f"{request.queue_path}/subscriptions")


def changed(request: RestRequest, response: falcon.Response, _value: object) -> None:
    """Answer that it was done to what this path names."""
    response.status = 204
    response.set_header("Location", request.http.path)


def subscription_status(_request: RestRequest, response: falcon.Response, status: SubscriptionStatus) -> None:
    """Answer how it goes with a subscription."""
    document(response, views.subscription_status(status))


def failed_deliveries(
    request: RestRequest, response: falcon.Response, page: Sequence[tuple[PendingDelivery, int]]
) -> None:
    """Answer what was given up."""
    path = request.http.path
    kept = {"limit": limit} if (limit := request.text("limit")) else {}
    deliveries = [views.failed_delivery(pending, given_up) for pending, given_up in page]
    marker = page[-1][0].id if page else None
    document(response, {"deliveries": deliveries, "links": _next_page(path, kept, marker)})


def replayed(_request: RestRequest, response: falcon.Response, count: int) -> None:
    """Answer how many messages are sent again."""
    document(response, {"replayed": count}, 202)


def pool_page(request: RestRequest, response: falcon.Response, pools: Sequence[Pool]) -> None:
    """Answer a page of pools."""
    detailed = request.boolean("detailed")
    links = _next_page("/v2/pools", _paging(request), pools[-1].name if pools else None)
    document(response, {"links": links, "pools": [views.pool(pool, detailed=detailed) for pool in pools]})
    response.set_header("Content-Location", request.http.relative_uri)


def pool(request: RestRequest, response: falcon.Response, found: Pool) -> None:
    """Answer a pool."""
    document(
        response, views.pool(found, detailed=request.http.method == "GET" and request.boolean("detailed"))
    )


def created(request: RestRequest, response: falcon.Response, _value: object) -> None:
    """Answer that it is there now, at this path."""
    response.status = 201
    response.set_header("Location", request.http.path)


def drain(_request: RestRequest, response: falcon.Response, found: Drain) -> None:
    """Answer how far the drain of a pool has come."""
    document(response, views.drain(found))


def drain_begun(request: RestRequest, response: falcon.Response, found: Drain) -> None:
    """Answer that the drain of a pool goes on by itself."""
    drain(request, response, found)
    response.status = 202


def flavor_page(request: RestRequest, response: falcon.Response, flavors: Sequence[Flavor]) -> None:
    """Answer a page of flavors."""
    links = _next_page("/v2/flavors", _paging(request), flavors[-1].name if flavors else None)
    document(response, {"links": links, "flavors": [views.flavor(found) for found in flavors]})


def flavor(_request: RestRequest, response: falcon.Response, found: Flavor) -> None:
    """Answer a flavor."""
    document(response, views.flavor(found))


def _paging(request: RestRequest) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if limit := request.text("limit"):
        kept["limit"] = limit
    if request.text("detailed"):
        kept["detailed"] = str(request.boolean("detailed")).lower()
    return kept


def _declared(request: RestRequest) -> QueueService:
    return request.service.topics if request.collection == "topics" else request.service.queues


def _messages(request: RestRequest, messages: Iterable[Message], now: int) -> list[dict[str, Any]]:
    base = f"{request.queue_path}/messages/"
    with_checksum = request.service.settings.wire.enable_checksum
    answer = []
    for each in messages:
        href = base + each.id
        entry = {
            "id": each.id,
            # Clients cut the claim's id off behind the last equals sign.
            "href": href if each.claim_id is None else f"{href}?claim_id={each.claim_id}",
            "ttl": each.ttl,
            "age": each.age(now),
            "body": msgspec.Raw(each.body),
        }
        answer.append(_with_checksum(entry, each.body) if with_checksum else entry)
    return answer


def _with_checksum(entry: dict[str, Any], body: bytes) -> dict[str, Any]:
    digest = checksum(body)
    return entry if digest is None else {**entry, "checksum": digest}


def _landmark(path: str, landmark: Landmark, now: int) -> JsonObject:
    return {
        "href": f"{path}/messages/{landmark.id}",
        "age": landmark.age(now),
        "created": views.moment(landmark.created),
    }


def _next_page(path: str, query: Mapping[str, Any], marker: str | None) -> list[JsonObject]:
    """Link to what follows; whether anything does, only following it tells."""
    if marker is None:
        return []
    text = urlencode({**query, "marker": marker}, quote_via=quote)
    return [{"rel": "next", "href": f"{path}?{text}"}]
