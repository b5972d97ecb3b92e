"""Threads that wait for stores on behalf of an event loop.

An executor of the standard library would do; this one costs a fraction of it for each call, since
results come back to the loop in batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Crew:
    """Some threads of one event loop; to be made within it."""

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = threads
        self._threads: list[Thread] = []
        self._work: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._busy = 0  # calls that are not answered yet
        self._called = False  # whether the loop is about to take what is done

    @property
    def line(self) -> int:
        """How many calls have no thread yet; less than 0 where threads are free."""
        return self._busy - self._most

    def call(self, work: Callable[[], T], /) -> asyncio.Future[T]:
        """Run something in a thread."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._busy += 1
        if self._busy > len(self._threads) < self._most:
            thread = Thread(target=self._run, name="store", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.put((work, future))
        return future

    def close(self) -> None:
        """Let the threads end when they have done what they were given."""
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, future = item
            try:
                self._done.append((future, work(), None))
            except BaseException as error:  # whoever waits gets it
                self._done.append((future, None, error))
            if not self._called:
                self._called = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is gone, and nobody waits
                    return

    def _deliver(self) -> None:
        self._called = False  # before anything is taken: what is done later calls anew
        while self._done:
            future, result, error = self._done.popleft()
            self._busy -= 1
            if future.done():  # whoever waited was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
