"""The versions of records and messages that this release can read; docs/explanation/upgrades.md tells when they grow.

Next to each message a store keeps its form, a small number: bit 0 says whether the body is encrypted, the bits above
it are the version of the message, less one. So the form of version 1 is 0 or 1, or a boolean, and costs nothing.
"""

from __future__ import annotations

from queues.errors import StoreUnsupported
from queues.models import Record

#: The newest one of a record.
RECORD_VERSION = 1

#: The newest one of a message.
MESSAGE_VERSION = 1


def readable(record: Record) -> Record:
    """Return a record that was read from a store. Raises StoreUnsupported if it is newer than this release."""
    if record.v > RECORD_VERSION:
        raise StoreUnsupported(
            f"A record of kind {record.kind} has version {record.v}, and this release knows {RECORD_VERSION}."
        )
    return record


def sealed_of(form: int) -> bool:
    """Tell whether a message of this form is encrypted. Raises StoreUnsupported if it is newer than this release."""
    if form >> 1 >= MESSAGE_VERSION:
        raise too_new(form)
    return form & 1 == 1


def too_new(form: int) -> StoreUnsupported:
    """Return the error that says that a message of this form cannot be read."""
    return StoreUnsupported(
        f"A message has version {(form >> 1) + 1}, and this release knows {MESSAGE_VERSION}; nothing was done to it."
    )
