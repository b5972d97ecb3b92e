"""The clock of a server, read here: P11 without a round trip for every operation."""

from __future__ import annotations

import time
from collections.abc import Callable

from storage.shared_call import SharedCall

_AGE = 1.0  # seconds between two looks at the server
_NEVER = float("-inf")


class ServerClock:
    """Tells a server's time (ms) from the local monotonic clock, which is set by the server every second.

    `ask` returns the server's time in seconds since the epoch, as it was at some moment
    between the question and its answer. Half of the way is the best guess when there is
    no other; later, what was known is changed as little as each answer demands. So an
    answer over a network that is slow in one direction does not move the clock, by which
    leases would end early.
    """

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._look = SharedCall(self._set)
        self._offset = 0.0  # from the monotonic clock to the server's, seconds
        self._checked = _NEVER  # when, by the monotonic clock

    def __call__(self) -> int:
        """Return the server's time in ms; raises what `ask` raises."""
        if time.monotonic() - self._checked > _AGE:
            self._look()
        return int((time.monotonic() + self._offset) * 1000)

    def _set(self) -> None:
        if self._checked == _NEVER:
            self._ask()  # the first answer waits for a connection, and says little about when it was given
        asked = time.monotonic()
        there = self._ask()
        answered = time.monotonic()
        known = there - (asked + answered) / 2 if self._checked == _NEVER else self._offset
        self._offset = min(max(known, there - answered), there - asked)
        self._checked = answered
