"""What was measured: as tables to read, and as JSON with the conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from bench.conditions import Conditions

Cell: TypeAlias = float | int | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One load, measured against a yardstick in the same run."""

    table: str  # what it is about; one table for all figures that share it
    load: str  # what was done
    columns: Mapping[str, Cell]  # what was measured, by name with unit; the same names in one table
    ratio: float  # measured over yardstick; `table` says of what
    at_most: float | None = None  # where the ratio should stay below
    at_least: float | None = None  # where it should stay above

    @property
    def verdict(self) -> str:
        """Whether the goal was met; nothing where there is none."""
        if self.at_most is not None:
            return _verdict(self.ratio <= self.at_most, f"<= {self.at_most}")
        if self.at_least is not None:
            return _verdict(self.ratio >= self.at_least, f">= {self.at_least}")
        return ""


def _verdict(met: bool, goal: str) -> str:
    return f"{'met' if met else 'MISSED'} ({goal})"


def against(
    goal: float, measured: float, *, table: str, load: str, least: bool = False, most: bool = False
) -> Figure:
    """Return a figure whose yardstick is a goal: the `least` it should be, or the `most`, or just to compare."""
    return Figure(
        table=table,
        load=load,
        columns={"measured": measured},
        ratio=measured / goal,
        at_least=1.0 if least else None,
        at_most=1.0 if most else None,
    )


def text(conditions: Conditions, figures: Sequence[Figure]) -> str:
    """Return conditions and tables."""
    parts = ["\n".join(f"{name}: {value}" for name, value in conditions.lines())]
    for title, rows in groupby(figures, key=lambda figure: figure.table):
        parts.append(f"{title}\n\n{_table(list(rows))}")
    return "\n\n".join(parts)


def save(path: Path, conditions: Conditions, figures: Sequence[Figure]) -> None:
    """Write everything to a JSON file."""
    document: dict[str, Any] = {
        "conditions": asdict(conditions),
        "figures": [{**asdict(figure), "verdict": figure.verdict} for figure in figures],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _table(figures: Sequence[Figure]) -> str:
    rows = [["load", *figures[0].columns, "ratio", "goal"]]
    for figure in figures:
        cells = [_cell(value) for value in figure.columns.values()]
        rows.append([figure.load, *cells, f"{figure.ratio:.2f}", figure.verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in [rows[0], ["-" * width for width in widths], *rows[1:]])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers, last = row
    padded = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
    return "  ".join([first.ljust(widths[0]), *padded, last]).rstrip()


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value
