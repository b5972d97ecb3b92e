"""What a checker says, and how it looks at a history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.history import Operation

#: Seconds by which clocks of different processes may differ, and a measured moment be off.
SLACK = 0.25

SETTLED = 8.0  # seconds after which requests that were lost have no effect any more


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a promise was kept."""

    name: str
    problems: tuple[str, ...] = ()  # none if it was
    numbers: dict[str, int | float] = field(default_factory=dict)  # for the report


def chosen(
    history: Iterable[Operation],
    *names: str,
    tenant: str | None = None,
    queue: str | None = None,
    outcome: str | None = None,
) -> Iterator[Operation]:
    """Return the operations of some names, of one tenant, queue, and outcome."""
    for each in history:
        if (
            each.name in names
            and tenant in (None, each.tenant)
            and queue in (None, each.queue)
            and outcome in (None, each.outcome)
        ):
            yield each


def queues(history: Iterable[Operation]) -> list[tuple[str, str]]:
    """Return every queue that somebody posted to, with its tenant."""
    return sorted({(each.tenant, each.queue) for each in chosen(history, "post")})


def delivered(operation: Operation) -> list[tuple[str, str]]:
    """Return (id, value) of the messages that a claim, a pop or a page brought."""
    answered = operation.answered
    return list(zip(answered.get("ids", ()), answered.get("values", ()), strict=True))


def left(history: Iterable[Operation], tenant: str, queue: str) -> list[str]:
    """Return what the last look at a whole queue found."""
    pages = chosen(history, "list", tenant=tenant, queue=queue, outcome="ok")
    return [value for page in pages if page.process == "auditor" for _, value in delivered(page)]


def place(id_: str) -> int:
    """Return a message's place in its queue, which is the first half of its id."""
    return int(id_[:16], 16)


def disturbances(history: Sequence[Operation]) -> list[tuple[float, float]]:
    """Return the times during which something was wrong."""
    spans = []
    begun: dict[str, float] = {}
    for each in chosen(history, "fault", "healed"):
        fault = each.answered["fault"]
        if each.name == "fault":
            begun.setdefault(fault, each.started)
        else:
            spans.append((begun.pop(fault, each.started), each.started))
    return spans + [(start, float("inf")) for start in begun.values()]


def jumps(history: Sequence[Operation]) -> list[tuple[float, float]]:
    """Return the times at which the clock that decides about leases jumped, as (from, to)."""
    return [
        (each.started - SLACK, each.started + SLACK)
        for each in chosen(history, "fault", "healed")
        if each.answered["fault"].startswith("clocks off") and each.answered.get("decides", True)
    ]


def overlaps(start: float, end: float, spans: Iterable[tuple[float, float]]) -> bool:
    """Whether a time has a part of any of some others."""
    return any(begin <= end and start <= finish for begin, finish in spans)
