"""Several processes of a service over the same stores, in one: each can be held up, fail, or die at any step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, cast

from queues.errors import StoreUnavailable
from queues.models import Address, Claim, Json, JsonObject, Lease, NewMessage, Once, Selection
from queues.ports import Driver
from queues.service.catalogue import Catalogue, Place
from storage.registry import connect
from tests import servers
from tests.storage.probe import HOME, Clock, Probe
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

#: How to name a store that belongs to a folder.
KINDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'store.db'}",
    "redis": servers.redis_uri,
    "mongodb": servers.mongodb_uri,
}

PATIENCE = 0.05  # seconds that somebody waits for a queue before the move is called off


class Death(BaseException):
    """The process is no more."""


class Steps:
    """What one process asks of its stores, step by step; something can happen before or after each."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.before: Callable[[int, str], None] = _nothing
        self.after: Callable[[int, str], None] = _nothing

    def die(self, at: int, *, after: bool) -> None:
        """Let the process die at a step, before or after it takes effect."""

        def strike(number: int, _name: str) -> None:
            if number >= at:
                raise Death

        def before(number: int, name: str) -> None:
            if number > at:
                raise Death

        if after:
            self.before, self.after = before, strike
        else:
            self.before = strike

    def fail(self, at: int, *, after: bool, error: Exception | None = None) -> None:
        """Let one step fail, before or after it takes effect."""

        def strike(number: int, _name: str) -> None:
            if number == at:
                raise error or StoreUnavailable

        if after:
            self.after = strike
        else:
            self.before = strike

    def hold(self, name: str, meanwhile: Callable[[], object], *, after: bool = False) -> None:
        """Let something happen while the process is paused, once, at the first step of this name."""
        todo = [meanwhile]

        def pause(_number: int, found: str) -> None:
            if found == name and todo:
                todo.pop()()

        if after:
            self.after = pause
        else:
            self.before = pause

    def watch(self, label: str, part: object) -> Any:
        return _Watched(self, label, part)


def _nothing(_number: int, _name: str) -> None:
    pass


class _Watched:
    """One half of a store, whose every method is a step."""

    def __init__(self, steps: Steps, label: str, part: object) -> None:
        self._steps = steps
        self._label = label
        self._part = part

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._part, name)

        def call(*arguments: Any, **named: Any) -> Any:
            number = len(self._steps.taken)
            step = f"{self._label}.{name}"
            self._steps.taken.append(step)
            self._steps.before(number, step)
            answer = method(*arguments, **named)
            self._steps.after(number, step)
            return answer

        return call


class _WatchedDriver:
    """A driver whose transfers and records are steps of one process."""

    def __init__(self, driver: Driver, steps: Steps, label: str) -> None:
        self.messages = driver.messages
        self.capabilities = driver.capabilities
        self.transfers = steps.watch(label, driver.transfers)
        self.records = steps.watch(label, driver.records)

    def close(self) -> None:
        """The world closes it."""


class _Stores:
    """The stores of the pools, as one process sees them."""

    def __init__(self, drivers: dict[str, Driver], steps: Steps) -> None:
        labels = dict(zip(drivers, itertools.count(1), strict=False))
        self._drivers = {
            uri: _WatchedDriver(driver, steps, f"p{labels[uri]}") for uri, driver in drivers.items()
        }

    def open(self, uri: str, options: JsonObject) -> Driver:
        return cast(Driver, self._drivers[uri])

    def retain(self, uris: Collection[str]) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Node:
    """One process."""

    service: Service
    catalogue: Catalogue
    steps: Steps

    def create(self, address: Address = HOME, **metadata: Json) -> None:
        assert self.service.queues.create(address, metadata)

    def post(self, *bodies: str, address: Address = HOME, ttl: int = 3600, delay: int = 0) -> list[str]:
        new = [NewMessage(body=body.encode(), ttl=ttl, delay=delay) for body in bodies]
        return [*self.service.queues.append(address, new).ids]

    def post_once(self, key: str, *bodies: str, address: Address = HOME) -> list[str]:
        new = [NewMessage(body=body.encode(), ttl=3600) for body in bodies]
        once = Once(key=key, fingerprint=b"".join(body.encode() for body in bodies), window=600)
        return [*self.service.queues.append(address, new, once=once).ids]

    def claim(self, limit: int = 10, *, address: Address = HOME, ttl: int = 300, grace: int = 60) -> Claim:
        lease = Lease(ttl=ttl, grace=grace, limit=limit)
        claim = self.catalogue.at(
            address, lambda place: place.store.claim(address, lease, now=place.now).claim
        )
        assert claim is not None
        return claim

    def everything(self, address: Address = HOME) -> list[tuple[Any, ...]]:
        """Return all that there is to see of each message, in queue order; times as if clocks were alike."""
        selection = Selection(limit=1_000_000, include_claimed=True, include_delayed=True)

        def look(place: Place) -> list[tuple[Any, ...]]:
            ready = {
                m.id for m in place.store.list(address, Selection(limit=1_000_000), now=place.now)
            }  # neither claimed nor delayed
            found = place.store.list(address, selection, now=place.now)
            ahead = place.now - self.service.clock()
            return [
                (
                    *(m.id, m.body.decode(), m.created - ahead, m.expires - ahead),
                    *(m.client_id, m.sealed, m.claim_id, m.claim_count, m.id in ready),
                )
                for m in found
            ]

        return self.catalogue.at(address, look)

    def bodies(self, address: Address = HOME) -> list[str]:
        return [each[1] for each in self.everything(address)]

    def counts(self, address: Address = HOME) -> tuple[int, int]:
        stats, _ = self.service.queues.stats(address)
        return stats.free, stats.claimed

    def pool(self, address: Address = HOME) -> str:
        queue = self.catalogue.find(address)
        assert queue is not None
        return queue.pool

    def move(self, to: str, address: Address = HOME, *, stop: Event | None = None) -> int | None:
        return self.service.moving.move(address, to, stop=stop or Event())

    def run(self) -> bool:
        return self.service.moving.run(Event())


class World:
    """The stores, each with a clock of its own, and the processes over them. Pools are called p1, p2 and so on."""

    def __init__(self, folder: Path, kinds: Sequence[str], *, skew: int = 0) -> None:
        self.clock = Clock()
        self._control = connect(f"sqlite:///{folder / 'control.db'}", timeout=5.0, clock=self.clock)
        self._drivers: dict[str, Driver] = {}
        self._clocks = [self.clock]
        self.uris: list[str] = []
        for number, kind in enumerate(kinds, 1):
            clock = Clock(self.clock.now + (number - 1) * skew)
            place = folder / f"p{number}"
            place.mkdir()
            uri = KINDS[kind](place)
            self.uris.append(uri)
            self._clocks.append(clock)
            self._drivers[uri] = connect(uri, timeout=5.0, clock=clock)
        first = self.node()
        for number, uri in enumerate(self.uris, 1):
            first.service.pools.put(f"p{number}", uri=uri, weight=1)

    def advance(self, seconds: float) -> None:
        """Let time pass everywhere."""
        for clock in self._clocks:
            clock.advance(seconds)

    def node(self, *, draw: Callable[[], float] = lambda: 0.0, patience: float = PATIENCE) -> Node:
        """Start a process; without more, it puts queues into p1."""
        steps = Steps()
        settings = Settings(
            store="sqlite:///control.db",
            pooling=True,
            storage={"timeout": patience},  # type: ignore[arg-type]
            cache={"queue_age": 1.0},  # type: ignore[arg-type]
        )
        service = assemble(
            settings,
            cast(Driver, _WatchedDriver(self._control, steps, "records")),
            stores=_Stores(self._drivers, steps),
            draw=draw,
        )
        catalogue: Catalogue = service.moving._catalogue
        return Node(service, catalogue, steps)

    def store(self, number: int) -> Driver:
        """Return the store of a pool, without detours."""
        return self._drivers[self.uris[number - 1]]

    def probe(self, number: int, address: Address = HOME) -> Probe:
        """Return a queue as the store of a pool has it."""
        return Probe(self.store(number).messages, self._clocks[number], address)

    def holdings(self, number: int) -> int:
        """Count the messages of all queues in a pool, once what was left behind is cleared away."""
        store = self.store(number).messages
        while store.expire(now=store.clock(), limit=1000):
            pass
        return store.totals(now=store.clock()).total

    def notes(self, kind: str, scope: str = "") -> list[str]:
        """Return the names of records."""
        return [record.name for record in self._control.records.scan(kind, scope, limit=1000)]

    def take_over(self) -> None:
        """Let the lease of whoever moved queues last run out."""
        if self.notes("lease"):
            assert not self.node().run()
            self.advance(30)

    def close(self) -> None:
        for driver in self._drivers.values():
            driver.close()
        self._control.close()


@contextmanager
def opened(folder: Path, *kinds: str, skew: int = 0) -> Iterator[World]:
    world = World(folder, kinds, skew=skew)
    try:
        yield world
    finally:
        world.close()
