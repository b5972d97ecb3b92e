"""What subscribers hear, and how late: `python -m bench.receiver` and `python -m bench.listener` as processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.services import free_port

_SILENCE = 2.5  # seconds without anything new after which nothing more is to come


@dataclass
class Arrivals:
    """What a subscriber got, second by second."""

    seconds: list[list[float]] = field(default_factory=list)  # ages in ms

    def ages(self) -> list[float]:
        """Return all of them."""
        return [age for second in self.seconds for age in second]

    def rate(self) -> float:
        """Return the median number of deliveries in those seconds that were full of them."""
        full = [len(ages) for ages in self.seconds if ages][1:-1]
        return statistics.median(full) if full else 0.0

    def percentile(self, part: float) -> float:
        """Return the age that so many were not older than, the first second left out."""
        ages = sorted(age for second in [each for each in self.seconds if each][1:] for age in second)
        return ages[min(int(len(ages) * part), len(ages) - 1)] if ages else float("nan")

    def settle(self, expected: int, limit: float, *, silence: float = _SILENCE) -> None:
        """Wait until so many have come, or nothing has for a while, but no longer than `limit` seconds."""
        end = time.monotonic() + limit
        seen, last = -1, time.monotonic()
        while seen < expected and time.monotonic() < min(end, last + silence):
            now = sum(map(len, self.seconds))
            if now != seen:
                seen, last = now, time.monotonic()
            time.sleep(0.1)


@contextmanager
def receiving(host: str = "127.0.0.1") -> Iterator[tuple[int, Arrivals]]:
    """Yield the port of a webhook, and what it gets."""
    port = free_port()
    with _reporting("bench.receiver", str(port), host) as arrivals:
        yield port, arrivals


@contextmanager
def listening(*arguments: str) -> Iterator[Arrivals]:
    """Yield what websockets hear; see `bench.listener` for the arguments."""
    with _reporting("bench.listener", *arguments) as arrivals:
        yield arrivals


@contextmanager
def _reporting(module: str, *arguments: str) -> Iterator[Arrivals]:
    """Run a subscriber, and wait until it says that it is ready."""
    arrivals = Arrivals()
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        arrivals.seconds.extend(json.loads(line) for line in lines)

    try:
        if lines.readline() != "ready\n":
            raise RuntimeError("A subscriber does not come up.")
        reader = threading.Thread(target=read)
        reader.start()
        yield arrivals
        process.terminate()
        reader.join()
    finally:
        process.kill()
        process.wait()
        lines.close()
