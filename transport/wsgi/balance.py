"""How many connections each worker of a server has, for all of them to see, so that new ones go to whoever has fewest.

Left alone, a new connection goes to whichever worker wakes up first, and of eight connections that stay six may
well be with one of two workers.
"""

from __future__ import annotations

import mmap
from typing import Final

_ABSENT: Final = -1
_BYTES: Final = 4  # of a number


class Balance:
    """Made before the workers are forked; `workers` is how many there are at a time.

    A worker goes by its age, the number that gunicorn gives it. There is room for those that end
    while their successors have begun.
    """

    def __init__(self, workers: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * workers * _BYTES)).cast("i")
        for place in range(len(self._counts)):
            self._counts[place] = _ABSENT

    def note(self, age: int, connections: int) -> None:
        """Say how many connections a worker has."""
        self._counts[age % len(self._counts)] = connections

    def leave(self, age: int) -> None:
        """Say that a worker takes no more."""
        self._counts[age % len(self._counts)] = _ABSENT

    def is_fuller(self, connections: int) -> bool:
        """Tell whether somebody has fewer connections than so many."""
        return any(_ABSENT < count < connections for count in self._counts)
