"""The connection to MongoDB: a replica set, majority and journal, every wait bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import pymongo
from pymongo import ASCENDING, IndexModel, MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from queues.errors import StoreUnavailable, StoreUnsupported
from storage.server_clock import ServerClock
from storage.shared_call import SharedCall

T = TypeVar("T")
Document = dict[str, Any]

#: States of a message.
READY, DELAYED, CLAIMED = 0, 1, 2

#: Indexes of the collection `message`.
BY_EXPIRY: Final = [("pile", ASCENDING), ("ex", ASCENDING)]
BY_DELAY: Final = [("pile", ASCENDING), ("vi", ASCENDING)]

INDEXES: Final[dict[str, list[IndexModel]]] = {
    "queue": [IndexModel([("due", ASCENDING)])],
    "message": [
        IndexModel([("pile", ASCENDING), ("st", ASCENDING), ("seq", ASCENDING)]),
        IndexModel(BY_EXPIRY),
        IndexModel(BY_DELAY, partialFilterExpression={"st": DELAYED}),
        IndexModel([("c", ASCENDING), ("seq", ASCENDING)], partialFilterExpression={"c": {"$exists": True}}),
    ],
    "claim": [IndexModel([("pile", ASCENDING), ("ex", ASCENDING)])],
    "once": [IndexModel([("ex", ASCENDING)])],
    "touched": [IndexModel([("_id.m", ASCENDING), ("n", ASCENDING)])],
    "record": [IndexModel([("_id.k", ASCENDING), ("_id.s", ASCENDING), ("_id.n", ASCENDING)])],
}


@contextmanager
def vendor_errors() -> Iterator[None]:
    """Turn pymongo's errors into those of the domain."""
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(f"MongoDB: {error}.") from error


class MongoLink:
    """A client with the settings that the promises need; `timeout` (seconds) bounds every operation.

    Nothing is connected before it is needed; the first operation looks whether the
    server will do and makes the indexes. Raises StoreUnsupported for a URI that is
    wrong; whatever uses the server raises StoreUnavailable, and StoreUnsupported for
    one that is not a member of a replica set.
    """

    def __init__(self, uri: str, *, timeout: float) -> None:
        self.timeout = timeout
        try:
            self.client: MongoClient[Document] = MongoClient(
                uri,
                serverSelectionTimeoutMS=int(timeout * 1000),
                connectTimeoutMS=int(timeout * 1000),
                socketTimeoutMS=int(timeout * 1000),
                tz_aware=True,
                connect=False,
            )
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise StoreUnsupported(f"The URI of the MongoDB store is wrong: {error}.") from error
        name = urlsplit(uri).path.strip("/") or "hermod"
        self.snapshots = self.client[name]  # for sessions that read at one point in time
        self.database = self.snapshots.with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )
        self.clock = ServerClock(self._ask_time)
        self._prepared = False
        self._prepare_once = SharedCall(self._prepare)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Bound what is done inside, and turn pymongo's errors into those of the domain."""
        with vendor_errors(), pymongo.timeout(self.timeout):
            if not self._prepared:
                self._prepare_once()
            yield

    def transaction(self, run: Callable[[ClientSession], T]) -> T:
        """Run a function in a transaction, again if it lost a conflict, within the time there is."""
        with self.bounded(), self.client.start_session() as session:
            return session.with_transaction(
                run,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority", j=True),
            )

    def hello(self) -> Document:
        """Return what the primary says of itself."""
        with self.bounded():
            return self.client.admin.command("hello")

    def _ask_time(self) -> float:
        seconds: float = self.hello()["localTime"].timestamp()
        return seconds

    def _prepare(self) -> None:
        with vendor_errors(), pymongo.timeout(self.timeout):
            if "setName" not in self.client.admin.command("hello"):
                raise StoreUnsupported(
                    "MongoDB has to be a replica set (one member is enough): start mongod with --replSet"
                    " and run rs.initiate()."
                )
            for collection, indexes in INDEXES.items():
                self.database[collection].create_indexes(indexes)
        self._prepared = True
