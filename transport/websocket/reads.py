"""From the bodies of requests to the arguments of operations."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple, TypeAlias, get_args

import msgspec

from queues.bodies import parse
from queues.errors import Invalid
from transport.operations import OPERATIONS
from transport.operations.queues import address_of
from transport.schemas.events import EventsPost
from transport.schemas.messages import DraftMessage, MessageList, MessagePost
from transport.schemas.queues import QueueCreate, QueueUpdate
from transport.schemas.subscriptions import SubscriptionList
from transport.websocket.frames import FrameRefused
from transport.websocket.request import NOT_VALID, SocketRequest

#: From a body of the right shape to the arguments of the operation.
Reader: TypeAlias = Callable[[SocketRequest, Any], Any]


class Shape(NamedTuple):
    """What a body must look like, and what becomes of it."""

    body: type[Any]
    read: Reader
    measures: bool = False  # whether the reader knows by itself how large a body may be


def strict(kind: type[Any], *, free: Collection[str] = ()) -> type[Any]:
    """Return arguments as members of a body: null means nothing there, but in those that are `free` of a type."""
    fields: list[tuple[str, Any, Any]] = []
    for each in msgspec.structs.fields(kind):
        parts = get_args(each.type)
        if each.name in free:
            fields.append((each.name, Any, each.default))
        elif type(None) in parts:
            kinds = (part for part in parts if part is not type(None))
            fields.append((each.name, reduce(or_, kinds), each.default))
    if not fields:
        return kind
    named = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return msgspec.defstruct(kind.__name__, fields, bases=(kind,), namespace=named, kw_only=True, frozen=True)


def as_it_is(_request: SocketRequest, body: Any) -> Any:  # noqa: ANN401 - any of the arguments
    """Return a body whose members are the arguments."""
    return body


class QueueBody(msgspec.Struct):
    """A queue, or topic, to declare."""

    queue_name: str
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class ChangeBody(msgspec.Struct):
    """A JSON patch of metadata."""

    queue_name: str
    changes: msgspec.Raw


class PostBody(msgspec.Struct):
    """Messages to post."""

    queue_name: str
    messages: msgspec.Raw
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        _check_opening(self.messages, b"[")


class EventBody(msgspec.Struct):
    """One event, or a batch of them."""

    queue_name: str
    events: msgspec.Raw

    def __post_init__(self) -> None:
        _check_opening(self.events, b"[{")


def _check_opening(raw: msgspec.Raw, openings: bytes) -> None:
    """Raise ValueError, which the decoder takes for a wrong shape, for a value of another kind."""
    if memoryview(raw)[0] not in openings:
        raise ValueError("the value is of another kind")


_TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "on"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "off", "none", ""), False),
}

_drafts = msgspec.json.Decoder(list[DraftMessage])
_metadata = msgspec.json.Decoder(dict[str, Any] | None)
_anything = msgspec.json.Decoder()


def queue_create(request: SocketRequest, body: QueueBody) -> QueueCreate:
    """Read a queue's initial metadata."""
    _check_size(request, body.metadata)
    try:
        metadata = _metadata.decode(body.metadata)
    except msgspec.DecodeError as error:
        raise Invalid("The metadata must be an object.") from error
    return QueueCreate(queue_name=body.queue_name, metadata=metadata)


def queue_update(request: SocketRequest, body: ChangeBody) -> QueueUpdate:
    """Read a JSON patch."""
    _check_size(request, body.changes)
    try:
        changes = _anything.decode(body.changes)
    except msgspec.DecodeError as error:
        raise Invalid(f"The changes cannot be read: {error}.") from error
    return QueueUpdate(queue_name=body.queue_name, changes=changes)


def _check_size(request: SocketRequest, raw: msgspec.Raw) -> None:
    limit = request.service.settings.limits.max_queue_metadata
    if memoryview(raw).nbytes > limit:
        raise Invalid(f"Metadata is too large. The max is {limit} bytes.")


def _check_post_size(request: SocketRequest, queue_name: str, raw: msgspec.Raw) -> None:
    """Raise Invalid for more bytes than service and queue allow, InvalidName for no name of a queue."""
    limit = request.service.messages.max_post_size(address_of(request.caller, queue_name))
    size = memoryview(raw).nbytes
    if request.frame.binary and limit // 2 < size <= limit:
        # What was MessagePack is as large as the JSON text that clients write, which has blanks.
        size = len(json.dumps(parse(bytes(raw)), ensure_ascii=False).encode())
    if size > limit:
        raise Invalid(f"Message collection size is too large. The max is {limit} bytes.")


def message_post(request: SocketRequest, body: PostBody) -> MessagePost:
    """Read messages; their number of bytes is bounded by service and queue."""
    _check_post_size(request, body.queue_name, body.messages)
    try:
        drafts = _drafts.decode(body.messages)
    except msgspec.ValidationError as error:
        found = parse(bytes(body.messages))
        raise Invalid(_explained(found if isinstance(found, list) else [])) from error
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


def message_list(_request: SocketRequest, body: MessageList) -> MessageList:
    """Read a listing; the protocol does not say what include_delayed may be, so that much will do."""
    truth = _TRUTHS.get(str(body.include_delayed).strip().lower())
    if truth is None:
        raise Invalid("The include_delayed must be true or false.")
    return msgspec.structs.replace(body, include_delayed=truth)


def subscription_list(_request: SocketRequest, body: SubscriptionList) -> SubscriptionList:
    """Read a listing; the protocol does not say what its members are."""
    marker: Any = body.marker
    limit: Any = body.limit
    if isinstance(limit, bool | float | list | dict):
        raise Invalid("The limit must be an integer.")
    try:
        number = None if limit is None else int(limit)
    except ValueError as error:
        raise Invalid("The limit must be an integer.") from error
    if marker is not None and not isinstance(marker, str):
        raise Invalid("The marker must be a text.")
    return SubscriptionList(queue_name=body.queue_name, marker=marker, limit=number)


class WishBody(msgspec.Struct, kw_only=True):
    """The wish for a subscription, as members of a body."""

    queue_name: str
    subscription_id: str = ""
    subscriber: str | msgspec.UnsetType = msgspec.UNSET
    ttl: int | msgspec.UnsetType = msgspec.UNSET
    options: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ChangedWishBody(WishBody, kw_only=True):
    """What is to be different about a subscription, as members of a body."""

    subscription_id: str


def wish(kind: type[Any], body: type[WishBody]) -> Shape:
    """Return the shape of the wish for a subscription, whose terms are members of the body."""

    def read(_request: SocketRequest, body: WishBody) -> Any:  # noqa: ANN401 - any of the arguments
        members = ("subscriber", "ttl", "options")
        wish = {name: value for name in members if (value := getattr(body, name)) is not msgspec.UNSET}
        names = {"queue_name": body.queue_name, "subscription_id": body.subscription_id}
        return msgspec.convert({**names, "wish": wish}, kind)

    return Shape(body, read)


def nested(name: str, member: str, *names: str) -> Shape:
    """Return the shape of a body whose members are the arguments of an operation, or those of one argument."""
    kind = OPERATIONS[name].arguments

    def read(request: SocketRequest, body: dict[str, Any]) -> Any:  # noqa: ANN401 - any of the arguments
        outer = {name: value for name, value in body.items() if name in names}
        inner = {name: value for name, value in body.items() if name not in names}
        try:
            return msgspec.convert({**outer, member: inner}, kind)
        except msgspec.ValidationError as error:
            raise FrameRefused(NOT_VALID, request.frame) from error

    return Shape(dict[str, Any], read)


def events(request: SocketRequest, body: EventBody) -> EventsPost:
    """Read events: one as an object, or a batch as an array."""
    _check_post_size(request, body.queue_name, body.events)
    batch = memoryview(body.events)[0] == ord("[")
    return EventsPost(
        queue_name=body.queue_name,
        content_type="application/cloudevents-batch+json" if batch else "application/cloudevents+json",
        headers=[],
        body=bytes(body.events),
    )
