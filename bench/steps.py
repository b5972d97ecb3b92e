"""Counts the steps of SQLite's virtual machine: a cost that no other process can disturb.

A step is about one row looked at or one column read; a statement that walks over
more rows takes more of them, whatever the machine is busy with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.measure import Load, run
from queues.ports import Driver
from storage.sqlite import SqliteStore


def count(driver: Driver, load: Load) -> int | None:
    """Return how many steps the timed part of a load takes; None for a store that is no SQLite file."""
    if not isinstance(driver, SqliteStore):
        return None
    taken = 0

    def tick() -> int:
        nonlocal taken
        taken += 1
        return 0  # go on

    def around(part: Callable[[], object]) -> None:
        with _watched(driver, tick):
            part()

    run(load, around)
    return taken


@contextmanager
def _watched(store: SqliteStore, tick: Callable[[], int]) -> Iterator[None]:
    file = store._file
    with file.snapshot():
        pass  # so that there is a connection for reading
    connections = (file._writer, *file._idle_readers)
    for connection in connections:
        connection.set_progress_handler(tick, 1)
    try:
        yield
    finally:
        for connection in connections:
            connection.set_progress_handler(None, 1)
