"""Queues on their way into and out of MongoDB; see `queues.ports.QueueTransfers`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from bson.binary import Binary
from bson.max_key import MaxKey
from pymongo import ASCENDING, DeleteOne, ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from queues.errors import MoveInterrupted
from queues.models import Address, Cargo, KeptClaim, KeptMessage, KeptPost, Outline
from queues.versions import sealed_of
from storage.mongodb_header import AWAY, NEVER, SHUT, QueueHeader, header_of, message_key, queue_key
from storage.mongodb_link import BY_CLAIM, BY_END, CLAIMED, DELAYED, READY, Document, MongoLink
from storage.mongodb_queue import QueueWork, QueueWriters

T = TypeVar("T")

_REMEMBERED = 3_600_000  # ms that a queue which moved away stays shut


def abandon(work: QueueWork, queue: QueueHeader) -> None:
    """Leave the messages to be cleared away, and give the queue an empty pile."""
    work.database.pile.insert_one({"_id": queue.pile}, session=work.session)
    queue.pile = secrets.token_hex(8)
    queue.free = queue.claimed = 0


def drop_queue(work: QueueWork, queue: QueueHeader) -> None:
    """Remove a header, and leave its messages to be cleared away."""
    work.flush_messages()
    abandon(work, queue)
    stop_watching(work, queue)
    work.database.queue.delete_one({"_id": queue_key(queue.address)}, session=work.session)
    work.forget(queue)


def stop_watching(work: QueueWork, queue: QueueHeader) -> None:
    """Leave what a move of this queue to another store has noted to be cleared away."""
    if queue.move is not None:
        work.untouch(queue.move)
        over = {"_id": queue.move}
        work.database.pile.replace_one(over, over, upsert=True, session=work.session)


class MongoTransfers:
    """Moves queues; see the port."""

    def __init__(self, link: MongoLink, writers: QueueWriters) -> None:
        self._link = link
        self._writers = writers

    def depart(self, address: Address, move: str) -> str:
        """Begin a move at its source; see the port."""

        def step(work: QueueWork) -> str:
            queue = work.queue() or work.create(address)
            if queue.move != move:
                stop_watching(work, queue)
                queue.move = move
            return queue.gen

        return self._writers.write(address, step)

    def export(self, address: Address, move: str, *, cursor: str, limit: int) -> Cargo:
        """Return a part of the queue: claims, messages, posts, then what was touched; see the port."""
        with self._link.bounded(), self._link.client.start_session(snapshot=True) as session:
            look = _Look(self._link.snapshots, session)
            queue = look.header(address)
            if queue is None or queue.move != move or queue.shut == AWAY:
                raise MoveInterrupted
            part, _, after = (cursor or "claims:").partition(":")
            if part == "claims":
                claims, following = look.claims(queue, after, limit)
                return Cargo(claims=claims, cursor=following, caught_up=False)
            if part == "messages":
                messages = look.messages(queue, int(after), limit)
                following = f"messages:{max(messages)}" if len(messages) == limit else "posts:"
                return Cargo(messages=messages, cursor=following, caught_up=False)
            if part == "posts":
                posts = look.posts(queue, after, limit)
                following = f"posts:{max(posts)}" if len(posts) == limit else "touched:0"
                return Cargo(posts=posts, cursor=following, caught_up=False)
            return look.changes(queue, int(after), limit)

    def shut(self, address: Address, move: str) -> Outline:
        """Shut the queue; see the port."""

        def step(work: QueueWork) -> Outline:
            queue = work.header()
            if queue is None or queue.move != move or queue.shut == AWAY:
                raise MoveInterrupted
            queue.shut, queue.due = SHUT, NEVER
            queue.tell()
            return Outline(
                last=queue.last, subscribed=queue.subscribed, free=queue.free, claimed=queue.claimed
            )

        return self._writers.write(address, step)

    def retire(self, address: Address, move: str, *, now: int) -> None:
        """Drop what the queue holds; see the port."""

        def step(work: QueueWork, queue: QueueHeader) -> None:
            if queue.shut == SHUT:
                abandon(work, queue)
                stop_watching(work, queue)
                queue.shut, queue.due = AWAY, now + _REMEMBERED

        self._if_shut(address, move, step)

    def admit(self, address: Address, move: str, generation: str, *, announced: bool = False) -> None:
        """Make an empty queue that is shut; see the port."""

        def step(work: QueueWork) -> None:
            old = work.header()
            if announced and (old is None or old.move != move or old.shut == AWAY):
                raise MoveInterrupted
            if old is not None:
                drop_queue(work, old)
            queue = work.create(address, generation=generation)
            queue.move, queue.shut = move, SHUT

        self._writers.write(address, step)

    def load(self, address: Address, move: str, cargo: Cargo) -> None:
        """Take over a cargo; see the port."""

        def step(work: QueueWork) -> None:
            queue = _admitted(work, move)
            messages = {message_key(queue.pile, place): kept for place, kept in cargo.messages.items()}
            writes: dict[str, Sequence[DeleteOne | ReplaceOne[Document]]] = {
                "message": [
                    _write(key, None if kept is None else _message_document(queue, kept))
                    for key, kept in messages.items()
                ],
                "claim": [
                    _write(id_, None if kept is None else _claim_document(queue, kept))
                    for id_, kept in cargo.claims.items()
                ],
                "once": [
                    _write({"h": queue.gen, "k": key}, None if kept is None else _post_document(kept))
                    for key, kept in cargo.posts.items()
                ],
            }
            for collection, changes in writes.items():
                if changes:
                    work.database[collection].bulk_write(changes, ordered=False, session=work.session)

        self._writers.write(address, step)

    def arrive(self, address: Address, move: str, outline: Outline) -> None:
        """Take over the outline; see the port."""

        def step(work: QueueWork) -> None:
            queue = _admitted(work, move)
            queue.last, queue.free, queue.claimed = outline.last, outline.free, outline.claimed
            queue.subscribed = outline.subscribed

        self._writers.write(address, step)

    def reopen(self, address: Address, move: str) -> None:
        """Open the queue again; see the port."""

        def step(work: QueueWork) -> None:
            queue = work.header()
            if queue is None or queue.move != move:
                return
            if queue.shut == AWAY:
                drop_queue(work, queue)
                return
            stop_watching(work, queue)
            if queue.shut:
                queue.shut, queue.due = 0, 0  # whoever comes next finds out what is due
                queue.tell()
            queue.move = None

        self._writers.write(address, step)

    def discard(self, address: Address, move: str) -> None:
        """Drop the queue; see the port."""
        self._if_shut(address, move, drop_queue)

    def _if_shut(self, address: Address, move: str, change: Callable[[QueueWork, QueueHeader], None]) -> None:
        def step(work: QueueWork) -> None:
            queue = work.header()
            if queue is not None and queue.shut and queue.move == move:
                change(work, queue)

        self._writers.write(address, step)


def _admitted(work: QueueWork, move: str) -> QueueHeader:
    queue = work.header()
    if queue is None or queue.shut != SHUT or queue.move != move:
        raise MoveInterrupted
    return queue


class _Look:
    """Reads of a queue at one point in time."""

    def __init__(self, database: Database[Document], session: ClientSession) -> None:
        self._database = database
        self._session = session

    def header(self, address: Address) -> QueueHeader | None:
        found = self._database.queue.find_one({"_id": queue_key(address)}, session=self._session)
        return None if found is None else header_of(address, found)

    def messages(self, queue: QueueHeader, after: int, limit: int) -> dict[int, KeptMessage]:
        keys = {"$gt": message_key(queue.pile, after), "$lt": message_key(queue.pile, NEVER)}
        found = self._database.message.find({"_id": keys}, session=self._session)
        return _messages(found.sort("_id", ASCENDING).limit(limit))

    def claims(self, queue: QueueHeader, after: str, limit: int) -> tuple[dict[str, KeptClaim], str]:
        """Return a part of the claims, by the time at which they end, and where to go on."""
        ends, _, last = (after or "0.").partition(".")
        claims = self._database.claim.find({"pile": queue.pile}, session=self._session).hint(BY_END)
        claims = claims.min([("pile", queue.pile), ("ex", int(ends)), ("_id", last)])
        claims = claims.max([("pile", queue.pile), ("ex", NEVER), ("_id", "")])
        found = list(claims.limit(limit + 1))  # the first of which may be the last of those before
        more = len(found) > limit
        following = f"claims:{found[-1]['ex']}.{found[-1]['_id']}" if more else "messages:0"
        return self._kept(queue, found), following

    def posts(self, queue: QueueHeader, after: str, limit: int) -> dict[str, KeptPost]:
        keys = {"$gt": {"h": queue.gen, "k": after}, "$lt": {"h": queue.gen, "k": MaxKey()}}
        found = self._database.once.find({"_id": keys}, session=self._session)
        return _posts(found.sort("_id", ASCENDING).limit(limit))

    def changes(self, queue: QueueHeader, since: int, limit: int) -> Cargo:
        touched = self._database.touched
        news = list(
            touched.find({"_id.m": queue.move, "n": {"$gt": since}}, session=self._session)
            .sort("n", ASCENDING)
            .limit(limit)
        )
        if len(news) == limit:  # what changed in one transaction belongs together
            news += touched.find({"_id.m": queue.move, "n": news[-1]["n"]}, session=self._session)
        names = [each["_id"]["k"] for each in news]
        places = {int(name[1:]) for name in names if name[0] == "m"}
        claims = {name[1:] for name in names if name[0] == "c"}
        keys = {name[1:] for name in names if name[0] == "o"}
        message_keys = [message_key(queue.pile, place) for place in places]
        post_keys = [{"h": queue.gen, "k": key} for key in keys]
        messages = _messages(
            self._database.message.find({"_id": {"$in": message_keys}}, session=self._session)
        )
        known = self._database.claim.find(
            {"_id": {"$in": list(claims)}, "pile": queue.pile}, session=self._session
        )
        found_claims = self._kept(queue, known.hint("_id_"))
        posts = _posts(self._database.once.find({"_id": {"$in": post_keys}}, session=self._session))
        return Cargo(
            messages={place: messages.get(place) for place in places},
            claims={id_: found_claims.get(id_) for id_ in claims},
            posts={key: posts.get(key) for key in keys},
            cursor=f"touched:{news[-1]['n'] if news else since}",
            caught_up=len(news) < limit,
        )

    def _kept(self, queue: QueueHeader, found: Iterable[Document]) -> dict[str, KeptClaim]:
        claims = {each["_id"]: each for each in found}
        held = self._database.message.find(
            {"c": {"$in": list(claims)}, "pile": queue.pile}, {"c": 1, "seq": 1}, session=self._session
        ).hint(BY_CLAIM)
        places: dict[str, list[int]] = {id_: [] for id_ in claims}
        for message in held if claims else ():
            places[message["c"]].append(message["seq"])
        return {
            id_: KeptClaim(
                id=id_, ttl=claim["ttl"], renewed=claim["cr"], expires=claim["ex"], places=sorted(places[id_])
            )
            for id_, claim in claims.items()
        }


def _messages(documents: Iterable[Document]) -> dict[int, KeptMessage]:
    return {
        each["seq"]: KeptMessage(
            sealed=sealed_of(each["se"]),  # first: nothing else of a newer one can be read
            place=each["seq"],
            body=bytes(each["b"]),
            created=each["cr"],
            expires=each["ex"],
            visible=each["vi"] if each["st"] == DELAYED else 0,
            client_id=each["cl"],
            claim_id=each.get("c"),
            claim_count=each["n"],
        )
        for each in documents
    }


def _posts(documents: Iterable[Document]) -> dict[str, KeptPost]:
    return {
        each["_id"]["k"]: KeptPost(
            key=each["_id"]["k"],
            fingerprint=bytes(each["fp"]),
            first=each["first"],
            count=each["count"],
            expires=each["ex"],
        )
        for each in documents
    }


def _write(key: object, document: Document | None) -> DeleteOne | ReplaceOne[Document]:
    if document is None:
        return DeleteOne({"_id": key})
    return ReplaceOne({"_id": key}, document, upsert=True)


def _message_document(queue: QueueHeader, kept: KeptMessage) -> Document:
    state = DELAYED if kept.visible else READY
    return {
        "pile": queue.pile,
        "seq": kept.place,
        "st": state if kept.claim_id is None else CLAIMED,
        "cr": kept.created,
        "ex": kept.expires,
        "vi": kept.visible or kept.created,
        "cl": kept.client_id,
        "se": kept.sealed,
        "n": kept.claim_count,
        "b": Binary(kept.body),
        **({} if kept.claim_id is None else {"c": kept.claim_id}),
    }


def _claim_document(queue: QueueHeader, kept: KeptClaim) -> Document:
    return {"pile": queue.pile, "ttl": kept.ttl, "cr": kept.renewed, "ex": kept.expires}


def _post_document(kept: KeptPost) -> Document:
    return {
        "fp": Binary(kept.fingerprint),
        "first": kept.first,
        "count": kept.count,
        "ex": kept.expires,
    }
