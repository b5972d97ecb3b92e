"""Ids of messages and claims.

A message id is 32 lower-case hexadecimal digits: 16 for the message's place in
its queue (a sequence that starts at 1), then 16 that are drawn at random when
the queue comes into being. So an id is its own marker, string order is queue
order, a deleted message's id still tells where to go on, and an id of another
queue, or of an earlier queue of the same name, is recognised as foreign.

A claim id is 32 random hexadecimal digits: it is the proof of holding a lease.
"""

from __future__ import annotations

import re
import secrets

_MESSAGE_ID = re.compile(r"[0-7][0-9a-f]{31}").fullmatch


def new_generation() -> str:
    """Draw the 16 digits that tell one queue's message ids from another's."""
    return secrets.token_hex(8)


def new_claim_id() -> str:
    """Draw a claim id."""
    return secrets.token_hex(16)


def message_id(place: int, generation: str) -> str:
    """Write the id of the message at a place of a queue."""
    return f"{place:016x}{generation}"


def place_of(message_id: str, generation: str) -> int | None:
    """Read the place out of an id; None if it is malformed or not of this queue."""
    if message_id.endswith(generation) and _MESSAGE_ID(message_id):
        return int(message_id[:16], 16)
    return None


def split_id(message_id: str) -> tuple[int, str] | None:
    """Read place and generation out of an id, of whatever queue; None if it is malformed."""
    if _MESSAGE_ID(message_id):
        return int(message_id[:16], 16), message_id[16:]
    return None
