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
from dataclasses import replace
from itertools import takewhile

import msgspec

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    FanOutChanged,
    KeyReused,
    MessageClaimed,
    QueueNotFound,
    StoreUnsupported,
)
from queues.identity import new_claim_id, place_of
from queues.models import (
    OUTBOX,
    Address,
    Claim,
    Claimed,
    Durability,
    Landmark,
    Lease,
    Message,
    NewMessage,
    Once,
    Outlook,
    Popped,
    Posted,
    Record,
    Selection,
    Stats,
)
from storage.memory_queue import Entry, Kept, MemoryQueue, MemoryQueues
from storage.memory_transfers import MemoryTransfers


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> MemoryStore:
    """Make an empty store for the URI `memory:`; no two calls share one, and nothing ever waits."""
    if uri != "memory:":
        raise StoreUnsupported(f"A store in memory is named by memory:, not {uri!r}.")
    return MemoryStore(clock or _wall_clock)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class MemoryStore:
    """Both ports over dictionaries."""

    capabilities = ("FIFO", "CLAIMS", "AOD", "HIGH_THROUGHPUT")

    def __init__(self, clock: Callable[[], int]) -> None:
        state = MemoryQueues()
        self.messages = MemoryMessages(state, clock)
        self.transfers = MemoryTransfers(state)
        self.records = MemoryRecords()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


class MemoryMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, state: MemoryQueues, clock: Callable[[], int]) -> None:
        self.clock = clock
        self._state = state
        self._lock = state.lock

    def _queue(self, address: Address) -> MemoryQueue:
        """Return the queue, or an empty one that nobody keeps."""
        return self._state.find(address) or MemoryQueue()

    def _created(self, address: Address) -> MemoryQueue:
        """Return the queue, made if need be."""
        queue = self._state.find(address)
        if queue is None:
            queue = self._state.queues[address] = MemoryQueue()
        return queue

    def post(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        now: int,
        once: Once | None = None,
        create: bool = False,
        tickets: Sequence[NewMessage] | None = (),
    ) -> Posted:
        """Append messages; see the port."""
        with self._lock:
            if self._state.find(address) is None:
                if not create:
                    raise QueueNotFound
                self._created(address).subscribed = "post" if tickets else ""
            queue = self._created(address)
            kept = queue.kept.get(once.key) if once else None
            if once and kept and kept.expires > now:
                if kept.fingerprint != once.fingerprint:
                    raise KeyReused
                return Posted(ids=queue.ids(kept.first, kept.count), repeated=True)
            if tickets is not None and bool(queue.subscribed) != bool(tickets):
                raise FanOutChanged(subscribed=bool(queue.subscribed))
            for ticket in tickets or ():
                self._created(OUTBOX).append(_fresh(ticket, now), now + ticket.delay * 1000)
                self._state.wakeups.wake(OUTBOX)
            first = queue.last + 1
            ids = tuple(
                queue.append(_fresh(new, now), now + new.delay * 1000 if new.delay else 0) for new in messages
            )
            if once:
                queue.kept[once.key] = Kept(once.fingerprint, first, len(ids), now + once.window * 1000)
            self._state.wakeups.wake(address)
            return Posted(ids=ids)

    def subscribe(self, address: Address, stamp: str) -> None:
        """Note that there are subscribers; see the port."""
        with self._lock:
            self._created(address).subscribed = stamp

    def unsubscribe(self, address: Address, stamp: str) -> None:
        """Note that there are no subscribers; see the port."""
        with self._lock:
            queue = self._queue(address)
            if queue.subscribed == stamp:
                queue.subscribed = ""

    def outboxes(self) -> Sequence[Address]:
        """Return the one there is; see the port."""
        return (OUTBOX,)

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
                entry.message = msgspec.structs.replace(
                    entry.message, claim_count=entry.message.claim_count + 1
                )
            messages = tuple(entry.seen(now) for entry in taken)
            return Claimed(claim=replace(claim, messages=messages), dead_lettered=moved)

    def _choose(
        self, address: Address, queue: MemoryQueue, lease: Lease, now: int
    ) -> tuple[Sequence[Entry], int]:
        """Return what to claim, having moved what was claimed too often, and how much that was."""
        dead = lease.dead_letter
        if dead is None or dead.address == address:  # its own dead-letter queue would loop for ever
            return queue.free(now)[: lease.limit], 0
        taken: list[Entry] = []
        moved = 0
        target: MemoryQueue | None = None
        for entry in queue.free(now):
            if len(taken) == lease.limit:
                break
            if entry.message.claim_count < dead.max_claims:
                taken.append(entry)
                continue
            target = target or self._created(dead.address)
            queue.remove(entry)
            message = msgspec.structs.replace(entry.message, claim_count=0)
            if dead.ttl is not None:
                message = msgspec.structs.replace(message, created=now, expires=now + dead.ttl * 1000)
            target.append(message, entry.ready)
            moved += 1
        if moved:
            self._state.wakeups.wake(dead.address)
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
            if renewed.expires < claim.expires:
                self._state.wakeups.wake(address)

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""
        with self._lock:
            queue = self._queue(address)
            claim = queue.live_claim(claim_id, now)
            if claim is not None:
                del queue.claims[claim_id]
                for entry in queue.held(claim):
                    entry.claim = None
                self._state.wakeups.wake(address)

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when something is new; see the port."""
        end = self._state.wakeups.watch(address, wake)
        wake()
        return end

    def outlook(self, address: Address, *, now: int) -> Outlook:
        """Return what is to come; see the port."""
        with self._lock:
            queue = self._state.find(address)
            if queue is None:
                return Outlook()
            instants = [
                instant
                for entry in queue.existing(now)
                for instant in (
                    entry.ready,
                    entry.message.expires,
                    entry.claim.expires if entry.claim else 0,
                )
                if instant > now
            ]
            return Outlook(generation=queue.generation, last=queue.last, due=min(instants, default=None))

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
            queue.move = queue.log = None

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""
        with self._lock:
            self._state.queues.pop(address, None)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over; see the port."""
        with self._lock:
            done = 0
            for address, queue in list(self._state.queues.items()):
                if not queue.shut:
                    done += queue.reclaim(now, limit - done)
                elif queue.forgotten is not None and queue.forgotten <= now and done < limit:
                    del self._state.queues[address]
                    done += 1
            return done

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        with self._lock:
            open_ones = [address for address, queue in self._state.queues.items() if not queue.shut]
            parts = [self.stats(address, now=now) for address in open_ones]
            return Stats(free=sum(part.free for part in parts), claimed=sum(part.claimed for part in parts))

    def joins(self, one: Address, other: Address) -> bool:
        """Tell that there is one lock for all; see the port."""
        return True

    def durability(self) -> Durability:
        """Admit that nothing lasts; see the port."""
        return Durability(
            driver="memory",
            facts={"kept in": "the memory of one process"},
            warnings=("Everything is lost when the process ends.",),
        )


def _fresh(new: NewMessage, now: int) -> Message:
    life = new.life_from(now)
    return Message(
        id="",
        body=new.body,
        created=life.created,
        expires=life.expires,
        client_id=new.client_id,
        sealed=new.sealed,
    )


def _landmark(entry: Entry) -> Landmark:
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
            self._records[key] = replace(record, data=copy.deepcopy(record.data))
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

    def remove(self, kind: str, scope: str, name: str, *, revision: int | None = None) -> bool:
        """Remove a record; see the port."""
        with self._lock:
            found = self._records.get((kind, scope, name))
            if found is None or revision not in (None, found.revision):
                return False
            del self._records[kind, scope, name]
            return True

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
