"""Times loads against one another: every load once in a round, the order turned about each time.

So whatever else the machine does meanwhile, it does to all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

#: Sets up, yields, does what is timed, yields, and clears up.
Load: TypeAlias = Callable[[], Iterator[None]]

_WARM_UP = 1  # rounds that do not count


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one run of a load takes, as the median of all rounds, in microseconds."""

    wall: float  # by the clock
    cpu: float  # of this thread: what is left when the waiting for the disk is taken away


def interleaved(loads: Sequence[Load], rounds: int) -> list[Cost]:
    """Run all loads in turn, and return the cost of each."""
    times: list[list[tuple[int, int]]] = [[] for _ in loads]
    for number in range(_WARM_UP + rounds):
        order = range(len(loads)) if number % 2 else reversed(range(len(loads)))
        for index in order:
            taken = _timed(loads[index])
            if number >= _WARM_UP:
                times[index].append(taken)
    return [_cost(each) for each in times]


def run(load: Load, around: Callable[[Callable[[], object]], None]) -> None:
    """Run a load once, with `around` called on the part that counts."""
    steps = load()
    next(steps)
    around(lambda: next(steps))
    for _ in steps:
        raise AssertionError("A load yields twice.")


def _timed(load: Load) -> tuple[int, int]:
    taken = []

    def around(part: Callable[[], object]) -> None:
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        part()
        taken.append((time.perf_counter_ns() - wall, time.thread_time_ns() - cpu))

    run(load, around)
    return taken[0]


def _cost(times: Sequence[tuple[int, int]]) -> Cost:
    wall, cpu = (statistics.median(column) / 1000 for column in zip(*times, strict=True))
    return Cost(wall=wall, cpu=cpu)
