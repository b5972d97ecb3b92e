"""Transactions on one queue of MongoDB's.

Whatever changes a queue is a transaction that begins by writing the queue's header,
so changes of one queue happen one after the other, and places are given out in the
order in which they become visible. Writers of one process share transactions by
queue (`storage.group_commit`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Generic, TypeVar

from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from queues.crashes import reach
from queues.errors import HermodError, QueueMoved
from queues.identity import message_id, new_generation, place_of
from queues.models import Address, Message
from queues.versions import sealed_of
from storage.group_commit import GroupCommit, Job
from storage.mongodb_link import Document, MongoLink

T = TypeVar("T")

NEVER: Final = 2**63 - 1

#: States of a queue: shut for a move, and moved away.
SHUT, AWAY = 1, 2


@dataclass(slots=True)
class QueueHeader:
    """A queue's header while a transaction works on it; see the collection `queue`."""

    address: Address
    gen: str
    pile: str
    last: int
    free: int
    claimed: int
    due: int
    only: str | None = None  # who posted everything that is there
    move: str | None = None  # id of the move that the queue is part of
    shut: int = 0  # SHUT while it is shut for that move, AWAY once it has moved away
    subscribed: str = ""  # the stamp of who noted last that posts need tickets; "" where they need none
    news: int = 0  # grows with each transaction that brings something new to those who watch the queue
    rev: int = 0  # grows with each transaction

    def expect(self, due: int) -> None:
        """Note that something falls due."""
        self.due = min(self.due, due)

    def tell(self) -> None:
        """Let those who watch the queue know that there is something new; see `storage.mongodb_listener`."""
        self.news += 1

    def places(self, ids: Iterable[str]) -> list[str]:
        """Return the keys of the messages that the ids name, those of other queues left out."""
        places = (place_of(id_, self.gen) for id_ in ids)
        return [message_key(self.pile, place) for place in places if place is not None]

    def message(self, found: Document) -> Message:
        """Build a message from its document. Raises StoreUnsupported if it is newer than this release."""
        return Message(
            sealed=sealed_of(found["se"]),  # first: nothing else of a newer one can be read
            id=message_id(found["seq"], self.gen),
            body=bytes(found["b"]),
            created=int(found["cr"]),  # from bson.Int64, which nothing but this driver knows
            expires=int(found["ex"]),
            client_id=found["cl"],
            claim_id=found.get("c"),
            claim_count=found["n"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a step most likely does to the header of its queue, so that reading the header can write it at once."""

    last: int = 0  # by how much these grow
    free: int = 0
    claimed: int = 0
    news: int = 0
    due: int = NEVER  # what falls due

    def __add__(self, other: Change) -> Change:
        """Return the change that both make."""
        return Change(
            last=self.last + other.last,
            free=self.free + other.free,
            claimed=self.claimed + other.claimed,
            news=self.news + other.news,
            due=min(self.due, other.due),
        )

    def update(self) -> Document:
        """Return how to write it."""
        grown = {"last": self.last, "free": self.free, "claimed": self.claimed, "news": self.news}
        update: Document = {"$inc": {"rev": 1} | {name: by for name, by in grown.items() if by}}
        return update if self.due == NEVER else update | {"$min": {"due": self.due}}

    def written(self, queue: QueueHeader) -> Document:
        """Return what the changing part of a header is after that."""
        return _changing(queue) | {
            "last": queue.last + self.last,
            "free": queue.free + self.free,
            "claimed": queue.claimed + self.claimed,
            "news": queue.news + self.news,
            "due": min(queue.due, self.due),
        }


NO_CHANGE: Final = Change()


class QueueWork:
    """One transaction on one queue, and on its dead-letter queue where messages move there.

    New messages are written once, at the end; so is a header, unless the `guess` about it was right.
    """

    def __init__(
        self,
        database: Database[Document],
        session: ClientSession,
        address: Address,
        guess: Change = NO_CHANGE,
    ) -> None:
        self.database = database
        self.session = session
        self._address = address
        self._guess = guess
        self._queues: dict[Address, QueueHeader] = {}
        self._written: dict[Address, Document] = {}  # the changing part of a header, as it is written
        self._new: list[Document] = []
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
        self._written[address] = _changing(queue)
        document = {"_id": queue_key(address), "gen": queue.gen, "rev": 0, **_changing(queue)}
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

    def flush_messages(self) -> None:
        """Insert the messages that wait for it, since a statement is about to look for them."""
        if self._new:
            self.database.message.insert_many(self._new, session=self.session)
            self._new = []

    def forget(self, queue: QueueHeader) -> None:
        """Leave a header alone that was deleted."""
        self._queues.pop(queue.address, None)

    def flush(self) -> None:
        """Write what waits to be written."""
        self.flush_messages()
        reach("mongodb.half-written")
        if self._touched:
            notes = [
                UpdateOne({"_id": {"m": move, "k": key}}, {"$set": {"n": rev}}, upsert=True)
                for (move, key), rev in self._touched.items()
            ]
            self.database.touched.bulk_write(notes, session=self.session)
        for address, queue in self._queues.items():
            changed = _changing(queue)
            if changed != self._written[address]:
                key = {"_id": queue_key(address)}
                self.database.queue.update_one(key, {"$set": changed}, session=self.session)


def queue_key(address: Address) -> Document:
    """Return the key of a queue's header."""
    return {"p": address.project, "q": address.queue}


def _changing(queue: QueueHeader) -> Document:
    """Return the part of a header's document that changes."""
    return {
        "pile": queue.pile,
        "last": queue.last,
        "free": queue.free,
        "claimed": queue.claimed,
        "due": queue.due,
        "only": queue.only,
        "move": queue.move,
        "shut": queue.shut,
        "sub": queue.subscribed,
        "news": queue.news,
    }


def header_of(address: Address, found: Document) -> QueueHeader:
    """Build a header from its document."""
    return QueueHeader(
        address=address,
        gen=found["gen"],
        pile=found["pile"],
        last=found["last"],
        free=found["free"],
        claimed=found["claimed"],
        due=found["due"],
        only=found.get("only"),
        move=found.get("move"),
        shut=found.get("shut", 0),
        subscribed=found.get("sub", ""),
        news=found.get("news", 0),
        rev=found["rev"] + 1,
    )


def message_key(pile: str, place: int) -> str:
    """Return the key of the message at a place of a pile."""
    return f"{pile}{place:016x}"


def place_in(key: str) -> int:
    """Return the place that a message's key names."""
    return int(key[16:], 16)


@dataclass(frozen=True, slots=True)
class _Guessed(Generic[T]):
    """A step, and what it most likely does to the header."""

    run: Callable[[QueueWork], T]
    guess: Change

    def __call__(self, work: QueueWork) -> T:
        return self.run(work)


class QueueWriters:
    """Runs steps on queues, each queue's one after the other, several in a transaction where they wait."""

    def __init__(self, link: MongoLink) -> None:
        self._link = link
        self._lock = Lock()
        self._groups: dict[Address, tuple[GroupCommit[QueueWork], int]] = {}  # with how many use it

    def write(self, address: Address, step: Callable[[QueueWork], T], *, guess: Change = NO_CHANGE) -> T:
        """Run a step in a transaction that other threads' steps on the same queue may share.

        A `guess` about what it does to the queue's header spares a statement if it is right.
        """
        with self._lock:
            group, users = self._groups.get(address) or (
                GroupCommit(lambda take: self._commit(address, take()), timeout=self._link.timeout),
                0,
            )
            self._groups[address] = (group, users + 1)
        try:
            return group.run(_Guessed(step, guess))
        finally:
            with self._lock:
                group, users = self._groups[address]
                if users == 1:
                    del self._groups[address]
                else:
                    self._groups[address] = (group, users - 1)

    def _commit(self, address: Address, jobs: Sequence[Job[QueueWork, object]]) -> None:
        guess = sum((job.step.guess for job in jobs if isinstance(job.step, _Guessed)), NO_CHANGE)

        def run(session: ClientSession) -> None:
            work = QueueWork(self._link.database, session, address, guess)
            for job in jobs:
                if not job.start():
                    continue
                job.error = None
                try:
                    job.value = job.step(work)
                except HermodError as error:  # a step refuses before it changes anything
                    job.error = error
            work.flush()
            reach("mongodb.before-commit")

        self._link.transaction(run)
        reach("mongodb.after-commit")
