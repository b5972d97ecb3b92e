"""How the Redis driver writes a message down: length of client (1 byte), client, form (1), created (8), body."""

from __future__ import annotations

import struct
from typing import Literal

from queues.identity import message_id
from queues.models import Message
from queues.versions import sealed_of

_CLIENT = 250  # bytes of a client id that are kept

#: The form of the message (see `queues.versions`), and when it was posted (ms).
_HEAD = struct.Struct(">BQ")


def pack_client(client_id: str) -> bytes:
    """Write a client id behind a byte that tells how: the 16 bytes of a UUID, or the text."""
    try:
        raw = bytes.fromhex(client_id)
    except ValueError:
        raw = b""
    if len(raw) == 16 and raw.hex() == client_id:
        return b"\1" + raw
    return b"\0" + client_id.encode()[:_CLIENT]


def unpack_client(raw: bytes) -> str:
    """Read a client id."""
    return raw[1:].hex() if raw[:1] == b"\1" else raw[1:].decode(errors="ignore")


def pack_message(client_id: str, created: int, body: bytes, *, sealed: bool) -> bytes:
    """Write a message down."""
    client = pack_client(client_id)
    return bytes((len(client),)) + client + _HEAD.pack(sealed, created) + body


def created_of(packed: bytes) -> int:
    """Return when a message was posted (ms)."""
    created: int = _HEAD.unpack_from(packed, 1 + packed[0])[1]
    return created


def unpack_message(
    generation: str, place: int, packed: bytes, expires: int, lease: bytes | Literal[False]
) -> Message:
    """Build a message; `lease` is how often it was handed out, a colon, and the live claim or nothing.

    Raises StoreUnsupported if the message is newer than this release.
    """
    end = 1 + packed[0]
    form, created = _HEAD.unpack_from(packed, end)
    count, _, claim = (lease or b"0:").partition(b":")
    return Message(
        id=message_id(place, generation),
        body=packed[end + _HEAD.size :],
        created=created,
        expires=expires,
        client_id=unpack_client(packed[1:end]),
        sealed=sealed_of(form),
        claim_id=claim.decode() or None,
        claim_count=int(count),
    )
