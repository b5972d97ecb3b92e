"""Waiting for what is not there yet: long polling, without asking the store while nothing happens.

Somebody who found nothing watches the queue and tries again when the store says that
something is new, or when the outlook said that something falls due. Those who want to
claim stand in line, in the order in which they came: only the first of them tries, so a new
message does not send a hundred of them to the store.
"""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Lock, Semaphore
from typing import Generic, Protocol, TypeAlias, TypeVar, Union

from queues.errors import Overloaded
from queues.limits import MAX_WAIT, check_range
from queues.models import Address
from queues.ports import MessageStore
from queues.service.catalogue import Catalogue

T = TypeVar("T")


class Call(Protocol):
    """Runs something that waits for a store in a thread."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Return what it returns."""


Wake: TypeAlias = Callable[[], None]

#: What was found, or how to wait for it.
Awaited: TypeAlias = Union[T, "Vigil[T]"]

_UNPLACED = 0.5  # seconds between two looks at a queue that is not declared, where there are pools
_SHORTEST = 0.02  # seconds between two tries that nobody called for


def bell_of(loop: AbstractEventLoop, bell: asyncio.Event) -> Wake:
    """Return what rings a bell of an event loop from any thread; one that is gone hears nothing."""

    def ring() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(bell.set)

    return ring


async def ringing(bell: asyncio.Event, seconds: float) -> None:
    """Wait until a bell rings, but no longer than so many seconds."""
    # asyncio.wait_for forgets, up to Python 3.11, that it was cancelled just when the bell rang.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()


class Line:
    """Those who wait in front of one queue; the first of them is told of what is new."""

    def __init__(self) -> None:
        self.members: deque[Wake] = deque()
        self.store: MessageStore | None = None  # the one that is watched
        self._end: Callable[[], None] | None = None

    def is_first(self, wake: Wake) -> bool:
        """Whether it is somebody's turn."""
        return bool(self.members) and self.members[0] is wake

    def ring(self) -> None:
        """Tell the first one."""
        try:
            first = self.members[0]
        except IndexError:  # the last one has just left
            return
        first()

    def follow(self, address: Address, store: MessageStore, *, since: float) -> float:
        """Watch the queue where it lives now; return the seconds until something falls due in it.

        What has fallen due in the last `since` seconds, while somebody tried in vain, counts too.
        """
        if store is not self.store:
            end = store.watch(address, self.ring)
            self.close()
            self.store, self._end = store, end
        now = store.clock()
        due = store.outlook(address, now=now - math.ceil(since * 1000)).due
        return math.inf if due is None else max(_SHORTEST, (due - now) / 1000)

    def close(self) -> None:
        """End the watch."""
        if self._end is not None:
            self._end()
        self.store = self._end = None


class WaitingRoom:
    """The lines of a process: `seats` is how many of its threads may wait at once, `hands` how many may work.

    Of those that would work, `backlog` may stand in line, for `patience` seconds each.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        seats: int,
        hands: int,
        backlog: int = 500,
        patience: float = 5.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._seats = Semaphore(seats)
        self._hands = Semaphore(hands)
        self._backlog = backlog
        self._patience = patience
        self._standing = 0  # in line for a hand
        self.timer = timer
        self._lock = Lock()
        self._lines: dict[Address, Line] = {}
        self._all: set[Line] = set()
        self.closed = False

    def until(
        self,
        address: Address,
        attempt: Callable[[], T],
        enough: Callable[[T], bool],
        *,
        seconds: int | None,
        alone: bool,
    ) -> Awaited[T]:
        """Try, and return what was found; or else how to wait for it, if it may be waited for.

        Somebody who waits `alone` is told of everything new, and leaves it to others.

        Raises Invalid for a time out of range, and what the attempt raises.
        """
        if seconds is not None:
            check_range("wait", seconds, 0, MAX_WAIT)
        found = attempt()
        if not seconds or enough(found) or self.closed:
            return found
        return Vigil(self, address, attempt, enough, found, seconds=seconds, alone=alone)

    def close(self) -> None:
        """Let everybody go, with what they have: the process is about to end."""
        self.closed = True
        with self._lock:
            waiting = [wake for line in self._all for wake in line.members]
        for wake in waiting:
            wake()

    @contextmanager
    def seat(self) -> Iterator[bool]:
        """Take a seat for a thread that is about to wait; tells whether there was one."""
        taken = self._seats.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                self._seats.release()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Be one of the threads that work: of those that do not wait there are `hands` at once at most.

        Raises Overloaded where the line is too long, or has been for too long.
        """
        if not self._hands.acquire(blocking=False):
            self._stand_in_line()
        try:
            yield
        finally:
            self._hands.release()

    def _stand_in_line(self) -> None:
        with self._lock:
            if self._standing >= self._backlog:
                raise Overloaded
            self._standing += 1
        try:
            if not self._hands.acquire(timeout=self._patience):
                raise Overloaded
        finally:
            with self._lock:
                self._standing -= 1

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Let another thread work meanwhile."""
        self._hands.release()
        try:
            yield
        finally:
            self._hands.acquire()

    @contextmanager
    def queue_up(self, address: Address, wake: Wake, *, alone: bool) -> Iterator[Line]:
        """Stand in the line of a queue, or alone beside it."""
        with self._lock:
            line = Line() if alone else self._lines.setdefault(address, Line())
            self._all.add(line)
            line.members.append(wake)
        try:
            yield line
        finally:
            with self._lock:
                line.members.remove(wake)
                if not line.members:
                    self._all.discard(line)
                    if not alone:
                        del self._lines[address]
                    line.close()
            line.ring()  # the next one may find what was left, or has to look after the watch

    def follow(self, line: Line, address: Address, *, since: float) -> float:
        """Have a line watch its queue; return the seconds until something falls due; see `Line.follow`."""
        pause = self._catalogue.at(address, lambda place: line.follow(address, place.store, since=since))
        # Until the queue is declared, nobody knows which store to watch.
        return pause if self._catalogue.placed(address) else min(pause, _UNPLACED)


class Vigil(Generic[T]):
    """A wish that is tried again and again, until it is fulfilled or its time is over.

    A thread calls `wait`. Whoever has no thread to spare enters `begun`, then calls `step` whenever
    it was woken or the seconds that `step` returned have passed, until these are 0.
    """

    def __init__(
        self,
        room: WaitingRoom,
        address: Address,
        attempt: Callable[[], T],
        enough: Callable[[T], bool],
        found: T,
        *,
        seconds: float,
        alone: bool,
    ) -> None:
        self._room = room
        self.address = address
        self._attempt = attempt
        self._enough = enough
        self._alone = alone
        self._until = room.timer() + seconds
        self._line: Line | None = None
        self._wake: Wake | None = None
        self.found = found

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self._room.closed or self._enough(self.found) or self._room.timer() >= self._until

    def wait(self, gone: Callable[[], bool] = lambda: False) -> T:
        """Wait, and return what was found last; at once, where too many wait already.

        Nothing is tried any more for somebody who has `gone`.
        """
        bell = Event()
        with self._room.seat() as seated:
            if seated:
                with self.begun(bell.set):
                    while not gone() and (pause := self.step()):
                        with self._room.idle():
                            bell.wait(pause)
                        bell.clear()
        return self.found

    @contextmanager
    def begun(self, wake: Wake) -> Iterator[None]:
        """Begin to wait. `wake` may be called from any thread."""
        with ExitStack() as stack:
            self._wake = wake
            self._line = stack.enter_context(self._room.queue_up(self.address, wake, alone=self._alone))
            yield

    async def sit(self, call: Call, rescue: Callable[[T], Awaitable[None]]) -> T:
        """Wait without a thread: `call` runs each step in one.

        Whoever is cancelled while something is being found has it rescued.
        """
        bell = asyncio.Event()
        with self.begun(bell_of(asyncio.get_running_loop(), bell)):
            while pause := await self._step_shielded(call, rescue):
                await ringing(bell, pause)
                bell.clear()
        return self.found

    async def _step_shielded(self, call: Call, rescue: Callable[[T], Awaitable[None]]) -> float:
        step = asyncio.ensure_future(call(self.step))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.gather(step, return_exceptions=True)
            if self._enough(self.found):
                await rescue(self.found)
            raise

    def step(self) -> float:
        """Try, if it is this one's turn; return the seconds to wait until the next step, 0 when it is over."""
        line, wake = self._line, self._wake
        if line is None or wake is None:
            raise RuntimeError("The vigil has not begun.")
        pause = math.inf
        if not self.over and line.is_first(wake):
            begun = self._room.timer()
            self.found = self._attempt()
            if not self.over:
                pause = self._room.follow(line, self.address, since=self._room.timer() - begun)
        return 0 if self.over else max(_SHORTEST, min(pause, self._until - self._room.timer()))
