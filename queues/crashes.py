"""Points at which a test has a process die, as if it were killed there.

`HERMOD_TEST_CRASH_AT=NAME` has it die when it gets to the point of that name, `NAME:N` when it gets there for the Nth
time. The variable is read once. Without it a point is a call of a function that does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

#: Every point, and what has happened when a process gets there. Each has a test in tests/acceptance/test_crash_points.py.
POINTS: Final = {
    "sqlite.before-commit": "the steps of a transaction are done, and it is not committed",
    "sqlite.after-commit": "a transaction is committed, and nobody was told",
    "redis.before-script": "a script is about to be sent",
    "redis.after-script": "a script was run, and nobody was told",
    "mongodb.half-written": "messages are written, the header of their queue is not",
    "mongodb.before-commit": "everything of a transaction is written, and it is not committed",
    "mongodb.after-commit": "a transaction is committed, and nobody was told",
    "notifier.taken": "tickets or deliveries are leased, and nobody was told of them",
    "notifier.attempted": "attempts were made, and nothing of them is noted",
    "notifier.concluded": "what was given up is kept, and what is to be tried again is not",
    "notifier.kept": "everything is kept that has to be, and the lease goes on",
    "notifier.settled": "tickets or deliveries are settled",
}


def _pass(_point: str) -> None:
    """Do nothing."""


def _dying(wish: str) -> Callable[[str], None]:
    """Return a function that ends the process at a point. Raises ValueError for a point that there is not."""
    name, _, count = wish.partition(":")
    if name not in POINTS:
        raise ValueError(f"There is no point {name!r} to crash at; there are {', '.join(POINTS)}.")
    left, lock = int(count or 1), threading.Lock()

    def reach(point: str) -> None:
        nonlocal left
        if point != name:
            return
        with lock:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


_WISH: Final = os.environ.get("HERMOD_TEST_CRASH_AT", "")

#: Says that a process has got to a point.
reach: Final[Callable[[str], None]] = _dying(_WISH) if _WISH else _pass
