"""Turns among the processes of a machine that change the same queue of MongoDB's.

A transaction that meets another one on its queue is aborted and begins anew, which costs more than to wait for the other.
So processes of one machine wait for each other, at locks of a file in the temporary folder. Each queue has two bytes of it:
whoever has the first is the next to get the second, so they take turns. A process that dies loses its locks.

Nothing depends on it but speed: who has waited for a moment, or cannot lock at all, goes on, and MongoDB decides.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from queues.models import Address

_PATIENCE: Final = 0.25  # seconds that anybody waits at most
_LOOK: Final = 0.0005  # seconds between two looks at a lock
_OFFENDED: Final = 1.0  # seconds without turns after a wait in vain, for a process may hang that has the lock


@cache
def _opened(path: Path) -> int | None:
    """Open a file, and never close it: that would let go of the locks of everybody in this process.

    None where there is none, or somebody else may have put it there.
    """
    with suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and found.st_nlink == 1:
            return file
    return None


class MongoTurns:
    """Turns at the queues of a store, which has the same name in all processes; `folder` is where they meet."""

    def __init__(self, store: str, folder: Path | None = None) -> None:
        self._store = store
        self._vain = float("-inf")  # until when nobody waits, by the monotonic clock
        self._file = _opened((folder or Path(tempfile.gettempdir())) / f"hermod-turns-{os.getuid()}")

    @contextmanager
    def turn(self, address: Address) -> Iterator[bool]:
        """Wait for the turn at a queue, and have it; or not, after a while, which is told."""
        place = self._place(address)
        now = time.monotonic()
        until = now + _PATIENCE if now > self._vain else now
        is_next = self._lock(place, until)
        mine = is_next and self._lock(place + 1, until)
        if is_next:
            self._unlock(place)
        if not mine and until > now:
            self._vain = time.monotonic() + _OFFENDED
        try:
            yield mine
        finally:
            if mine:
                self._unlock(place + 1)

    def _place(self, address: Address) -> int:
        name = f"{self._store}\0{address.project}\0{address.queue}".encode()
        return 2 * int.from_bytes(blake2b(name, digest_size=7).digest(), "big")

    def _lock(self, place: int, until: float) -> bool:
        while self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                return True
            if time.monotonic() >= until:
                break
            time.sleep(_LOOK)
        return False

    def _unlock(self, place: int) -> None:
        if self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
