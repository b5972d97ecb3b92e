"""MongoDB alone, through pymongo: a document for each message, acknowledged by the majority."""

from __future__ import annotations

import time
from typing import Any

import pymongo
from pymongo.write_concern import WriteConcern

from bench.bodies import PRODUCER, body


class Documents:
    """A collection of messages."""

    def __init__(self, uri: str, size: int) -> None:
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        collection = self._client["bare"]["messages"]
        self._messages = collection.with_options(write_concern=WriteConcern("majority", j=True))
        self._body = body(size)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def prepare(self, stock: int) -> None:
        """Empty it, and fill in so many messages."""
        self._messages.drop()
        for start in range(0, max(stock, 1), 1000):
            self.post(min(1000, max(stock, 1) - start))

    def post(self, count: int) -> None:
        """Insert documents."""
        if count == 1:
            self._messages.insert_one(self._document())
        else:
            self._messages.insert_many([self._document() for _ in range(count)])

    def take(self, count: int) -> int:
        """Read the oldest documents, then delete them."""
        ids = [found["_id"] for found in self._messages.find({}, {"_id": 1}, sort=[("_id", 1)], limit=count)]
        return self._messages.delete_many({"_id": {"$in": ids}}).deleted_count

    def _document(self) -> dict[str, Any]:
        now = time.time_ns() // 1_000_000
        return {
            "queue": 1,
            "created": now,
            "expires": now + 86_400_000,
            "client": PRODUCER,
            "body": self._body,
        }
