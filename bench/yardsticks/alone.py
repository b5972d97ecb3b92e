"""An engine without any service, used by several threads of several processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Protocol

from bench.client import Count, Tally
from bench.workloads import Load


class Engine(Protocol):
    """A queue made of what an engine offers."""

    def close(self) -> None:
        """Let go of it."""

    def prepare(self, stock: int) -> None:
        """Get ready for a slice of load that takes at most so many messages."""

    def post(self, count: int) -> None:
        """Write so many messages at once."""

    def take(self, count: int) -> int:
        """Take so many messages, and return how many there were."""


#: Where the engines are; a library is imported where it is needed.
ENGINES: Mapping[str, str] = {
    "streams": "bench.yardsticks.redis:Streams",
    "lua": "bench.yardsticks.redis:Lua",
    "documents": "bench.yardsticks.mongodb:Documents",
    "leases": "bench.yardsticks.mongodb:Leases",
    "transactions": "bench.yardsticks.mongodb:Transactions",
    "rows": "bench.yardsticks.sqlite:Rows",
}


def open_engine(name: str, uri: str, size: int) -> Engine:
    """Open one of the `ENGINES`, for bodies of so many bytes."""
    engine: Engine = resolve_name(ENGINES[name])(uri, size)
    return engine


@dataclass(frozen=True, kw_only=True, slots=True)
class BareOrder:
    """What a process is to do with an engine."""

    engine: str  # one of `ENGINES`
    uri: str
    load: Load
    threads: int
    start: float  # seconds since the epoch
    seconds: float


def work_alone(order: BareOrder) -> Tally:
    """Do what was ordered; each thread as fast as it can."""
    load = order.load
    with closing(open_engine(order.engine, order.uri, load.size)) as engine:
        counts = [Count() for _ in range(order.threads)]
        tally = Tally()

        def run(count: Count) -> None:
            time.sleep(max(0.0, order.start - time.time()))
            before = time.perf_counter()
            end = before + order.seconds
            while before < end:
                count.messages += _once(engine, load)
                after = time.perf_counter()
                count.latencies.append(after - before)
                count.operations += 1
                before = after

        cpu = time.process_time()
        threads = [threading.Thread(target=run, args=(count,)) for count in counts[1:]]
        for thread in threads:
            thread.start()
        run(counts[0])
        for thread in threads:
            thread.join()
        tally.cpu = time.process_time() - cpu
    total = tally.counts[load.name] = Count()
    for count in counts:
        total.latencies.extend(count.latencies)
        total.operations += count.operations
        total.messages += count.messages
    return tally


def _once(engine: Engine, load: Load) -> int:
    """Do it once, and return how many messages that moved."""
    if load.name == "claim-delete":
        return engine.take(load.batch)
    count = load.batch if load.name == "post-batch" else 1
    engine.post(count)
    return count
