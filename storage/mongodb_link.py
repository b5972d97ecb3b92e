"""The connection to MongoDB: a replica set, majority and journal, every wait bounded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import pymongo
from pymongo import ASCENDING, IndexModel, MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import split_options
from pymongo.write_concern import WriteConcern

from queues.errors import StoreUnavailable, StoreUnsupported
from storage.layouts import make_ready
from storage.mongodb_layout import MongoLayout
from storage.mongodb_turns import MongoTurns
from storage.server_clock import ServerClock
from storage.shared_call import SharedCall

T = TypeVar("T")
Document = dict[str, Any]

_SUSPICIOUS: Final = (
    0.75  # seconds of conflicts after which somebody may have died and left a transaction open
)
_PAUSE: Final = 0.002  # seconds at most before a transaction is tried again
_NAME: Final = "hermod"  # of the application, as the server knows it; the timeout follows (seconds)

#: States of a message.
READY, DELAYED, CLAIMED = 0, 1, 2

#: Indexes of the collection `message`.
BY_EXPIRY: Final = [("pile", ASCENDING), ("ex", ASCENDING)]
BY_DELAY: Final = [("pile", ASCENDING), ("vi", ASCENDING)]
BY_END: Final = [("pile", ASCENDING), ("ex", ASCENDING), ("_id", ASCENDING)]  # of `claim`
BY_CLAIM: Final = [("c", ASCENDING), ("seq", ASCENDING)]

INDEXES: Final[dict[str, list[IndexModel]]] = {
    "queue": [IndexModel([("due", ASCENDING)])],
    "message": [
        IndexModel([("pile", ASCENDING), ("st", ASCENDING), ("seq", ASCENDING)]),
        IndexModel(BY_EXPIRY),
        IndexModel(BY_DELAY, partialFilterExpression={"st": DELAYED}),
        IndexModel(BY_CLAIM, partialFilterExpression={"c": {"$exists": True}}),
    ],
    "claim": [IndexModel(BY_END)],
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
            parts = urlsplit(uri)
            if parts.query:
                split_options(parts.query, warn=False)  # MongoClient would ignore what is wrong with it
            self.client: MongoClient[Document] = MongoClient(
                uri,
                serverSelectionTimeoutMS=int(timeout * 1000),
                connectTimeoutMS=int(timeout * 1000),
                socketTimeoutMS=int(timeout * 1000),
                tz_aware=True,
                connect=False,
                appname=f"{_NAME} {timeout:g}",
            )
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise StoreUnsupported(f"The URI of the MongoDB store is wrong: {error}.") from error
        name = parts.path.strip("/") or "hermod"
        self.snapshots = self.client[name]  # for sessions that read at one point in time
        self.database = self.snapshots.with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )
        self.turns = MongoTurns(f"{','.join(sorted(parts.netloc.rpartition('@')[2].split(',')))}/{name}")
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

    @contextmanager
    def unprepared(self) -> Iterator[None]:
        """Do so for what has to be done before the store can be used."""
        with vendor_errors(), pymongo.timeout(self.timeout):
            yield

    def transaction(self, run: Callable[[ClientSession], T]) -> T:
        """Run a function in a transaction, again if it lost a conflict, within the time there is."""
        look_at = time.monotonic() + min(_SUSPICIOUS, self.timeout / 4)
        with self.bounded(), self.client.start_session() as session:
            while True:
                if time.monotonic() > look_at:
                    self._end_abandoned()
                    look_at = time.monotonic() + _SUSPICIOUS
                try:
                    return _once(session, run)
                except PyMongoError as error:
                    if error.timeout or not error.has_error_label("TransientTransactionError"):
                        raise
                # Whoever was faster is done in a moment; pymongo's own loop would wait ever longer.
                time.sleep(_PAUSE * random.random())  # noqa: S311 - no secret

    def _end_abandoned(self) -> None:
        """End the transactions of Hermod's that nobody will end: of processes that died, of requests given up.

        The server would keep them open for a minute or more, and their queues locked.
        To end one that somebody works on does no harm: it is begun again.
        """
        every = {"allUsers": False, "idleConnections": True, "idleSessions": True}
        with suppress(OperationFailure):  # not every user may ask
            found = list(self.client.admin.aggregate([{"$currentOp": every}]))
            connected = {each.get("connectionId") for each in found if each["type"] == "op"}
            abandoned = [
                {"id": each["lsid"]["id"]}
                for each in found
                if each["type"] == "idleSession" and _is_abandoned(each, connected)
            ]
            if abandoned:
                self.client.admin.command("killSessions", abandoned)

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
            make_ready(MongoLayout(self))
            for collection, indexes in INDEXES.items():
                self.database[collection].create_indexes(indexes)
        self._prepared = True


def _once(session: ClientSession, run: Callable[[ClientSession], T]) -> T:
    """Run a function in a transaction; a commit whose outcome is not known is made again, which changes nothing."""
    with session.start_transaction(
        read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
    ):
        value = run(session)
        while True:
            try:
                session.commit_transaction()
            except PyMongoError as error:
                if error.timeout or not error.has_error_label("UnknownTransactionCommitResult"):
                    raise
            else:
                return value


def _is_abandoned(session: Document, connected: Collection[int | None]) -> bool:
    """Tell whether an idle session has a transaction of Hermod's whose process is gone or has given it up."""
    name, _, timeout = session.get("appName", "").partition(" ")
    if name != _NAME or "transaction" not in session:
        return False
    gone = session.get("connectionId") not in connected
    return gone or session["transaction"]["timeOpenMicros"] > float(timeout) * 1e6
