"""The catalogue: which queues there are, which pool each lives in, and the way there.

A queue is one record, which names its pool. A pool is fixed for the life of its
queue unless the queue is moved (`queues.service.moving`); a store in which a queue
is shut says so, and then its record is read again. So a pool may be looked up in a
memory of a moment ago, and nothing is ever written to the wrong store.

The residents of a pool are records too: one is there before its queue is.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import TypeVar

from queues.errors import QueueMoved, StoreUnavailable
from queues.limits import Limits
from queues.metadata import TOPIC_ATTRIBUTES, QueuePolicy, policy_of
from queues.models import Address, JsonObject, Move, Queue, Record
from queues.ports import MessageStore, RecordStore
from queues.service.pools import PoolService
from queues.service.records import begin, put

T = TypeVar("T")

SUBSCRIPTION = "subscription"  # the kind of the records of subscriptions

MOVE = "move"  # the kind of the notes of moves

_RESIDENT = "resident"
_WISH = "wish"
_SCAN = 200  # residents read at once
_GLANCE = 0.01  # seconds between two looks at a queue that is about to arrive


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What there is two of: queues, and topics, which are declared and described in the same way."""

    record: str  # the kind of record that describes one
    attributes: Collection[str] | None = None  # the reserved ones that it shows; None for all
    prefix: str = ""  # of its name in the message store, out of the way of the other kind's
    placed: bool = True  # whether it lives in a pool; otherwise in the default store


QUEUE = Kind(record="queue")
TOPIC = Kind(record="topic", attributes=TOPIC_ATTRIBUTES, prefix="topic:", placed=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a post or a claim has to know of a queue, a moment old at most."""

    exists: bool  # whether it was declared
    policy: QueuePolicy  # its limits and defaults
    pool: str = ""  # where it lives, or lived a moment ago


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queue lives."""

    pool: str  # its name
    store: MessageStore
    now: int  # ms; that store's time


class Catalogue:
    """Finds queues and the way to them.

    `cache_age` (seconds) is how old what is known of a queue may be. `patience`
    (seconds) is how long somebody waits for a queue that is about to arrive in
    another store, before the move is called off.
    """

    def __init__(
        self,
        records: RecordStore,
        pools: PoolService,
        limits: Limits,
        *,
        kind: Kind = QUEUE,
        cache_age: float = 1.0,
        patience: float = 5.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.records = records
        self.kind = kind
        self._pools = pools
        self._limits = limits
        self._patience = patience
        self._known = _RecentlyKnown(cache_age, timer)

    def find(self, address: Address) -> Queue | None:
        """Return a queue as declared, or None."""
        record = self.records.fetch(self.kind.record, address.project, address.queue)
        return None if record is None else queue_of(record)

    def known(self, address: Address) -> Known:
        """Return what is known of a queue, `cache_age` old at most."""
        known = self._known.get(address)
        if known is None:
            known = self._describe(address, self.find(address))
            # Where a queue lives that is not there yet, nobody may remember: another node may make it now.
            if known.exists or not self._pools.enabled:
                self._known.put(address, known)
        return known

    def placed(self, address: Address) -> bool:
        """Tell whether it is known where a queue lives: one that is not declared may come to live in any pool."""
        return self.known(address).exists or not self._pools.enabled

    def forget(self, address: Address) -> None:
        """Read a queue's record when it is asked for next."""
        self._known.forget(address)

    def insert(self, queue: Queue) -> bool:
        """Store the record of a new queue; false if there is one of its name."""
        created = self.records.insert(begin(self._record(queue)))
        self.forget(queue.address)
        return created

    def replace(self, queue: Queue) -> bool:
        """Store a changed record; false if somebody else has changed it since it was read."""
        replaced = self.records.replace(self._record(queue))
        self.forget(queue.address)
        return replaced

    def remove(self, queue: Queue) -> bool:
        """Remove the record of a queue; false if somebody else has changed it since it was read."""
        where = (self.kind.record, queue.address.project, queue.address.queue)
        removed = self.records.remove(*where, revision=queue.revision)
        self.forget(queue.address)
        return removed

    def at(self, address: Address, step: Callable[[Place], T]) -> T:
        """Run a step at the store that a queue lives in; again, if it has moved meanwhile.

        Raises what the step raises, and StoreUnavailable if the queue is on its way for too long.
        """
        deadline = time.monotonic() + 2 * self._patience
        while True:
            pool = self.known(address).pool
            store = self._pools.driver(pool).messages
            try:
                return step(Place(pool, store, store.clock()))
            except QueueMoved as shut:
                if time.monotonic() > deadline:
                    raise StoreUnavailable("The queue is on its way to another pool.") from shut
                self._look_after(shut, pool, hurry=time.monotonic() > deadline - self._patience)

    def stored(self, address: Address) -> Address:
        """Return what a queue is called in the message store."""
        return replace(address, queue=self.kind.prefix + address.queue) if self.kind.prefix else address

    def _look_after(self, shut: QueueMoved, pool: str, *, hurry: bool) -> None:
        """Find out why a queue is shut in a pool, and open it if the move it was shut for is over."""
        address = replace(shut.address, queue=shut.address.queue.removeprefix(self.kind.prefix))
        self.forget(address)
        queue = self.find(address)
        if queue is not None and queue.pool != pool:
            return  # it lives elsewhere now
        if queue is None or queue.move is None or queue.move.id != shut.move:
            # A move has an id of its own, so nobody will ever go on with this one.
            self._pools.driver(pool).transfers.reopen(shut.address, shut.move)
        elif hurry:
            self.replace(replace(queue, move=None))
        else:
            time.sleep(_GLANCE)

    def enter(self, pool: str, address: Address) -> Record | None:
        """Note that a queue lives in a pool, or is about to; return the note, to leave by."""
        if not pool:
            return None
        name = _resident_name(address)
        # Put anew, so that nobody who thinks of an earlier queue of this name can remove it.
        return put(self.records, Record(kind=_RESIDENT, scope=pool, name=name, data={"since": self._now()}))

    def resident(self, pool: str, address: Address) -> Record | None:
        """Return the note that a queue lives in a pool, to leave by; None where there is none."""
        return self.records.fetch(_RESIDENT, pool, _resident_name(address)) if pool else None

    def leave(self, resident: Record | None) -> None:
        """Remove the note that a queue lives in a pool, unless it was renewed."""
        if resident is not None:
            self.records.remove(_RESIDENT, resident.scope, resident.name, revision=resident.revision)

    def residents(self, pool: str) -> Iterator[tuple[Address, Record]]:
        """Return the notes of a pool; what they say may be out of date."""
        after = ""
        while page := self.records.scan(_RESIDENT, pool, after=after, limit=_SCAN):
            for record in page:
                project, queue = json.loads(record.name)
                yield Address(project=project, queue=queue), record
            after = page[-1].name

    def population(self, pool: str) -> int:
        """Count the notes of a pool."""
        return self.records.count(_RESIDENT, pool)

    def moves(self) -> Iterator[Record]:
        """Return the notes of the moves that are not wholly done or undone."""
        after = ""
        while page := self.records.scan(MOVE, "", after=after, limit=_SCAN):
            yield from page
            after = page[-1].name

    def crossings(self, address: Address) -> Collection[str]:
        """Return the pools that may hold something of a queue since it was moved."""
        where = {"project": address.project, "queue": address.queue}
        notes = [note.data for note in self.moves() if where.items() <= note.data.items()]
        return {pool for note in notes for pool in (note["from"], note["to"])}

    def ask_to_move(self, address: Address) -> None:
        """Note that a queue asks for another flavor than it had."""
        name = _resident_name(address)
        self.records.insert(Record(kind=_WISH, scope="", name=name, data={"since": self._now()}))

    def subscribed(self, address: Address) -> bool:
        """Tell whether a queue has any subscription, expired ones included."""
        return self.records.count(SUBSCRIPTION, subscriptions_scope(address)) > 0

    def wishes(self) -> Iterator[tuple[Address, Record]]:
        """Return the queues that asked for another flavor."""
        for record in self.records.scan(_WISH, "", limit=_SCAN):
            project, queue = json.loads(record.name)
            yield Address(project=project, queue=queue), record

    def grant(self, wish: Record) -> None:
        """Forget that a queue asked for another flavor."""
        self.records.remove(wish.kind, wish.scope, wish.name, revision=wish.revision)

    def _now(self) -> int:
        return self._pools.driver("").messages.clock()

    def _describe(self, address: Address, queue: Queue | None) -> Known:
        metadata = {} if queue is None else queue.metadata
        return Known(
            exists=queue is not None,
            policy=policy_of(address, metadata, self._limits),
            pool="" if queue is None else queue.pool,
        )

    def _record(self, queue: Queue) -> Record:
        data: JsonObject = {"metadata": queue.metadata}
        if queue.pool:
            data["pool"] = queue.pool
        if queue.move is not None:
            data["move"] = {"id": queue.move.id, "to": queue.move.to}
        return Record(
            kind=self.kind.record,
            scope=queue.address.project,
            name=queue.address.queue,
            data=data,
            revision=queue.revision,
        )


class _RecentlyKnown:
    """A small memory of `Known`, each entry dropped at a certain age."""

    _SIZE = 10_000

    def __init__(self, age: float, timer: Callable[[], float]) -> None:
        self._age = age
        self._timer = timer
        self._entries: OrderedDict[Address, tuple[float, Known]] = OrderedDict()
        self._lock = Lock()

    def get(self, address: Address) -> Known | None:
        entry = self._entries.get(address)
        return entry[1] if entry and entry[0] > self._timer() else None

    def put(self, address: Address, known: Known) -> None:
        with self._lock:
            self._entries.pop(address, None)
            self._entries[address] = (self._timer() + self._age, known)
            if len(self._entries) > self._SIZE:
                self._entries.popitem(last=False)

    def forget(self, address: Address) -> None:
        with self._lock:
            self._entries.pop(address, None)


def subscriptions_scope(address: Address) -> str:
    """Return the scope of the records of a queue's subscriptions."""
    return json.dumps([address.project, address.queue])


def queue_of(record: Record) -> Queue:
    """Read a queue's record."""
    move = record.data.get("move")
    return Queue(
        address=Address(project=record.scope, queue=record.name),
        metadata=record.data["metadata"],
        pool=record.data.get("pool", ""),
        move=None if move is None else Move(id=move["id"], to=move["to"]),
        revision=record.revision,
    )


def _resident_name(address: Address) -> str:
    return json.dumps([address.project, address.queue])
