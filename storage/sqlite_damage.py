"""Looks whether a SQLite file is whole, before anything is done to it.

Nothing here changes the file, its write-ahead log included. What is always looked at is cheap: the header, the
size, whether a page is missing, the log, the tables. Reading every page takes as long as the disk does, so that is
for files up to a certain size, and for whoever asks for it.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias
from zlib import crc32

from queues.errors import StoreDamaged
from storage.sqlite_layout import scripts
from storage.sqlite_log import Log, read_log

MIB: Final = 2**20

_MAGIC: Final = b"SQLite format 3\0"
_HEAD: Final = 100  # bytes of the header of a file
_COUNTS: Final = struct.Struct(
    ">24x2I60xI"
)  # changes, pages, and for which change that is the number of pages
_LOOKS: Final = 5  # at files that others write to, of which two in a row have to agree
_MOST: Final = 5  # things that are wrong, and named

_Identity: TypeAlias = tuple[int, int]


def damaged(path: Path, what: str) -> StoreDamaged:
    """Return the error that says which file, what is wrong with it, and what to do."""
    return StoreDamaged(
        f"The SQLite file {path} is damaged: {what.rstrip('.')}. Nothing was changed. Put a backup in its place with"
        " hermod restore, or save what can be read with .recover of the sqlite3 shell; see"
        " docs/how-to/back-up-and-restore.md."
    )


class OpenFiles:
    """The files that this process has open.

    Opening and closing a file by hand would take away the locks that SQLite has on it in the same process. So whoever
    does that, or has SQLite open a file, does it with the lock.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._open: Counter[_Identity] = Counter()

    def __contains__(self, path: Path) -> bool:
        return _identity(path) in self._open

    def add(self, path: Path) -> _Identity:
        """Note that a file is open from now on, with the lock; return what stands for it."""
        identity = _identity(path)
        self._open[identity] += 1
        return identity

    def remove(self, identity: _Identity) -> None:
        """Note that a file was closed."""
        with self.lock:
            self._open[identity] -= 1
            if not self._open[identity]:
                del self._open[identity]


OPEN: Final = OpenFiles()


def _identity(path: Path) -> _Identity:
    found = path.stat()
    return found.st_dev, found.st_ino


def refuse_half(path: Path) -> None:
    """Raise StoreDamaged where SQLite would begin an empty file in place of one that is gone, and drop its log."""
    size = path.stat().st_size if path.exists() else -1
    log = path.with_name(f"{path.name}-wal")
    if size <= 0 and log.exists() and log.stat().st_size > 0:
        raise damaged(path, f"it is {'empty' if size == 0 else 'gone'}, and its write-ahead log is there")
    if size < 0 and restoring(path).exists():
        raise damaged(path, f"a restore was interrupted, which left {restoring(path).name}; repeat it")


def restoring(path: Path) -> Path:
    """Return where the copy stands that is about to take the place of a file."""
    return path.with_name(f"{path.name}.restoring")


def examine(path: Path, *, limit: int) -> None:
    """Raise StoreDamaged unless a file is whole, as far as that can be told; to be called with the lock of OPEN.

    `limit` (bytes) is the size up to which every page is read, and the write-ahead log's up to which that is. Raises
    sqlite3.Error for a file that cannot be read now.
    """
    refuse_half(path)
    if not path.exists() or not path.stat().st_size:
        return  # a new one
    if path not in OPEN and (what := _look_at_files(path, limit)):
        raise damaged(path, what)
    with closing(look(path)) as connection:
        connection.execute("BEGIN")
        problems = missing_tables(connection)
        if not problems and path.stat().st_size <= limit:
            problems = check_pages(connection)
    if problems:
        raise damaged(path, "; ".join(problems))


def look(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a file so that nothing is written to it, not even when it is closed; `immutable` if nobody else has it."""
    mode = "ro&immutable=1" if immutable else "ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)


def check_pages(connection: sqlite3.Connection, *, thorough: bool = False) -> Sequence[str]:
    """Read every page, and with `thorough` compare indexes with their tables; return what is wrong."""
    check = "integrity_check" if thorough else "quick_check"
    try:
        found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}({_MOST})")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else [" ".join(line.split()) for line in found]


def check_bodies(connection: sqlite3.Connection) -> Sequence[str]:
    """Compare every body with its checksum; return what is wrong."""
    try:
        rows = connection.execute("SELECT n, body, checksum FROM payload")
        wrong = sum(crc32(body) != checksum for _, body, checksum in rows)
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [f"{wrong} bodies of messages are not what was stored"] if wrong else []


def missing_tables(connection: sqlite3.Connection) -> Sequence[str]:
    """Return which tables, columns and indexes of a file are not there; nothing for an empty or foreign one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    found = set(_schema(connection))
    if not version:
        return []
    wanted = _wanted(min(version, len(scripts())))
    if version > len(scripts()):  # by what it has still to have, a newer release decides
        wanted = frozenset()
    return [f"{kind} {name} is missing" for kind, name in sorted(wanted - found)[:_MOST]]


@cache
def _wanted(version: int) -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for script in scripts()[:version]:
            connection.executescript(script.sql)
        return frozenset(_schema(connection))


def _schema(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    yield from connection.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'index')")
    yield from connection.execute(
        "SELECT 'column', m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c"
        " WHERE m.type = 'table'"
    )


def _look_at_files(path: Path, limit: int) -> str | None:
    """Look at a file and its log again and again, for others may write to them, until two looks agree."""
    before: tuple[object, str | None] = (None, None)
    for _ in range(_LOOKS):
        found = _look_once(path, limit)
        if found[1] is None or found == before:
            return found[1]
        before = found
    return None


def _look_once(path: Path, limit: int) -> tuple[object, str | None]:
    """Return what tells one use of the log from the next, and what is wrong."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:16] != _MAGIC:
        return "", "it does not begin as a SQLite file does (file is not a database)"
    if len(head) < _HEAD:
        return "", f"it ends after {len(head)} bytes, in the middle of its header"
    (raw,) = struct.unpack_from(">H", head, 16)
    page_size = 65536 if raw == 1 else raw
    if page_size < 512 or page_size & (page_size - 1):
        return "", f"its header names a page size of {page_size}"
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and wal.stat().st_size > max(limit, MIB):
        return "", None
    log = read_log(wal, page_size=page_size)
    return log.salts, _wrong_with(path, log, head, page_size)


def _wrong_with(path: Path, log: Log, head: bytes, page_size: int) -> str | None:
    if log.lost:
        return (
            f"frame {log.whole + 1} of its write-ahead log is not what was written, and SQLite would drop it and all"
            f" that follows, {log.lost} or more transactions that were acknowledged"
        )
    if log.size and log.page_size != page_size:
        return f"its pages have {page_size} bytes, those of its write-ahead log {log.page_size}"
    changes, pages, valid_for = _COUNTS.unpack(head[: _COUNTS.size])
    there = path.stat().st_size // page_size
    wanted = log.size or (pages if changes == valid_for else 0)
    missing = [page for page in range(there + 1, wanted + 1) if page not in log.pages]
    if missing:
        return f"{len(missing)} of its {wanted} pages are missing at its end"
    return None
