"""The workload `depth`: what requests cost as a queue grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing

from bench import rest
from bench.connection import Connection
from bench.fleet import Result, Score
from bench.report import Figure
from bench.rest import Request
from bench.rows import Row, at, latencies_of
from bench.run import Findings
from bench.setup import Setting

_SMALLEST = 1_000  # messages
_STEP = 10  # times as many at the next point
_ROUNDS = 100  # how often each request is timed at each point
_TEN = 10


def measure(setting: Setting) -> Findings:
    """Time each request over one connection while the queue gets deeper and deeper."""
    points = _points(setting.wish.depth)
    rows: list[Row] = []
    filled = 0
    with closing(Connection(setting.target)) as connection:
        for depth in points:
            setting.fill(depth - filled)
            filled = depth
            for name, result in _Timed(setting, connection).rounds(_ROUNDS).items():
                rows.append(Row(name=f"{name}, {depth:,} messages", result=result, line=name, at=depth))
    setting.drop()
    return Findings(rows=rows, figures=_compared(rows, points))


def _points(deepest: int) -> list[int]:
    points = [_SMALLEST]
    while points[-1] * _STEP <= deepest:
        points.append(points[-1] * _STEP)
    return points if points[-1] >= deepest else [*points, deepest]


class _Timed:
    """Requests in turn, each of which leaves as many messages as there were."""

    def __init__(self, setting: Setting, connection: Connection) -> None:
        self._connection = connection
        self._size = setting.wish.size
        self._queue = setting.queue
        self._times: dict[str, list[float]] = {}

    def rounds(self, count: int) -> Mapping[str, Result]:
        """Send each so often, and return the results by name."""
        for _ in range(count):
            self._round()
        results = {}
        for name, times in self._times.items():
            score = Score(operations=len(times), messages=len(times))
            score.record(times)
            results[name] = Result(seconds=sum(times), roles={name: score})
        return results

    def _round(self) -> None:
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
        self._times.setdefault(name, []).append(time.perf_counter() - start)
        return answer.body


def _compared(rows: list[Row], points: list[int]) -> list[Figure]:
    """Compare the medians at the deepest point with those at the first."""
    median: Callable[[Row], float] = lambda row: at(latencies_of(row.result), 50.0)  # noqa: E731
    first = {row.line: median(row) for row in rows if row.at == points[0]}
    return [
        Figure(
            table=f"The median with {points[-1]:,} messages, against that with {points[0]:,}",
            load=row.line,
            columns={"small, ms": first[row.line], "large, ms": median(row)},
            ratio=median(row) / first[row.line],
            at_most=1.2,
        )
        for row in rows
        if row.at == points[-1]
    ]
