"""The table of actions: how the websocket protocol speaks of each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec

from queues.models import JsonObject, Landmark, Message, PendingDelivery, Pool, Posted
from queues.service.claims import SeenClaim
from queues.service.flavors import Flavor
from queues.service.health import StoreHealth
from queues.service.messages import Page
from queues.service.moving import Drain
from queues.service.subscriptions import Made
from queues.signing import SignedUrl
from transport import views
from transport.dispatch import Operation
from transport.operations import OPERATIONS
from transport.operations.queues import QueuePage, SeenStats
from transport.operations.subscriptions import SubscriptionPage, SubscriptionStatus
from transport.operations.system import Nothing
from transport.schemas.claims import ClaimCreate, ClaimRef, ClaimUpdate
from transport.schemas.messages import (
    MessageDelete,
    MessageDeleteMany,
    MessageGetMany,
    MessageList,
    MessageRef,
)
from transport.schemas.queues import QueueCreate, QueueList, QueueRef
from transport.schemas.subscriptions import SubscriptionCreate, SubscriptionList, SubscriptionUpdate
from transport.websocket import reads
from transport.websocket.reads import Reader, Shape, strict
from transport.websocket.request import SocketRequest


class Answer(NamedTuple):
    """What a client is told."""

    status: int
    body: object  # JSON


Answerer: TypeAlias = Callable[[SocketRequest, Any, Any], Answer]


@dataclass(frozen=True, slots=True)
class Action:
    """How one operation is asked for, and answered."""

    operation: Operation[Any, Any]
    body: type[Any]  # its shape, which is checked before anything is known of the caller
    read: Reader
    answer: Answerer  # of the request, its arguments, and what came of it
    method: str | None = None  # of HTTP, by which a pre-signed URL allows it
    measures: bool = False  # whether it knows by itself how large a body may be


def _done(status: int, body: object) -> Answerer:
    """Return what says that it was done."""
    return lambda _request, _args, _value: Answer(status, body)


def _queue_said(status: int, text: str) -> Answerer:
    return lambda _request, args, _value: Answer(status, text.format(args.queue_name))


def _queue_page(_request: SocketRequest, args: QueueList, page: QueuePage) -> Answer:
    queues = []
    for queue in page.queues:
        entry: JsonObject = {"name": queue.address.queue}
        if args.detailed:
            entry["metadata"] = queue.metadata
        queues.append(entry)
    answer: JsonObject = {"queues": queues}
    if page.count is not None:
        answer["count"] = page.count
    return Answer(200, answer)


def _topic_page(request: SocketRequest, args: QueueList, page: QueuePage) -> Answer:
    status, body = _queue_page(request, args, page)
    assert isinstance(body, dict)  # noqa: S101 - for the type checker
    return Answer(status, {"topics" if name == "queues" else name: value for name, value in body.items()})


def _queue_created(_request: SocketRequest, args: QueueCreate, new: bool) -> Answer:
    return Answer(201 if new else 204, f"Queue {args.queue_name} created.")


def _shown_metadata(_request: SocketRequest, _args: object, value: JsonObject) -> Answer:
    return Answer(200, value)


def _stats(_request: SocketRequest, _args: QueueRef, seen: SeenStats) -> Answer:
    stats = seen.stats
    messages: JsonObject = {"free": stats.free, "claimed": stats.claimed, "total": stats.total}
    for name, landmark in (("oldest", stats.oldest), ("newest", stats.newest)):
        if landmark is not None:
            messages[name] = _landmark(landmark, seen.now)
    return Answer(200 if seen.exists else 404, {"messages": messages})


def _landmark(landmark: Landmark, now: int) -> JsonObject:
    return {"id": landmark.id, "age": landmark.age(now), "created": views.moment(landmark.created)}


def _shared(_request: SocketRequest, _args: object, signed: SignedUrl) -> Answer:
    return Answer(200, views.signed_url(signed))


def _posted(_request: SocketRequest, _args: object, posted: Posted) -> Answer:
    return Answer(201, {"message_ids": posted.ids})


def _page(_request: SocketRequest, _args: object, page: Page) -> Answer:
    return Answer(200, {"messages": _messages(page.messages, page.now)})


def _message(_request: SocketRequest, _args: object, page: Page) -> Answer:
    return Answer(200, {"messages": _messages(page.messages, page.now)[0]})


def _deleted_or_popped(_request: SocketRequest, _args: object, page: Page | None) -> Answer:
    if page is None:
        return Answer(204, {})
    counts = [message.claim_count for message in page.messages]
    entries = _messages(page.messages, page.now)
    return Answer(
        200,
        {"messages": [{**entry, "claim_count": count} for entry, count in zip(entries, counts, strict=True)]},
    )


def _messages(messages: Iterable[Message], now: int) -> list[dict[str, Any]]:
    return [
        {
            "id": each.id,
            "claim_id": each.claim_id,
            "ttl": each.ttl,
            "age": each.age(now),
            "body": msgspec.Raw(each.body),
        }
        for each in messages
    ]


def _claimed(_request: SocketRequest, _args: object, seen: SeenClaim | None) -> Answer:
    if seen is None:
        return Answer(204, {"claim_id": None})
    messages = _messages(seen.claim.messages, seen.now)
    return Answer(201, {"claim_id": seen.claim.id, "messages": messages})


def _claim(_request: SocketRequest, _args: object, seen: SeenClaim) -> Answer:
    messages = _messages(seen.claim.messages, seen.now)
    return Answer(200, {"age": seen.claim.age(seen.now), "ttl": seen.claim.ttl, "messages": messages})


def _claim_said(text: str) -> Answerer:
    return lambda _request, args, _value: Answer(204, text.format(args.claim_id))


def _subscription_page(_request: SocketRequest, _args: object, page: SubscriptionPage) -> Answer:
    shown = [views.subscription(each, page.now) for each in page.subscriptions]
    return Answer(200, {"subscriptions": shown})


def _subscription(_request: SocketRequest, _args: object, page: SubscriptionPage) -> Answer:
    return Answer(200, views.subscription(page.subscriptions[0], page.now))


def _subscribed(_request: SocketRequest, args: Any, made: Made) -> Answer:  # noqa: ANN401 - one of two
    """Answer whether somebody was subscribed."""
    return created(args.queue_name, made.subscription.id) if made.new else taken(args.queue_name)


def created(queue_name: str, subscription_id: str) -> Answer:
    """Answer that there is a new subscription."""
    message = f"Subscription {queue_name} created."
    return Answer(201, {"message": message, "subscription_id": subscription_id})


def removed(subscription_id: str) -> Answer:
    """Answer that a subscription is gone."""
    return Answer(204, f"Subscription {subscription_id} removed.")


def taken(queue_name: str) -> Answer:
    """Answer that the subscriber has a subscription already."""
    return Answer(409, f"Subscription {queue_name} not created.")


def _subscription_said(text: str) -> Answerer:
    return lambda _request, args, _value: Answer(204, text.format(args.subscription_id))


def _status(_request: SocketRequest, _args: object, status: SubscriptionStatus) -> Answer:
    return Answer(200, views.subscription_status(status))


def _failed(_request: SocketRequest, _args: object, page: Sequence[tuple[PendingDelivery, int]]) -> Answer:
    return Answer(200, {"deliveries": [views.failed_delivery(*each) for each in page]})


def _replayed(_request: SocketRequest, _args: object, count: int) -> Answer:
    return Answer(202, {"replayed": count})


def _pool_page(_request: SocketRequest, args: Any, pools: Sequence[Pool]) -> Answer:  # noqa: ANN401 - a listing
    return Answer(200, {"pools": [views.pool(pool, detailed=args.detailed) for pool in pools]})


def _pool(_request: SocketRequest, args: Any, found: Pool) -> Answer:  # noqa: ANN401 - any that names a pool
    return Answer(200, views.pool(found, detailed=getattr(args, "detailed", False)))


def _drain(status: int) -> Answerer:
    def answer(_request: SocketRequest, _args: object, found: Drain) -> Answer:
        return Answer(status, views.drain(found))

    return answer


def _flavor_page(_request: SocketRequest, _args: object, flavors: Sequence[Flavor]) -> Answer:
    return Answer(200, {"flavors": [views.flavor(found) for found in flavors]})


def _flavor(_request: SocketRequest, _args: object, found: Flavor) -> Answer:
    return Answer(200, views.flavor(found))


def _health(request: SocketRequest, _args: object, report: dict[str, StoreHealth]) -> Answer:
    return Answer(200, views.health(report, pooling=request.service.pools.enabled))


def _table(actions: Mapping[str, tuple[Any, ...]]) -> Mapping[str, Action]:
    """Make the table; where a type stands for a shape, the members of the body are the arguments."""

    def made(name: str, shape: Shape | type[Any], answer: Answerer, method: str | None = None) -> Action:
        if not isinstance(shape, Shape):
            shape = Shape(strict(shape), reads.as_it_is)
        body, read, measures = shape
        return Action(OPERATIONS[name], body, read, answer, method, measures)

    return {name: made(name, *parts) for name, parts in actions.items()}


def _of(name: str) -> type[Any]:
    """Return the arguments of an operation."""
    return OPERATIONS[name].arguments


def _declared(noun: str) -> Mapping[str, tuple[Any, ...]]:
    """Return the actions that queues and topics have in common."""
    word = noun.capitalize()
    return {
        f"{noun}_list": (QueueList, _queue_page if noun == "queue" else _topic_page),
        f"{noun}_create": (Shape(reads.QueueBody, reads.queue_create, measures=True), _queue_created),
        f"{noun}_get": (QueueRef, _shown_metadata),
        f"{noun}_exists": (QueueRef, _done(200, {})),
        f"{noun}_update": (Shape(reads.ChangeBody, reads.queue_update, measures=True), _shown_metadata),
        f"{noun}_delete": (QueueRef, _queue_said(204, word + " {} removed.")),
        f"{noun}_get_stats": (QueueRef, _stats),
        f"{noun}_purge": (_of("queue_purge"), _done(204, {})),
    }


#: What a client may ask for, by the name of the action, which is that of the operation.
ACTIONS: Mapping[str, Action] = _table(
    {
        **_declared("queue"),
        **_declared("topic"),
        "queue_share": (reads.nested("queue_share", "wish", "queue_name"), _shared),
        "message_post": (Shape(reads.PostBody, reads.message_post, measures=True), _posted, "POST"),
        "message_list": (
            Shape(strict(MessageList, free=("include_delayed",)), reads.message_list),
            _page,
            "GET",
        ),
        "message_get": (MessageRef, _message, "GET"),
        "message_get_many": (MessageGetMany, _page, "GET"),
        "message_delete": (MessageDelete, _done(204, {}), "DELETE"),
        "message_delete_many": (MessageDeleteMany, _deleted_or_popped, "DELETE"),
        "event_post": (Shape(reads.EventBody, reads.events, measures=True), _posted),
        # Null stands for the default in the terms of a claim: quirk F18.
        "claim_create": (Shape(ClaimCreate, reads.as_it_is), _claimed),
        "claim_get": (ClaimRef, _claim),
        "claim_update": (Shape(ClaimUpdate, reads.as_it_is), _claim_said("Claim {} updated.")),
        "claim_delete": (ClaimRef, _claim_said("Claim {} deleted.")),
        "subscription_list": (
            Shape(strict(SubscriptionList, free=("marker", "limit")), reads.subscription_list),
            _subscription_page,
        ),
        "subscription_create": (reads.wish(SubscriptionCreate, reads.WishBody), _subscribed),
        "subscription_get": (_of("subscription_get"), _subscription),
        "subscription_update": (
            reads.wish(SubscriptionUpdate, reads.ChangedWishBody),
            _subscription_said("Subscription {} updated."),
        ),
        "subscription_delete": (
            _of("subscription_delete"),
            lambda _request, args, _value: removed(args.subscription_id),
        ),
        "subscription_confirm": (
            _of("subscription_confirm"),
            _subscription_said("Subscription {} confirmed."),
        ),
        "subscription_status": (_of("subscription_status"), _status),
        "subscription_failed": (_of("subscription_failed"), _failed),
        "subscription_replay": (
            reads.nested("subscription_replay", "wish", "queue_name", "subscription_id"),
            _replayed,
        ),
        "ping_node": (Nothing, _done(204, {})),
    }
)

#: Known only where the setting `admin` is on.
ADMIN_ACTIONS: Mapping[str, Action] = _table({"check_node_health": (Nothing, _health)})

#: Known only where the settings `admin` and `pooling` are on.
POOL_ACTIONS: Mapping[str, Action] = _table(
    {
        "pool_list": (_of("pool_list"), _pool_page),
        "pool_get": (_of("pool_get"), _pool),
        "pool_create": (reads.nested("pool_create", "terms", "pool_name"), _done(201, {})),
        "pool_update": (reads.nested("pool_update", "change", "pool_name"), _pool),
        "pool_delete": (_of("pool_delete"), _done(204, {})),
        "pool_drain": (_of("pool_drain"), _drain(202)),
        "pool_drain_get": (_of("pool_drain_get"), _drain(200)),
        "pool_drain_stop": (_of("pool_drain_stop"), _done(204, {})),
        "flavor_list": (_of("flavor_list"), _flavor_page),
        "flavor_get": (_of("flavor_get"), _flavor),
        "flavor_create": (reads.nested("flavor_create", "terms", "flavor_name"), _done(201, {})),
        "flavor_update": (reads.nested("flavor_update", "pools", "flavor_name"), _flavor),
        "flavor_delete": (_of("flavor_delete"), _done(204, {})),
    }
)


def actions(*, admin: bool, pooling: bool) -> Mapping[str, Action]:
    """Return the actions that a service with these settings knows."""
    return {
        **ACTIONS,
        **(ADMIN_ACTIONS if admin else {}),
        **(POOL_ACTIONS if admin and pooling else {}),
    }
