"""How a process learns what is new in the queues of a SQLite file.

A queue counts its news in its header. Whoever has committed some says so here, and those who watch the queue are
woken at once. What other processes commit is found by a thread, which is there while something is watched: again
and again it asks whether the file has changed, which is answered from shared memory without a look at the disk,
and only if it has, one statement reads the counts of the queues that are watched.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from threading import Event, Lock, Thread, current_thread
from typing import Final

from queues.models import Address
from storage.sqlite_file import SqliteFile
from storage.sqlite_queue import Mark
from storage.statements import load
from storage.wakeups import Wake, Wakeups

LINGER: Final = 10.0  # seconds that the thread goes on when nothing is watched any more

_NEWS: Final = load("sqlite/statements.sql")["news"]
_NONE: Final = (0, 0)  # the mark of a queue that is not there

_LIVELY: Final = 0.008  # seconds between two looks while the file changes
_QUIET: Final = 0.02  # such seconds when it has not changed for a while
_LULL: Final = 1.0  # seconds that are a while
_SHARE: Final = 0.2  # of the time goes into reading the counts, at most, when many queues are watched
_RAREST: Final = 0.25  # seconds between two looks even then
_SHORTEST, _LONGEST = 0.05, 3.0  # seconds until the file is opened again, at first and in the end
_PARTING: Final = 1.0  # seconds that closing waits for the thread


class SqliteListener:
    """Keeps the watches on one file, and the thread that looks for what other processes do."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._wakeups = Wakeups(self._begun, self._ended)
        self._closed = Event()
        self._lock = Lock()  # guards what follows; nobody is woken while it is held
        self._thread: Thread | None = None
        self._needed = 0.0  # when something was watched last, by the monotonic clock
        self._marks: dict[Address, Mark | None] = {}  # how far those who watch were told; None: not in force
        self._fresh: set[Address] = set()  # those of them that the thread has not looked at yet

    def watch(self, address: Address, wake: Wake) -> Callable[[], None]:
        """Call `wake` whenever there may be something new in the queue; return what ends that."""
        end = self._wakeups.watch(address, wake)
        if self._marks.get(address) is not None:  # else the thread will wake it
            wake()
        return end

    def tell(self, news: Mapping[Address, Mark]) -> None:
        """Wake those who watch the queues that this process has committed news to, unless the thread was faster."""
        for address, mark in news.items():
            if address in self._marks and self._is_news(address, mark):
                self._wakeups.wake(address)

    def close(self) -> None:
        """End the thread; whoever watches is told nothing any more."""
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(_PARTING)

    def _begun(self, address: Address) -> None:
        with self._lock:
            self._marks[address] = None
            self._fresh.add(address)
            self._needed = time.monotonic()
            if not (self._thread and self._thread.is_alive()) and not self._closed.is_set():
                with suppress(RuntimeError):  # no thread is to be had: the next watch tries again
                    thread = Thread(target=self._run, name="sqlite-listener", daemon=True)
                    thread.start()
                    self._thread = thread

    def _ended(self, address: Address) -> None:
        with self._lock:
            del self._marks[address]
            self._fresh.discard(address)
            self._needed = time.monotonic()

    def _is_news(self, address: Address, mark: Mark) -> bool:
        """Tell whether a mark of a watched queue is a new one, and remember it."""
        with self._lock:
            known = self._marks.get(address, mark)
            if known is not None and mark <= known:
                return False
            self._marks[address] = mark
            return True

    def _run(self) -> None:
        """Follow the file until it is closed, or nothing has been watched for a while."""
        pause = 0.0
        while self._goes_on():
            begun = time.monotonic()
            try:
                with closing(self._file.observe()) as connection:
                    self._follow(connection)
            except (sqlite3.Error, OSError):  # damaged, missing or locked, and whole again some time
                self._lose()
                lived = time.monotonic() - begun
                pause = _SHORTEST if lived > _LONGEST else min(_LONGEST, max(_SHORTEST, 2 * pause))
                self._closed.wait(pause)
            else:
                return  # another thread may have begun

    def _goes_on(self) -> bool:
        """Tell whether the thread is needed; if not it is about to end, and the next watch starts another."""
        with self._lock:
            idle = not self._marks and time.monotonic() - self._needed > LINGER
            if idle or self._closed.is_set():
                self._thread = None
            return self._thread is not None

    def _lose(self) -> None:
        """Take no watch for one in force: whoever has one is woken as soon as the file can be read."""
        with self._lock:
            self._fresh = set(self._marks)
            self._marks = dict.fromkeys(self._marks)

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Look again and again for what is new, until the thread is not needed any more."""
        version, changed = None, 0.0
        while self._goes_on():
            begun = time.monotonic()
            (found,) = connection.execute("PRAGMA data_version").fetchone()
            if found != version:
                version, changed = found, begun
                self._look(connection, changed=True)
            elif self._fresh:
                self._look(connection, changed=False)
            ended = time.monotonic()
            interval = _LIVELY if ended - changed < _LULL else _QUIET
            time.sleep(min(_RAREST, max(interval, (ended - begun) / _SHARE)))

    def _look(self, connection: sqlite3.Connection, *, changed: bool) -> None:
        """Wake those who watch only since now and, if the file has changed, those who watch what has news."""
        with self._lock:
            marks = dict(self._marks) if changed else dict.fromkeys(self._fresh)
            self._fresh.clear()
        for address, mark in _news(connection, marks).items():
            if self._is_news(address, mark):
                self._wakeups.wake(address)


def _news(connection: sqlite3.Connection, marks: Mapping[Address, Mark | None]) -> Mapping[Address, Mark]:
    """Return the marks of those queues that have come further, and of those whose mark was not known."""
    found = {address: _NONE for address, mark in marks.items() if mark is None}
    if marks:
        addresses = list(marks)
        known = [(address.project, address.queue, *(mark or _NONE)) for address, mark in marks.items()]
        for index, n, news in connection.execute(_NEWS, (json.dumps(known),)):
            found[addresses[index]] = (n, news)
    return found
