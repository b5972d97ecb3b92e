"""The workload `depth`: what requests cost as a queue grows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from bench import rest
from bench.connection import Connection
from bench.depth import GOAL
from bench.fleet import Result, Score
from bench.report import Figure
from bench.rest import Request
from bench.rows import Row
from bench.run import Findings
from bench.setup import Setting

_SMALLEST = 1_000  # messages
_STEP = 10  # times as many at the next point
_ROUNDS = 100  # how often each request is timed at each point
_TEN = 10


def measure(setting: Setting) -> Findings:
    """Time each request on a queue that gets deeper and deeper, and on one that stays as it is, in turns."""
    shallow = f"{setting.queue}-shallow"
    setting.fill(_SMALLEST, shallow)
    rows: list[Row] = []
    figures: list[Figure] = []
    filled = 0
    with closing(Connection(setting.target)) as connection:
        for depth in _points(setting.wish.depth):
            setting.fill(depth - filled)
            filled = depth
            small, large = (_Timed(setting, connection, queue) for queue in (shallow, setting.queue))
            for number in range(_ROUNDS):
                for each in (small, large) if number % 2 else (large, small):
                    each.round()
            rows += [
                Row(name=f"{name}, {depth:,} messages", result=_result(times), line=name, at=depth)
                for name, times in large.times.items()
            ]
            figures += _compared(depth, small.times, large.times)
    setting.drop()
    setting.drop(shallow)
    return Findings(rows=rows, figures=figures)


def _points(deepest: int) -> list[int]:
    points = [_SMALLEST]
    while points[-1] * _STEP < deepest:
        points.append(points[-1] * _STEP)
    return [*points, deepest] if deepest > points[-1] else points


class _Timed:
    """Requests in turn, which leave as many messages as there were."""

    def __init__(self, setting: Setting, connection: Connection, queue: str) -> None:
        self.times: dict[str, list[float]] = {}  # seconds, by what was asked for
        self._connection = connection
        self._size = setting.wish.size
        self._queue = queue

    def round(self) -> None:
        """Send each of them once."""
        queue = self._queue
        self._ask("post 1", rest.post(1, self._size, queue=queue))
        claimed = rest.found(self._ask("claim 10", rest.claim(_TEN, queue=queue)))
        self._ask("delete 10", rest.delete(claimed, queue=queue))
        self._connection.ask(rest.post(len(claimed) - 1, self._size, queue=queue))
        page = rest.found(self._ask("list, first page", rest.list_page(_TEN, queue=queue)))
        self._ask("get by id", rest.get(page[-1], queue=queue))
        self._ask("statistics", rest.stats(queue=queue))

    def _ask(self, name: str, request: Request) -> bytes:
        wire = request.wire(self._connection.target)
        start = time.perf_counter()
        answer = self._connection.exchange(wire, request)
        self.times.setdefault(name, []).append(time.perf_counter() - start)
        return answer.body


def _result(times: Sequence[float]) -> Result:
    score = Score(operations=len(times), messages=len(times))
    score.record(times)
    return Result(seconds=sum(times), roles={"": score})


def _compared(
    depth: int, small: Mapping[str, Sequence[float]], large: Mapping[str, Sequence[float]]
) -> list[Figure]:
    """Compare the medians, unless both are as deep."""
    if depth == _SMALLEST:
        return []
    medians = {
        name: (statistics.median(small[name]), statistics.median(times)) for name, times in large.items()
    }
    return [
        Figure(
            table=f"The median with {depth:,} messages, against that with {_SMALLEST:,} at the same time",
            load=name,
            columns={"small, ms": before * 1000, "large, ms": after * 1000},
            ratio=after / before,
            at_most=GOAL,
        )
        for name, (before, after) in medians.items()
    ]
