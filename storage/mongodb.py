"""The MongoDB driver: a replica set, majority and journal.

The header of a queue keeps exact counts and the next instant at which something
falls due, as in the SQLite driver; `storage.mongodb_queue` tells how it is changed.

Collections, in the database that the URI names (default `hermod`):

    queue    _id {p: project, q: queue}; gen, pile, last, free, claimed, due (ms), only (client, if there is one),
             move, shut, sub (see `storage.mongodb_header`), news (see `storage.mongodb_listener`),
             rev, kept, low (see `storage.mongodb_ready`)
    message  _id PILE + place, 16 hexadecimal digits each; pile, seq, st (0 ready, 1 delayed, 2 claimed),
             cr, ex, vi (ms), cl (client), se (form, see `queues.versions`; a boolean in version 1),
             n (times handed out), c (claim id, in state 2), b (body)
    claim    _id claim id; pile, ttl (s), cr, ex (ms)
    once     _id {h: generation of the queue, k: idempotency key}; fp, first, count, ex (ms)
    touched  _id {m: move, k: "m" and place, "c" and claim id, or "o" and idempotency key}; n (rev of the change)
    layout   one document; v, oldest (see `storage.mongodb_layout`)
    pile     _id of a pile whose queue was purged or dropped, or of a move that is over
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

from pymongo import ASCENDING, DESCENDING
from pymongo.client_session import ClientSession

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    FanOutChanged,
    MessageClaimed,
    QueueMoved,
    QueueNotFound,
)
from queues.identity import message_id, place_of
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
    Outlook,
    Popped,
    Posted,
    Selection,
    Stats,
)
from queues.versions import sealed_of
from storage.mongodb_header import (
    NEVER,
    NO_CHANGE,
    Change,
    QueueHeader,
    header_of,
    message_key,
    queue_key,
)
from storage.mongodb_layout import MongoLayout
from storage.mongodb_link import BY_CLAIM, CLAIMED, DELAYED, READY, Document, MongoLink
from storage.mongodb_listener import MongoListener
from storage.mongodb_queue import QueueWork, QueueWriters
from storage.mongodb_records import MongoRecords
from storage.mongodb_steps import (
    append,
    bury,
    due_of,
    end_claims,
    find_claim,
    ids_from,
    locate,
    messages_of,
    remember,
    remove,
    remove_held,
    repeated,
    settle,
    settle_some,
    take_lease,
)
from storage.mongodb_transfers import MongoTransfers, abandon, drop_queue, stop_watching

T = TypeVar("T")

_OUTBOXES = tuple(Address(project="", queue=f"outbox>{number}") for number in range(16))
_BATCH = 5_000  # messages that fall due, handled by one statement at most


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> MongoStore:
    """Open the replica set of a `mongodb://` or `mongodb+srv://` URI; see `storage.mongodb_link`."""
    return MongoStore(MongoLink(uri, timeout=timeout), clock)


class MongoStore:
    """Both ports over one replica set."""

    capabilities = ("FIFO", "CLAIMS", "DURABILITY", "AOD", "HIGH_THROUGHPUT")

    def __init__(self, link: MongoLink, clock: Callable[[], int] | None) -> None:
        self._link = link
        self._listener = MongoListener(link)
        writers = QueueWriters(link)
        self.messages = MongoMessages(link, writers, self._listener, clock or link.clock)
        self.transfers = MongoTransfers(link, writers)
        self.records = MongoRecords(link)
        self.layout = MongoLayout(link)

    def close(self) -> None:
        """Close the connections."""
        self._listener.close()
        self._link.close()


class MongoMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(
        self, link: MongoLink, writers: QueueWriters, listener: MongoListener, clock: Callable[[], int]
    ) -> None:
        self._link = link
        self._writers = writers
        self._listener = listener
        self.clock = clock

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

        def step(work: QueueWork) -> Posted:
            queue = work.queue()
            if queue is None:
                if not create:
                    raise QueueNotFound
                queue = work.create(address)
                queue.subscribed = "post" if tickets else ""
            if once is not None and (earlier := repeated(work, queue, once, now)):
                return earlier
            if tickets is not None and bool(queue.subscribed) != bool(tickets):
                raise FanOutChanged(subscribed=bool(queue.subscribed))
            if tickets:
                where = _outbox(address)
                outbox = work.queue(where) or work.create(where)
                for ticket in tickets:
                    append(work, outbox, ticket, now)
            first = queue.last + 1
            for message in messages:
                append(work, queue, message, now)
            if once is not None:
                remember(work, queue, once, first, len(messages), now)
            return Posted(ids=ids_from(queue, first, len(messages)))

        count, due = len(messages), min((due_of(message, now) for message in messages), default=NEVER)
        return self._writers.write(address, step, guess=Change(last=count, free=count, news=count, due=due))

    def subscribe(self, address: Address, stamp: str) -> None:
        """Note that there are subscribers; see the port."""

        def step(work: QueueWork) -> None:
            queue = work.queue() or work.create(address)
            queue.subscribed = stamp

        self._writers.write(address, step)

    def unsubscribe(self, address: Address, stamp: str) -> None:
        """Note that there are no subscribers; see the port."""

        def step(work: QueueWork) -> None:
            queue = work.queue()
            if queue is not None and queue.subscribed == stamp:
                queue.subscribed = ""

        self._writers.write(address, step)

    def outboxes(self) -> Sequence[Address]:
        """Return several, so that posts to different queues seldom wait for each other; see the port."""
        return _OUTBOXES

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""

        def look(queue: QueueHeader, messages: Any, session: ClientSession) -> Sequence[Message]:  # noqa: ANN401
            found = messages.find({"_id": {"$in": queue.places(ids)}}, session=session).sort("_id", ASCENDING)
            return [queue.message(each) for each in found]

        return self._look(address, now, look, absent=[])

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""

        def look(queue: QueueHeader, messages: Any, session: ClientSession) -> Sequence[Message]:  # noqa: ANN401
            after: int | None = 0
            if selection.marker is not None:
                after = place_of(selection.marker, queue.gen)
            hide = selection.hide_client
            if after is None or (hide is not None and hide == queue.only):
                return []
            states = [READY]
            states += [DELAYED] if selection.include_delayed else []
            states += [CLAIMED] if selection.include_claimed else []
            page: list[Document] = [{"$sort": {"seq": 1}}, {"$limit": selection.limit}]
            hidden = {} if hide is None else {"cl": {"$ne": hide}}

            def of_state(state: int) -> list[Document]:
                behind = max(after, queue.low - 1) if state == READY else after
                match = {"pile": queue.pile, "st": state, "seq": {"$gt": behind}, **hidden}
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

        def step(work: QueueWork, queue: QueueHeader) -> None:
            if claim_id is not None and queue.move is None and remove_held(work, queue, message_id, claim_id):
                return
            for found in locate(work, queue, [message_id]):
                holder = found.get("c")
                if holder != claim_id:
                    if claim_id is not None and (holder is None or not find_claim(work, queue, claim_id)):
                        raise ClaimNotHeld
                    raise MessageClaimed
                remove(work, queue, [found])

        guess = Change(free=-1) if claim_id is None else Change(claimed=-1)
        self._change(address, now, step, absent=None, guess=guess)

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        """Delete messages by id; see the port."""
        wanted = set(ids)

        def step(work: QueueWork, queue: QueueHeader) -> None:
            if claim_ids is None and queue.move is None:
                work.remove_later(queue.places(wanted))
                return
            found = locate(work, queue, wanted)
            if claim_ids is not None and any(each.get("c", None) not in (None, *claim_ids) for each in found):
                raise MessageClaimed
            remove(work, queue, found)

        guess = Change(claimed=-len(wanted))
        self._change(address, now, step, absent=None, guess=guess, removes=claim_ids is None)

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first messages that are free; see the port."""

        def step(work: QueueWork, queue: QueueHeader) -> Popped:
            ready = work.ready(queue).first(limit)
            found = list(takewhile(lambda each: not each["se"], ready))
            sealed_next = len(found) < len(ready) and sealed_of(ready[len(found)]["se"])
            remove(work, queue, found)
            work.ready(queue).took(found)
            messages = [queue.message(each) for each in found]
            return Popped(messages=messages, sealed_next=sealed_next)

        guess = Change(free=-limit)
        return self._change(address, now, step, absent=Popped(messages=[]), guess=guess, takes=limit)

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""

        def step(work: QueueWork, queue: QueueHeader) -> Claimed:
            buried = 0
            while True:
                ready = work.ready(queue).first(lease.limit)
                dead = lease.dead_letter
                if dead is None or dead.address == address:
                    break
                doomed = [each for each in ready if each["n"] >= dead.max_claims]
                if not doomed:
                    break
                bury(work, queue, doomed, dead, now)
                buried += len(doomed)
            if not ready:
                return Claimed(claim=None, dead_lettered=buried)
            return Claimed(claim=take_lease(work, queue, ready, lease, now), dead_lettered=buried)

        guess = Change(free=-lease.limit, claimed=lease.limit, due=now + lease.ttl * 1000)
        absent = Claimed(claim=None)
        return self._change(address, now, step, absent=absent, guess=guess, takes=lease.limit)

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""

        def look(queue: QueueHeader, messages: Any, session: ClientSession) -> Claim | None:  # noqa: ANN401
            claim = messages.database.claim.find_one({"_id": claim_id, "pile": queue.pile}, session=session)
            if claim is None:
                return None
            held = messages.find(messages_of(queue, [claim_id]), session=session).sort("seq", ASCENDING)
            return Claim(
                id=claim_id,
                ttl=claim["ttl"],
                renewed=claim["cr"],
                expires=claim["ex"],
                messages=[queue.message(each) for each in held.hint(BY_CLAIM)],
            )

        claim = self._look(address, now, look, absent=None)
        if claim is None:
            raise ClaimNotFound
        return claim

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew; see the port."""

        def step(work: QueueWork, queue: QueueHeader) -> bool:
            claim = find_claim(work, queue, claim_id)
            if claim is None:
                raise ClaimNotFound
            until = now + lease.ttl * 1000
            if until < claim["ex"]:
                queue.tell()
            work.database.claim.update_one(
                {"_id": claim_id},
                {"$set": {"ttl": lease.ttl, "cr": now, "ex": until}},
                session=work.session,
            )
            work.touch(queue, "c", [claim_id])
            sooner = {**messages_of(queue, [claim_id]), "ex": {"$lt": until}}
            work.touch_documents(queue, sooner, hint=BY_CLAIM)
            work.database.message.update_many(
                sooner,
                {"$set": {"ex": until + lease.grace * 1000}},
                hint=BY_CLAIM,
                session=work.session,
            )
            queue.expect(until)
            return True

        if not self._change(address, now, step, absent=False):
            raise ClaimNotFound

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""

        def step(work: QueueWork, queue: QueueHeader) -> None:
            if find_claim(work, queue, claim_id) and end_claims(work, queue, [claim_id]):
                queue.tell()

        self._change(address, now, step, absent=None)

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when something is new; see the port."""
        return self._listener.watch(address, wake)

    def outlook(self, address: Address, *, now: int) -> Outlook:
        """Return what is to come; see the port."""

        def look(queue: QueueHeader, _: object, __: ClientSession) -> Outlook:
            due = None if queue.due == NEVER else int(queue.due)
            return Outlook(generation=queue.gen, last=queue.last, due=due)

        return self._look(address, now, look, absent=Outlook())

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue; see the port."""

        def look(queue: QueueHeader, messages: Any, session: ClientSession) -> Stats:  # noqa: ANN401
            def landmark(order: int) -> Landmark | None:
                low, high = message_key(queue.pile, 0), message_key(queue.pile, NEVER)
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

        def step(work: QueueWork, queue: QueueHeader) -> None:
            work.flush_messages()
            stop_watching(work, queue)
            queue.move = None  # a move of the queue is over
            abandon(work, queue)
            queue.due = NEVER

        self._change(address, now, step, absent=None)

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""

        def step(work: QueueWork) -> None:
            queue = work.header()
            if queue is not None:
                drop_queue(work, queue)

        self._writers.write(address, step)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over; see the port."""
        database = self._link.database
        done = 0
        with self._link.bounded():
            due = [found["_id"] for found in database.queue.find({"due": {"$lte": now}}).limit(limit)]
        for found in due:
            if done >= limit:
                return done
            address = Address(project=found["p"], queue=found["q"])
            done += 1 + self._writers.write(address, lambda work: settle_some(work, now, limit))
        return done + self._clear_abandoned(limit - done) + self._forget_posts(now, limit - done)

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        while self.expire(now=now, limit=_BATCH) >= _BATCH:
            pass
        match = {"shut": {"$ne": 1}}
        group = {"_id": None, "free": {"$sum": "$free"}, "claimed": {"$sum": "$claimed"}}
        with self._link.bounded():
            for found in self._link.database.queue.aggregate([{"$match": match}, {"$group": group}]):
                return Stats(free=found["free"], claimed=found["claimed"])
        return Stats()

    def joins(self, one: Address, other: Address) -> bool:
        """Tell that a transaction can change any; see the port."""
        return True

    def durability(self) -> Durability:
        """Ask the replica set who it is; see the port."""
        with self._link.bounded():
            hello = self._link.hello()
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
        look: Callable[[QueueHeader, Any, ClientSession], T],
        *,
        absent: T,
    ) -> T:
        """Read at one point in time, once the queue is up to date."""
        while True:
            with self._link.bounded(), self._link.client.start_session(snapshot=True) as session:
                database = self._link.snapshots
                found = database.queue.find_one({"_id": queue_key(address)}, session=session)
                if found is None:
                    return absent
                queue = header_of(address, found)
                if queue.shut:
                    raise QueueMoved(address, queue.move or "")
                if queue.due > now:
                    return look(queue, database.message, session)
            self._writers.write(address, lambda work: settle_some(work, now, _BATCH))

    def _change(
        self,
        address: Address,
        now: int,
        change: Callable[[QueueWork, QueueHeader], T],
        *,
        absent: T,
        guess: Change = NO_CHANGE,
        removes: bool = False,
        takes: int = 0,
    ) -> T:
        def step(work: QueueWork) -> T:
            queue = work.queue()
            if queue is None:
                return absent
            if not removes:
                work.flush_messages()
            while queue.due <= now:
                work.before_settling()
                settle(work, queue, now, _BATCH)
            return change(work, queue)

        return self._writers.write(address, step, guess=guess, removes=removes, takes=takes)

    def _clear_abandoned(self, limit: int) -> int:
        """Delete what purged and dropped queues, and moves, left: about `limit` things; return how many."""
        done = 0
        while done < limit and (cleared := self._clear_one(limit - done)):
            done += cleared
        return done

    def _clear_one(self, limit: int) -> int:
        database = self._link.database
        with self._link.bounded():
            found = database.pile.find_one()
            if found is None:
                return 0
            low, high = message_key(found["_id"], 0), message_key(found["_id"], NEVER)
            keys = [
                each["_id"]
                for each in database.message.find({"_id": {"$gt": low, "$lt": high}}, {"_id": 1}).limit(limit)
            ]
            database.message.delete_many({"_id": {"$in": keys}})
            noted = database.touched.find({"_id.m": found["_id"]}, {"_id": 1}).limit(limit)
            notes = [each["_id"] for each in noted]
            database.touched.delete_many({"_id": {"$in": notes}})
            if max(len(keys), len(notes)) < limit:
                database.claim.delete_many({"pile": found["_id"]})
                database.pile.delete_one({"_id": found["_id"]})
        return len(keys) + len(notes) + 1

    def _forget_posts(self, now: int, limit: int) -> int:
        if limit <= 0:
            return 0
        once = self._link.database.once
        with self._link.bounded():
            keys = [each["_id"] for each in once.find({"ex": {"$lte": now}}, {"_id": 1}).limit(limit)]
            if keys:
                once.delete_many({"_id": {"$in": keys}, "ex": {"$lte": now}}, hint=[("_id", ASCENDING)])
        return len(keys)


def _outbox(address: Address) -> Address:
    digest = zlib.crc32(f"{address.project}\0{address.queue}".encode())
    return _OUTBOXES[digest % len(_OUTBOXES)]
