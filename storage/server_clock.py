"""The clock of a server, read here: P11 without a round trip for every operation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_AGE = 1.0  # seconds between two looks at the server


class ServerClock:
    """Tells a server's time (ms) from the local monotonic clock, which is set by the server every second.

    `ask` returns the server's time in seconds since the epoch. Half of the way there
    and back is the best guess of when that was.
    """

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._offset = 0.0  # from the monotonic clock to the server's, seconds
        self._checked = float("-inf")  # when, by the monotonic clock

    def __call__(self) -> int:
        """Return the server's time in ms; raises what `ask` raises."""
        now = time.monotonic()
        if now - self._checked > _AGE:
            with self._lock:
                if now - self._checked > _AGE:
                    asked = time.monotonic()
                    there = self._ask()
                    self._offset = there - (asked + time.monotonic()) / 2
                    self._checked = now
        return int((time.monotonic() + self._offset) * 1000)
