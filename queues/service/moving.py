"""Moving queues from one pool to another, while posts and claims go on.

A queue is copied while it is used; what changes meanwhile is copied again, until
little is left. Then it is shut for the moment that the rest takes, its record is
made to name the new pool, and it is opened there. Whoever comes in that moment
waits. The record changes only if it still names this move, so whoever takes the move
out of the record has called it off for good; and each step can be found and either
finished or undone by whoever comes later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from queues.errors import HermodError, MoveInterrupted, NoPool, PoolNotFound, QueueMoved, StoreError
from queues.models import (
    Address,
    Cargo,
    KeptClaim,
    KeptMessage,
    KeptPost,
    Move,
    Pool,
    PoolState,
    Queue,
    Record,
)
from queues.ports import Driver, RecordStore
from queues.service.catalogue import MOVE, Catalogue
from queues.service.dead_letters import DeadLetterService
from queues.service.deliveries import PENDING
from queues.service.pools import PoolService
from queues.service.records import put

_DRAIN, _LEASE = "drain", "lease"
_MOVER = "mover"
_PART = 500  # things that one step copies
_LEASE_TERM = 30_000  # ms that a mover which is not heard of keeps others waiting
_BIRTH = 60_000  # ms that a queue may take to come into being behind its note
_PAUSE = 0.05  # seconds between two looks whether another mover has come to its end
_ATTEMPTS = 200  # to write into a record that clients keep changing


class MovesUnderWay(HermodError):
    """Queues are being moved between pools; wait until that is done, or stop it."""

    code = "moves-under-way"


class _LeaseLost(HermodError):
    """Another process moves queues now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """How far the drain of a pool has come."""

    pool: str
    active: bool  # whether it goes on; otherwise it was stopped, or never begun
    left: int  # queues that live there still
    queues: int = 0  # that were moved
    messages: int = 0  # that were moved with them
    started: int | None = None  # ms
    updated: int | None = None  # ms; when it was heard of last
    problem: str | None = None  # why it does not get on

    @property
    def rate(self) -> float:
        """Messages moved per second."""
        if self.started is None or self.updated is None or self.updated <= self.started:
            return 0.0
        return self.messages * 1000 / (self.updated - self.started)


class MovingService:
    """Drains pools and moves queues.

    Any number of processes may call `run`; one of them works at a time.
    """

    def __init__(
        self,
        records: RecordStore,
        pools: PoolService,
        catalogue: Catalogue,
        dead_letters: DeadLetterService,
    ) -> None:
        self._records = records
        self._pools = pools
        self._catalogue = catalogue
        self._dead_letters = dead_letters
        self._me = secrets.token_hex(8)
        self._renewed = 0  # ms; when this process took or renewed the lease
        self._trouble: HermodError | None = None  # what went wrong in this round

    def start(self, pool: str) -> Drain:
        """Let a pool be drained, again if it was stopped.

        Raises PoolNotFound.
        """
        if self._pools.get(pool).state is not PoolState.DRAINING:
            self._pools.set_state(pool, PoolState.DRAINING)
            self._records.remove(_DRAIN, "", pool)
            self._note(Drain(pool=pool, active=True, left=0, started=self._now(), updated=self._now()))
        return self.progress(pool)

    def stop(self, pool: str) -> Drain:
        """Let a pool be as it was; what was moved stays moved.

        Raises PoolNotFound.
        """
        self._pools.set_state(pool, PoolState.OPEN)
        return self.progress(pool)

    def progress(self, pool: str) -> Drain:
        """Return how far the drain of a pool has come.

        Raises PoolNotFound.
        """
        active = self._pools.get(pool).state is PoolState.DRAINING
        left = self._catalogue.population(pool)
        record = self._records.fetch(_DRAIN, "", pool)
        if record is None:
            return Drain(pool=pool, active=active, left=left)
        return Drain(pool=pool, active=active, left=left, **record.data)

    def in_use(self, pool: str) -> bool:
        """Tell whether anything lives in a pool, or is on its way in or out."""
        if any(pool in (note.data["from"], note.data["to"]) for note in self._catalogue.moves()):
            return True
        for annex in self._dead_letters.annexes():
            if annex.pool == pool:
                self._dead_letters.sweep(annex)
                if self._is_home(annex.source, pool):
                    return True
        if self._has_deliveries(pool):
            return True
        return any(not self._forget(address, note, pool) for address, note in self._catalogue.residents(pool))

    def _has_deliveries(self, pool: str) -> bool:
        """Tell whether subscribers have to be told of something still; a store that is gone cannot be asked."""
        with suppress(StoreError):
            store = self._pools.driver(pool).messages
            waiting = (*store.outboxes(), PENDING)
            return any(store.stats(address, now=store.clock()).total for address in waiting)
        return False

    def run(self, stop: Event) -> bool:
        """Do what there is to do; false if another process does it.

        Raises StoreError, having done what could be done.
        """
        if not self._pools.enabled or not self._take_lease():
            return not self._pools.enabled
        try:
            for step in self._work(stop):
                if stop.is_set():
                    break
                self._attempt(step)
        except _LeaseLost:
            return False
        finally:
            self._give_lease_back()
        if self._trouble is not None:
            raise self._trouble
        return True

    @contextmanager
    def halted(self, patience: float) -> Iterator[Callable[[], None]]:
        """Let no queue be moved during the block, which has to call what it gets at least every few seconds.

        `patience` (seconds) is how long it waits for a move that is under way. Raises MovesUnderWay, and StoreError.
        """
        end = time.monotonic() + patience
        while not self._take_lease():
            if time.monotonic() > end:
                raise MovesUnderWay
            time.sleep(_PAUSE)
        try:
            yield self._stay_halted
        finally:
            self._give_lease_back()

    def _stay_halted(self) -> None:
        try:
            self._keep_lease()
        except _LeaseLost:
            raise MovesUnderWay from None

    def _work(self, stop: Event) -> Iterator[Callable[[], object]]:
        """Return what there is to do; each step stands alone, for a store that is down must not stop the others."""
        self._trouble = None
        for note in list(self._catalogue.moves()):
            yield partial(self._clear, note)
        for address, wish in self._catalogue.wishes():
            yield partial(self._fulfil, address, wish, stop)
        for pool in self._pools.all():
            if pool.state is PoolState.DRAINING:
                yield partial(self._drain, pool, stop)

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except PoolNotFound:
            pass  # it was removed meanwhile
        except StoreError as error:
            self._trouble = error

    def move(self, address: Address, to: str, *, stop: Event) -> int | None:
        """Move a queue; return how many messages it had, or None if it was not moved.

        Raises StoreError; the queue is then where it was, or where it was to go.
        """
        move = Move(id=secrets.token_hex(16), to=to)
        queue = self._begin(address, move)
        if queue is None:
            return None
        note = Record(
            kind=MOVE,
            scope="",
            name=move.id,
            data={"project": address.project, "queue": address.queue, "from": queue.pool, "to": to},
        )
        self._records.insert(note)
        resident = self._catalogue.resident(queue.pool, address)
        arrival = self._catalogue.enter(to, address)
        try:
            self._announce(address, move)
            messages = self._carry(queue, move, stop) if self._set_out(queue, move) else None
        except (MoveInterrupted, QueueMoved):
            messages = None
        except HermodError:
            with suppress(StoreError):  # what cannot be done now is found by its note
                self._clear(note)
            raise
        self._clear(note)
        self._catalogue.leave(arrival if messages is None else resident)
        return messages

    def _begin(self, address: Address, move: Move) -> Queue | None:
        """Return a queue that can be moved, or None."""
        queue = self._catalogue.find(address)
        return None if queue is None or queue.pool in ("", move.to) else queue

    def _announce(self, address: Address, move: Move) -> None:
        """Let the target know before the queue's record does: what comes there later is not overwritten."""
        transfers = self._pools.driver(move.to).transfers
        while True:
            try:
                transfers.depart(address, move.id)
            except QueueMoved as shut:  # it went from there, or did not arrive there, a while ago
                transfers.reopen(address, shut.move)
            else:
                return

    def _set_out(self, queue: Queue, move: Move) -> bool:
        """Write the move into the queue's record; false if it is not as it was."""
        for _ in range(_ATTEMPTS):
            found = self._catalogue.find(queue.address)
            if found is None or found.pool != queue.pool:
                return False
            if self._catalogue.replace(replace(found, move=move)):
                return True
        return False

    def _carry(self, queue: Queue, move: Move, stop: Event) -> int | None:
        """Copy a queue and make its record name the new pool; return how many messages it had."""
        # Whoever visits a queue opens it, if an earlier move left it shut: it may have lived here before.
        self._catalogue.at(queue.address, lambda place: place.store.stats(queue.address, now=place.now))
        passage = _Passage(queue.address, move, self._pools.driver(queue.pool), self._pools.driver(move.to))
        for _ in passage.copy():
            self._keep_lease()
            if stop.is_set():
                return None
        passage.finish()
        return passage.messages if self._settle(queue.address, move) else None

    def _settle(self, address: Address, move: Move) -> bool:
        """Make a queue's record name the new pool; false if the move was called off."""
        while True:
            found = self._catalogue.find(address)
            if found is None or found.move != move:
                return False
            if self._catalogue.replace(replace(found, pool=move.to, move=None)):
                return True

    def _clear(self, note: Record) -> None:
        """Finish a move that has come far enough, or undo it."""
        address = Address(project=note.data["project"], queue=note.data["queue"])
        before, after = note.data["from"], note.data["to"]
        while True:
            queue = self._catalogue.find(address)
            if queue is None or queue.move is None or queue.move.id != note.name:
                break
            if self._catalogue.replace(replace(queue, move=None)):
                break
        source, target = self._pools.driver(before), self._pools.driver(after)
        if queue is None:
            for end in (source, target):
                end.transfers.discard(address, note.name)
        elif queue.pool == after:
            target.transfers.reopen(address, note.name)
            source.transfers.retire(address, note.name, now=source.messages.clock())
        else:
            source.transfers.reopen(address, note.name)
            target.transfers.discard(address, note.name)
        self._records.remove(MOVE, "", note.name)

    def _fulfil(self, address: Address, wish: Record, stop: Event) -> None:
        """Move a queue to a pool of the flavor that it asks for, if there is one."""
        queue = self._catalogue.find(address)
        if queue is not None and queue.pool:
            flavor = queue.metadata.get("_flavor") or None
            with suppress(NoPool, PoolNotFound):
                if self._pools.get(queue.pool).flavor != flavor:
                    self.move(address, self._pools.choose(flavor), stop=stop)
        self._catalogue.grant(wish)

    def _drain(self, pool: Pool, stop: Event) -> None:
        """Move the queues of a pool to others of its flavor."""
        problem: str | None = None  # of the last queue that could not be moved
        for address, note in self._catalogue.residents(pool.name):
            if stop.is_set() or self._pools.get(pool.name).state is not PoolState.DRAINING:
                return
            self._keep_lease()
            if not self._is_home(address, pool.name):
                self._forget(address, note, pool.name)
                continue
            try:
                to = self._pools.choose(pool.flavor, but=[pool.name])
                messages = self.move(address, to, stop=stop)
            except StoreError as error:
                problem = str(error)
                self._report(pool.name, problem=problem)
                if isinstance(error, NoPool):
                    return
                continue
            if messages is not None:
                self._report(pool.name, queues=1, messages=messages, problem=problem)
        for annex in self._dead_letters.annexes():
            if annex.pool == pool.name:
                self._dead_letters.sweep(annex)

    def _is_home(self, address: Address, pool: str) -> bool:
        queue = self._catalogue.find(address)
        return queue is not None and queue.pool == pool

    def _forget(self, address: Address, note: Record, pool: str) -> bool:
        """Remove a note whose queue does not live in the pool; false if it does, or may do in a moment."""
        if self._is_home(address, pool) or self._now() - note.data["since"] < _BIRTH:
            return False
        self._catalogue.leave(note)
        return True

    def _report(self, pool: str, *, queues: int = 0, messages: int = 0, problem: str | None = None) -> None:
        before = self.progress(pool)
        self._note(
            replace(
                before,
                queues=before.queues + queues,
                messages=before.messages + messages,
                updated=self._now(),
                problem=problem,
            )
        )

    def _note(self, drain: Drain) -> None:
        data = {
            "queues": drain.queues,
            "messages": drain.messages,
            "started": drain.started,
            "updated": drain.updated,
            "problem": drain.problem,
        }
        put(self._records, Record(kind=_DRAIN, scope="", name=drain.pool, data=data))

    def _now(self) -> int:
        return self._pools.driver("").messages.clock()

    def _take_lease(self) -> bool:
        now = self._now()
        mine = Record(
            kind=_LEASE, scope="", name=_MOVER, data={"holder": self._me, "until": now + _LEASE_TERM}
        )
        if not self._records.insert(mine):
            found = self._records.fetch(_LEASE, "", _MOVER)
            if found is None or (found.data["holder"] != self._me and found.data["until"] > now):
                return False
            if not self._records.replace(replace(mine, revision=found.revision)):
                return False
        self._renewed = now
        return True

    def _keep_lease(self) -> None:
        if self._now() - self._renewed > _LEASE_TERM // 3 and not self._take_lease():
            raise _LeaseLost

    def _give_lease_back(self) -> None:
        found = self._records.fetch(_LEASE, "", _MOVER)
        if found is not None and found.data["holder"] == self._me:
            self._records.remove(_LEASE, "", _MOVER, revision=found.revision)


class _Passage:
    """One queue on its way between two stores."""

    def __init__(self, address: Address, move: Move, source: Driver, target: Driver) -> None:
        self.messages = 0  # that the queue had when it was shut
        self._address = address
        self._move = move.id
        self._source = source.transfers
        self._target = target.transfers
        # The clocks of two stores differ; what is left of a ttl, a delay or a lease does not.
        self._shift = target.messages.clock() - source.messages.clock()
        self._cursor = ""

    def copy(self) -> Iterator[None]:
        """Copy the queue part by part, until the copy has caught up with it."""
        generation = self._source.depart(self._address, self._move)
        self._target.admit(self._address, self._move, generation, announced=True)
        while not self._copy_part():
            yield

    def finish(self) -> None:
        """Shut the queue and copy the rest."""
        outline = self._source.shut(self._address, self._move)
        while not self._copy_part():
            pass
        self._target.arrive(self._address, self._move, outline)
        self.messages = outline.free + outline.claimed

    def _copy_part(self) -> bool:
        cargo = self._source.export(self._address, self._move, cursor=self._cursor, limit=_PART)
        self._target.load(self._address, self._move, self._shifted(cargo))
        self._cursor = cargo.cursor
        return cargo.caught_up

    def _shifted(self, cargo: Cargo) -> Cargo:
        shift = self._shift
        if not shift:
            return cargo

        def message(kept: KeptMessage) -> KeptMessage:
            visible = kept.visible + shift if kept.visible else 0
            created, expires = kept.created + shift, kept.expires + shift
            return replace(kept, created=created, expires=expires, visible=visible)

        def claim(kept: KeptClaim) -> KeptClaim:
            return replace(kept, renewed=kept.renewed + shift, expires=kept.expires + shift)

        def post(kept: KeptPost) -> KeptPost:
            return replace(kept, expires=kept.expires + shift)

        return replace(
            cargo,
            messages={key: kept and message(kept) for key, kept in cargo.messages.items()},
            claims={key: kept and claim(kept) for key, kept in cargo.claims.items()},
            posts={key: kept and post(kept) for key, kept in cargo.posts.items()},
        )
