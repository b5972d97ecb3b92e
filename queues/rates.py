"""How fast a project may go: token buckets, which fill up with time and are emptied by what is done."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from queues.errors import TooManyRequests

_NOTHING = 1e-9  # what arithmetic leaves over
_MOST = 10_000  # projects that are remembered, those that did something last


class Buckets:
    """A bucket for each project: `rate` is what flows in each second, `burst` what it holds, at least 1."""

    def __init__(self, rate: float, burst: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._timer = timer
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, and since when
        self._lock = Lock()

    def take(self, project: str, count: int = 1) -> float:
        """Take so much, if it is there; else return the seconds until it will be.

        Who wants more than a bucket holds gets it from a full one, which then has less than nothing.
        """
        now = self._timer()
        with self._lock:
            level, since = self._levels.pop(project, (self._burst, now))
            level = min(self._burst, level + (now - since) * self._rate)
            missing = min(count, self._burst) - level
            if missing < _NOTHING:
                missing = 0.0
            self._levels[project] = (level if missing > 0 else level - count, now)
            if len(self._levels) > _MOST:
                self._levels.popitem(last=False)
        return max(0.0, missing / self._rate)


class Rates:
    """What the projects may do in a second, in this process; a rate of 0 bounds nothing.

    `saved` is how many seconds' worth a project may save up.
    """

    def __init__(
        self,
        *,
        requests: float = 0.0,
        messages: float = 0.0,
        saved: float = 1.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = Buckets(requests, requests * saved, timer) if requests else None
        self._messages = Buckets(messages, messages * saved, timer) if messages else None

    def request(self, project: str) -> None:
        """Count a request. Raises TooManyRequests."""
        if self._requests is not None:
            _check(self._requests.take(project), "requests")

    def post(self, project: str, messages: int) -> None:
        """Count messages that are to be posted. Raises TooManyRequests."""
        if self._messages is not None:
            _check(self._messages.take(project, messages), "messages")


def _check(wait: float, what: str) -> None:
    if wait > 0:
        seconds = math.ceil(wait)
        raise TooManyRequests(
            f"The project sends more {what} than it may. Please retry in {seconds} seconds.", seconds=seconds
        )
