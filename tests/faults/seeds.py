"""Seeds whose runs once found something, which `hermod-faults --once-failed` makes again.

What a seed draws depends on the faults that there are to choose from. So each entry has the digest of what it drew, and a
test fails when that is no longer what it draws: a fault that came later is left out by `without`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.faults.run import Options


@dataclass(frozen=True, kw_only=True)
class OnceFailed:
    """A run that failed, and does not any more."""

    store: str
    seed: int
    minutes: float  # until it is beyond the fault that found it
    without: tuple[str, ...] = ()  # faults that there were not yet
    plan: str  # the digest of its schedule
    found: str  # what was wrong
    test: str  # which has shown it since without any chance

    @property
    def options(self) -> Options:
        """How to make it again."""
        return Options(
            store=self.store,
            seed=self.seed,
            seconds=60 * self.minutes,
            without=self.without,
            folder=Path(),  # that is for whoever makes it
        )


ONCE_FAILED = (
    OnceFailed(
        store="redis",
        seed=20,
        minutes=10,
        without=("lag",),
        plan="7fac20d05288",
        found="a lease ended early: a process guessed the clock of the server from one slow answer",
        test="tests/storage/test_server_clock.py",
    ),
)
