"""The layout of what a store holds: which one is found, what a release can read, and the steps from one to the next.

Whatever a driver stores has a layout, and layouts have numbers. A release knows the steps that lead to its own, of three
kinds, which `queues.models.StepKind` tells; docs/explanation/upgrades.md has the recipe. The data state their own
number, and beside it that of the oldest release that may use them: so a newer layout is used as long as it fits, and
refused as soon as it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from queues.errors import StoreUnsupported
from queues.models import Layout, LayoutStep, StepKind


class Layered(Protocol):
    """Data that have a layout."""

    name: str  # of the driver

    @property
    def steps(self) -> Sequence[LayoutStep]:
        """What leads to the layout that this release knows, the first one first."""

    def found(self) -> tuple[int, int]:
        """Return the layout of the data, and the lowest that a release has to know to use them."""

    def perform(self, step: LayoutStep) -> None:
        """Make a step, and note that it was made; to be repeated if it was interrupted, and nothing if it was made."""


def by_themselves(steps: Sequence[LayoutStep]) -> int:
    """Return up to which number steps are made when a store is opened.

    That is up to the last expansion: what stands in front of it is of an earlier release, and what follows it would
    disturb processes of the release before.
    """
    return max((step.number for step in steps if step.kind is StepKind.EXPAND), default=0)


def oldest_reader(steps: Sequence[LayoutStep], number: int) -> int:
    """Return what a release has to know to use data of a layout."""
    return max((step.number for step in steps[:number] if step.kind is StepKind.CONTRACT), default=1)


def refuse_newer(data: Layered, known: int | None = None) -> int:
    """Return the layout that is found. Raises StoreUnsupported if this release is too old for it."""
    number, oldest = data.found()
    known = len(data.steps) if known is None else known
    if number > known and oldest > known:
        raise StoreUnsupported(
            f"The data of this {data.name} store have version {number} and need a release that knows version {oldest};"
            f" this one knows {known}."
        )
    return number


def make_ready(data: Layered) -> None:
    """Look whether this release may use the data, and make the steps that nobody notices."""
    number = refuse_newer(data)
    for step in data.steps[number : by_themselves(data.steps)]:
        data.perform(step)


def layout_of(data: Layered) -> Layout:
    """Return which layout is found, and what is left to be done."""
    number = refuse_newer(data)
    return Layout(driver=data.name, found=number, known=len(data.steps), pending=data.steps[number:])


def bring_up(data: Layered) -> Iterator[LayoutStep]:
    """Make every step that is left, and yield each when it is made."""
    for step in layout_of(data).pending:
        data.perform(step)
        yield step
