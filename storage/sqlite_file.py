"""One SQLite file: connections, transactions, versions of its tables.

Writers of one process share transactions (`storage.group_commit`), with one sync of
the disk for all. So threads of a process never compete for the file's lock, only
processes do.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from queues.crashes import reach
from queues.errors import HermodError, StoreDamaged, StoreUnavailable, StoreUnsupported
from storage.group_commit import GroupCommit, Job
from storage.sqlite_damage import MIB, OPEN, damaged, examine, refuse_half
from storage.sqlite_layout import APPLICATION_ID, upgrade

T = TypeVar("T")

_FIRST_LOOK = 0.00003  # seconds until the file's lock is looked for again
_LAST_LOOK = 0.0005  # seconds between two looks at most
_GLANCE = 0.5  # seconds that somebody who looks on waits for it

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


QUICK_CHECK = 64  # MiB up to which every page is read when a file is opened


@contextmanager
def vendor_errors(path: Path) -> Iterator[None]:
    """Turn what sqlite3 raises about the file into errors of the domain; the rest is a defect."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            raise damaged(path, str(error)) from error
        raise StoreUnavailable(f"SQLite: {error}.") from error


class SqliteFile:
    """An opened file, shared by all threads of a process.

    `timeout` (seconds) bounds each wait: for the turn within the process, and
    for the file's lock. `quick_check` (MiB) is the size up to which every page is read now; see `storage.sqlite_damage`.
    """

    def __init__(self, path: Path, *, timeout: float, quick_check: int = QUICK_CHECK) -> None:
        self.path = path
        self._timeout = timeout
        self._writers: GroupCommit[sqlite3.Connection] = GroupCommit(self._commit, timeout=timeout)
        self._mutex = threading.Lock()  # guards what follows
        self._idle_readers: list[sqlite3.Connection] = []
        with vendor_errors(self.path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(f"Cannot make the folder {path.parent}: {error.strerror}.") from error
            with OPEN.lock:
                examine(path, limit=quick_check * MIB)
                self._mode = "rwc"
                self._writer = self._connect()
                self._mode = "rw"  # a file that vanishes later is not made anew
                self._identity: tuple[int, int] | None = OPEN.add(path)
            self._writer_is_good = True  # a new one is opened otherwise
            try:
                self._prepare()
                self._writer.execute("PRAGMA busy_timeout = 0")  # `_begin` waits in its own way
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close every connection; nothing may be under way."""
        with self._mutex:
            readers, self._idle_readers = self._idle_readers, []
        for connection in (*readers, self._writer):
            connection.close()
        if self._identity is not None:
            OPEN.remove(self._identity)
            self._identity = None

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for reading, all reads at one point in time."""
        with self._mutex:
            connection = self._idle_readers.pop() if self._idle_readers else None
        with vendor_errors(self.path):
            if connection is None:
                connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            try:
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    connection.execute("COMMIT")
            except sqlite3.DatabaseError:
                connection.close()  # it may remember damage when the file is whole again
                raise
            except BaseException:
                self._take_back(connection)
                raise
        self._take_back(connection)

    def _take_back(self, connection: sqlite3.Connection) -> None:
        with self._mutex:
            self._idle_readers.append(connection)

    def observe(self) -> sqlite3.Connection:
        """Open a connection that looks on: it makes no file, changes none, and hardly waits. Raises sqlite3.Error."""
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_GLANCE, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run a step inside a write transaction and return its value once it is durable.

        A HermodError of the step undoes the step and is raised here.
        """
        return self._writers.run(step)

    def _commit(self, take: Callable[[], Sequence[Job[sqlite3.Connection, object]]]) -> None:
        try:
            with vendor_errors(self.path):
                self._transact(take)
        except StoreDamaged:
            self._writer.close()  # it would remember the damage when the file is whole again
            self._writer_is_good = False
            raise
        except BaseException:
            if self._writer_is_good and self._writer.in_transaction:
                self._writer.rollback()
            raise

    def _transact(self, take: Callable[[], Sequence[Job[sqlite3.Connection, object]]]) -> None:
        if not self._writer_is_good:
            self._writer = self._open_writer()
            self._writer_is_good = True
        self._begin()
        jobs = take()
        if not self._run(jobs):
            self._writer.rollback()
            self._begin()
            self._run_apart(jobs)
        reach("sqlite.before-commit")
        self._writer.execute("COMMIT")
        reach("sqlite.after-commit")

    def _run(self, jobs: Sequence[Job[sqlite3.Connection, object]]) -> bool:
        """Run the steps of a group; false as soon as one has failed that had changed something.

        Mostly a step finds out first whether it can be done, and needs nothing by which it could be undone.
        """
        for job in jobs:
            if not job.start():
                continue
            before = self._writer.total_changes
            try:
                job.value = job.step(self._writer)
            except HermodError as error:
                job.error = error
                if self._writer.total_changes != before:
                    return False
        return True

    def _run_apart(self, jobs: Sequence[Job[sqlite3.Connection, object]]) -> None:
        """Run the steps of a group anew, and undo those that fail."""
        execute = self._writer.execute
        for job in jobs:
            if not job.start():
                continue
            job.error = None
            execute("SAVEPOINT job")
            try:
                job.value = job.step(self._writer)
            except HermodError as error:
                job.error = error
                execute("ROLLBACK TO job")
            execute("RELEASE job")

    def _open_writer(self) -> sqlite3.Connection:
        writer = self._connect()
        writer.execute("PRAGMA busy_timeout = 0")
        return writer

    def _begin(self) -> None:
        """Take the file's lock.

        SQLite's own waiting looks for it ever more rarely, so that a process could starve beside busy ones.
        """
        deadline = time.monotonic() + self._timeout
        pause = _FIRST_LOOK
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 1.3, _LAST_LOOK)
            else:
                return

    def _connect(self) -> sqlite3.Connection:
        refuse_half(self.path)
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={self._mode}",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cell_size_check = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        self._writer.execute("BEGIN")  # so that both are read at one point in time
        mark, tables = self._pragma("application_id"), self._pragma("schema_version")
        self._writer.execute("COMMIT")
        if mark != APPLICATION_ID and (mark or tables):
            raise StoreUnsupported(f"{self.path} is a SQLite file of some other program.")
        self._use_wal()
        upgrade(self._writer)

    def _use_wal(self) -> None:
        # Changing the mode does not wait for a lock as everything else does.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                mode = self._pragma("journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                if mode != "wal":
                    raise StoreUnsupported(
                        f"{self.path} cannot use a write-ahead log; is it on a network disk?"
                    )
                return

    def _pragma(self, text: str) -> Any:  # noqa: ANN401 - SQLite decides
        return self._writer.execute(f"PRAGMA {text}").fetchone()[0]
