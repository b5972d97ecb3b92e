"""Copies of a SQLite file: made while it is used, and put in its place while it is not.

A copy is one point in time. It is made under another name, read whole, and only then gets its own; so a file that has
the name of a copy is one. To put a copy in the place of a file, nobody may have the file open, and what it takes the
place of is set aside, never removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from queues.errors import HermodError, StoreDamaged, StoreUnavailable
from storage.sqlite_damage import OPEN, check_bodies, check_pages, look, missing_tables, restoring
from storage.sqlite_file import vendor_errors
from storage.sqlite_layout import APPLICATION_ID, known_version, scripts

_STEP = 1024  # pages that are copied between two calls of whoever looks on

_INSTRUCTIONS = 5_000_000  # of SQLite's, between two such calls while a copy is read

# The bytes of a file by which SQLite locks it: whoever has it open shares them.
_SHARED, _SHARED_LENGTH = 0x40000002, 510


class BackupRefused(HermodError):
    """This backup cannot be made or restored."""

    code = "backup-refused"


class StoreInUse(HermodError):
    """The store is in use."""

    code = "store-in-use"


def back_up(path: Path, target: Path, *, tick: Callable[[], None] = lambda: None) -> None:
    """Copy a file as it is now to a new one, while others read and write it; `tick` is called again and again.

    Raises BackupRefused if the target exists or cannot be made, StoreDamaged if the copy is not whole, and
    StoreUnavailable.
    """
    if target.exists():
        raise BackupRefused(f"{target} exists, and is not overwritten.")
    partial = target.with_name(f"{target.name}.partial")
    with _disk(target), _new_file(partial), vendor_errors(path):
        with closing(look(path)) as source, closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # this is the point in time
            source.backup(copy, pages=_STEP, progress=lambda *_: tick(), sleep=0)
        verify(partial, tick=tick)
        _sync(partial)
        os.link(partial, target)  # which fails if somebody else has made it meanwhile
        _sync(target.parent)


def restore(copy: Path, path: Path, *, replace: bool = False) -> Path | None:
    """Put a copy in the place of a file; return where that file is now, None if there was none.

    Raises BackupRefused for a copy that is none, or if the file exists and is not to be replaced; StoreInUse while a
    process has it open; StoreDamaged for a copy that is not whole; StoreUnavailable.
    """
    new = restoring(path)
    with _disk(path):
        verify(copy)
        path.parent.mkdir(parents=True, exist_ok=True)
        occupied = path.exists() or _has_log(path)
        if occupied and not replace:
            raise BackupRefused(f"{path} exists, and is replaced only if you say so.")
        with _alone(path):
            new.unlink(missing_ok=True)  # of a restore that was interrupted
            with _private(new) as file, copy.open("rb") as source:
                shutil.copyfileobj(source, file, 2**20)
            verify(new)
            _sync(new)
            aside = _set_aside(path)
            new.rename(path)
            _sync(path.parent)
    return aside if occupied else None


def verify(copy: Path, *, tick: Callable[[], None] = lambda: None) -> None:
    """Read a copy whole. Raises StoreDamaged if anything is wrong, BackupRefused if it is no copy of a store."""
    if not copy.is_file():
        raise BackupRefused(f"There is no file {copy}.")
    if copy.stat().st_size == 0:
        raise BackupRefused(f"{copy} is empty.")
    if _has_log(copy):
        raise BackupRefused(f"{copy} is no copy, but a file in use: {_log_of(copy).name} belongs to it.")
    with vendor_errors(copy), closing(look(copy, immutable=True)) as connection:
        connection.set_progress_handler(tick, _INSTRUCTIONS)
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        if mark != APPLICATION_ID:
            raise BackupRefused(f"{copy} is no store of Hermod's.")
        known_version(connection, len(scripts()))
        problems = [
            *missing_tables(connection),
            *check_pages(connection, thorough=True),
            *check_bodies(connection),
        ]
    if problems:
        raise StoreDamaged(f"{copy} is damaged: {'; '.join(problems)}.")


def verify_in_use(path: Path) -> Sequence[str]:
    """Read a file whole while others use it; return what is wrong. Raises StoreDamaged, StoreUnavailable."""
    with vendor_errors(path), closing(look(path)) as connection:
        connection.execute("BEGIN")
        return [*check_pages(connection, thorough=True), *check_bodies(connection)]


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _has_log(path: Path) -> bool:
    return _log_of(path).exists() and _log_of(path).stat().st_size > 0


def _set_aside(path: Path) -> Path:
    """Give a file and its log another name: first the file, for a file without its log would be taken for a whole one."""
    moment = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.replaced-{moment}")
    if path.exists():
        path.rename(aside)
    if _log_of(path).exists():
        _log_of(path).rename(_log_of(aside))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # which holds no data
    return aside


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep everybody else from opening a file, if it is there. Raises StoreInUse if somebody has."""
    if not path.exists():
        yield
        return
    with OPEN.lock:
        if path in OPEN:
            raise StoreInUse(f"{path} is open in this process.")
        with path.open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_LENGTH, _SHARED)
            except OSError as error:
                raise StoreInUse(
                    f"{path} is in use; stop every process that has it open, or use another file."
                ) from error
            yield


@contextmanager
def _new_file(path: Path) -> Iterator[None]:
    """Make a file that only this user can read, and remove it in the end."""
    path.unlink(missing_ok=True)  # of a backup that was interrupted
    _private(path).close()
    try:
        yield
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                path.with_name(f"{path.name}{suffix}").unlink()


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    """Turn what the disk does not do into errors of the domain."""
    try:
        yield
    except FileExistsError as error:
        raise BackupRefused(f"{error.filename2 or error.filename} exists, and is not overwritten.") from error
    except OSError as error:
        raise StoreUnavailable(f"Cannot write {target}: {error.strerror}.") from error
