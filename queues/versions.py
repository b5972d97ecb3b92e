"""The versions of records that this release can read; docs/explanation/upgrades.md tells when they grow."""

from __future__ import annotations

from queues.errors import StoreUnsupported
from queues.models import Record

#: The newest one.
RECORD_VERSION = 1


def readable(record: Record) -> Record:
    """Return a record that was read from a store. Raises StoreUnsupported if it is newer than this release."""
    if record.v > RECORD_VERSION:
        raise StoreUnsupported(
            f"A record of kind {record.kind} has version {record.v}, and this release knows {RECORD_VERSION}."
        )
    return record
