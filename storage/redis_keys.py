"""The keys of the Redis driver; what is in them stands on top of `storage/lua/common.lua`."""

from __future__ import annotations

import hashlib

from queues.models import Address

_OUTBOX = "outbox"
SHARDS = 64  # fixed: a queue's shard is part of its keys


def shard_of(address: Address) -> int:
    """Return the shard of a queue. What its name has behind a ">" does not matter: a queue's annexes are with it."""
    name, _, annex = address.queue.partition(">")
    if (address.project, name) == ("", _OUTBOX):
        return int(annex)
    digest = hashlib.blake2b(address.project.encode() + b"\0" + name.encode(), digest_size=4).digest()
    return int.from_bytes(digest) % SHARDS


def base_key(prefix: str, address: Address) -> str:
    """Return the key that all keys of a queue begin with; its length makes the project's end plain."""
    length = len(address.project.encode())
    return f"{prefix}:{{{shard_of(address)}}}:{length}:{address.project}:{address.queue}"


def channel(prefix: str, address: Address, database: int) -> str:
    """Return where the scripts tell of what is new in a queue. A channel, unlike a key, is of all databases of a server."""
    return f"{base_key(prefix, address)}@{database}"


def outbox(shard: int) -> Address:
    """Return where the tickets of a shard's queues wait."""
    return Address(project="", queue=f"{_OUTBOX}>{shard}")


def due_key(prefix: str, shard: int) -> str:
    """Return the key of a shard's queues by when something falls due in them."""
    return f"{prefix}:{{{shard}}}:due"
