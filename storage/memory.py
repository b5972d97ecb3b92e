"""The reference driver: what the ports mean, said as plainly as Python can.

Everything is a list or a dictionary of one process, under one lock, and gone with
it. Nothing is indexed: each question looks at every message of the queue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

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
    DeadLetter,
    Durability,
    Landmark,
    Lease,
    Message,
    NewMessage,
    Once,
    Posted,
    Record,
    Selection,
    Stats,
)


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> MemoryStore:
    """Make a store of this process's own for the URI `memory:`."""
    if uri != "memory:":
        raise StoreUnsupported(f"A store in memory is named by memory:, not {uri!r}.")
    return MemoryStore(clock or _wall_clock)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class MemoryStore:
    """Both ports over two dictionaries."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.messages = MemoryMessages(clock)
        self.records = MemoryRecords()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


@dataclass
class _Stored:
    """A message and what can change of it."""

    place: int
    message: Message  # as posted, but for `expires` and `claim_count`
    visible: int  # ms; end of the delay
    claim_id: str | None = None  # the last claim that held it, over or not


@dataclass
class _Queue:
    """A queue with everything in it."""

    generation: str
    last: int = 0  # place of the newest message so far
    stored: list[_Stored] = field(default_factory=list)  # by place
    claims: dict[str, Claim] = field(default_factory=dict)  # without messages
    posts: dict[str, tuple[Once, int, Posted]] = field(default_factory=dict)  # by key, with expiry (ms)

    def live(self, now: int) -> list[_Stored]:
        return [each for each in self.stored if each.message.expires > now]

    def live_claim(self, claim_id: str | None, now: int) -> Claim | None:
        claim = self.claims.get(claim_id or "")
        return claim if claim is not None and claim.expires > now else None

    def is_claimed(self, each: _Stored, now: int) -> bool:
        return self.live_claim(each.claim_id, now) is not None

    def ready(self, now: int) -> list[_Stored]:
        return [each for each in self.live(now) if each.visible <= now and not self.is_claimed(each, now)]

    def shown(self, each: _Stored, now: int) -> Message:
        return replace(each.message, claim_id=each.claim_id if self.is_claimed(each, now) else None)

    def append(self, message: Message, visible: int) -> str:
        self.last += 1
        stamped = replace(message, id=message_id(self.last, self.generation))
        self.stored.append(_Stored(place=self.last, message=stamped, visible=visible))
        return stamped.id

    def find(self, ids: Iterable[str], now: int) -> list[_Stored]:
        places = {place_of(id_, self.generation) for id_ in ids}
        return [each for each in self.live(now) if each.place in places]

    def remove(self, gone: Collection[_Stored]) -> None:
        places = {each.place for each in gone}
        self.stored = [each for each in self.stored if each.place not in places]


class MemoryMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self._queues: dict[Address, _Queue] = {}

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
            if address not in self._queues and not create:
                raise QueueNotFound
            queue = self._open(address)
            if once is not None and once.key in queue.posts:
                earlier, expires, posted = queue.posts[once.key]
                if expires > now:
                    if earlier.fingerprint != once.fingerprint:
                        raise KeyReused
                    return replace(posted, repeated=True)
            posted = Posted(
                ids=[queue.append(_stamped(message, now), now + message.delay * 1000) for message in messages]
            )
            if once is not None:
                queue.posts[once.key] = (once, now + once.window * 1000, posted)
            return posted

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""
        with self._lock:
            queue = self._look(address)
            return [queue.shown(each, now) for each in queue.find(ids, now)]

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""
        with self._lock:
            queue = self._look(address)
            after: int | None = 0
            if selection.marker is not None:
                after = place_of(selection.marker, queue.generation)
            if after is None:
                return []
            found = [
                queue.shown(each, now)
                for each in queue.live(now)
                if each.place > after
                and each.message.client_id != selection.hide_client
                and (selection.include_claimed or not queue.is_claimed(each, now))
                and (selection.include_delayed or each.visible <= now)
            ]
            return found[: selection.limit]

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        """Delete one message; see the port."""
        with self._lock:
            queue = self._look(address)
            for each in queue.find([message_id], now):
                held = queue.is_claimed(each, now)
                if claim_id is None:
                    if held:
                        raise MessageClaimed
                elif not held or queue.live_claim(claim_id, now) is None:
                    raise ClaimNotHeld
                elif each.claim_id != claim_id:
                    raise MessageClaimed
                queue.remove([each])

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
            queue = self._look(address)
            found = queue.find(ids, now)
            if claim_ids is not None and any(
                queue.is_claimed(each, now) and each.claim_id not in claim_ids for each in found
            ):
                raise MessageClaimed
            queue.remove(found)

    def pop(self, address: Address, limit: int, *, now: int) -> Sequence[Message]:
        """Remove and return the first messages that are free; see the port."""
        with self._lock:
            queue = self._look(address)
            taken = queue.ready(now)[:limit]
            queue.remove(taken)
            return [queue.shown(each, now) for each in taken]

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""
        with self._lock:
            queue = self._look(address)
            taken: list[_Stored] = []
            buried = 0
            for each in queue.ready(now):
                if len(taken) == lease.limit:
                    break
                if _is_doomed(each, address, lease.dead_letter):
                    self._bury(queue, each, lease.dead_letter, now)
                    buried += 1
                else:
                    taken.append(each)
            if not taken:
                return Claimed(claim=None, dead_lettered=buried)
            claim = Claim(id=new_claim_id(), ttl=lease.ttl, renewed=now, expires=now + lease.ttl * 1000)
            queue.claims[claim.id] = claim
            for each in taken:
                each.claim_id = claim.id
                each.message = replace(each.message, claim_count=each.message.claim_count + 1)
                _extend(each, claim, lease)
            messages = [queue.shown(each, now) for each in taken]
            return Claimed(claim=replace(claim, messages=messages), dead_lettered=buried)

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""
        with self._lock:
            queue = self._look(address)
            claim = queue.live_claim(claim_id, now)
            if claim is None:
                raise ClaimNotFound
            held = [queue.shown(each, now) for each in queue.live(now) if each.claim_id == claim_id]
            return replace(claim, messages=held)

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew; see the port."""
        with self._lock:
            queue = self._look(address)
            claim = queue.live_claim(claim_id, now)
            if claim is None:
                raise ClaimNotFound
            renewed = replace(claim, ttl=lease.ttl, renewed=now, expires=now + lease.ttl * 1000)
            for each in queue.live(now):
                if each.claim_id == claim_id:
                    _extend(each, renewed, lease)
            queue.claims[claim_id] = renewed

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""
        with self._lock:
            self._look(address).claims.pop(claim_id, None)

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue; see the port."""
        with self._lock:
            queue = self._look(address)
            live = queue.live(now)
            claimed = sum(queue.is_claimed(each, now) for each in live)
            ends = [Landmark(id=each.message.id, created=each.message.created) for each in live]
            return Stats(
                free=len(live) - claimed,
                claimed=claimed,
                oldest=ends[0] if ends else None,
                newest=ends[-1] if ends else None,
            )

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; see the port."""
        with self._lock:
            queue = self._look(address)
            queue.stored = []
            queue.claims = {}

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""
        with self._lock:
            self._queues.pop(address, None)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over; see the port."""
        count = 0
        with self._lock:
            for queue in self._queues.values():
                gone = [each for each in queue.stored if each.message.expires <= now][: limit - count]
                queue.remove(gone)
                over = [id_ for id_, claim in queue.claims.items() if claim.expires <= now]
                for claim_id in over:
                    del queue.claims[claim_id]
                old = [key for key, (_, expires, _) in queue.posts.items() if expires <= now]
                for key in old:
                    del queue.posts[key]
                count += len(gone) + len(over) + len(old)
                if count >= limit:
                    break
        return count

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        with self._lock:
            each = [self.stats(address, now=now) for address in self._queues]
        return Stats(free=sum(stats.free for stats in each), claimed=sum(stats.claimed for stats in each))

    def durability(self) -> Durability:
        """Tell that there is none; see the port."""
        return Durability(driver="memory", facts={}, warnings=("Everything is lost when the process ends.",))

    def _look(self, address: Address) -> _Queue:
        """Return a queue; an empty one, which is not kept, where there is none."""
        return self._queues.get(address) or _Queue(generation=new_generation())

    def _open(self, address: Address) -> _Queue:
        """Return a queue, which is there from now on."""
        return self._queues.setdefault(address, self._look(address))

    def _bury(self, queue: _Queue, each: _Stored, dead_letter: DeadLetter | None, now: int) -> None:
        if dead_letter is None:
            return
        message = replace(each.message, claim_count=0)
        if dead_letter.ttl is not None:
            message = replace(message, created=now, expires=now + dead_letter.ttl * 1000)
        self._open(dead_letter.address).append(message, visible=now)
        queue.remove([each])


def _stamped(message: NewMessage, now: int) -> Message:
    return Message(
        id="",  # given by the queue
        body=message.body,
        created=now,
        expires=now + message.ttl * 1000,
        client_id=message.client_id,
        sealed=message.sealed,
    )


def _is_doomed(each: _Stored, source: Address, dead_letter: DeadLetter | None) -> bool:
    return (
        dead_letter is not None
        and dead_letter.address != source
        and each.message.claim_count >= dead_letter.max_claims
    )


def _extend(each: _Stored, claim: Claim, lease: Lease) -> None:
    if each.message.expires < claim.expires:
        each.message = replace(each.message, expires=claim.expires + lease.grace * 1000)


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
            self._records[key] = replace(deepcopy(record), revision=0)
            return True

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record; see the port."""
        with self._lock:
            return deepcopy(self._records.get((kind, scope, name)))

    def replace(self, record: Record) -> bool:
        """Store new data if nobody else has; see the port."""
        with self._lock:
            key = (record.kind, record.scope, record.name)
            stored = self._records.get(key)
            if stored is None or stored.revision != record.revision:
                return False
            self._records[key] = replace(deepcopy(record), revision=record.revision + 1)
            return True

    def remove(self, kind: str, scope: str, name: str) -> bool:
        """Remove a record; see the port."""
        with self._lock:
            return self._records.pop((kind, scope, name), None) is not None

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return a page of records by name; see the port."""
        with self._lock:
            found = [
                record
                for record in self._records.values()
                if (record.kind, record.scope) == (kind, scope) and record.name.encode() > after.encode()
            ]
            return deepcopy(sorted(found, key=lambda record: record.name.encode())[:limit])

    def count(self, kind: str, scope: str) -> int:
        """Count records; see the port."""
        with self._lock:
            return sum((each.kind, each.scope) == (kind, scope) for each in self._records.values())
