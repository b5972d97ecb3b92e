"""The memory driver: the executable meaning of the contract, lost with the process.

Everything is written the obvious way and looks at every message of a queue; no
state depends on what has been reclaimed. Where another driver differs from this
one, one of them is wrong.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    KeyReused,
    MessageClaimed,
    QueueNotFound,
    StoreUnsupported,
)
from queues.identity import message_id, new_claim_id, new_generation, place_of
from queues.models import (
    Address,
    Claim,
    Claimed,
    Durability,
    Landmark,
    Lease,
    Message,
    NewMessage,
    Once,
    Popped,
    Posted,
    Record,
    Selection,
    Stats,
)


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> MemoryStore:
    """Make an empty store for the URI `memory:`; no two calls share one, and nothing ever waits."""
    if uri != "memory:":
        raise StoreUnsupported(f"A store in memory is named by memory:, not {uri!r}.")
    return MemoryStore(clock or _wall_clock)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class MemoryStore:
    """Both ports over dictionaries."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.messages = MemoryMessages(clock)
        self.records = MemoryRecords()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


@dataclass(slots=True, eq=False)
class _Entry:
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
class _Kept:
    """A post that may be repeated."""

    fingerprint: bytes  # of what was posted
    ids: Sequence[str]  # of what was stored then
    expires: int  # ms; when the key may be used anew


@dataclass(slots=True, eq=False)
class _Queue:
    """All that is known of one queue."""

    generation: str = field(default_factory=new_generation)  # ends every message id
    last: int = 0  # the place that was given last
    entries: dict[str, _Entry] = field(default_factory=dict)  # by message id, in queue order
    claims: dict[str, Claim] = field(default_factory=dict)  # by id, without their messages
    kept: dict[str, _Kept] = field(default_factory=dict)  # by idempotency key

    def existing(self, now: int) -> list[_Entry]:
        """Return the entries that have not expired, in queue order."""
        return [entry for entry in self.entries.values() if entry.message.expires > now]

    def free(self, now: int) -> list[_Entry]:
        """Return the entries that can be claimed, in queue order."""
        return [entry for entry in self.existing(now) if entry.ready <= now and not entry.holder(now)]

    def find(self, ids: Iterable[str], now: int) -> list[_Entry]:
        """Return the entries that have these ids, in queue order."""
        wanted = set(ids)
        return [entry for entry in self.existing(now) if entry.message.id in wanted]

    def live_claim(self, claim_id: str, now: int) -> Claim | None:
        """Return a claim of this queue that is not over."""
        claim = self.claims.get(claim_id)
        return claim if claim is not None and claim.expires > now else None

    def held(self, claim: Claim) -> list[_Entry]:
        """Return the entries under a live claim, in queue order."""
        return [entry for entry in self.entries.values() if entry.claim and entry.claim.id == claim.id]

    def append(self, message: Message, ready: int) -> str:
        """Put a message, its id yet to be given, at the end; return the id."""
        self.last += 1
        id_ = message_id(self.last, self.generation)
        self.entries[id_] = _Entry(place=self.last, message=replace(message, id=id_), ready=ready)
        return id_

    def remove(self, entry: _Entry) -> None:
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


class MemoryMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self._queues: dict[Address, _Queue] = {}

    def _queue(self, address: Address) -> _Queue:
        """Return the queue, or an empty one that nobody keeps."""
        return self._queues.get(address) or _Queue()

    def post(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        now: int,
        once: Once | None = None,
        create: bool = False,
    ) -> Posted:
        """Append messages; see the port."""
        with self._lock:
            if address not in self._queues:
                if not create:
                    raise QueueNotFound
                self._queues[address] = _Queue()
            queue = self._queues[address]
            kept = queue.kept.get(once.key) if once else None
            if once and kept and kept.expires > now:
                if kept.fingerprint != once.fingerprint:
                    raise KeyReused
                return Posted(ids=kept.ids, repeated=True)
            ids = tuple(
                queue.append(_fresh(new, now), now + new.delay * 1000 if new.delay else 0) for new in messages
            )
            if once:
                queue.kept[once.key] = _Kept(once.fingerprint, ids, now + once.window * 1000)
            return Posted(ids=ids)

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""
        with self._lock:
            return [entry.seen(now) for entry in self._queue(address).find(ids, now)]

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""
        with self._lock:
            queue = self._queue(address)
            after: int | None = 0
            if selection.marker is not None:
                after = place_of(selection.marker, queue.generation)
            if after is None:
                return []
            matching = [
                entry.seen(now)
                for entry in queue.existing(now)
                if entry.place > after
                and entry.message.client_id != selection.hide_client
                and (selection.include_claimed or not entry.holder(now))
                and (selection.include_delayed or entry.ready <= now)
            ]
            return matching[: selection.limit]

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        """Delete one message; see the port."""
        with self._lock:
            queue = self._queue(address)
            for entry in queue.find([message_id], now):
                holder = entry.holder(now)
                if holder is None and claim_id is not None:
                    raise ClaimNotHeld
                if holder is not None and claim_id is None:
                    raise MessageClaimed
                if holder is not None and claim_id is not None and holder.id != claim_id:
                    raise MessageClaimed if queue.live_claim(claim_id, now) else ClaimNotHeld
                queue.remove(entry)

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        """Delete messages by id; see the port."""
        with self._lock:
            queue = self._queue(address)
            doomed = queue.find(ids, now)
            holders = {holder.id for entry in doomed if (holder := entry.holder(now))}
            if claim_ids is not None and not holders <= set(claim_ids):
                raise MessageClaimed
            for entry in doomed:
                queue.remove(entry)

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first messages that are free; see the port."""
        with self._lock:
            queue = self._queue(address)
            free = queue.free(now)[:limit]
            taken = list(takewhile(lambda entry: not entry.message.sealed, free))
            for entry in taken:
                queue.remove(entry)
            return Popped(messages=[entry.seen(now) for entry in taken], sealed_next=len(taken) < len(free))

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""
        with self._lock:
            queue = self._queue(address)
            taken, moved = self._choose(address, queue, lease, now)
            if not taken:
                return Claimed(claim=None, dead_lettered=moved)
            claim = Claim(id=new_claim_id(), ttl=lease.ttl, renewed=now, expires=now + lease.ttl * 1000)
            queue.claims[claim.id] = claim
            for entry in taken:
                entry.hand_out(claim, lease.grace)
                entry.message = replace(entry.message, claim_count=entry.message.claim_count + 1)
            messages = tuple(entry.seen(now) for entry in taken)
            return Claimed(claim=replace(claim, messages=messages), dead_lettered=moved)

    def _choose(
        self, address: Address, queue: _Queue, lease: Lease, now: int
    ) -> tuple[Sequence[_Entry], int]:
        """Return what to claim, having moved what was claimed too often, and how much that was."""
        dead = lease.dead_letter
        if dead is None or dead.address == address:  # its own dead-letter queue would loop for ever
            return queue.free(now)[: lease.limit], 0
        taken: list[_Entry] = []
        moved = 0
        for entry in queue.free(now):
            if len(taken) == lease.limit:
                break
            if entry.message.claim_count < dead.max_claims:
                taken.append(entry)
                continue
            queue.remove(entry)
            message = replace(entry.message, claim_count=0)
            if dead.ttl is not None:
                message = replace(message, created=now, expires=now + dead.ttl * 1000)
            self._queues.setdefault(dead.address, _Queue()).append(message, entry.ready)
            moved += 1
        return taken, moved

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""
        with self._lock:
            queue = self._queue(address)
            claim = queue.live_claim(claim_id, now)
            if claim is None:
                raise ClaimNotFound
            return replace(claim, messages=tuple(entry.seen(now) for entry in queue.held(claim)))

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew; see the port."""
        with self._lock:
            queue = self._queue(address)
            claim = queue.live_claim(claim_id, now)
            if claim is None:
                raise ClaimNotFound
            renewed = replace(claim, ttl=lease.ttl, renewed=now, expires=now + lease.ttl * 1000)
            queue.claims[claim_id] = renewed
            for entry in queue.held(claim):
                entry.hand_out(renewed, lease.grace)

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""
        with self._lock:
            queue = self._queue(address)
            claim = queue.live_claim(claim_id, now)
            if claim is not None:
                del queue.claims[claim_id]
                for entry in queue.held(claim):
                    entry.claim = None

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue; see the port."""
        with self._lock:
            entries = self._queue(address).existing(now)
            claimed = sum(1 for entry in entries if entry.holder(now))
            return Stats(
                free=len(entries) - claimed,
                claimed=claimed,
                oldest=_landmark(entries[0]) if entries else None,
                newest=_landmark(entries[-1]) if entries else None,
            )

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; see the port."""
        with self._lock:
            queue = self._queue(address)
            queue.entries.clear()
            queue.claims.clear()

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""
        with self._lock:
            self._queues.pop(address, None)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over; see the port."""
        with self._lock:
            done = 0
            for queue in self._queues.values():
                done += queue.reclaim(now, limit - done)
            return done

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        with self._lock:
            parts = [self.stats(address, now=now) for address in self._queues]
            return Stats(free=sum(part.free for part in parts), claimed=sum(part.claimed for part in parts))

    def durability(self) -> Durability:
        """Admit that nothing lasts; see the port."""
        return Durability(
            driver="memory",
            facts={"kept in": "the memory of one process"},
            warnings=("Everything is lost when the process ends.",),
        )


def _fresh(new: NewMessage, now: int) -> Message:
    return Message(
        id="",
        body=new.body,
        created=now,
        expires=now + new.ttl * 1000,
        client_id=new.client_id,
        sealed=new.sealed,
    )


def _landmark(entry: _Entry) -> Landmark:
    return Landmark(id=entry.message.id, created=entry.message.created)


class MemoryRecords:
    """The control plane; see `queues.ports.RecordStore`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._records: dict[tuple[str, str, str], Record] = {}

    def insert(self, record: Record) -> bool:
        """Store a record unless its name is taken; see the port."""
        with self._lock:
            key = (record.kind, record.scope, record.name)
            if key in self._records:
                return False
            self._records[key] = replace(record, revision=0, data=copy.deepcopy(record.data))
            return True

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record; see the port."""
        with self._lock:
            return copy.deepcopy(self._records.get((kind, scope, name)))

    def replace(self, record: Record) -> bool:
        """Store new data if nobody else has; see the port."""
        with self._lock:
            key = (record.kind, record.scope, record.name)
            stored = self._records.get(key)
            if stored is None or stored.revision != record.revision:
                return False
            data = copy.deepcopy(record.data)
            self._records[key] = replace(record, revision=record.revision + 1, data=data)
            return True

    def remove(self, kind: str, scope: str, name: str) -> bool:
        """Remove a record; see the port."""
        with self._lock:
            return self._records.pop((kind, scope, name), None) is not None

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return a page of records by name; see the port."""
        with self._lock:
            # Python sorts text by code point, which is the byte order of UTF-8.
            names = sorted(n for k, s, n in self._records if (k, s) == (kind, scope) and n > after)
            return [copy.deepcopy(self._records[kind, scope, name]) for name in names[:limit]]

    def count(self, kind: str, scope: str) -> int:
        """Count records; see the port."""
        with self._lock:
            return sum(1 for k, s, _ in self._records if (k, s) == (kind, scope))
