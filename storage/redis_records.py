"""The control plane on Redis.

Records of one kind and scope are a hash of values by name, and a sorted set of the
names. Both carry a hash tag of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgpack
import msgspec

from queues.models import Record
from queues.versions import readable
from storage.redis_link import RedisLink


class RedisRecords:
    """The control plane; see `queues.ports.RecordStore`."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def insert(self, record: Record) -> bool:
        """Store a record unless its name is taken; see the port."""
        key = self._key(record.kind, record.scope)
        value = _pack_record(record, revision=record.revision)
        return bool(self._link.run("record_insert", key, record.name, value)[0] == b"ok")

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record; see the port."""
        key = f"{self._key(kind, scope)}:v"
        value = self._link.read(key, "HGET", key, name)
        return None if value is None else _unpack_record(kind, scope, name, value)

    def replace(self, record: Record) -> bool:
        """Store new data if nobody else has; see the port."""
        key = self._key(record.kind, record.scope)
        value = _pack_record(record, revision=record.revision + 1)
        answer = self._link.run("record_replace", key, record.name, record.revision, value)
        return bool(answer[0] == b"ok")

    def remove(self, kind: str, scope: str, name: str, *, revision: int | None = None) -> bool:
        """Remove a record; see the port."""
        wanted = False if revision is None else revision
        return bool(self._link.run("record_remove", self._key(kind, scope), name, wanted)[0] == b"ok")

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return a page of records by name; see the port."""
        answer = self._link.run("record_scan", self._key(kind, scope), after, limit)
        return [_unpack_record(kind, scope, name.decode(), value) for name, value in answer[1]]

    def count(self, kind: str, scope: str) -> int:
        """Count records; see the port."""
        key = f"{self._key(kind, scope)}:v"
        return int(self._link.read(key, "HLEN", key))

    def _key(self, kind: str, scope: str) -> str:
        digest = hashlib.blake2b(f"{kind}\0{scope}".encode(), digest_size=4).hexdigest()
        return f"{self._link.prefix}:{{{digest}}}:{kind}:{scope}"


def _pack_record(record: Record, *, revision: int) -> bytes:
    return bytes(msgpack.packb((revision, record.v, msgspec.json.encode(record.data)), use_bin_type=False))


def _unpack_record(kind: str, scope: str, name: str, value: bytes | str) -> Record:
    revision, v, data = msgpack.unpackb(value, raw=True)
    found = msgspec.json.decode(data)
    return readable(Record(kind=kind, scope=scope, name=name, v=v, revision=revision, data=found))
