"""A service and its yardsticks, which take turns under the same load, in short slices of one run.

So whatever else the machine does meanwhile, it does to all of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import closing
from typing import Protocol

from bench.fleet import Fleet, Result
from bench.populations import post
from bench.rest import Target
from bench.rows import Row
from bench.usage import Processes
from bench.workloads import Load
from bench.yardsticks.alone import open_engine
from queues.models import Address
from queues.ports import MessageStore

_WARM_UP = 0.4  # seconds of each slice that do not count


class Contender(Protocol):
    """Something that can be put under a load."""

    def prepare(self, load: Load, stock: int) -> None:
        """Get ready for a slice that takes at most so many messages."""

    def run(self, load: Load, seconds: float) -> Result:
        """Bear the load for a while."""


def take_turns(
    contenders: Mapping[str, Contender], load: Load, *, seconds: float, slices: int, stock: int
) -> dict[str, Row]:
    """Put each contender under the load in turn, so many slices of so many seconds."""
    results = {name: Result() for name in contenders}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(slices):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            contenders[name].prepare(load, stock)
            found = contenders[name].run(load, seconds)
            rates[name].append(found.rate)
            results[name].add(found)
    return {name: Row(name=name, result=results[name], slices=rates[name]) for name in contenders}


class Served:
    """A server that speaks the API, and the store behind it if it is to be filled."""

    def __init__(
        self, fleet: Fleet, url: str, processes: Processes, store: MessageStore | None = None
    ) -> None:
        self._fleet = fleet
        self._target = Target(url=url, project=f"bench-{secrets.token_hex(4)}")
        self._processes = processes
        self._store = store

    def prepare(self, load: Load, stock: int) -> None:
        """See to it that so many messages are there, if the load takes any."""
        if load.name != "claim-delete" or self._store is None:
            return
        address = Address(project=self._target.project, queue=load.queue)
        there = self._store.stats(address, now=self._store.clock()).free
        if there < stock:
            post(self._store, address, stock - there)

    def run(self, load: Load, seconds: float) -> Result:
        """Bear the load for a while."""
        return self._fleet.run(
            self._target, load, seconds=seconds, warm_up=_WARM_UP, processes=self._processes
        )


class Alone:
    """An engine without any service, used by the client processes themselves."""

    def __init__(self, fleet: Fleet, engine: str, uri: str, processes: Processes, threads: int) -> None:
        self._fleet = fleet
        self._engine = engine
        self._uri = uri
        self._processes = processes
        self._threads = threads

    def prepare(self, load: Load, stock: int) -> None:
        """Get ready."""
        with closing(open_engine(self._engine, self._uri, load.size)) as engine:
            engine.prepare(stock if load.name == "claim-delete" else 0)

    def run(self, load: Load, seconds: float) -> Result:
        """Bear the load for a while."""
        return self._fleet.run_alone(
            self._engine,
            self._uri,
            load,
            seconds=seconds,
            threads=self._threads,
            processes=self._processes,
        )
