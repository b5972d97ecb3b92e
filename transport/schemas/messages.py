"""Arguments of the operations on messages."""

from __future__ import annotations

import msgspec

from transport.schemas.queues import QueueRef


class DraftMessage(msgspec.Struct, kw_only=True, frozen=True):
    """One message to post; its body stays the text that arrived."""

    body: msgspec.Raw
    ttl: int | msgspec.UnsetType = msgspec.UNSET
    delay: int | msgspec.UnsetType = msgspec.UNSET


class DraftMessages(msgspec.Struct, kw_only=True, frozen=True):
    """Messages to post."""

    messages: list[DraftMessage]


class MessagePost(DraftMessages, kw_only=True, frozen=True):
    """Messages to post, and where."""

    queue_name: str
    idempotency_key: str | None = None


class MessageList(QueueRef, kw_only=True, frozen=True):
    """A page of messages."""

    marker: str | None = None
    limit: int | None = None
    echo: bool = False
    include_claimed: bool = False
    include_delayed: bool | None = None  # where it is not said, REST and the websocket differ
    wait: int | None = None


class MessageRef(QueueRef, kw_only=True, frozen=True):
    """Names a message."""

    message_id: str


class MessageGetMany(QueueRef, kw_only=True, frozen=True):
    """Names messages."""

    message_ids: list[str]


class MessageDelete(MessageRef, kw_only=True, frozen=True):
    """A message to delete, and the claim that allows it."""

    claim_id: str | None = None


class MessageDeleteMany(QueueRef, kw_only=True, frozen=True):
    """Messages to delete by id, or a number of messages to pop."""

    message_ids: list[str] | None = None
    pop: int | None = None
    claim_ids: list[str] | None = None
