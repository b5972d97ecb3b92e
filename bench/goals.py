"""How fast the service is to be, and whether it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from bench.contest import DEEP, LUA_APP, SERVICE, Measured
from bench.depth import GOAL as DEAREST
from bench.depth import SMALL
from bench.report import table
from bench.trials import Trial


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
        share = statistics.median(mine / other for mine, other in zip(ours.rates, theirs.rates, strict=True))
        words = f"{share:.0%} ({ours.rate:,.0f} of {theirs.rate:,.0f}/s; {_by_cpu(ours, theirs)} by cpu)"
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
        """Look how fast it was, and whether the machine was."""
        rate = found.trials[self.load][SERVICE].rate
        met = rate >= self.rate
        if not met and self.given:
            reached = found.trials["post of 1"][LUA_APP].rate
            if reached < self.given:
                return f"{rate:,.0f}/s, where that reached {reached:,.0f}", rate, None
        return f"{rate:,.0f}/s", rate, met


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


def _by_cpu(ours: Trial, theirs: Trial) -> str:
    """Return the share that the processor time of all processes comes to, whatever others do on the machine."""
    mine, other = ours.cpu_each(), theirs.cpu_each()
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


def document(found: Mapping[str, Measured | str]) -> dict[str, Any]:
    """Return all of it for a JSON file."""
    return {
        "stores": {
            store: {
                "goals": [{**asdict(each), "verdict": each.verdict} for each in judged(store, measured)],
                **({} if isinstance(measured, str) else _details(measured)),
            }
            for store, measured in found.items()
        }
    }


def _details(measured: Measured) -> dict[str, Any]:
    return {
        "conditions": asdict(measured.conditions),
        "loads": {
            load: {name: _trial(trial) for name, trial in trials.items()}
            for load, trials in measured.trials.items()
        },
        "depth": [asdict(figure) for figure in measured.depth],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "messages_per_second": trial.rates,
        "latencies": trial.score.latencies.encode().decode(),
        "cpu": {name: trial.cpu_each(name) for name in trial.cpu},
        "errors": dict(trial.errors),
    }
