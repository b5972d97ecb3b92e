"""What processes use up, told by psutil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import psutil

#: Processes by what they are: the server, the store.
Processes: TypeAlias = Mapping[str, Sequence[psutil.Process]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What some processes used up."""

    cpu: float = 0.0  # seconds
    memory: int = 0  # resident bytes

    def since(self, before: Usage) -> Usage:
        """Return what was used since then, and the memory of now."""
        return Usage(cpu=self.cpu - before.cpu, memory=self.memory)


def family(processes: Processes) -> Processes:
    """Return the processes with all their children, which takes a while to find out."""
    return {
        name: [each for process in group for each in (process, *process.children(recursive=True))]
        for name, group in processes.items()
    }


def usage(processes: Processes) -> dict[str, Usage]:
    """Return what they have used up so far."""
    return {name: _sum(group) for name, group in processes.items()}


def _sum(group: Sequence[psutil.Process]) -> Usage:
    times = [process.cpu_times() for process in group]
    return Usage(
        cpu=sum(each.user + each.system for each in times),
        memory=sum(process.memory_info().rss for process in group),
    )
