"""What was measured: as tables to read, and as JSON with the conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress, groupby
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
    return f"{stated(conditions)}\n\n{tables(figures)}"


def tables(figures: Sequence[Figure]) -> str:
    """Return a table for each subject."""
    parts = []
    for title, group in groupby(figures, key=lambda figure: figure.table):
        rows = list(group)
        heads = ["load", *rows[0].columns, "ratio", "goal"]
        cells = [[row.load, *row.columns.values(), f"{row.ratio:.2f}", row.verdict] for row in rows]
        parts.append(f"{title}\n\n{table(heads, cells)}")
    return "\n\n".join(parts)


def save(path: Path, conditions: Conditions, figures: Sequence[Figure]) -> None:
    """Write everything to a JSON file."""
    write(path, conditions, {"figures": [{**asdict(each), "verdict": each.verdict} for each in figures]})


def write(path: Path, conditions: Conditions, document: Mapping[str, Any]) -> None:
    """Write a document to a JSON file, with the conditions."""
    whole = {"conditions": asdict(conditions), **document}
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def stated(conditions: Conditions) -> str:
    """Return the conditions, a line for each."""
    return "\n".join(f"{name}: {value}" for name, value in conditions.lines())


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table; columns of numbers are flush right, columns without any value left out."""
    known = [any(row[index] is not None for row in rows) for index in range(len(heads))]
    heads = list(compress(heads, known))
    cells = [[_cell(value) for value in compress(row, known)] for row in rows]
    columns = list(zip(heads, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [any(map(_is_number, column[1:])) for column in columns]
    lines = [list(heads), ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").lstrip("-").isdigit()


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value
