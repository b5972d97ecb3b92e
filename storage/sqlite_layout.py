"""The layout of a SQLite file: the scripts in `storage/sql/sqlite`, and which of them were run.

`NNNN_what.sql` expands, `NNNN_what.migrate.sql` migrates, `NNNN_what.contract.sql` contracts. How to add one stands on top of
the first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol, TypeVar

from queues.errors import StoreUnsupported
from queues.models import LayoutStep, StepKind
from storage.layouts import by_themselves

T = TypeVar("T")

#: What marks a file as ours: "Herm" in ASCII.
APPLICATION_ID = 0x4865726D


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A step and how it is made."""

    step: LayoutStep
    sql: str


class Writes(Protocol):
    """A file that can be written to; see `storage.sqlite_file`."""

    def write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Run a step inside a write transaction."""


@cache
def scripts() -> Sequence[Script]:
    """Return the scripts that make the tables, version 1 first."""
    folder = files("storage").joinpath("sql", "sqlite")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name[:4].isdigit())
    return [script(name, folder.joinpath(name).read_text(encoding="utf-8")) for name in found]


def script(name: str, sql: str) -> Script:
    """Return a script by the name of its file and its text."""
    what, _, kind = name.removesuffix(".sql").partition(".")
    step = LayoutStep(number=int(what[:4]), kind=StepKind(kind or "expand"), what=what[5:].replace("_", " "))
    return Script(step=step, sql=sql)


class SqliteLayout:
    """See `storage.layouts.Layered`. The layout is noted in `PRAGMA user_version` and in the table `format`."""

    name = "sqlite"

    def __init__(self, file: Writes, known: Sequence[Script] | None = None) -> None:
        self._file = file
        self._scripts = scripts() if known is None else known
        self.steps = [each.step for each in self._scripts]

    def found(self) -> tuple[int, int]:
        """Return version and oldest reader."""
        return self._file.write(_found)

    def perform(self, step: LayoutStep) -> None:
        """Run a script; what migrates is run again and again, a part in each transaction, until nothing is left."""
        while self._file.write(lambda connection: self._run(connection, step)):
            pass

    def _run(self, connection: sqlite3.Connection, step: LayoutStep) -> bool:
        """Run a script once; return whether it is to be run again."""
        if _found(connection)[0] >= step.number:  # by somebody else
            return False
        before = connection.total_changes
        _execute(connection, self._scripts[step.number - 1].sql)
        if step.kind is StepKind.MIGRATE and connection.total_changes > before:
            return True
        connection.execute(f"PRAGMA user_version = {step.number}")
        return False


def known_version(connection: sqlite3.Connection, known: int) -> int:
    """Return the version of the tables. Raises StoreUnsupported for whoever knows them up to an older one only."""
    found, oldest = _found(connection)
    if found > known and oldest > known:
        raise StoreUnsupported(
            f"The SQLite file has version {found} and needs a release that knows version {oldest};"
            f" this one knows {known}."
        )
    return found


def upgrade(connection: sqlite3.Connection, known: Sequence[Script] | None = None) -> None:
    """Make the steps that nobody notices, in one transaction.

    A file that is newer than this release is used as it is, unless it says that it needs newer readers: then
    StoreUnsupported, and nothing is changed.
    """
    known = scripts() if known is None else known
    last = by_themselves([each.step for each in known])
    if known_version(connection, len(known)) >= last:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = known_version(connection, len(known))  # another process may just have done it
        for each in known[found:last]:
            _execute(connection, each.sql)
            connection.execute(f"PRAGMA user_version = {each.step.number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _found(connection: sqlite3.Connection) -> tuple[int, int]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    oldest = 0
    if version:
        (oldest,) = connection.execute("SELECT oldest_reader FROM format").fetchone()
    return version, oldest


def _execute(connection: sqlite3.Connection, sql: str) -> None:
    # executescript would end the transaction that this is part of.
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            connection.execute(pending)
            pending = ""
