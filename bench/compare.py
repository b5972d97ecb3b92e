"""What has changed from one file of figures to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report import Cell, table

Document = Mapping[str, Any]

#: What is compared of a row, and where it is in the file.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "messages/s": ("messages_per_second",),
    "p50, ms": ("latencies_ms", "p50"),
    "p99, ms": ("latencies_ms", "p99"),
    "server, cpu µs": ("cpu_us_per_message", "server"),
    "store, cpu µs": ("cpu_us_per_message", "store"),
}
_CHANCE = ("date", "busy", "sync")  # conditions that differ by themselves


def text(before: Document, after: Document) -> str:
    """Return the tables, and which conditions differ."""
    parts = []
    if differences := list(_differences(before.get("conditions", {}), after.get("conditions", {}))):
        parts.append("Not under the same conditions:\n" + "\n".join(differences))
    if rows := list(_rows(before, after)):
        parts.append(table(("what", "figure", "before", "after", "ratio"), rows))
    alone = sorted(set(_names(before)) ^ set(_names(after)))
    if alone:
        parts.append("In one of them only: " + ", ".join(alone))
    return "\n\n".join(parts) or "There is nothing in both of them."


def _rows(before: Document, after: Document) -> Iterator[list[Cell]]:
    old, new = _figures(before), _figures(after)
    for (name, column), value in old.items():
        other = new.get((name, column))
        if other is not None:
            yield [name, column, float(value), float(other), f"{other / value:.2f}" if value else "-"]


def _figures(document: Document) -> dict[tuple[str, str], float]:
    """Return every number that can be compared, by what it is about and its name."""
    found: dict[tuple[str, str], float] = {}
    for row in document.get("rows", ()):
        for column, path in _COLUMNS.items():
            value: Any = row
            for step in path:
                value = value.get(step) if isinstance(value, Mapping) else None
            if isinstance(value, int | float):
                found[row["name"], column] = value
    for figure in document.get("figures", ()):
        name = f"{figure['table']}: {figure['load']}"
        for column, value in {**figure["columns"], "ratio": figure["ratio"]}.items():
            if isinstance(value, int | float):
                found[name, column] = value
    return found


def _names(document: Document) -> Iterator[str]:
    yield from (row["name"] for row in document.get("rows", ()))
    yield from (f"{figure['table']}: {figure['load']}" for figure in document.get("figures", ()))


def _differences(before: Document, after: Document, prefix: str = "") -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if name in _CHANCE or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name}, ")
        else:
            yield f"{prefix}{name}: {old} before, {new} after"
