"""What several services do with records."""

from __future__ import annotations

from dataclasses import replace

from queues.models import Record
from queues.ports import RecordStore


def put(records: RecordStore, record: Record) -> Record:
    """Store a record whether or not there is one of its name, and return it with its revision.

    The revision is another one each time, so nobody who has read what was there can
    remove or replace what is there now.
    """
    while not records.insert(record):
        found = records.fetch(record.kind, record.scope, record.name)
        if found is not None and records.replace(replace(record, revision=found.revision)):
            return replace(record, revision=found.revision + 1)
    return record
