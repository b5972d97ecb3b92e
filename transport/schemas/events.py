"""Arguments of the operation on events."""

from __future__ import annotations

from transport.schemas.queues import QueueRef


class EventsPost(QueueRef, kw_only=True, frozen=True):
    """Events as they came; see `queues.events.read`."""

    content_type: str
    headers: list[tuple[str, str]]
    body: bytes
