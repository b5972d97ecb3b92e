"""What a run was asked for, and the service that it is about."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bench import rest, services
from bench.conditions import BODY_SIZE, Conditions, conditions
from bench.connection import Connection
from bench.fleet import Watcher
from bench.rest import Target
from bench.services import Store
from bench.usage import Processes
from bench.workloads import Load
from storage.registry import connect

_LARGEST_POST = 200_000  # bytes of a post that fills a queue
_MOST_AT_ONCE = 100  # messages of it


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a run is to be."""

    workload: str
    url: str = ""  # of a service that runs already; empty: one is started
    store: str = "sqlite"  # on which it is started: one of `services.STORES`, or a URI
    project: str = ""  # one of its own if empty
    token: str = ""
    websocket_url: str = ""  # of a service that runs already
    receiver: str = services.HOST  # where it reaches this machine
    processes: int = 2  # of clients
    connections: tuple[int, ...] = (8,)  # of all of them; one run for each number
    workers: int = 2
    threads: int = 8
    seconds: float = 10.0
    warm_up: float = 2.0
    rate: float | None = None  # operations due per second; None: closed loop
    size: int = BODY_SIZE  # bytes of a body
    batch: int = 10
    stock: int | None = None  # messages that are there at first, for loads that take some
    depth: int = 100_000  # messages at the end of `depth`
    waiters: int = 200  # clients of `idle-waiters`
    subscribers: int = 1  # of each kind, of `fan-out`
    yardsticks: bool = False
    ceiling: bool = True

    def facts(self) -> Mapping[str, int | float | str]:
        """Return all that a reader of the figures should know, but no secret."""
        return {
            "workload": self.workload,
            "service": self.url or f"started here, {self.workers} workers, {self.threads} threads",
            "client processes": self.processes,
            "connections": ", ".join(map(str, self.connections)),
            "seconds": self.seconds,
            "warm-up": self.warm_up,
            "loop": "closed" if self.rate is None else f"open, {self.rate:g} due per second",
            "batch": self.batch,
        }


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a run takes place."""

    wish: Wish
    target: Target
    processes: Processes  # those that were started here
    store: Store | None  # None where the service was not started here
    folder: Path
    conditions: Conditions
    queue: str = field(default_factory=lambda: f"bench-{secrets.token_hex(4)}")

    def load(self, name: str) -> Load:
        """Return a load on the queue of this run."""
        return Load(name=name, size=self.wish.size, batch=self.wish.batch, queue=self.queue)

    def fill(self, count: int, queue: str | None = None) -> None:
        """Post so many messages."""
        at_once = max(1, min(_MOST_AT_ONCE, _LARGEST_POST // (self.wish.size + 40)))
        with (
            closing(Connection(self.target)) as connection,
            click.progressbar(length=count, label="filling", file=sys.stderr) as bar,
        ):
            for start in range(0, count, at_once):
                part = min(at_once, count - start)
                connection.ask(rest.post(part, self.wish.size, queue=queue or self.queue))
                bar.update(part)

    def drop(self, queue: str | None = None) -> None:
        """Remove the queue."""
        with closing(Connection(self.target)) as connection:
            connection.ask(rest.drop(queue=queue or self.queue))


@contextmanager
def setting(wish: Wish) -> Iterator[Setting]:
    """Yield the service that a run is about, started if it does not run already; raises NotHere."""
    with TemporaryDirectory(prefix="hermod-bench-") as folder, ExitStack() as opened:
        url, processes, store, driver = wish.url, {}, None, None
        if not url:
            store = opened.enter_context(services.store(wish.store, Path(folder)))
            driver = opened.enter_context(closing(connect(store.uri)))
            flags = ("--workers", str(wish.workers), "--threads", str(wish.threads))
            url, server = opened.enter_context(
                services.serving("transport", "api", "--store", store.uri, *flags)
            )
            processes = {"server": [server], **store.used()}
        project = wish.project or f"bench-{secrets.token_hex(4)}"
        yield Setting(
            wish=wish,
            target=Target(url=url, project=project, token=wish.token),
            processes=processes,
            store=store,
            folder=Path(folder),
            conditions=conditions(driver, Path(folder), body_size=wish.size, setup=wish.facts()),
        )


@contextmanager
def progress(label: str, seconds: float) -> Iterator[Watcher]:
    """Show on a terminal how far something has come that takes so many seconds; yields what to tell it."""
    with click.progressbar(length=round(seconds * 10), label=label, file=sys.stderr) as bar:

        def watch(gone: float) -> None:
            bar.update(min(round(gone * 10), bar.length or 0) - bar.pos)

        yield watch
