"""Message bodies are kept as the JSON text that arrived; here is what they say, for the few who must know."""

from __future__ import annotations

import json

import msgspec

from queues.models import Json

_decode = msgspec.json.Decoder().decode


def parse(text: bytes) -> Json:
    """Return what JSON text says. A number that no float can hold is JSON: it becomes infinite."""
    try:
        return _decode(text)
    except msgspec.DecodeError:
        found: Json = json.loads(text)
        return found
