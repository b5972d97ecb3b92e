"""The layout of what is in Redis; what it looks like stands on top of `storage/lua/common.lua`.

How to change it is told in docs/explanation/upgrades.md. A step is a line here and a function, which finds the
keys by `SCAN` or by the shards' `due`, changes a part in each script, and can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from queues.models import LayoutStep, StepKind
from storage.layouts import by_themselves, oldest_reader


class Scripts(Protocol):
    """A server that runs scripts; see `storage.redis_link`."""

    @property
    def prefix(self) -> str:
        """What all keys begin with."""

    def script(self, script: str, key: str, *argument: object) -> list[Any]:
        """Run a script of `storage/lua` on a key and return its answer."""


STEPS: Final = (LayoutStep(number=1, kind=StepKind.EXPAND, what="the keys of release 0.1.0"),)

#: What makes a step, by its number; nothing where new data alone look different.
WORK: Final[Mapping[int, Callable[[Scripts], None]]] = {}


class RedisLayout:
    """See `storage.layouts.Layered`. The layout is noted in the hash `PREFIX:layout`."""

    name = "redis"

    def __init__(
        self,
        link: Scripts,
        steps: Sequence[LayoutStep] = STEPS,
        work: Mapping[int, Callable[[Scripts], None]] = WORK,
    ) -> None:
        self._link = link
        self._work = work
        self.steps = steps

    def found(self) -> tuple[int, int]:
        """Return what is noted, having noted it in a store that is new."""
        new = by_themselves(self.steps)
        answer = self._link.script("layout", self._key, new, oldest_reader(self.steps, new))
        return int(answer[1]), int(answer[2])

    def perform(self, step: LayoutStep) -> None:
        """Make a step and note it."""
        if step.number in self._work:
            self._work[step.number](self._link)
        oldest = oldest_reader(self.steps, step.number)
        self._link.script("layout_raise", self._key, step.number, oldest)

    @property
    def _key(self) -> str:
        return f"{self._link.prefix}:layout"
