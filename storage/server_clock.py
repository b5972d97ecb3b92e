"""The clock of a server, read here: P11 without a round trip for every operation."""

from __future__ import annotations

import time
from collections.abc import Callable

from storage.shared_call import SharedCall

_AGE = 1.0  # seconds between two looks at the server


class ServerClock:
    """Tells a server's time (ms) from the local monotonic clock, which is set by the server every second.

    `ask` returns the server's time in seconds since the epoch. Half of the way there
    and back is the best guess of when that was.
    """

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._look = SharedCall(self._set)
        self._offset = 0.0  # from the monotonic clock to the server's, seconds
        self._checked = float("-inf")  # when, by the monotonic clock

    def __call__(self) -> int:
        """Return the server's time in ms; raises what `ask` raises."""
        if time.monotonic() - self._checked > _AGE:
            self._look()
        return int((time.monotonic() + self._offset) * 1000)

    def _set(self) -> None:
        asked = time.monotonic()
        there = self._ask()
        answered = time.monotonic()
        self._offset = there - (asked + answered) / 2
        self._checked = answered
