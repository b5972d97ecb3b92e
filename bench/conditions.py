"""What a measurement depends on, besides what is measured."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from queues.ports import Driver

#: Bytes of every message body, unless a load says otherwise.
BODY_SIZE = 200

_LIBRARIES = ("hermod", "falcon", "gunicorn", "msgspec", "structlog", "redis", "pymongo", "aiohttp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Where, when and with what something was measured."""

    date: str  # UTC
    system: str  # operating system and kind of processor
    cores: int  # shared by client, server and store
    busy: float  # processes that wanted a core in the minute before it began
    python: str
    sqlite: str
    libraries: Mapping[str, str]  # version by name
    store: Mapping[str, str]  # what the engine says of its durability; nothing where it is not known
    sync: float  # µs; median of writing 4 KiB to the disk of the files and waiting until they are there
    body_size: int  # bytes
    setup: Mapping[str, int | float | str] = field(default_factory=dict)  # what was asked for

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield name and value, for reading."""
        for each in fields(self):
            value = getattr(self, each.name)
            if value == {}:
                continue
            if isinstance(value, Mapping):
                value = ", ".join(f"{name} {text}" for name, text in value.items())
            elif isinstance(value, float):
                value = f"{value:.1f}"
            yield each.name.replace("_", " "), str(value)
        if self.busy > self.cores / 2:
            yield "beware", "others used the cores when this began; the times are theirs too"


def conditions(
    driver: Driver | None,
    folder: Path,
    *,
    body_size: int = BODY_SIZE,
    setup: Mapping[str, int | float | str] | None = None,
) -> Conditions:
    """Look around; `folder` is where the files of the measurement are, `setup` what was asked for."""
    facts = {} if driver is None else driver.messages.durability().facts
    return Conditions(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        busy=os.getloadavg()[0],
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        libraries={name: version(name) for name in _LIBRARIES},
        store={name: value for name, value in facts.items() if name != "file"},
        sync=_sync_time(folder),
        body_size=body_size,
        setup=setup or {},
    )


def _sync_time(folder: Path, times: int = 100) -> float:
    path = folder / "sync"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(taken) * 1e6
