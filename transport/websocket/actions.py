"""The table of actions: how the websocket protocol speaks of each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec

from queues.errors import Invalid
from queues.models import Address, JsonObject, Landmark, Message, PendingDelivery, Pool, Posted
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
from transport.schemas.events import EventsPost
from transport.schemas.messages import (
    DraftMessage,
    MessageDelete,
    MessageDeleteMany,
    MessageGetMany,
    MessageList,
    MessagePost,
    MessageRef,
)
from transport.schemas.queues import QueueCreate, QueueList, QueueRef
from transport.websocket.frames import FrameRefused
from transport.websocket.request import NOT_VALID, SocketRequest


class Answer(NamedTuple):
    """What a client is told."""

    status: int
    body: object  # JSON


Reader: TypeAlias = Callable[[SocketRequest], Any]
Answerer: TypeAlias = Callable[[SocketRequest, Any, Any], Answer]


@dataclass(frozen=True, slots=True)
class Action:
    """How one operation is asked for, and answered."""

    operation: Operation[Any, Any]
    read: Reader
    answer: Answerer  # of the request, its arguments, and what came of it
    method: str | None = None  # of HTTP, by which a pre-signed URL allows it


class _PostBody(msgspec.Struct, kw_only=True):
    queue_name: str
    messages: msgspec.Raw
    idempotency_key: str | None = None


_drafts = msgspec.json.Decoder(list[DraftMessage])
_anything = msgspec.json.Decoder()


def _plain(kind: type[Any]) -> Reader:
    """Return what reads a body whose members are the arguments."""
    return lambda request: request.arguments(kind)


def _queue_create(request: SocketRequest) -> QueueCreate:
    _check_size(request, request.service.settings.limits.max_queue_metadata)
    return request.arguments(QueueCreate)


def _queue_list(request: SocketRequest) -> QueueList:
    return request.arguments(QueueList)


def _message_post(request: SocketRequest) -> MessagePost:
    """Read messages; their number of bytes is bounded by service and queue."""
    body = request.arguments(_PostBody)
    address = Address(project=request.caller.project, queue=body.queue_name)
    if bytes(memoryview(body.messages)[:1]) != b"[":
        raise FrameRefused(NOT_VALID, request.frame)
    limit = request.service.messages.max_post_size(address)
    if memoryview(body.messages).nbytes > limit:
        raise Invalid(f"Message collection size is too large. The max is {limit} bytes.")
    try:
        drafts = _drafts.decode(body.messages)
    except msgspec.ValidationError as error:
        raise Invalid(_explained(_anything.decode(body.messages))) from error
    return MessagePost(queue_name=body.queue_name, messages=drafts, idempotency_key=body.idempotency_key)


def _explained(messages: Sequence[Any]) -> str:
    """Return what is wrong with messages, in the words that clients compare."""
    for message in messages:
        if not isinstance(message, dict):
            return "Bad request. A message must be an object."
        if "body" not in message:
            return 'Bad request. Missing "body" field.'
        for name in ("ttl", "delay"):
            value = message.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int):
                return f'Bad request. The value of the "{name}" field must be a int.'
    return "Bad request. The messages have the wrong shape."


class WishBody(msgspec.Struct, kw_only=True):
    """The wish for a subscription, as members of a body."""

    queue_name: str
    subscription_id: str = ""
    subscriber: str | msgspec.UnsetType = msgspec.UNSET
    ttl: int | msgspec.UnsetType = msgspec.UNSET
    options: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def _wish(kind: type[Any]) -> Reader:
    """Return what reads the wish for a subscription out of the members of a body."""

    def read(request: SocketRequest) -> Any:  # noqa: ANN401 - any of the arguments
        body = request.arguments(WishBody)
        members = ("subscriber", "ttl", "options")
        wish = {name: value for name in members if (value := getattr(body, name)) is not msgspec.UNSET}
        names = {"queue_name": body.queue_name, "subscription_id": body.subscription_id}
        return msgspec.convert({**names, "wish": wish}, kind)

    return read


def _nested(kind: type[Any], member: str, *names: str) -> Reader:
    """Return what reads a body whose members are the arguments, or those of one argument."""

    def read(request: SocketRequest) -> Any:  # noqa: ANN401 - any of the arguments
        body = request.arguments(dict[str, Any])
        outer = {name: value for name, value in body.items() if name in names}
        inner = {name: value for name, value in body.items() if name not in names}
        try:
            return msgspec.convert({**outer, member: inner}, kind)
        except msgspec.ValidationError as error:
            raise FrameRefused(NOT_VALID, request.frame) from error

    return read


class _EventBody(msgspec.Struct, kw_only=True):
    queue_name: str
    events: msgspec.Raw


def _events(request: SocketRequest) -> EventsPost:
    """Read events: one as an object, or a batch as an array."""
    body = request.arguments(_EventBody)
    batch = bytes(memoryview(body.events)[:1]) == b"["
    return EventsPost(
        queue_name=body.queue_name,
        content_type="application/cloudevents-batch+json" if batch else "application/cloudevents+json",
        headers=[],
        body=bytes(body.events),
    )


def _check_size(request: SocketRequest, limit: int) -> None:
    if memoryview(request.frame.body).nbytes > limit:
        raise Invalid(f"Metadata is too large. The max is {limit} bytes.")


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


def _metadata(_request: SocketRequest, _args: object, value: JsonObject) -> Answer:
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


def subscribed(_request: SocketRequest, args: Any, made: Made) -> Answer:  # noqa: ANN401 - one of two
    """Answer whether somebody was subscribed."""
    if not made.new:
        return taken(args.queue_name)
    message = f"Subscription {args.queue_name} created."
    return Answer(201, {"message": message, "subscription_id": made.subscription.id})


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
    """Make the table; a type in the place of a reader is read member by member."""
    return {
        name: Action(OPERATIONS[name], _plain(read) if isinstance(read, type) else read, *rest)
        for name, (read, *rest) in actions.items()
    }


def _of(name: str) -> type[Any]:
    """Return the arguments of an operation."""
    return OPERATIONS[name].arguments


def _declared(noun: str) -> Mapping[str, tuple[Any, ...]]:
    """Return the actions that queues and topics have in common."""
    word = noun.capitalize()
    return {
        f"{noun}_list": (_queue_list, _queue_page if noun == "queue" else _topic_page),
        f"{noun}_create": (_queue_create, _queue_created),
        f"{noun}_get": (QueueRef, _metadata),
        f"{noun}_exists": (QueueRef, _done(200, {})),
        f"{noun}_update": (_of("queue_update"), _metadata),
        f"{noun}_delete": (QueueRef, _queue_said(204, word + " {} removed.")),
        f"{noun}_get_stats": (QueueRef, _stats),
        f"{noun}_purge": (_of("queue_purge"), _done(204, {})),
    }


#: What a client may ask for, by the name of the action, which is that of the operation.
ACTIONS: Mapping[str, Action] = _table(
    {
        **_declared("queue"),
        **_declared("topic"),
        "queue_share": (_nested(_of("queue_share"), "wish", "queue_name"), _shared),
        "message_post": (_message_post, _posted, "POST"),
        "message_list": (MessageList, _page, "GET"),
        "message_get": (MessageRef, _message, "GET"),
        "message_get_many": (MessageGetMany, _page, "GET"),
        "message_delete": (MessageDelete, _done(204, {}), "DELETE"),
        "message_delete_many": (MessageDeleteMany, _deleted_or_popped, "DELETE"),
        "event_post": (_events, _posted),
        "claim_create": (ClaimCreate, _claimed),
        "claim_get": (ClaimRef, _claim),
        "claim_update": (ClaimUpdate, _claim_said("Claim {} updated.")),
        "claim_delete": (ClaimRef, _claim_said("Claim {} deleted.")),
        "subscription_list": (_of("subscription_list"), _subscription_page),
        "subscription_create": (_wish(_of("subscription_create")), subscribed),
        "subscription_get": (_of("subscription_get"), _subscription),
        "subscription_update": (
            _wish(_of("subscription_update")),
            _subscription_said("Subscription {} updated."),
        ),
        "subscription_delete": (
            _of("subscription_delete"),
            _subscription_said("Subscription {} removed."),
        ),
        "subscription_confirm": (
            _of("subscription_confirm"),
            _subscription_said("Subscription {} confirmed."),
        ),
        "subscription_status": (_of("subscription_status"), _status),
        "subscription_failed": (_of("subscription_failed"), _failed),
        "subscription_replay": (
            _nested(_of("subscription_replay"), "wish", "queue_name", "subscription_id"),
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
        "pool_create": (_nested(_of("pool_create"), "terms", "pool_name"), _done(201, {})),
        "pool_update": (_nested(_of("pool_update"), "change", "pool_name"), _pool),
        "pool_delete": (_of("pool_delete"), _done(204, {})),
        "pool_drain": (_of("pool_drain"), _drain(202)),
        "pool_drain_get": (_of("pool_drain_get"), _drain(200)),
        "pool_drain_stop": (_of("pool_drain_stop"), _done(204, {})),
        "flavor_list": (_of("flavor_list"), _flavor_page),
        "flavor_get": (_of("flavor_get"), _flavor),
        "flavor_create": (_nested(_of("flavor_create"), "terms", "flavor_name"), _done(201, {})),
        "flavor_update": (_nested(_of("flavor_update"), "pools", "flavor_name"), _flavor),
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
