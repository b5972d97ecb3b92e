"""A client process: one thread that keeps many connections busy.

Closed loop: a connection sends the next request as soon as it has the answer to the
last. Open loop: operations are due at fixed instants, whatever the server does, and a
latency counts from when the operation was due, not from when a connection was free to
begin it; so a server that stalls shows in all that would have come meanwhile.
"""

from __future__ import annotations

import selectors
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

import psutil

from bench.connection import Answer, Connection
from bench.rest import Target
from bench.workloads import WORKLOADS, Load, Operation, Steps

DRAIN = 10.0  # seconds that is waited at the end for what is still to be answered
UNANSWERED = "not answered in time"

_NOTHING_THERE = 0.01  # seconds until a consumer that found nothing tries again, in a closed loop
_AFTER_ERROR = 0.05  # seconds until a connection that failed is made anew
_FEW = 500  # connections
_NAP = 0.1  # seconds that the loop sleeps at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a client process is to do."""

    target: Target
    load: Load
    connections: int
    first: int = 0  # the number of its first connection among those of all processes
    total: int  # connections of all processes
    rate: float | None = (
        None  # operations due per second, of all processes and for each role; None: closed loop
    )
    start: float  # seconds since the epoch
    warm_up: float = 0.0  # seconds before anything counts
    seconds: float  # how long it counts
    drain: float = DRAIN


@dataclass(kw_only=True, slots=True)
class Count:
    """What the connections of a role did."""

    latencies: array[float] = field(
        default_factory=lambda: array("d")
    )  # seconds, of all that was due in the time
    operations: int = 0  # that ended in the time
    messages: int = 0  # that these moved
    empty: int = 0  # operations that found nothing to move


@dataclass(kw_only=True, slots=True)
class Tally:
    """What a client process did while it counted."""

    counts: dict[str, Count] = field(default_factory=dict)  # by the name of the role
    errors: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0  # seconds of this process
    memory: int = 0  # resident bytes of this process at the end


@dataclass(kw_only=True, slots=True, eq=False)
class _Crew:
    """The connections of a role, and when their operations are due."""

    operation: Operation
    count: Count
    interval: float | None  # seconds between operations; None in a closed loop
    next_due: float = 0.0
    idle: deque[_Lane] = field(default_factory=deque)


@dataclass(kw_only=True, slots=True, eq=False)
class _Lane:
    """A connection and what it is at."""

    crew: _Crew
    connection: Connection | None = None
    steps: Steps | None = None  # None while nothing is under way
    due: float = 0.0  # when that should have begun


def _selector(connections: int) -> selectors.BaseSelector:
    """Return the one that wakes by the microsecond, which cannot have many connections."""
    return selectors.SelectSelector() if connections <= _FEW else selectors.DefaultSelector()


def work(order: Order) -> Tally:
    """Do what was ordered."""
    return Client(order).run()


class Client:
    """One run of an order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._tally = Tally()
        self._selector = _selector(order.connections)
        self._busy: set[_Lane] = set()
        self._resting: list[tuple[float, int, _Lane]] = []  # until when
        self._number = count()
        self._crews = list(self._hired())
        self._from = self._until = 0.0

    def run(self) -> Tally:
        """Do what was ordered."""
        order = self._order
        time.sleep(max(0.0, order.start - time.time()))
        start = time.perf_counter()
        self._from = start + order.warm_up
        self._until = self._from + order.seconds
        for crew in self._crews:
            crew.next_due = start + (crew.interval or 0.0) * order.first / order.total
        self._loop(self._from)
        cpu = time.process_time()
        self._loop(self._until)
        self._tally.cpu = time.process_time() - cpu
        while self._owes() and time.perf_counter() < self._until + order.drain:
            self._turn(self._until + order.drain)
        self._give_up(time.perf_counter())
        self._tally.memory = psutil.Process().memory_info().rss
        return self._tally

    def _hired(self) -> Iterator[_Crew]:
        """Yield the crews, with their connections open."""
        order = self._order
        roles = WORKLOADS[order.load.name](order.target, order.load)
        for index, role in enumerate(roles):
            mine, everybody = (
                sum(number % len(roles) == index for number in numbers)
                for numbers in (range(order.first, order.first + order.connections), range(order.total))
            )
            if not mine:
                continue
            self._tally.counts[role.name] = tally = Count()
            interval = everybody / (order.rate * mine) if order.rate else None
            crew = _Crew(operation=role.operation, count=tally, interval=interval)
            for _ in range(mine):
                lane = _Lane(crew=crew)
                self._connect(lane)
                crew.idle.append(lane)
            yield crew

    # --- The loop

    def _loop(self, until: float) -> None:
        while time.perf_counter() < until:
            self._turn(until)

    def _turn(self, until: float) -> None:
        """Begin what is due, and go on with what is answered."""
        now = time.perf_counter()
        while self._resting and self._resting[0][0] <= now:
            lane = heappop(self._resting)[2]
            lane.crew.idle.append(lane)
        wake = min(until, now + _NAP, self._resting[0][0] if self._resting else until)
        for crew in self._crews:
            self._begin_due(crew, now)
            if crew.idle and crew.interval is not None:
                wake = min(wake, crew.next_due)
        for key, _ in self._selector.select(max(0.0, wake - time.perf_counter())):
            self._hear(key.data)

    def _begin_due(self, crew: _Crew, now: float) -> None:
        while crew.idle:
            due = now if crew.interval is None else crew.next_due
            if due > now or due >= self._until:
                return
            if crew.interval is not None:
                crew.next_due += crew.interval
            self._begin(crew.idle.popleft(), due)

    def _begin(self, lane: _Lane, due: float) -> None:
        lane.steps, lane.due = lane.crew.operation(), due
        self._busy.add(lane)
        try:
            self._connect(lane).send(next(lane.steps))
        except OSError as error:
            self._fail(lane, error)

    def _hear(self, lane: _Lane) -> None:
        try:
            answer = lane.connection and lane.connection.receive()
            if answer:
                self._go_on(lane, answer)
        except (OSError, ValueError) as error:
            self._fail(lane, error)

    def _go_on(self, lane: _Lane, answer: Answer) -> None:
        if answer.last:
            self._disconnect(lane)
        if lane.steps is None:
            return
        try:
            wire = lane.steps.send(answer)
        except StopIteration as end:
            self._end(lane, end.value)
        else:
            self._connect(lane).send(wire)

    def _end(self, lane: _Lane, messages: int) -> None:
        now, tally = time.perf_counter(), lane.crew.count
        if self._from <= lane.due:
            tally.latencies.append(now - lane.due)
        if self._from <= now < self._until:
            tally.operations += 1
            tally.messages += messages
            tally.empty += not messages
        lane.steps = None
        self._busy.discard(lane)
        if messages or lane.crew.interval is not None:
            lane.crew.idle.append(lane)
        else:
            self._rest(lane, now + _NOTHING_THERE)

    # --- Connections that come and go

    def _connect(self, lane: _Lane) -> Connection:
        """Return the connection of a lane, which has one afterwards."""
        if lane.connection is None:
            lane.connection = Connection(self._order.target)
            self._selector.register(lane.connection.fileno(), selectors.EVENT_READ, lane)
        return lane.connection

    def _disconnect(self, lane: _Lane) -> None:
        if lane.connection is not None:
            self._selector.unregister(lane.connection.fileno())
            lane.connection.close()
            lane.connection = None

    def _fail(self, lane: _Lane, error: Exception) -> None:
        """Begin anew; an idle connection that the server closed is no error."""
        self._disconnect(lane)
        if lane.steps is None:
            return
        self._tally.errors[str(error)] += 1
        lane.steps = None
        self._busy.discard(lane)
        self._rest(lane, time.perf_counter() + _AFTER_ERROR)

    def _rest(self, lane: _Lane, until: float) -> None:
        heappush(self._resting, (until, next(self._number), lane))

    # --- The end

    def _owes(self) -> bool:
        """Whether anything that was due is still to be answered."""
        return bool(self._busy) or any(
            crew.interval is not None and crew.next_due < self._until for crew in self._crews
        )

    def _give_up(self, now: float) -> None:
        """Count what was not answered, as late as it is by now, and close all connections."""
        for crew in self._crews:
            late = [lane.due for lane in self._busy if lane.crew is crew]
            while crew.interval is not None and crew.next_due < self._until:
                late.append(crew.next_due)
                crew.next_due += crew.interval
            late = [due for due in late if due >= self._from]
            crew.count.latencies.extend(now - due for due in late)
            if late:
                self._tally.errors[UNANSWERED] += len(late)
        lanes = [lane for crew in self._crews for lane in crew.idle]
        for lane in [*lanes, *self._busy, *(lane for _, _, lane in self._resting)]:
            self._disconnect(lane)
        self._selector.close()
