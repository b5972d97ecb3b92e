"""MongoDB alone, through pymongo, acknowledged by the majority and in the journal."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import pymongo
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from bench.bodies import PRODUCER, body

T = TypeVar("T")
Document = dict[str, Any]

_SAFE: Final = WriteConcern("majority", j=True)
_PAUSE: Final = 0.002  # seconds at most before a transaction is tried again
_COUNTER: Final = {"_id": "queue"}
_MANY: Final = 1000  # documents that are filled in at once


class Documents:
    """A collection of messages in no particular order: a document for each."""

    name = "messages"

    def __init__(self, uri: str, size: int) -> None:
        self.client: pymongo.MongoClient[Document] = pymongo.MongoClient(uri)
        self.messages = self.client["bare"][self.name].with_options(write_concern=_SAFE)
        self._body = body(size)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def prepare(self, stock: int) -> None:
        """Empty it, and fill in so many messages."""
        self.messages.drop()
        for start in range(0, max(stock, 1), _MANY):
            self.post(min(_MANY, max(stock, 1) - start))

    def post(self, count: int) -> None:
        """Insert documents."""
        if count == 1:
            self.messages.insert_one(self.document())
        else:
            self.messages.insert_many([self.document() for _ in range(count)])

    def append(self, document: bytes) -> int:
        """Insert a document with this body, and return its number."""
        inserted = self.messages.insert_one({**self.document(), "body": document})
        return int.from_bytes(inserted.inserted_id.binary, "big")

    def take(self, count: int) -> int:
        """Read the oldest documents, then delete them."""
        found = self.messages.find({}, {"_id": 1}, sort=[("_id", 1)], limit=count)
        return self.messages.delete_many({"_id": {"$in": [each["_id"] for each in found]}}).deleted_count

    def document(self) -> Document:
        """Return a message."""
        now = time.time_ns() // 1_000_000
        return {
            "queue": 1,
            "created": now,
            "expires": now + 86_400_000,
            "client": PRODUCER,
            "body": self._body,
        }


class Leases(Documents):
    """Messages that are claimed in no order, each time from somewhere else, so that threads do not meet."""

    name = "leases"

    def prepare(self, stock: int) -> None:
        """Empty it, and fill in so many messages."""
        super().prepare(stock)
        self.messages.create_index([("claim", 1), ("place", 1)])

    def document(self) -> Document:
        """Return a message at some place."""
        return {**super().document(), "claim": None, "place": random.getrandbits(32)}

    def take(self, count: int) -> int:
        """Read free messages, claim them, then delete what was claimed."""
        found = self._free(random.getrandbits(32), count)
        found = found if len(found) == count else self._free(0, count)
        claim, keys = secrets.token_hex(8), [each["_id"] for each in found]
        self.messages.update_many({"_id": {"$in": keys}, "claim": None}, {"$set": {"claim": claim}})
        return self.messages.delete_many({"_id": {"$in": keys}, "claim": claim}).deleted_count

    def _free(self, place: int, count: int) -> Sequence[Document]:
        return list(self.messages.find({"claim": None, "place": {"$gte": place}}).sort("place").limit(count))


class Transactions(Documents):
    """A queue with places in a row, which a counter gives out within the transaction that uses them.

    That is the least by which messages become visible in the order of their places: transactions that follow each other.
    """

    name = "places"

    def __init__(self, uri: str, size: int) -> None:
        super().__init__(uri, size)
        self._counters = self.client["bare"]["counters"].with_options(write_concern=_SAFE)

    def prepare(self, stock: int) -> None:
        """Empty it, and fill in so many messages."""
        self._counters.replace_one(_COUNTER, {**_COUNTER, "last": 0, "taken": 0}, upsert=True)
        super().prepare(stock)

    def post(self, count: int) -> None:
        """Take places and insert the documents there."""

        def step(session: ClientSession) -> None:
            last = self._change(session, {"$inc": {"last": count}})["last"]
            documents = [{"_id": place, **self.document()} for place in range(last + 1, last + count + 1)]
            self.messages.insert_many(documents, session=session)

        self._commit(step)

    def take(self, count: int) -> int:
        """Claim the next messages in one transaction, and delete them in another."""
        upto = {"$min": [{"$add": ["$taken", count]}, "$last"]}

        def claim(session: ClientSession) -> list[int]:
            before = self._change(session, [{"$set": {"taken": upto}}])
            first = before["taken"] + 1
            places = list(range(first, min(before["taken"] + count, before["last"]) + 1))
            wanted = {"_id": {"$gte": first, "$lt": first + len(places)}}
            list(self.messages.find(wanted, session=session))
            self.messages.update_many(wanted, {"$set": {"claim": 1}}, session=session)
            return places

        def delete(session: ClientSession) -> int:
            self._change(session, {"$inc": {"deleted": len(places)}})
            return self.messages.delete_many({"_id": {"$in": places}}, session=session).deleted_count

        places = self._commit(claim)
        return self._commit(delete) if places else 0

    def _change(self, session: ClientSession, update: Document | list[Document]) -> Document:
        """Change the counter, which nobody else does then before the end; return what it was."""
        found = self._counters.find_one_and_update(_COUNTER, update, session=session)
        return found or {}

    def _commit(self, step: Callable[[ClientSession], T]) -> T:
        """Run a step in a transaction, again in a moment if it met another one."""
        with self.client.start_session() as session:
            while True:
                try:
                    with session.start_transaction(write_concern=_SAFE):
                        return step(session)
                except PyMongoError as error:
                    if not error.has_error_label("TransientTransactionError"):
                        raise
                time.sleep(_PAUSE * random.random())
