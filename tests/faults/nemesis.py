"""The nemesis: faults, and a schedule of them that is the same for the same seed.

A schedule goes through the whole deck of faults before it begins again, in periods of one or two
faults at a time that touch different processes, with a quiet time behind each.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.faults.faults import (
    ClockJump,
    DiskFails,
    Front,
    Kill,
    KillWorker,
    Link,
    Pause,
    RestartStore,
    StopStore,
    TornLog,
)
from tests.faults.history import History
from tests.faults.node import LEASE
from tests.faults.proxy import MODES
from tests.faults.tools import Tools
from tests.faults.world import CLOCKS, COMMANDS, World

HOLD = (0.5, 2.5 * LEASE)  # seconds that a fault lasts, from and to
BOTH = 0.5  # how often two faults are there at the same time


class Fault(Protocol):
    """Something that goes wrong, for a while."""

    @property
    def name(self) -> str:
        """What it is called in reports."""

    @property
    def touches(self) -> frozenset[str]:
        """What no other fault may touch at the same time."""

    def start(self, world: World) -> None:
        """Let it go wrong."""

    def heal(self, world: World) -> None:
        """Let it be over."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """Faults at the same time, and the quiet behind them."""

    faults: tuple[Fault, ...]
    hold: float  # seconds
    quiet: float  # seconds

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        names = [fault.name for fault in self.faults]
        return {"faults": names, "hold": round(self.hold, 3), "quiet": round(self.quiet, 3)}


def deck(store: str, tools: Tools) -> list[Fault]:
    """Return every fault that can be made."""
    faults: list[Fault] = [Kill((name,)) for name in COMMANDS]
    faults += [Kill(tuple(COMMANDS)), KillWorker("api-1"), KillWorker("websocket")]
    faults += [Pause((name,)) for name in COMMANDS]
    faults += [Pause(("api-1", "api-2")), Pause(("notifier-1", "notifier-2"))]
    faults += [Front(name, mode) for name in ("api-1", "api-2", "websocket") for mode in MODES]
    if store == "sqlite":
        faults += [TornLog()]
    else:
        faults += [StopStore(kill=True), StopStore(kill=False), RestartStore()]
        faults += [Link((name,), mode) for name in ("api-1", "notifier-1", "websocket") for mode in MODES]
        faults += [Link(tuple(COMMANDS), mode) for mode in MODES]
    if tools.shim is None:
        return faults
    if store != "mongodb":
        faults += [DiskFails("full"), DiskFails("sync")]
    # On one machine there is one clock, and what it says goes; where the store has its own, nodes may be far off.
    who, jumps = (tuple(COMMANDS), (2 * LEASE, -LEASE)) if store == "sqlite" else (CLOCKS, (3600, -3600))
    faults += [ClockJump(who, seconds) for seconds in jumps]
    return faults


def schedule(
    store: str,
    tools: Tools,
    seed: int,
    seconds: float,
    quiet: tuple[float, float],
    without: tuple[str, ...] = (),
) -> list[Period]:
    """Draw what goes wrong in a run of so many seconds, from all faults but those whose names begin with some words."""
    chance = random.Random(f"{store}/{seed}")
    cards = _endless([fault for fault in deck(store, tools) if not fault.name.startswith(without)], chance)
    periods: list[Period] = []
    put_off: list[Fault] = []
    left = seconds
    while left > 0:
        faults = [put_off.pop() if put_off else next(cards)]
        if chance.random() < BOTH:
            other = next(cards)
            (put_off if other.touches & faults[0].touches else faults).append(other)
        period = Period(faults=tuple(faults), hold=chance.uniform(*HOLD), quiet=chance.uniform(*quiet))
        periods.append(period)
        left -= period.hold + period.quiet
    return periods


def digest(periods: Sequence[Period]) -> str:
    """Return a few characters that are others for any other schedule."""
    text = json.dumps([period.document() for period in periods])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _endless(cards: Sequence[Fault], chance: random.Random) -> Iterator[Fault]:
    while True:
        yield from chance.sample(cards, len(cards))


def rage(periods: Sequence[Period], world: World, history: History, stop: threading.Event) -> None:
    """Make the faults of a schedule, each of which is over at the end."""
    for period in periods:
        if stop.is_set():
            return
        started: list[Fault] = []
        try:
            for fault in period.faults:
                decides = world.store == "sqlite"  # whether leases go by the clocks of the nodes
                history.note("nemesis", "fault", fault=fault.name, decides=decides)
                started.append(fault)
                fault.start(world)
            stop.wait(period.hold)
        finally:
            for fault in reversed(started):
                fault.heal(world)
                history.note("nemesis", "healed", fault=fault.name, decides=world.store == "sqlite")
        stop.wait(period.quiet)
