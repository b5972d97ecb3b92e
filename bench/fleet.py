"""Several client processes at once, and what they come to together."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.pool import Pool
from typing import TypeAlias, TypeVar

from hdrh.histogram import HdrHistogram

from bench.client import Order, Tally, work
from bench.rest import Target
from bench.usage import Meter, Processes, Usage
from bench.workloads import Load
from bench.yardsticks.alone import BareOrder, work_alone

HIGHEST = 3_600_000_000  # µs; latencies are told apart up to an hour
DIGITS = 3  # that are significant

_READY = 0.2  # seconds for all processes to have their order

OrderT = TypeVar("OrderT", Order, BareOrder)

#: Is called now and then while a load lasts, with the seconds that have gone by.
Watcher: TypeAlias = Callable[[float], object]


def histogram() -> HdrHistogram:
    """Return an empty histogram of latencies in microseconds."""
    return HdrHistogram(1, HIGHEST, DIGITS)


@dataclass(kw_only=True, slots=True)
class Score:
    """What a role came to over all processes."""

    latencies: HdrHistogram = field(default_factory=histogram)  # µs
    operations: int = 0
    messages: int = 0
    empty: int = 0  # operations that found nothing

    def add(self, other: Score) -> None:
        """Add another one to it."""
        self.latencies.add(other.latencies)
        self.operations += other.operations
        self.messages += other.messages
        self.empty += other.empty

    def record(self, seconds: Iterable[float]) -> None:
        """Add latencies."""
        for latency in seconds:
            self.latencies.record_value(min(max(round(latency * 1e6), 1), HIGHEST))


@dataclass(kw_only=True, slots=True)
class Result:
    """What a load came to."""

    seconds: float = 0.0
    roles: dict[str, Score] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    used: dict[str, Usage] = field(default_factory=dict)  # by the client, and by what was watched

    @property
    def operations(self) -> int:
        """Operations that were done."""
        return sum(score.operations for score in self.roles.values())

    @property
    def messages(self) -> int:
        """Messages that they moved."""
        return sum(score.messages for score in self.roles.values())

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds

    def add(self, other: Result) -> None:
        """Add what came of the same load at another time."""
        self.seconds += other.seconds
        self.errors += other.errors
        for name, score in other.roles.items():
            self.roles.setdefault(name, Score()).add(score)
        for name, used in other.used.items():
            self.used[name] = self.used.get(name, Usage()).and_then(used)


class Fleet:
    """Client processes that wait for orders."""

    def __init__(self, pool: Pool, processes: int, connections: int) -> None:
        self.connections = connections  # of all processes together
        self._pool = pool
        self._shares = shares(connections, processes)

    def run(
        self,
        target: Target,
        load: Load,
        *,
        seconds: float,
        warm_up: float = 0.0,
        rate: float | None = None,
        processes: Processes | None = None,
        watch: Watcher | None = None,
    ) -> Result:
        """Put a load on a target, and tell what `processes` use up meanwhile."""
        start = time.time() + _READY
        orders = [
            Order(
                target=target,
                load=load,
                connections=len(numbers),
                first=numbers.start,
                total=self.connections,
                rate=rate,
                start=start,
                warm_up=warm_up,
                seconds=seconds,
            )
            for numbers in self._shares
        ]
        return self._measure(work, orders, start + warm_up, seconds, processes or {}, watch)

    def run_alone(
        self, engine: str, uri: str, load: Load, *, seconds: float, threads: int, processes: Processes
    ) -> Result:
        """Put a load on an engine, from so many threads."""
        start = time.time() + _READY
        orders = [
            BareOrder(engine=engine, uri=uri, load=load, threads=len(numbers), start=start, seconds=seconds)
            for numbers in shares(threads, len(self._shares))
        ]
        return self._measure(work_alone, orders, start, seconds, processes, None)

    def _measure(
        self,
        call: Callable[[OrderT], Tally],
        orders: Sequence[OrderT],
        start: float,
        seconds: float,
        processes: Processes,
        watch: Watcher | None,
    ) -> Result:
        meter = Meter(processes)
        begun = self._pool.map_async(call, orders, chunksize=1)
        begun.wait(max(0.0, start - time.time()))
        meter.start()
        while not begun.ready() and (left := start + seconds - time.time()) > 0:
            begun.wait(min(0.1, left))
            if watch is not None:
                watch(time.time() - start)
        used = meter.read()
        return merged(begun.get(), seconds, used)


def shares(connections: int, processes: int) -> list[range]:
    """Return the numbers of the connections of each process, none without any."""
    edges = [connections * number // processes for number in range(processes + 1)]
    return [range(*edge) for edge in pairwise(edges) if edge[0] < edge[1]]


def merged(tallies: Sequence[Tally], seconds: float, used: dict[str, Usage]) -> Result:
    """Return what all processes came to."""
    cpu, memory = sum(tally.cpu for tally in tallies), sum(tally.memory for tally in tallies)
    result = Result(seconds=seconds, used={**used, "client": Usage(cpu=cpu, memory=memory)})
    for tally in tallies:
        result.errors += tally.errors
        for name, count in tally.counts.items():
            score = result.roles.setdefault(name, Score())
            score.operations += count.operations
            score.messages += count.messages
            score.empty += count.empty
            score.record(count.latencies)
    return result


@contextmanager
def fleet(processes: int, connections: int) -> Iterator[Fleet]:
    """Yield client processes, which end with the context."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield Fleet(pool, processes, connections)
