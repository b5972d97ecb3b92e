"""One call for all who want it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Calls a function in one thread at a time; threads that come meanwhile share what comes of it.

    So a server that does not answer is waited for once, and not by one thread after
    the other. The wait is bounded by what bounds the function.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._running: Future[T] | None = None

    def __call__(self) -> T:
        """Return what the function returns; raises what it raises."""
        with self._lock:
            running = self._running
            if running is None:
                mine = self._running = Future()
        if running is not None:
            return running.result()
        try:
            mine.set_result(self._function())
        except BaseException as error:  # each thread raises it for itself
            mine.set_exception(error)
        finally:
            with self._lock:
                self._running = None
        return mine.result()
