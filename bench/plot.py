"""Plots as SVG: how latencies are distributed, and how something grows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import log10
from pathlib import Path
from typing import Any

import pygal

from bench.rows import Row, at, latencies_of, rate

_NINES = 5  # so many at most behind the comma of 0.99999
_TICKS = {0.0: "0 %", 1.0: "90 %", 2.0: "99 %", 3.0: "99.9 %", 4.0: "99.99 %", 5.0: "99.999 %"}
_STEPS = 10  # points between two of these


def latencies(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw a line for each row: the part of the operations that was not slower."""
    chart = _chart(title, "part of the operations", "latency, ms", log_y=True)
    chart.x_labels = [{"value": value, "label": label} for value, label in _TICKS.items()]
    for row in rows:
        found = latencies_of(row.result)
        if found.total_count:
            chart.add(row.name, [(x, at(found, _percent(x))) for x in _positions(found.total_count)])
    chart.render_to_file(str(path))


def growth(path: Path, title: str, rows: Sequence[Row]) -> bool:
    """Draw how something grows, if any rows are about that, and return whether they are."""
    points = sorted((row for row in rows if row.at), key=lambda row: (row.line, row.at))
    if not points:
        return False
    by_rate = all(row.line == points[0].line for row in points)
    what = "messages per second" if by_rate else "median, ms"
    chart = _chart(title, "connections" if by_rate else "messages in the queue", what)
    places = sorted({row.at for row in points if row.at})
    chart.x_labels = [{"value": log10(place), "label": f"{place:,.0f}"} for place in places]
    for line, group in groupby(points, key=lambda row: row.line):
        values = [
            (log10(row.at), rate(row) if by_rate else at(latencies_of(row.result), 50.0))
            for row in group
            if row.at
        ]
        chart.add(line, values)
    chart.render_to_file(str(path))
    return True


def _chart(title: str, x_title: str, y_title: str, *, log_y: bool = False) -> Any:  # noqa: ANN401 - no types
    # No script: a browser would fetch it from elsewhere.
    return pygal.XY(
        title=title,
        x_title=x_title,
        y_title=y_title,
        logarithmic=log_y,
        js=(),
        dots_size=2,
        legend_at_bottom=True,
    )


def _positions(count: int) -> list[float]:
    """Return where points are on the axis: as far as so many operations can tell."""
    last = min(log10(count), _NINES) if count > 1 else 0.0
    return [step / _STEPS for step in range(int(last * _STEPS) + 1)]


def _percent(position: float) -> float:
    return 100 * (1 - float(10.0**-position))
