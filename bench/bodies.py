"""What is posted."""

from __future__ import annotations

import json

from bench.conditions import BODY_SIZE
from queues.models import NewMessage

#: Who posts everything, unless a load says otherwise.
PRODUCER = "0123456789abcdef0123456789abcdef"


def body(size: int = BODY_SIZE) -> bytes:
    """Return a JSON object of so many bytes."""
    document = {"event": "order.created", "order": 4711, "express": True, "note": ""}
    document["note"] = "x" * (size - len(json.dumps(document)))
    return json.dumps(document).encode()


def messages(count: int, *, ttl: int = 86_400, delay: int = 0) -> list[NewMessage]:
    """Return new messages, all alike."""
    message = NewMessage(body=body(), ttl=ttl, delay=delay, client_id=PRODUCER)
    return [message] * count
