"""What several services do with records."""

from __future__ import annotations

import secrets
from dataclasses import replace

from queues.models import Record
from queues.ports import RecordStore

_BITS = 48  # of a revision to begin with; numbers of 63 bits leave room for as many changes as anybody makes


def put(records: RecordStore, record: Record) -> Record:
    """Store a record whether or not there is one of its name, and return it with its revision."""
    record = begin(record)
    while not records.insert(record):
        found = records.fetch(record.kind, record.scope, record.name)
        if found is not None and records.replace(replace(record, revision=found.revision)):
            return replace(record, revision=found.revision + 1)
    return record


def begin(record: Record) -> Record:
    """Return a record with a revision to begin with.

    It is drawn, so that nobody who has read an earlier record of this name takes this one
    for it, and removes or replaces it.
    """
    return replace(record, revision=secrets.randbits(_BITS))
