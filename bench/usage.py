"""What processes use up while something goes on, told by psutil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import psutil

#: Processes by what they are: the server, the store.
Processes: TypeAlias = Mapping[str, Sequence[psutil.Process]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What some processes used up."""

    cpu: float = 0.0  # seconds
    memory: int = 0  # resident bytes at the end

    def and_then(self, later: Usage) -> Usage:
        """Return both together."""
        return Usage(cpu=self.cpu + later.cpu, memory=later.memory)


class Meter:
    """Tells what processes and their children use up; a child that comes or goes meanwhile is left out."""

    def __init__(self, processes: Processes) -> None:
        self._families = {
            name: [each for process in group for each in (process, *process.children(recursive=True))]
            for name, group in processes.items()
        }
        self._before: dict[psutil.Process, float] = {}

    def start(self) -> None:
        """Begin to count."""
        for family in self._families.values():
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    self._before[process] = _cpu(process)

    def read(self) -> dict[str, Usage]:
        """Return what was used since the start."""
        return {name: self._sum(family) for name, family in self._families.items()}

    def _sum(self, family: Sequence[psutil.Process]) -> Usage:
        cpu, memory = 0.0, 0
        for process in family:
            with suppress(psutil.NoSuchProcess, KeyError):
                cpu += _cpu(process) - self._before[process]
                memory += process.memory_info().rss
        return Usage(cpu=cpu, memory=memory)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    spent: float = times.user + times.system
    return spent
