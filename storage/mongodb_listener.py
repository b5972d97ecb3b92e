"""What is new in the queues of MongoDB: one change stream of their headers, while any of them is watched.

A step that brings something new changes `news` in the header, in the update that it makes anyway. The server
sends those changes and no others: claims and deletes disturb nobody.

The stream has a place in the history of the store, and as long as it is known nothing is missed. When a connection
breaks, the stream goes on from there; when the history does not reach back as far any more, everybody is woken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Lock, Thread
from typing import Any, Final

import pymongo
from pymongo.client_session import ClientSession
from pymongo.errors import ConnectionFailure, CursorNotFound, PyMongoError
from pymongo.read_concern import ReadConcern

from queues.models import Address
from storage.mongodb_link import Document, MongoLink
from storage.wakeups import Wakeups

_NEWS: Final[list[Document]] = [
    {"$match": {"updateDescription.updatedFields.news": {"$exists": True}}},
    {"$project": {"documentKey": 1}},
]
_HELD: Final = 5.0  # seconds that the server keeps a request for what is new, at most
_IDLE: Final = 10.0  # seconds without a watch after which the stream is closed
_BREATH: Final = 0.002  # seconds between news and the next request, so that in busy times more comes at once
_LONG_BREATH: Final = 0.01  # the same where nobody was woken, for then it is others who are busy
_PAUSE: Final = 0.05  # seconds before a stream that broke is opened again; twice as long each time that fails
_LONGEST: Final = 3.0  # such seconds at most
_END: Final = 0.5  # seconds that the end of a request which the server keeps may take


class MongoListener:
    """Wakes those who watch the queues of a store, from a thread of its own."""

    def __init__(self, link: MongoLink) -> None:
        self._link = link
        self._wakeups = Wakeups(self._begun, self._ended)
        self._watched: set[Address] = set()
        self._since = 0.0  # since when there are none, by the monotonic clock
        self._pause = _PAUSE
        self._closed = Event()
        self._lock = Lock()  # guards what follows
        self._thread: Thread | None = None
        self._known = False  # whether all that is new from now on will be told
        self._place: Mapping[str, Any] | None = None  # in the history; the thread alone uses it
        self._session: Mapping[str, Any] | None = None  # id of the one in which the stream is open

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when something is new; see the port."""
        end = self._wakeups.watch(address, wake)
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                thread = Thread(target=self._run, name="mongodb-listener", daemon=True)
                with suppress(RuntimeError):  # there are too many; the next watch tries again
                    thread.start()
                    self._thread = thread
            in_force = self._known
        if in_force:
            wake()
        return end

    def close(self) -> None:
        """Let the thread end; whoever watches is woken, for nothing will be told any more."""
        self._closed.set()
        self._wakeups.wake_all()
        with self._lock:
            session = self._session
        if session is not None:
            with suppress(PyMongoError), pymongo.timeout(_END):
                self._link.client.admin.command("killSessions", [session])
                # A request that the server keeps does not notice before something is written, which is
                # what a linearizable read does.
                headers = self._link.snapshots.get_collection(
                    "queue", read_concern=ReadConcern("linearizable")
                )
                headers.find_one({"_id": None})

    def _begun(self, address: Address) -> None:
        self._watched.add(address)

    def _ended(self, address: Address) -> None:
        self._watched.discard(address)
        self._since = time.monotonic()

    def _wanted(self) -> bool:
        idle = not self._watched and time.monotonic() - self._since > _IDLE
        return not idle and not self._closed.is_set()

    def _goes_on(self) -> bool:
        """Tell whether the stream is wanted; if not, the thread is about to end, and the next watch starts another."""
        with self._lock:
            if not self._wanted():
                self._thread = None
                self._lose()
            return self._thread is not None

    def _lose(self) -> None:
        self._known = False
        self._place = None

    def _run(self) -> None:
        while self._goes_on():
            try:
                with self._link.client.start_session(causal_consistency=False) as session:
                    self._follow(session)
            except PyMongoError as error:
                if not _may_go_on(error):
                    self._lose()
                self._closed.wait(self._pause)
                self._pause = min(2 * self._pause, _LONGEST)

    def _follow(self, session: ClientSession) -> None:
        """Open the stream and tell what it brings, until nobody wants it. Raises when it breaks."""
        pipeline = [{"$changeStream": {"resumeAfter": self._place} if self._place else {}}, *_NEWS]
        held = int(1000 * min(_HELD, self._link.timeout / 2))
        ask = partial(self._link.database.command, session=session)
        with pymongo.timeout(self._link.timeout):
            stream = ask("aggregate", "queue", pipeline=pipeline, cursor={})["cursor"]
        with self._in_force(session):
            news = stream["firstBatch"]
            while stream["id"]:
                self._place = stream["postBatchResumeToken"]
                woken = self._tell(news)
                if not self._wanted():
                    ask("killCursors", "queue", cursors=[stream["id"]])
                    return
                if news:
                    self._closed.wait(_BREATH if woken else _LONG_BREATH)
                stream = ask("getMore", stream["id"], collection="queue", maxTimeMS=held)["cursor"]
                news, self._pause = stream["nextBatch"], _PAUSE
        self._lose()  # the headers were dropped, all of them

    def _tell(self, news: Iterable[Document]) -> bool:
        """Wake who watches the queues of which there is news; tell whether anybody does."""
        keys = (each["documentKey"]["_id"] for each in news)
        addresses = dict.fromkeys(Address(project=key["p"], queue=key["q"]) for key in keys)
        watched = [address for address in addresses if address in self._watched]
        for address in watched:
            self._wakeups.wake(address)
        return bool(watched)

    @contextmanager
    def _in_force(self, session: ClientSession) -> Iterator[None]:
        """Let the watches be in force, and `close` end what the server keeps."""
        with self._lock:
            self._session = session.session_id
            fresh, self._known = not self._known, True
        if fresh:
            self._wakeups.wake_all()
        try:
            yield
        finally:
            with self._lock:
                self._session = None


def _may_go_on(error: PyMongoError) -> bool:
    """Tell whether a stream that broke may go on from its place; the server says so."""
    gone = isinstance(error, (ConnectionFailure, CursorNotFound))
    return gone or error.has_error_label("ResumableChangeStreamError")
