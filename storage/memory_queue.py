"""A queue in memory: its messages, claims and idempotency keys, and the state of all queues."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from queues.errors import QueueMoved
from queues.identity import message_id, new_generation
from queues.models import Address, Claim, Message
from storage.wakeups import Wakeups


@dataclass(slots=True, eq=False)
class Entry:
    """A message in its place."""

    place: int  # in its queue, from 1
    message: Message  # as it is without a claim
    ready: int  # ms; when its delay is over; 0 without one, so that a clock that steps back hides nothing
    claim: Claim | None = None  # the last one that took it, live or not; None once released

    def holder(self, now: int) -> Claim | None:
        """Return the live claim that holds the message."""
        return self.claim if self.claim is not None and self.claim.expires > now else None

    def seen(self, now: int) -> Message:
        """Return the message as it is at that time."""
        holder = self.holder(now)
        return replace(self.message, claim_id=holder.id if holder else None)

    def hand_out(self, claim: Claim, grace: int) -> None:
        """Give the message to a claim, and let it outlive the claim."""
        self.claim = claim
        if self.message.expires < claim.expires:
            self.message = replace(self.message, expires=claim.expires + grace * 1000)


@dataclass(slots=True, eq=False)
class Kept:
    """A post that may be repeated."""

    fingerprint: bytes  # of what was posted
    first: int  # place of the first message that was stored then
    count: int  # how many there were
    expires: int  # ms; when the key may be used anew


@dataclass(slots=True, eq=False)
class MemoryQueue:
    """All that is known of one queue."""

    generation: str = field(default_factory=new_generation)  # ends every message id
    last: int = 0  # the place that was given last
    entries: dict[str, Entry] = field(default_factory=dict)  # by message id, in queue order
    claims: dict[str, Claim] = field(default_factory=dict)  # by id, without their messages
    kept: dict[str, Kept] = field(default_factory=dict)  # by idempotency key
    subscribed: str = ""  # the stamp of who noted last that posts need tickets; "" where they need none
    move: str | None = None  # id of the move that it is part of
    log: object | None = None  # of what changed while it departs; see `storage.memory_transfers`
    shut: bool = False  # for that move
    forgotten: int | None = None  # ms; when a queue that moved away is forgotten

    def existing(self, now: int) -> list[Entry]:
        """Return the entries that have not expired, in queue order."""
        return [entry for entry in self.entries.values() if entry.message.expires > now]

    def free(self, now: int) -> list[Entry]:
        """Return the entries that can be claimed, in queue order."""
        return [entry for entry in self.existing(now) if entry.ready <= now and not entry.holder(now)]

    def find(self, ids: Iterable[str], now: int) -> list[Entry]:
        """Return the entries that have these ids, in queue order."""
        wanted = set(ids)
        return [entry for entry in self.existing(now) if entry.message.id in wanted]

    def live_claim(self, claim_id: str, now: int) -> Claim | None:
        """Return a claim of this queue that is not over."""
        claim = self.claims.get(claim_id)
        return claim if claim is not None and claim.expires > now else None

    def held(self, claim: Claim) -> list[Entry]:
        """Return the entries under a live claim, in queue order."""
        return [entry for entry in self.entries.values() if entry.claim and entry.claim.id == claim.id]

    def append(self, message: Message, ready: int) -> str:
        """Put a message, its id yet to be given, at the end; return the id."""
        self.last += 1
        id_ = message_id(self.last, self.generation)
        self.entries[id_] = Entry(place=self.last, message=replace(message, id=id_), ready=ready)
        return id_

    def ids(self, first: int, count: int) -> list[str]:
        """Return the ids of some places in a row."""
        return [message_id(place, self.generation) for place in range(first, first + count)]

    def remove(self, entry: Entry) -> None:
        """Take a message out."""
        del self.entries[entry.message.id]

    def reclaim(self, now: int, limit: int) -> int:
        """Forget up to `limit` things that are over; return how many."""
        gone = [id_ for id_, entry in self.entries.items() if entry.message.expires <= now][:limit]
        for id_ in gone:
            del self.entries[id_]
        over = [id_ for id_, claim in self.claims.items() if claim.expires <= now][: limit - len(gone)]
        for id_ in over:
            del self.claims[id_]
        rest = limit - len(gone) - len(over)
        outdated = [key for key, kept in self.kept.items() if kept.expires <= now][:rest]
        for key in outdated:
            del self.kept[key]
        return len(gone) + len(over) + len(outdated)


class MemoryQueues:
    """All queues, the lock that every step on them takes, and who watches them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.wakeups = Wakeups()
        self.queues: dict[Address, MemoryQueue] = {}

    def find(self, address: Address) -> MemoryQueue | None:
        """Return a queue, or None; raises QueueMoved if it is shut."""
        queue = self.queues.get(address)
        if queue is not None and queue.shut:
            raise QueueMoved(address, queue.move or "")
        return queue
