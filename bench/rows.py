"""Results of loads: a row each, in a table, and in a JSON file that other runs can be compared with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.fleet import Result, histogram
from bench.report import Cell, table

PERCENTILES = (50.0, 95.0, 99.0)
USERS = ("server", "store", "client")  # of processors and memory

_HEADS = (
    *("what", "messages/s", "operations"),
    *(f"p{percent:g}, ms" for percent in PERCENTILES),
    "max, ms",
    *(f"{user}, cpu µs" for user in USERS),
    "all, cpu µs",
    *(f"{user}, MiB" for user in USERS),
    "errors",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a load came to."""

    name: str  # the same in the files of runs that are to be compared
    result: Result
    line: str = ""  # the line in the plot of how something grows, if this is a point of it
    at: float | None = None  # where on that line
    slices: Sequence[float] = ()  # messages per second in each, if there are several


def text(rows: Sequence[Row]) -> str:
    """Return a table; CPU is per message."""
    lines = [table(_HEADS, [_cells(row) for row in rows])]
    for row in rows:
        if empty := sum(score.empty for score in row.result.roles.values()):
            lines.append(f"{row.name}: found nothing {empty} times")
        lines += [f"{row.name}: {count} times: {error}" for error, count in row.result.errors.most_common(5)]
    return "\n".join(lines)


def by_role(row: Row) -> list[Row]:
    """Return a row, and one for each role if there are several; of these, the processors' time is not known."""
    roles = row.result.roles if len(row.result.roles) > 1 else {}
    return [
        row,
        *(
            Row(name=f"{row.name}: {name}", result=Result(seconds=row.result.seconds, roles={name: score}))
            for name, score in roles.items()
        ),
    ]


def document(row: Row) -> dict[str, Any]:
    """Return a row for a JSON file."""
    result, latencies = row.result, latencies_of(row.result)
    return {
        "name": row.name,
        "messages_per_second": rate(row),
        "slices": list(row.slices),
        "operations": result.operations,
        "seconds": result.seconds,
        "line": row.line,
        "at": row.at,
        "latencies_ms": {
            **{f"p{percent:g}": at(latencies, percent) for percent in PERCENTILES},
            "max": at(latencies, 100.0),
        },
        "histogram": latencies.encode().decode(),
        "cpu_us_per_message": {name: cpu_each(result, name) for name in result.used},
        "memory_bytes": {name: used.memory for name, used in result.used.items()},
        "found_nothing": sum(score.empty for score in result.roles.values()),
        "errors": dict(result.errors),
    }


def rate(row: Row) -> float:
    """Return messages per second: of the slice in the middle, where there are several."""
    return statistics.median(row.slices) if row.slices else row.result.rate


def cpu_each(result: Result, *users: str) -> float | None:
    """Return µs of these users, or of all, for each message; None where that is not known."""
    known = [result.used[user].cpu for user in users or result.used if user in result.used]
    return sum(known) / result.messages * 1e6 if known and result.messages else None


def latencies_of(result: Result) -> Any:  # noqa: ANN401 - the library has no types
    """Return the histogram of all roles."""
    whole = histogram()
    for score in result.roles.values():
        whole.add(score.latencies)
    return whole


def at(latencies: Any, percent: float) -> float:  # noqa: ANN401 - the library has no types
    """Return the latency in ms that so many percent did not exceed."""
    found: int = latencies.get_value_at_percentile(percent)
    return found / 1000


def _cells(row: Row) -> list[Cell]:
    result, latencies = row.result, latencies_of(row.result)
    memory = {name: round(used.memory / 2**20) for name, used in result.used.items() if used.memory}
    return [
        *(row.name, round(rate(row)), result.operations),
        *(at(latencies, percent) for percent in (*PERCENTILES, 100.0)),
        *(cpu_each(result, user) for user in USERS),
        cpu_each(result),
        *(memory.get(user) for user in USERS),
        result.errors.total(),
    ]
