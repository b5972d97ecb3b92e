"""What is posted."""

from __future__ import annotations

import json

from bench.conditions import BODY_SIZE
from queues.models import NewMessage

#: Who posts everything, unless a load says otherwise.
PRODUCER = "0123456789abcdef0123456789abcdef"


#: Where a message can say when it was sent, in Unix seconds: as many bytes as such a time has.
NO_TIME = b"1000000000.000000"


def body(size: int = BODY_SIZE) -> bytes:
    """Return a JSON object of so many bytes, 94 at least."""
    document = {"event": "order.created", "order": 4711, "express": True, "t": float(NO_TIME), "note": ""}
    text = json.dumps(document).replace(str(document["t"]), NO_TIME.decode())
    return text.replace('"note": ""', f'"note": "{"x" * (size - len(text))}"').encode()


def messages(count: int, *, ttl: int = 86_400, delay: int = 0) -> list[NewMessage]:
    """Return new messages, all alike."""
    message = NewMessage(body=body(), ttl=ttl, delay=delay, client_id=PRODUCER)
    return [message] * count
