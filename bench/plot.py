"""Plots as SVG: how latencies are distributed, and how something grows. Both axes are logarithmic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, groupby
from math import ceil, floor, log10
from pathlib import Path
from typing import TypeAlias

import leather

from bench.rows import Row, at, latencies_of, rate

_NINES = 5  # as far as the axis goes: 99.999 %
_STEPS = 10  # points between two nines
_SIZE = (900, 600)
_LEAST = 0.001  # ms; there is no logarithm of nothing
_COLORS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666")

#: One of so many operations was slower: where the marks are, and what they say.
_TICKS: Mapping[float, str] = {
    1: "0 %",
    10: "90 %",
    100: "99 %",
    1_000: "99.9 %",
    10_000: "99.99 %",
    100_000: "99.999 %",
}

Points: TypeAlias = Sequence[tuple[float, float]]


def latencies(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw a line for each row: which part of the operations was not slower."""
    lines: dict[str, Points] = {}
    for row in rows:
        found = latencies_of(row.result)
        if found.total_count:
            places = [10 ** (step / _STEPS) for step in range(_NINES * _STEPS + 1)]
            lines[row.name] = [
                (x, at(found, 100 * (1 - 1 / x))) for x in places if x <= max(found.total_count, 10)
            ]
    if lines:
        _draw(path, title, lines, ("part of the operations", _TICKS), "latency, ms")


def growth(path: Path, title: str, rows: Sequence[Row]) -> bool:
    """Draw how something grows, if any rows are about that, and return whether they are."""
    points = sorted((row for row in rows if row.at), key=lambda row: (row.line, row.at))
    if not points:
        return False
    by_rate = len({row.line for row in points}) == 1
    lines = {
        line: [(row.at or 0.0, _height(row, by_rate=by_rate)) for row in group]
        for line, group in groupby(points, key=lambda row: row.line)
    }
    ticks = {row.at or 0.0: f"{row.at:,.0f}" for row in points}
    below = ("connections" if by_rate else "messages in the queue", ticks)
    _draw(path, title, lines, below, "messages per second" if by_rate else "median, ms")
    return True


def _height(row: Row, *, by_rate: bool) -> float:
    return rate(row) if by_rate else at(latencies_of(row.result), 50.0)


def _draw(
    path: Path, title: str, lines: Mapping[str, Points], below: tuple[str, Mapping[float, str]], left: str
) -> None:
    """Draw lines; what is given to the library are logarithms."""
    chart = leather.Chart(title)
    for (name, points), color in zip(lines.items(), cycle(_COLORS), strict=False):
        logs = [(log10(x), log10(max(y, _LEAST))) for x, y in points]
        chart.add_line(logs, name=name, stroke_color=color)
    places = [x for points in lines.values() for x, _ in points]
    heights = [max(y, _LEAST) for points in lines.values() for _, y in points]
    name, marks = below
    first, last = min(places), max(places)
    ticks = {x: text for x, text in marks.items() if first <= x <= last}
    chart.add_x_scale(log10(first), log10(last if last > first else first * 10))
    chart.add_x_axis(ticks=[log10(x) for x in ticks], name=name, tick_formatter=_texts(ticks))
    ticks = _round(min(heights), max(heights))
    chart.add_y_scale(log10(min(ticks)), log10(max(ticks)))
    chart.add_y_axis(ticks=[log10(y) for y in ticks], name=left, tick_formatter=_texts(ticks))
    chart.to_svg(str(path), *_SIZE)


def _texts(ticks: Mapping[float, str]) -> Callable[[float, int, int], str]:
    """Return what tells the library how marks are written."""
    texts = list(ticks.values())
    return lambda _value, index, _count: texts[index]


def _round(lowest: float, highest: float) -> dict[float, str]:
    """Return marks at 1, 2 and 5 times the powers of ten, from below the lowest value to above the highest."""
    exponents = range(floor(log10(lowest)), ceil(log10(highest)) + 1)
    values = [step * 10.0**exponent for exponent in exponents for step in (1, 2, 5)]
    first = max(value for value in values if value <= lowest)
    last = min(value for value in values if value > highest)
    return {value: f"{value:,.10g}" for value in values if first <= value <= last}
