"""Transactions on one queue of MongoDB's.

Whatever changes a queue is a transaction that begins by writing the queue's header,
so changes of one queue happen one after the other, and places are given out in the
order in which they become visible. Writers of one process share transactions by
queue (`storage.group_commit`), and processes of one machine wait for each other (`storage.mongodb_turns`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from pymongo import UpdateMany, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from queues.crashes import reach
from queues.errors import HermodError, QueueMoved
from queues.identity import new_generation
from queues.models import Address
from storage.group_commit import GroupCommit, Job
from storage.mongodb_header import (
    NEVER,
    NO_CHANGE,
    Change,
    QueueHeader,
    changing,
    header_of,
    is_kept,
    queue_key,
)
from storage.mongodb_link import CLAIMED, DELAYED, READY, Document, MongoLink
from storage.mongodb_ready import ReadyMessages

T = TypeVar("T")


class QueueWork:
    """One transaction on one queue, and on its dead-letter queue where messages move there.

    What steps of several jobs want from the same statement waits for it: messages to be inserted, leases to be
    written, messages to be removed. A header is written at the end, unless the `guess` about it was right.
    """

    def __init__(
        self,
        database: Database[Document],
        session: ClientSession,
        address: Address,
        guess: Change = NO_CHANGE,
        takes: int = 0,
    ) -> None:
        self._takes = takes  # how many messages the steps want to take from the front of the queue
        self._ready: ReadyMessages | None = None
        self.database = database
        self.session = session
        self._address = address
        self._guess = guess
        self._queues: dict[Address, QueueHeader] = {}
        self._written: dict[Address, Document] = {}  # the changing part of a header, as it is written
        self._new: list[Document] = []
        self._leased: list[UpdateMany] = []
        self._claims: list[Document] = []
        self._unwanted: set[str] = set()  # keys of messages
        self._touched: dict[tuple[str, str], int] = {}  # by move and key; the rev of the change

    def queue(self, address: Address | None = None) -> QueueHeader | None:
        """Return a queue's header, locked for the rest of the transaction; None where there is none.

        Raises QueueMoved if it is shut.
        """
        queue = self.header(address)
        if queue is not None and queue.shut:
            raise QueueMoved(queue.address, queue.move or "")
        return queue

    def header(self, address: Address | None = None) -> QueueHeader | None:
        """Return a queue's header as `queue` does, shut or not."""
        address = address or self._address
        if address not in self._queues:
            guess = self._guess if address == self._address else NO_CHANGE
            found = self.database.queue.find_one_and_update(
                {"_id": queue_key(address)}, guess.update(), session=self.session
            )
            if found is None:
                return None
            self._queues[address] = queue = header_of(address, found)
            self._written[address] = guess.written(queue)
            if not is_kept(found):
                self._written[address]["kept"] = None
        return self._queues[address]

    def create(self, address: Address, *, generation: str | None = None) -> QueueHeader:
        """Make a queue that is not there."""
        queue = QueueHeader(
            address=address,
            gen=generation or new_generation(),
            pile=secrets.token_hex(8),
            last=0,
            free=0,
            claimed=0,
            due=NEVER,
        )
        self._written[address] = changing(queue)
        document = {"_id": queue_key(address), "gen": queue.gen, "rev": 0, **changing(queue)}
        self.database.queue.insert_one(document, session=self.session)
        self._queues[address] = queue
        return queue

    def insert(self, document: Document) -> None:
        """Insert a message at the end of the transaction."""
        self._new.append(document)

    def touch(self, queue: QueueHeader, kind: str, keys: Iterable[object]) -> None:
        """Note that things changed, if the queue is about to move: `m` places, `c` claims, `o` idempotency keys."""
        if queue.move is not None:
            for key in keys:
                self._touched[queue.move, f"{kind}{key}"] = queue.rev

    def untouch(self, move: str) -> None:
        """Forget what this transaction was to note for a move."""
        self._touched = {key: rev for key, rev in self._touched.items() if key[0] != move}

    def touch_documents(
        self, queue: QueueHeader, wanted: Document, *, hint: list[tuple[str, int]] | None = None
    ) -> None:
        """Note that these messages are about to change; `hint` is the index to find them by."""
        if queue.move is not None:
            found = self.database.message.find(wanted, {"seq": 1}, hint=hint, session=self.session)
            self.touch(queue, "m", (each["seq"] for each in found))

    def ready(self, queue: QueueHeader) -> ReadyMessages:
        """Return the first messages that are ready, for a step that only takes some."""
        self._ready = self._ready or ReadyMessages(self.database, self.session, queue, self._takes)
        return self._ready

    def lease(self, change: UpdateMany, claim: Document) -> None:
        """Write a new claim, and change its messages, at the end of the transaction."""
        self._leased.append(change)
        self._claims.append(claim)

    def remove_later(self, keys: Iterable[str]) -> None:
        """Remove those of the messages that exist, whatever their state, of a queue that is not about to move."""
        self._unwanted.update(keys)

    def flush_removals(self) -> None:
        """Remove what waits for it; most of what is removed is claimed."""
        keys, self._unwanted = self._unwanted, set()
        queue = self._queues.get(self._address)
        if not keys or queue is None:
            return
        queue.claimed -= (claimed := self._remove(keys, {"st": CLAIMED}))
        if claimed < len(keys):
            queue.free -= self._remove(keys, {"st": {"$in": [READY, DELAYED]}})

    def _remove(self, keys: Collection[str], state: Document) -> int:
        wanted = {"_id": {"$in": list(keys)}, **state}
        return self.database.message.delete_many(wanted, session=self.session).deleted_count

    def flush_messages(self) -> None:
        """Remove and insert what waits for it, since a statement is about to look for messages."""
        self.flush_removals()
        if self._new:
            self.database.message.insert_many(self._new, session=self.session)
            self._new = []

    def flush_leases(self) -> None:
        """Write the leases that wait for it."""
        if self._leased:
            self.database.message.bulk_write(self._leased, session=self.session)
            self.database.claim.insert_many(self._claims, session=self.session)
            self._leased, self._claims = [], []

    def forget(self, queue: QueueHeader) -> None:
        """Leave a header alone that was deleted."""
        self._queues.pop(queue.address, None)

    def before_settling(self) -> None:
        """Write whatever messages and claims wait for, and forget what was read of them."""
        self.flush_messages()
        self.flush_leases()
        self._ready = None

    def flush(self) -> None:
        """Write what waits to be written."""
        self.flush_messages()
        self.flush_leases()
        reach("mongodb.half-written")
        if self._touched:
            notes = [
                UpdateOne({"_id": {"m": move, "k": key}}, {"$set": {"n": rev}}, upsert=True)
                for (move, key), rev in self._touched.items()
            ]
            self.database.touched.bulk_write(notes, session=self.session)
        for address, queue in self._queues.items():
            changed = changing(queue)
            if changed != self._written[address]:
                key = {"_id": queue_key(address)}
                self.database.queue.update_one(key, {"$set": changed}, session=self.session)


@dataclass(frozen=True, slots=True)
class _Step(Generic[T]):
    """What a job does, what that most likely does to the header, and what it shares with other jobs' steps."""

    run: Callable[[QueueWork], T]
    guess: Change
    removes: bool  # whether it only removes messages, which is done for all such steps at once
    takes: int  # from the front of the queue at most; what is there is read for all such steps at once

    @property
    def turn(self) -> int:
        """Return when it runs among those who wait together: what is removed is not taken, and taking comes last."""
        return 0 if self.removes else 2 if self.takes else 1

    def __call__(self, work: QueueWork) -> T:
        return self.run(work)


class QueueWriters:
    """Runs steps on queues, each queue's one after the other, several in a transaction where they wait."""

    def __init__(self, link: MongoLink) -> None:
        self._link = link
        self._lock = Lock()
        self._groups: dict[Address, tuple[GroupCommit[QueueWork], int]] = {}  # with how many use it

    def write(
        self,
        address: Address,
        step: Callable[[QueueWork], T],
        *,
        guess: Change = NO_CHANGE,
        removes: bool = False,
        takes: int = 0,
    ) -> T:
        """Run a step in a transaction that other threads' steps on the same queue may share.

        A `guess` about what it does to the queue's header spares a statement if it is right. A step that only removes
        messages, or takes so many from the front of the queue, shares statements with others that do.
        """
        with self._lock:
            group, users = self._groups.get(address) or (
                GroupCommit(lambda take: self._commit(address, take), timeout=self._link.timeout),
                0,
            )
            self._groups[address] = (group, users + 1)
        try:
            return group.run(_Step(step, guess, removes, takes))
        finally:
            with self._lock:
                group, users = self._groups[address]
                if users == 1:
                    del self._groups[address]
                else:
                    self._groups[address] = (group, users - 1)

    def _commit(self, address: Address, take: Callable[[], Sequence[Job[QueueWork, object]]]) -> None:
        group: Sequence[Job[QueueWork, object]] = ()
        in_time = time.monotonic() + self._link.timeout / 2

        def run(session: ClientSession) -> None:
            nonlocal group
            # Those who came while a conflict was lost are taken along, as long as there is time for them, too.
            if not group or time.monotonic() < in_time:
                group = take()
            jobs = [(job.step, job) for job in group if isinstance(job.step, _Step)]  # which all of them are
            jobs.sort(key=lambda each: each[0].turn)
            guess = sum((step.guess for step, _ in jobs), NO_CHANGE)
            takes = sum(step.takes for step, _ in jobs)
            work = QueueWork(self._link.database, session, address, guess, takes)
            for step, job in jobs:
                if not step.removes:
                    work.flush_removals()
                if not job.start():
                    continue
                job.error = None
                try:
                    job.value = job.step(work)
                except (
                    HermodError
                ) as error:  # what a step has changed by then stays, and it is right by itself
                    job.error = error
            work.flush()
            reach("mongodb.before-commit")

        with self._link.turns.turn(address):
            self._link.transaction(run)
        reach("mongodb.after-commit")
