"""How fast the service is to be, and whether it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from bench.contest import DEEP, LUA_APP, SERVICE, Measured
from bench.depth import GOAL as DEAREST
from bench.depth import SMALL
from bench.report import table
from bench.rows import Row, cpu_each, document, rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a goal came out."""

    load: str
    goal: str
    measured: str
    value: float | None = None
    met: bool | None = None  # None where it could not be judged; `measured` says why

    @property
    def verdict(self) -> str:
        """Say whether it was met."""
        return {None: "not judged", True: "met", False: "MISSED"}[self.met]


class Goal(Protocol):
    """What the service should reach on a store."""

    @property
    def load(self) -> str:
        """What is done, for the table."""

    @property
    def text(self) -> str:
        """What is wanted, for the table."""

    def judge(self, found: Measured) -> tuple[str, float | None, bool | None]:
        """Return what was measured, in words and as a number, and whether that is enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share of what a yardstick reaches under the same load."""

    load: str
    of: str
    share: float

    @property
    def text(self) -> str:
        """What is wanted."""
        return f"at least {self.share:.0%} of {self.of}"

    def judge(self, found: Measured) -> tuple[str, float | None, bool | None]:
        """Compare the slices that were next to each other."""
        ours, theirs = found.trials[self.load][SERVICE], found.trials[self.load][self.of]
        share = statistics.median(
            mine / other for mine, other in zip(ours.slices, theirs.slices, strict=True)
        )
        words = f"{share:.0%} ({rate(ours):,.0f} of {rate(theirs):,.0f}/s; {_by_cpu(ours, theirs)} by cpu)"
        return words, share, share >= self.share


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Messages per second, where the machine is fast enough for that."""

    load: str
    rate: int
    given: int = 0  # posts of 1 per second that `LUA_APP` reaches on such a machine

    @property
    def text(self) -> str:
        """What is wanted."""
        where = f", where {LUA_APP} reaches {self.given:,}" if self.given else ""
        return f"at least {self.rate:,}/s{where}"

    def judge(self, found: Measured) -> tuple[str, float | None, bool | None]:
        """Look how fast it was; on a slower machine as much less is enough as the yardstick is slower."""
        ours = rate(found.trials[self.load][SERVICE])
        reached = rate(found.trials["post of 1"][LUA_APP]) if self.given else 0.0
        if reached >= self.given:
            return f"{ours:,.0f}/s", ours, ours >= self.rate
        enough = self.rate * reached / self.given
        words = f"{ours:,.0f}/s, where that reached {reached:,.0f} and {enough:,.0f} are as good"
        return words, ours, ours >= enough


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """What the dearest operation costs on a deep queue, against a shallow one."""

    deep: int

    @property
    def load(self) -> str:
        """What is done."""
        return f"any operation at depth {self.deep:,}"

    @property
    def text(self) -> str:
        """What is wanted."""
        return f"at most {DEAREST} times its cost at {SMALL:,}"

    def judge(self, found: Measured) -> tuple[str, float | None, bool | None]:
        """Look for the dearest one."""
        if not found.depth:
            return "left out", None, None
        worst = max(found.depth, key=lambda figure: figure.ratio)
        return f"{worst.ratio:.2f} ({worst.load})", worst.ratio, worst.ratio <= DEAREST


def _by_cpu(ours: Row, theirs: Row) -> str:
    """Return the share that the processor time of all processes comes to, whatever others do on the machine."""
    mine, other = cpu_each(ours.result), cpu_each(theirs.result)
    return f"{other / mine:.0%}" if mine and other else "not known"


GOALS: Mapping[str, Sequence[Goal]] = {
    "redis": (
        Share(load="post of 1", share=0.45, of=LUA_APP),
        Rate(load="post of 1", rate=3_500, given=5_500),
        Rate(load="post of 10", rate=30_000, given=5_500),
        Rate(load="claim 10 + delete 10", rate=15_000, given=5_500),
        Depth(deep=DEEP["redis"]),
    ),
    "mongodb": (
        Share(load="post of 1", share=0.5, of="insert_one"),
        Share(load="post of 10", share=0.6, of="insert_many"),
        Rate(load="claim 10 + delete 10", rate=5_000),
        Depth(deep=DEEP["mongodb"]),
    ),
    "sqlite": (
        Share(load="post of 1", share=0.5, of="sqlite3"),
        Share(load="post of 10", share=0.6, of="sqlite3"),
        Rate(load="claim 10 + delete 10", rate=10_000),
        Depth(deep=DEEP["sqlite"]),
    ),
}


def judged(store: str, found: Measured | str) -> list[Outcome]:
    """Return how the goals for a store came out; `found` may be why nothing was measured."""
    outcomes = []
    for goal in GOALS[store]:
        measured, value, met = (found, None, None) if isinstance(found, str) else goal.judge(found)
        outcomes.append(Outcome(load=goal.load, goal=goal.text, measured=measured, value=value, met=met))
    return outcomes


def text(found: Mapping[str, Measured | str]) -> str:
    """Return the table of goals."""
    rows = [
        [store, each.load, each.goal, each.measured, each.verdict]
        for store, measured in found.items()
        for each in judged(store, measured)
    ]
    return table(("store", "load", "goal", "measured", "verdict"), rows)


def documents(found: Mapping[str, Measured | str]) -> dict[str, Any]:
    """Return all of it for a JSON file."""
    return {
        "goals": {
            store: [{**asdict(each), "verdict": each.verdict} for each in judged(store, measured)]
            for store, measured in found.items()
        },
        "conditions": {
            store: asdict(measured.conditions)
            for store, measured in found.items()
            if not isinstance(measured, str)
        },
        "rows": [
            document(replace(row, name=f"{store}, {load}, {row.name}"))
            for store, measured in found.items()
            if not isinstance(measured, str)
            for load, trials in measured.trials.items()
            for row in trials.values()
        ],
        "figures": [
            {**asdict(figure), "load": f"{store}, {figure.load}"}
            for store, measured in found.items()
            if not isinstance(measured, str)
            for figure in measured.depth
        ],
    }
