"""The MongoDB driver: a replica set, majority and journal.

Whatever changes a queue is a transaction that begins by writing the queue's header,
so changes of one queue happen one after the other, and places are given out in the
order in which they become visible. Writers of one process share transactions by
queue (`storage.group_commit`). The header keeps exact counts and the next instant
at which something falls due, as in the SQLite driver.

Collections, in the database that the URI names (default `hermod`):

    queue    _id {p: project, q: queue}; gen, pile, last, free, claimed, due (ms), only (client, if there is one)
    message  _id PILE + place, 16 hexadecimal digits each; pile, seq, st (0 ready, 1 delayed, 2 claimed),
             cr, ex, vi (ms), cl (client), se (sealed), n (times handed out), c (claim id, in state 2), b (body)
    claim    _id claim id; pile, ttl (s), cr, ex (ms)
    once     _id {h: generation of the queue, k: idempotency key}; fp, first, count, ex (ms)
    pile     _id of a pile whose queue was purged or dropped
    record   _id {k: kind, s: scope, n: name}; v, rev, data (JSON text)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import pymongo
from bson.binary import Binary
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, MongoClient, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    HermodError,
    KeyReused,
    MessageClaimed,
    QueueNotFound,
    StoreUnavailable,
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
    Popped,
    Posted,
    Record,
    Selection,
    Stats,
)
from storage.group_commit import GroupCommit, Job

T = TypeVar("T")
_Document = dict[str, Any]

_READY, _DELAYED, _CLAIMED = 0, 1, 2
_NEVER = 2**63 - 1
_BATCH = 5_000  # messages that fall due, handled by one statement at most
_CLOCK_AGE = 1.0  # seconds between two looks at the server's clock

_INDEXES: Final[dict[str, list[IndexModel]]] = {
    "queue": [IndexModel([("due", ASCENDING)])],
    "message": [
        IndexModel([("pile", ASCENDING), ("st", ASCENDING), ("seq", ASCENDING)]),
        IndexModel([("pile", ASCENDING), ("ex", ASCENDING)]),
        IndexModel([("pile", ASCENDING), ("vi", ASCENDING)], partialFilterExpression={"st": _DELAYED}),
        IndexModel([("c", ASCENDING), ("seq", ASCENDING)], partialFilterExpression={"c": {"$exists": True}}),
    ],
    "claim": [IndexModel([("pile", ASCENDING), ("ex", ASCENDING)])],
    "once": [IndexModel([("ex", ASCENDING)])],
    "record": [IndexModel([("_id.k", ASCENDING), ("_id.s", ASCENDING), ("_id.n", ASCENDING)])],
}


@contextmanager
def vendor_errors() -> Iterator[None]:
    """Turn pymongo's errors into those of the domain."""
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(f"MongoDB: {error}.") from error


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> MongoStore:
    """Open the replica set of a `mongodb://` or `mongodb+srv://` URI.

    Raises StoreUnsupported for a server that is not a member of a replica set.
    """
    try:
        client: MongoClient[_Document] = MongoClient(
            uri,
            serverSelectionTimeoutMS=int(timeout * 1000),
            connectTimeoutMS=int(timeout * 1000),
            socketTimeoutMS=int(timeout * 1000),
            tz_aware=True,
        )
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise StoreUnsupported(f"The URI of the MongoDB store is wrong: {error}.") from error
    try:
        with vendor_errors():
            hello = client.admin.command("hello")
            if "setName" not in hello:
                raise StoreUnsupported(
                    "MongoDB has to be a replica set (one member is enough): start mongod with --replSet"
                    " and run rs.initiate()."
                )
            name = urlsplit(uri).path.strip("/") or "hermod"
            link = _Link(client, client[name], timeout)
            for collection, indexes in _INDEXES.items():
                link.database[collection].create_indexes(indexes)
    except BaseException:
        client.close()
        raise
    return MongoStore(link, clock)


class _Link:
    """A client with the settings that the promises need, and transactions by queue."""

    def __init__(self, client: MongoClient[_Document], database: Database[_Document], timeout: float) -> None:
        self.client = client
        self.timeout = timeout
        self.database = database.with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )
        self._lock = Lock()
        self._groups: dict[Address, tuple[GroupCommit[_Work], int]] = {}
        self._clock_offset = 0.0
        self._clock_checked = float("-inf")

    def clock(self) -> int:
        """Return the primary's time in ms, from a local clock that is set by it every second."""
        now = time.monotonic()
        if now - self._clock_checked > _CLOCK_AGE:
            with self._lock:
                if now - self._clock_checked > _CLOCK_AGE:
                    with vendor_errors(), pymongo.timeout(self.timeout):
                        local = self.client.admin.command("hello")["localTime"].timestamp()
                    self._clock_offset = local - (now + time.monotonic()) / 2
                    self._clock_checked = now
        return int((time.monotonic() + self._clock_offset) * 1000)

    def write(self, address: Address, step: Callable[[_Work], T]) -> T:
        """Run a step in a transaction that other threads' steps on the same queue may share."""
        with self._lock:
            group, users = self._groups.get(address) or (
                GroupCommit(lambda jobs: self._commit(address, jobs), timeout=self.timeout),
                0,
            )
            self._groups[address] = (group, users + 1)
        try:
            return group.run(step)
        finally:
            with self._lock:
                group, users = self._groups[address]
                if users == 1:
                    del self._groups[address]
                else:
                    self._groups[address] = (group, users - 1)

    def transaction(self, run: Callable[[ClientSession], T]) -> T:
        """Run a function in a transaction, again if it lost a conflict, within the time there is."""
        with vendor_errors(), pymongo.timeout(self.timeout), self.client.start_session() as session:
            return session.with_transaction(
                run,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority", j=True),
            )

    def _commit(self, address: Address, jobs: Sequence[Job[_Work, object]]) -> None:
        def run(session: ClientSession) -> None:
            work = _Work(self.database, session, address)
            for job in jobs:
                if not job.start():
                    continue
                job.error = None
                try:
                    job.value = job.step(work)
                except HermodError as error:  # a step refuses before it changes anything
                    job.error = error
            work.flush()

        self.transaction(run)


@dataclass(slots=True)
class _Queue:
    """A queue's header while a transaction works on it; see the collection `queue`."""

    address: Address
    gen: str
    pile: str
    last: int
    free: int
    claimed: int
    due: int
    only: str | None = None  # who posted everything that is there

    def expect(self, due: int) -> None:
        """Note that something falls due."""
        self.due = min(self.due, due)

    def places(self, ids: Iterable[str]) -> list[str]:
        """Return the keys of the messages that the ids name, those of other queues left out."""
        places = (place_of(id_, self.gen) for id_ in ids)
        return [_key(self.pile, place) for place in places if place is not None]

    def message(self, found: _Document) -> Message:
        """Build a message from its document."""
        return Message(
            id=message_id(found["seq"], self.gen),
            body=bytes(found["b"]),
            created=found["cr"],
            expires=found["ex"],
            client_id=found["cl"],
            sealed=found["se"],
            claim_id=found.get("c"),
            claim_count=found["n"],
        )


class _Work:
    """One transaction on one queue, and on its dead-letter queue where messages move there.

    New messages and the header are written once, at the end.
    """

    def __init__(self, database: Database[_Document], session: ClientSession, address: Address) -> None:
        self.database = database
        self.session = session
        self._address = address
        self._queues: dict[Address, _Queue] = {}
        self._new: list[InsertOne[_Document]] = []

    def queue(self, address: Address | None = None) -> _Queue | None:
        """Return a queue's header, locked for the rest of the transaction; None where there is none."""
        address = address or self._address
        if address not in self._queues:
            found = self.database.queue.find_one_and_update(
                {"_id": _id(address)}, {"$inc": {"rev": 1}}, session=self.session
            )
            if found is None:
                return None
            self._queues[address] = _header(address, found)
        return self._queues[address]

    def create(self, address: Address) -> _Queue:
        """Make a queue that is not there."""
        queue = _Queue(address, new_generation(), secrets.token_hex(8), 0, 0, 0, _NEVER)
        self.database.queue.insert_one(
            {"_id": _id(address), "gen": queue.gen, "pile": queue.pile, "last": 0, "free": 0, "claimed": 0}
            | {"due": _NEVER, "rev": 0},
            session=self.session,
        )
        self._queues[address] = queue
        return queue

    def insert(self, document: _Document) -> None:
        """Insert a message at the end of the transaction."""
        self._new.append(InsertOne(document))

    def flush_messages(self) -> None:
        """Insert the messages that wait for it, since a statement is about to look for them."""
        if self._new:
            self.database.message.bulk_write(self._new, session=self.session)
            self._new = []

    def forget(self, queue: _Queue) -> None:
        """Leave a header alone that was deleted."""
        self._queues.pop(queue.address, None)

    def flush(self) -> None:
        """Write what waits to be written."""
        self.flush_messages()
        writes: list[UpdateOne] = [
            UpdateOne(
                {"_id": _id(queue.address)},
                {
                    "$set": {
                        "pile": queue.pile,
                        "last": queue.last,
                        "free": queue.free,
                        "claimed": queue.claimed,
                        "due": queue.due,
                        "only": queue.only,
                    }
                },
            )
            for queue in self._queues.values()
        ]
        if writes:
            self.database.queue.bulk_write(writes, session=self.session)


def _id(address: Address) -> _Document:
    return {"p": address.project, "q": address.queue}


def _header(address: Address, found: _Document) -> _Queue:
    return _Queue(
        address=address,
        gen=found["gen"],
        pile=found["pile"],
        last=found["last"],
        free=found["free"],
        claimed=found["claimed"],
        due=found["due"],
        only=found.get("only"),
    )


def _key(pile: str, place: int) -> str:
    return f"{pile}{place:016x}"


class MongoStore:
    """Both ports over one replica set."""

    def __init__(self, link: _Link, clock: Callable[[], int] | None) -> None:
        self._link = link
        self.messages = MongoMessages(link, clock or link.clock)
        self.records = MongoRecords(link)

    def close(self) -> None:
        """Close the connections."""
        self._link.client.close()


class MongoMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, link: _Link, clock: Callable[[], int]) -> None:
        self._link = link
        self.clock = clock

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

        def step(work: _Work) -> Posted:
            queue = work.queue()
            if queue is None:
                if not create:
                    raise QueueNotFound
                queue = work.create(address)
            if once is not None and (earlier := _repeated(work, queue, once, now)):
                return earlier
            first = queue.last + 1
            for message in messages:
                _append(work, queue, message, now)
            if once is not None:
                _remember(work, queue, once, first, len(messages), now)
            return Posted(ids=_ids(queue, first, len(messages)))

        return self._link.write(address, step)

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""

        def look(queue: _Queue, messages: Any, session: ClientSession) -> Sequence[Message]:  # noqa: ANN401
            found = messages.find({"_id": {"$in": queue.places(ids)}}, session=session).sort("_id", ASCENDING)
            return [queue.message(each) for each in found]

        return self._look(address, now, look, absent=[])

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""

        def look(queue: _Queue, messages: Any, session: ClientSession) -> Sequence[Message]:  # noqa: ANN401
            after: int | None = 0
            if selection.marker is not None:
                after = place_of(selection.marker, queue.gen)
            hide = selection.hide_client
            if after is None or (hide is not None and hide == queue.only):
                return []
            states = [_READY]
            states += [_DELAYED] if selection.include_delayed else []
            states += [_CLAIMED] if selection.include_claimed else []
            page: list[_Document] = [{"$sort": {"seq": 1}}, {"$limit": selection.limit}]
            hidden = {} if hide is None else {"cl": {"$ne": hide}}

            def of_state(state: int) -> list[_Document]:
                match = {"pile": queue.pile, "st": state, "seq": {"$gt": after}, **hidden}
                return [{"$match": match}, *page]

            pipeline = of_state(states[0])
            for state in states[1:]:
                pipeline.append({"$unionWith": {"coll": "message", "pipeline": of_state(state)}})
            if len(states) > 1:
                pipeline += page
            return [queue.message(each) for each in messages.aggregate(pipeline, session=session)]

        return self._look(address, now, look, absent=[])

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        """Delete one message; see the port."""

        def step(work: _Work, queue: _Queue) -> None:
            for found in _locate(work, queue, [message_id]):
                holder = found.get("c")
                if holder != claim_id:
                    if claim_id is not None and (holder is None or not _find_claim(work, queue, claim_id)):
                        raise ClaimNotHeld
                    raise MessageClaimed
                _remove(work, queue, [found])

        self._change(address, now, step, absent=None)

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        """Delete messages by id; see the port."""
        wanted = list(ids)

        def step(work: _Work, queue: _Queue) -> None:
            found = _locate(work, queue, wanted)
            if claim_ids is not None and any(each.get("c", None) not in (None, *claim_ids) for each in found):
                raise MessageClaimed
            _remove(work, queue, found)

        self._change(address, now, step, absent=None)

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first messages that are free; see the port."""

        def step(work: _Work, queue: _Queue) -> Popped:
            ready = _ready(work, queue, limit)
            found = list(takewhile(lambda each: not each["se"], ready))
            _remove(work, queue, found)
            messages = [queue.message(each) for each in found]
            return Popped(messages=messages, sealed_next=len(found) < len(ready))

        return self._change(address, now, step, absent=Popped(messages=[]))

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""

        def step(work: _Work, queue: _Queue) -> Claimed:
            buried = 0
            while True:
                ready = _ready(work, queue, lease.limit)
                dead = lease.dead_letter
                if dead is None or dead.address == address:
                    break
                doomed = [each for each in ready if each["n"] >= dead.max_claims]
                if not doomed:
                    break
                _bury(work, queue, doomed, dead, now)
                buried += len(doomed)
            if not ready:
                return Claimed(claim=None, dead_lettered=buried)
            return Claimed(claim=_lease(work, queue, ready, lease, now), dead_lettered=buried)

        return self._change(address, now, step, absent=Claimed(claim=None))

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""

        def look(queue: _Queue, messages: Any, session: ClientSession) -> Claim | None:  # noqa: ANN401
            claim = messages.database.claim.find_one({"_id": claim_id, "pile": queue.pile}, session=session)
            if claim is None:
                return None
            held = messages.find({"c": claim_id}, session=session).sort("seq", ASCENDING)
            return Claim(
                id=claim_id,
                ttl=claim["ttl"],
                renewed=claim["cr"],
                expires=claim["ex"],
                messages=[queue.message(each) for each in held],
            )

        claim = self._look(address, now, look, absent=None)
        if claim is None:
            raise ClaimNotFound
        return claim

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew; see the port."""

        def step(work: _Work, queue: _Queue) -> bool:
            if not _find_claim(work, queue, claim_id):
                raise ClaimNotFound
            until = now + lease.ttl * 1000
            work.database.claim.update_one(
                {"_id": claim_id},
                {"$set": {"ttl": lease.ttl, "cr": now, "ex": until}},
                session=work.session,
            )
            work.database.message.update_many(
                {"c": claim_id, "ex": {"$lt": until}},
                {"$set": {"ex": until + lease.grace * 1000}},
                session=work.session,
            )
            queue.expect(until)
            return True

        if not self._change(address, now, step, absent=False):
            raise ClaimNotFound

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""

        def step(work: _Work, queue: _Queue) -> None:
            if _find_claim(work, queue, claim_id):
                _free(work, queue, [claim_id])

        self._change(address, now, step, absent=None)

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue; see the port."""

        def look(queue: _Queue, messages: Any, session: ClientSession) -> Stats:  # noqa: ANN401
            def landmark(order: int) -> Landmark | None:
                low, high = _key(queue.pile, 0), _key(queue.pile, _NEVER)
                found = messages.find_one(
                    {"_id": {"$gt": low, "$lt": high}},
                    {"seq": 1, "cr": 1},
                    sort=[("_id", order)],
                    session=session,
                )
                return found and Landmark(id=message_id(found["seq"], queue.gen), created=found["cr"])

            return Stats(
                free=queue.free,
                claimed=queue.claimed,
                oldest=landmark(ASCENDING),
                newest=landmark(DESCENDING),
            )

        return self._look(address, now, look, absent=Stats())

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; see the port."""

        def step(work: _Work, queue: _Queue) -> None:
            work.database.pile.insert_one({"_id": queue.pile}, session=work.session)
            work.flush_messages()
            queue.pile = secrets.token_hex(8)
            queue.free = queue.claimed = 0
            queue.due = _NEVER

        self._change(address, now, step, absent=None)

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""

        def step(work: _Work) -> None:
            queue = work.queue()
            if queue is not None:
                work.flush_messages()
                work.database.pile.insert_one({"_id": queue.pile}, session=work.session)
                work.database.queue.delete_one({"_id": _id(address)}, session=work.session)
                work.forget(queue)

        self._link.write(address, step)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over; see the port."""
        database = self._link.database
        done = 0
        with vendor_errors():
            due = [found["_id"] for found in database.queue.find({"due": {"$lte": now}}).limit(limit)]
        for found in due:
            if done >= limit:
                return done
            address = Address(project=found["p"], queue=found["q"])
            done += 1 + self._link.write(address, lambda work: _settle_some(work, now, limit))
        return done + self._clear_abandoned(limit - done) + self._forget_posts(now, limit - done)

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        while self.expire(now=now, limit=_BATCH) >= _BATCH:
            pass
        group = {"_id": None, "free": {"$sum": "$free"}, "claimed": {"$sum": "$claimed"}}
        with vendor_errors(), pymongo.timeout(self._link.timeout):
            for found in self._link.database.queue.aggregate([{"$group": group}]):
                return Stats(free=found["free"], claimed=found["claimed"])
        return Stats()

    def durability(self) -> Durability:
        """Ask the replica set who it is; see the port."""
        with vendor_errors(), pymongo.timeout(self._link.timeout):
            hello = self._link.client.admin.command("hello")
            version = self._link.client.server_info()["version"]
        members = len(hello.get("hosts", []))
        facts = {
            "MongoDB": version,
            "replica set": hello["setName"],
            "members": str(members),
            "write concern": "majority, journal",
        }
        warning = "The replica set has one member: when its disk is lost, everything is."
        return Durability(driver="mongodb", facts=facts, warnings=(warning,) if members < 2 else ())

    def _look(
        self,
        address: Address,
        now: int,
        look: Callable[[_Queue, Any, ClientSession], T],
        *,
        absent: T,
    ) -> T:
        """Read at one point in time, once the queue is up to date."""
        while True:
            with (
                vendor_errors(),
                pymongo.timeout(self._link.timeout),
                self._link.client.start_session(snapshot=True) as session,
            ):
                database = self._link.client[self._link.database.name]
                found = database.queue.find_one({"_id": _id(address)}, session=session)
                if found is None:
                    return absent
                queue = _header(address, found)
                if queue.due > now:
                    return look(queue, database.message, session)
            self._link.write(address, lambda work: _settle_some(work, now, _BATCH))

    def _change(self, address: Address, now: int, change: Callable[[_Work, _Queue], T], *, absent: T) -> T:
        def step(work: _Work) -> T:
            queue = work.queue()
            if queue is None:
                return absent
            work.flush_messages()
            while queue.due <= now:
                _settle(work, queue, now, _BATCH)
            return change(work, queue)

        return self._link.write(address, step)

    def _clear_abandoned(self, limit: int) -> int:
        """Delete what purged and dropped queues left, up to `limit` messages; return how many."""
        database = self._link.database
        with vendor_errors():
            found = database.pile.find_one() if limit > 0 else None
            if found is None:
                return 0
            low, high = _key(found["_id"], 0), _key(found["_id"], _NEVER)
            keys = [
                each["_id"]
                for each in database.message.find({"_id": {"$gt": low, "$lt": high}}, {"_id": 1}).limit(limit)
            ]
            database.message.delete_many({"_id": {"$in": keys}})
            if len(keys) < limit:
                database.claim.delete_many({"pile": found["_id"]})
                database.pile.delete_one({"_id": found["_id"]})
        return len(keys) + 1

    def _forget_posts(self, now: int, limit: int) -> int:
        if limit <= 0:
            return 0
        once = self._link.database.once
        with vendor_errors():
            keys = [each["_id"] for each in once.find({"ex": {"$lte": now}}, {"_id": 1}).limit(limit)]
            if keys:
                once.delete_many({"_id": {"$in": keys}, "ex": {"$lte": now}})
        return len(keys)


def _ids(queue: _Queue, first: int, count: int) -> list[str]:
    return [message_id(place, queue.gen) for place in range(first, first + count)]


def _append(work: _Work, queue: _Queue, message: NewMessage, now: int) -> None:
    if queue.free + queue.claimed == 0:
        queue.only = message.client_id
    elif queue.only != message.client_id:
        queue.only = None
    queue.last += 1
    queue.free += 1
    expires, visible = now + message.ttl * 1000, now + message.delay * 1000
    queue.expect(min(expires, visible) if message.delay else expires)
    work.insert(
        {
            "_id": _key(queue.pile, queue.last),
            "pile": queue.pile,
            "seq": queue.last,
            "st": _DELAYED if message.delay else _READY,
            "cr": now,
            "ex": expires,
            "vi": visible,
            "cl": message.client_id,
            "se": message.sealed,
            "n": 0,
            "b": Binary(message.body),
        }
    )


def _repeated(work: _Work, queue: _Queue, once: Once, now: int) -> Posted | None:
    found = work.database.once.find_one({"_id": {"h": queue.gen, "k": once.key}}, session=work.session)
    if found is None or found["ex"] <= now:
        return None
    if found["fp"] != once.fingerprint:
        raise KeyReused
    return Posted(ids=_ids(queue, found["first"], found["count"]), repeated=True)


def _remember(work: _Work, queue: _Queue, once: Once, first: int, count: int, now: int) -> None:
    work.database.once.replace_one(
        {"_id": {"h": queue.gen, "k": once.key}},
        {"fp": Binary(once.fingerprint), "first": first, "count": count, "ex": now + once.window * 1000},
        upsert=True,
        session=work.session,
    )


def _ready(work: _Work, queue: _Queue, limit: int) -> list[_Document]:
    messages = work.database.message
    wanted = {"pile": queue.pile, "st": _READY}
    return list(messages.find(wanted, session=work.session).sort("seq", ASCENDING).limit(limit))


def _locate(work: _Work, queue: _Queue, ids: Iterable[str]) -> list[_Document]:
    wanted = {"_id": {"$in": queue.places(ids)}}
    return list(work.database.message.find(wanted, {"st": 1, "c": 1}, session=work.session))


def _find_claim(work: _Work, queue: _Queue, claim_id: str) -> _Document | None:
    return work.database.claim.find_one({"_id": claim_id, "pile": queue.pile}, session=work.session)


def _remove(work: _Work, queue: _Queue, found: Sequence[_Document]) -> None:
    if not found:
        return
    work.database.message.delete_many({"_id": {"$in": [each["_id"] for each in found]}}, session=work.session)
    claimed = sum(each["st"] == _CLAIMED for each in found)
    queue.claimed -= claimed
    queue.free -= len(found) - claimed


def _bury(work: _Work, queue: _Queue, doomed: Sequence[_Document], dead: DeadLetter, now: int) -> None:
    target = work.queue(dead.address) or work.create(dead.address)
    target.only = None
    _remove(work, queue, doomed)
    for each in doomed:
        target.last += 1
        target.free += 1
        moved = {
            **each,
            "_id": _key(target.pile, target.last),
            "pile": target.pile,
            "seq": target.last,
            "n": 0,
        }
        if dead.ttl is not None:
            moved |= {"cr": now, "ex": now + dead.ttl * 1000}
        target.expect(moved["ex"])
        work.insert(moved)


def _lease(work: _Work, queue: _Queue, ready: Sequence[_Document], lease: Lease, now: int) -> Claim:
    id_, until = new_claim_id(), now + lease.ttl * 1000
    extended = {"$cond": [{"$lt": ["$ex", until]}, until + lease.grace * 1000, "$ex"]}
    work.database.message.update_many(
        {"_id": {"$in": [each["_id"] for each in ready]}},
        [{"$set": {"st": _CLAIMED, "c": id_, "n": {"$add": ["$n", 1]}, "ex": extended}}],
        session=work.session,
    )
    work.database.claim.insert_one(
        {"_id": id_, "pile": queue.pile, "ttl": lease.ttl, "cr": now, "ex": until}, session=work.session
    )
    queue.free -= len(ready)
    queue.claimed += len(ready)
    queue.expect(until)
    for each in ready:
        each["c"] = id_
        each["n"] += 1
        if each["ex"] < until:
            each["ex"] = until + lease.grace * 1000
    messages = [queue.message(each) for each in ready]
    return Claim(id=id_, ttl=lease.ttl, renewed=now, expires=until, messages=messages)


def _free(work: _Work, queue: _Queue, claims: Sequence[str]) -> int:
    """End claims; return how many messages they held."""
    count = work.database.message.update_many(
        {"c": {"$in": claims}}, {"$set": {"st": _READY}, "$unset": {"c": ""}}, session=work.session
    ).modified_count
    work.database.claim.delete_many({"_id": {"$in": claims}}, session=work.session)
    queue.claimed -= count
    queue.free += count
    return count


def _settle(work: _Work, queue: _Queue, now: int, limit: int) -> int:
    """Let take place what fell due, about `limit` messages of it; return how many things that was."""
    messages, claims, session = work.database.message, work.database.claim, work.session
    overdue = {"pile": queue.pile, "ex": {"$lte": now}}
    expired = list(messages.find(overdue, {"st": 1}, session=session).limit(limit))
    _remove(work, queue, expired)
    over = [each["_id"] for each in claims.find(overdue, {"_id": 1}, session=session).limit(limit)]
    freed = _free(work, queue, over) if over else 0
    matured = messages.update_many(
        {"pile": queue.pile, "st": _DELAYED, "vi": {"$lte": now}}, {"$set": {"st": _READY}}, session=session
    ).modified_count
    queue.due = _next_due(work, queue)
    return len(expired) + len(over) + freed + matured


def _settle_some(work: _Work, now: int, limit: int) -> int:
    queue = work.queue()
    work.flush_messages()
    return 0 if queue is None or queue.due > now else _settle(work, queue, now, limit)


def _next_due(work: _Work, queue: _Queue) -> int:
    session = work.session

    def first(collection: Any, field: str, **more: int) -> int:  # noqa: ANN401
        found = collection.find_one(
            {"pile": queue.pile, **more}, {field: 1}, sort=[(field, 1)], session=session
        )
        return found[field] if found else _NEVER

    messages = work.database.message
    return min(first(messages, "ex"), first(work.database.claim, "ex"), first(messages, "vi", st=_DELAYED))


class MongoRecords:
    """The control plane; see `queues.ports.RecordStore`."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._records = link.database.record

    def insert(self, record: Record) -> bool:
        """Store a record unless its name is taken; see the port."""
        wanted = {"_id": _record_id(record.kind, record.scope, record.name)}
        change = {"$setOnInsert": {**_record_data(record), "rev": 0}}
        with vendor_errors(), self._bounded():
            return self._records.update_one(wanted, change, upsert=True).matched_count == 0

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record; see the port."""
        with vendor_errors(), self._bounded():
            found = self._records.find_one({"_id": _record_id(kind, scope, name)})
        return None if found is None else _record(found)

    def replace(self, record: Record) -> bool:
        """Store new data if nobody else has; see the port."""
        wanted = {"_id": _record_id(record.kind, record.scope, record.name), "rev": record.revision}
        change = {"$set": _record_data(record), "$inc": {"rev": 1}}
        with vendor_errors(), self._bounded():
            return self._records.update_one(wanted, change).matched_count == 1

    def remove(self, kind: str, scope: str, name: str) -> bool:
        """Remove a record; see the port."""
        with vendor_errors(), self._bounded():
            return self._records.delete_one({"_id": _record_id(kind, scope, name)}).deleted_count == 1

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return a page of records by name; see the port."""
        wanted = {"_id.k": kind, "_id.s": scope, "_id.n": {"$gt": after}}
        with vendor_errors(), self._bounded():
            found = self._records.find(wanted).sort("_id.n", ASCENDING).limit(limit)
            return [_record(each) for each in found]

    def count(self, kind: str, scope: str) -> int:
        """Count records; see the port."""
        with vendor_errors(), self._bounded():
            return self._records.count_documents({"_id.k": kind, "_id.s": scope})

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        with pymongo.timeout(self._link.timeout):
            yield


def _record_id(kind: str, scope: str, name: str) -> _Document:
    return {"k": kind, "s": scope, "n": name}


def _record_data(record: Record) -> _Document:
    # As text, since a document of MongoDB's would not keep every key and number.
    return {"v": record.v, "data": msgspec.json.encode(record.data).decode()}


def _record(found: _Document) -> Record:
    id_ = found["_id"]
    return Record(
        kind=id_["k"],
        scope=id_["s"],
        name=id_["n"],
        v=found["v"],
        revision=found["rev"],
        data=msgspec.json.decode(found["data"]),
    )
