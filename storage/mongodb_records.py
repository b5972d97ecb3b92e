"""The control plane on MongoDB: the collection `record`, in the database of the store.

record   _id {k: kind, s: scope, n: name}; v, rev, data (JSON text)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from pymongo import ASCENDING

from queues.models import Record
from queues.versions import readable
from storage.mongodb_link import Document, MongoLink


class MongoRecords:
    """The control plane; see `queues.ports.RecordStore`."""

    def __init__(self, link: MongoLink) -> None:
        self._link = link
        self._records = link.database.record

    def insert(self, record: Record) -> bool:
        """Store a record unless its name is taken; see the port."""
        wanted = {"_id": _record_id(record.kind, record.scope, record.name)}
        change = {"$setOnInsert": {**_record_data(record), "rev": record.revision}}
        with self._link.bounded():
            return self._records.update_one(wanted, change, upsert=True).matched_count == 0

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record; see the port."""
        with self._link.bounded():
            found = self._records.find_one({"_id": _record_id(kind, scope, name)})
        return None if found is None else _record(found)

    def replace(self, record: Record) -> bool:
        """Store new data if nobody else has; see the port."""
        wanted = {"_id": _record_id(record.kind, record.scope, record.name), "rev": record.revision}
        change = {"$set": _record_data(record), "$inc": {"rev": 1}}
        with self._link.bounded():
            return self._records.update_one(wanted, change).matched_count == 1

    def remove(self, kind: str, scope: str, name: str, *, revision: int | None = None) -> bool:
        """Remove a record; see the port."""
        wanted: Document = {"_id": _record_id(kind, scope, name)}
        if revision is not None:
            wanted["rev"] = revision
        with self._link.bounded():
            return self._records.delete_one(wanted).deleted_count == 1

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return a page of records by name; see the port."""
        wanted = {"_id.k": kind, "_id.s": scope, "_id.n": {"$gt": after}}
        with self._link.bounded():
            found = self._records.find(wanted).sort("_id.n", ASCENDING).limit(limit)
            return [_record(each) for each in found]

    def count(self, kind: str, scope: str) -> int:
        """Count records; see the port."""
        with self._link.bounded():
            return self._records.count_documents({"_id.k": kind, "_id.s": scope})


def _record_id(kind: str, scope: str, name: str) -> Document:
    return {"k": kind, "s": scope, "n": name}


def _record_data(record: Record) -> Document:
    # As text, since a document of MongoDB's would not keep every key and number.
    return {"v": record.v, "data": msgspec.json.encode(record.data).decode()}


def _record(found: Document) -> Record:
    id_ = found["_id"]
    record = Record(
        kind=id_["k"],
        scope=id_["s"],
        name=id_["n"],
        v=found["v"],
        revision=found["rev"],
        data=msgspec.json.decode(found["data"]),
    )
    return readable(record)
