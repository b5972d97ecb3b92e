"""Arguments of the operations on queues."""

from __future__ import annotations

from typing import Any

import msgspec


class QueueRef(msgspec.Struct, kw_only=True, frozen=True):
    """Names a queue."""

    queue_name: str


class QueueList(msgspec.Struct, kw_only=True, frozen=True):
    """A page of the project's queues."""

    marker: str | None = None
    limit: int | None = None
    detailed: bool = False
    with_count: bool = False
    name: str | None = None
    filters: dict[str, str] | None = None


class QueueCreate(QueueRef, kw_only=True, frozen=True):
    """A queue and its initial metadata."""

    metadata: dict[str, Any] | None = None


class QueueUpdate(QueueRef, kw_only=True, frozen=True):
    """A JSON patch of a queue's metadata; the service checks it."""

    changes: Any


class PurgeScope(msgspec.Struct, kw_only=True, frozen=True):
    """What to purge."""

    resource_types: list[str]


class QueuePurge(QueueRef, kw_only=True, frozen=True):
    """What to purge of which queue."""

    resource_types: list[str] = msgspec.field(default_factory=lambda: ["messages", "subscriptions"])


class QueueShare(QueueRef, kw_only=True, frozen=True):
    """The wish for a pre-signed URL; the signer checks its members."""

    wish: dict[str, Any]
