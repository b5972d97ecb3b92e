"""Who may begin, and who waits: bounds of what is under way at a subscriber, at a host, for a project, and altogether."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

_FIRST = 4  # attempts at a subscriber of which nothing is known


class Gate:
    """Bounds the attempts at one subscriber: a few at first, more as they get through, one while it is slow."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._window = min(_FIRST, most)
        self._active = 0
        self._slow = False
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order of their arrival

    def is_stuck(self) -> bool:
        """Whether there is no room, nor any in sight."""
        return self._slow and self._active >= self._window

    async def enter(self) -> None:
        """Wait for room."""
        if self._active < self._window and not self._waiting:
            self._active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            self._waiting.pop(turn, None)
            raise

    def leave(self, *, quick: bool | None = None) -> None:
        """Make room, and say whether the subscriber does well; None for nothing to be said."""
        self._active -= 1
        if quick is not None:
            self._window = min(self._most, self._window + 1) if quick else 1
            self._slow = self._slow and not quick
        while self._waiting and self._active < self._window:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if not turn.done():
                self._active += 1
                turn.set_result(None)

    def slow(self) -> None:
        """Note that an attempt takes its time."""
        self._window = 1
        self._slow = True


class Shares:
    """Bounds the attempts under way: all of them together, and a project's to as many as are free besides.

    So a project that is alone has half of the room at most, of two each has a third, and so on;
    whatever they do, there is some left for one more.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._used: dict[str, int] = {}  # by project
        self._slow: dict[str, int] = {}  # of these, those that take their time
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    def is_stuck(self, project: str) -> bool:
        """Whether there is no room for a project, nor any in sight, by its own doing."""
        used, slow = self._used.get(project, 0), self._slow.get(project, 0)
        return used >= self._free and 2 * slow >= used > 0

    async def enter(self, project: str) -> None:
        """Wait for room."""
        if self._fits(project) and project not in self._waiting:
            self._take(project)
            return
        turn = asyncio.get_running_loop().create_future()
        line = self._waiting.setdefault(project, {})
        line[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(project)
            line.pop(turn, None)
            if not line and self._waiting.get(project) is line:
                del self._waiting[project]
            raise

    def slow(self, project: str) -> None:
        """Note that an attempt takes its time."""
        self._slow[project] = self._slow.get(project, 0) + 1

    def leave(self, project: str, *, slow: bool = False) -> None:
        """Make room; `slow` says whether that was noted."""
        self._free += 1
        _lower(self._used, project)
        if slow:
            _lower(self._slow, project)
        if self._waiting:
            for other in list(self._waiting):
                self._admit(other)

    def _admit(self, project: str) -> None:
        line = self._waiting[project]
        while line and self._fits(project):
            turn = next(iter(line))
            del line[turn]
            if not turn.done():
                self._take(project)
                turn.set_result(None)
        if not line:
            del self._waiting[project]

    def _fits(self, project: str) -> bool:
        return self._used.get(project, 0) < self._free

    def _take(self, project: str) -> None:
        self._used[project] = self._used.get(project, 0) + 1
        self._free -= 1


class Turns:
    """Bounds how many are quick at once, so that they come one after the other; who is not holds nobody up."""

    def __init__(self, most: int, *, quick: float) -> None:
        """Take how many have a turn at a time, for each key, and how many seconds one lasts at most."""
        self._most = most
        self._quick = quick
        self._places: WeakValueDictionary[Hashable, _Place] = WeakValueDictionary()

    async def take(self, key: Hashable) -> Callable[[], None]:
        """Wait for a turn; return what ends it before its time, and does nothing after that."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(self._most, self._quick)
        return await place.take()


class _Place:
    """The turns of one key. As long as nobody waits, none is ended but by who has it."""

    def __init__(self, most: int, quick: float) -> None:
        self._most = most
        self._quick = quick
        self._loop = asyncio.get_running_loop()
        self._begun: dict[object, float] = {}  # turns, and when they began; the oldest first
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> Callable[[], None]:
        """Wait for a turn; return what ends it."""
        turn = self._loop.create_future()
        if len(self._begun) < self._most and not self._waiting:
            self._begun[turn] = self._loop.time()
            return lambda: self._end(turn)
        self._waiting[turn] = None
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.pop(turn, None)
            self._end(turn)
            raise
        return lambda: self._end(turn)

    def _end(self, turn: object) -> None:
        if self._begun.pop(turn, None) is not None:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._begun) < self._most:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if not turn.done():
                self._begun[turn] = self._loop.time()
                turn.set_result(None)

    def _watch(self) -> None:
        """See to it that somebody who waits gets the oldest turn when its time is over."""
        if self._timer is None and self._waiting:
            over = next(iter(self._begun.values())) + self._quick
            self._timer = self._loop.call_at(over, self._expire)

    def _expire(self) -> None:
        self._timer = None
        over = self._loop.time() - self._quick
        for turn, begun in list(self._begun.items()):
            if begun > over:
                break
            del self._begun[turn]
        self._admit()
        self._watch()


def _lower(counts: dict[str, int], project: str) -> None:
    counts[project] -= 1
    if not counts[project]:
        del counts[project]
