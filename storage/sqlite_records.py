"""The control plane on SQLite: the table `record`, in the file of the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from queues.errors import StoreDamaged
from queues.models import Record
from queues.versions import readable
from storage.sqlite_file import SqliteFile
from storage.statements import load

_SQL: Final = load("sqlite/statements.sql")


class SqliteRecords:
    """The control plane; see `queues.ports.RecordStore`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def insert(self, record: Record) -> bool:
        """Store a record unless its name is taken; see the port."""
        key, data = (record.kind, record.scope, record.name), msgspec.json.encode(record.data)
        values = (*key, record.v, record.revision, data)
        return self._file.write(lambda c: c.execute(_SQL["record_insert"], values).rowcount == 1)

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record; see the port."""
        with self._file.snapshot() as connection:
            row = connection.execute(_SQL["record_fetch"], (kind, scope, name)).fetchone()
        return row and _record(kind, scope, name, *row)

    def replace(self, record: Record) -> bool:
        """Store new data if nobody else has; see the port."""
        values = (
            record.v,
            msgspec.json.encode(record.data),
            record.kind,
            record.scope,
            record.name,
            record.revision,
        )
        return self._file.write(lambda c: c.execute(_SQL["record_replace"], values).rowcount == 1)

    def remove(self, kind: str, scope: str, name: str, *, revision: int | None = None) -> bool:
        """Remove a record; see the port."""
        wanted = {"kind": kind, "scope": scope, "name": name, "revision": revision}
        return self._file.write(lambda c: c.execute(_SQL["record_remove"], wanted).rowcount == 1)

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return a page of records by name; see the port."""
        with self._file.snapshot() as connection:
            rows = connection.execute(_SQL["record_scan"], (kind, scope, after, limit)).fetchall()
        return [_record(kind, scope, *row) for row in rows]

    def count(self, kind: str, scope: str) -> int:
        """Count records; see the port."""
        with self._file.snapshot() as connection:
            (count,) = connection.execute(_SQL["record_count"], (kind, scope)).fetchone()
        return int(count)


def _record(kind: str, scope: str, name: str, v: int, revision: int, data: bytes) -> Record:
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise StoreDamaged(f"The SQLite file is damaged: a record of kind {kind} cannot be read.") from error
    return readable(Record(kind=kind, scope=scope, name=name, v=v, revision=revision, data=found))
