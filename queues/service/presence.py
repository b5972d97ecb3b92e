"""Presence: which processes that serve connections are alive.

A process says so every few seconds, in one record. What belongs to a connection of a process that
has not been heard of for a while is over, though nobody could say so any more.
"""

from __future__ import annotations

from collections.abc import Callable

from queues.models import Record
from queues.ports import RecordStore
from queues.service.records import put

INTERVAL = 10.0  # seconds between two signs of life
LEASE = 30  # seconds for which a process that gave one counts as alive

_KIND = "node"
_SCOPE = ""


class PresenceService:
    """Keeps the signs of life. `clock` gives ms since the epoch."""

    def __init__(self, records: RecordStore, clock: Callable[[], int]) -> None:
        self._records = records
        self._clock = clock
        self._known: dict[str, int] = {}  # until when a process counts as alive (ms), as read last

    def appear(self, node: str) -> bool:
        """Give a sign of life; tells whether the last one was given in time.

        Raises StoreError.
        """
        now = self._clock()
        found = self._records.fetch(_KIND, _SCOPE, node)
        until = now + LEASE * 1000
        put(self._records, Record(kind=_KIND, scope=_SCOPE, name=node, data={"until": until}))
        return found is not None and found.data["until"] > now

    def leave(self, node: str) -> None:
        """Say that a process is about to end.

        Raises StoreError.
        """
        self._records.remove(_KIND, _SCOPE, node)

    def is_here(self, node: str) -> bool:
        """Whether a process counts as alive; one that does not is forgotten.

        Raises StoreError.
        """
        now = self._clock()
        if self._known.get(node, 0) > now:
            return True
        found = self._records.fetch(_KIND, _SCOPE, node)
        until = 0 if found is None else found.data["until"]
        if until > now:
            self._known[node] = until
            return True
        self._known.pop(node, None)
        if found is not None:
            self._records.remove(_KIND, _SCOPE, node, revision=found.revision)
        return False
