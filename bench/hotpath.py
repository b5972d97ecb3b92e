"""Post and claim with delete, in this process: the store and the WSGI application against bare sqlite3.

One thread, no sockets: what a request costs beyond what SQLite must do in any case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bench import rest
from bench.bodies import PRODUCER, body
from bench.measure import Cost, Load, interleaved
from bench.report import Figure
from bench.yardsticks.sqlite import Rows
from queues.models import Address, Lease, NewMessage
from queues.ports import Driver, MessageStore
from storage.registry import connect
from transport import logs
from transport.settings import Settings
from transport.wiring import assemble
from transport.wsgi.app import create_app

_TARGET = rest.Target()


class Queue(Protocol):
    """A queue with messages in it, at some level of the service."""

    def post(self, count: int) -> None:
        """Post so many messages at once."""

    def take(self, count: int) -> object:
        """Claim so many messages, then delete them."""


class StoreQueue:
    """A queue as the services see it."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store
        self._address = Address(project="bench", queue="store")
        self._message = NewMessage(body=body(), ttl=86_400, client_id=PRODUCER)

    def post(self, count: int) -> None:
        """Post so many messages at once."""
        store = self._store
        store.post(self._address, [self._message] * count, now=store.clock(), create=True)

    def take(self, count: int) -> None:
        """Claim so many messages, then delete them."""
        store = self._store
        lease = Lease(ttl=300, grace=60, limit=count)
        claim = store.claim(self._address, lease, now=store.clock()).claim
        assert claim is not None
        ids = [message.id for message in claim.messages]
        store.delete_many(self._address, ids, now=store.clock())
        assert len(ids) == count


class WsgiQueue:
    """A queue as a WSGI server sees it."""

    def __init__(self, driver: Driver, settings: Settings) -> None:
        self._app: Callable[..., Any] = create_app(assemble(settings, driver))
        self._posts = {count: rest.post(count) for count in (1, 10)}

    def post(self, count: int) -> None:
        """Post so many messages at once."""
        self.call(self._posts[count])

    def take(self, count: int) -> None:
        """Claim so many messages, then delete them."""
        ids = rest.found(self.call(rest.claim(count)))
        self.call(rest.delete(ids))
        assert len(ids) == count

    def call(self, request: rest.Request) -> bytes:
        """Send a request and return the body of the answer."""
        seen: list[str] = []
        answer = self._app(request.environ(_TARGET), lambda status, _headers: seen.append(status))
        assert int(seen[0][:3]) in request.statuses, seen
        return b"".join(answer)


#: The hot path: what is done, and how many messages that moves. More is posted than is taken.
LOADS: Mapping[str, tuple[Callable[[Queue], object], int]] = {
    "post 1": (lambda queue: queue.post(1), 1),
    "post 10": (lambda queue: queue.post(10), 10),
    "claim 10 + delete 10": (lambda queue: queue.take(10), 10),
}


def _load(operation: Callable[[Queue], object], queue: Queue) -> Iterator[None]:
    yield
    operation(queue)
    yield


def measure(folder: Path, *, rounds: int) -> list[Figure]:
    """Compare the levels of the service with bare sqlite3, all on files in one folder."""
    with ExitStack() as opened:
        bare = Rows(f"sqlite:///{folder / 'bare.db'}")
        opened.callback(bare.close)
        uri = f"sqlite:///{folder / 'hermod.db'}"
        driver = connect(uri)
        opened.callback(driver.close)
        settings = Settings(store=uri)
        logs.configure(settings.log, opened.enter_context(open(os.devnull, "w", encoding="utf-8")))
        queues: Mapping[str, Queue] = {
            "bare": bare,
            "the store": StoreQueue(driver.messages),
            "the WSGI application": WsgiQueue(driver, settings),
        }
        for queue in queues.values():
            for _ in range(500):  # so that there is something to claim, and the files have grown
                queue.post(10)
        figures: dict[str, list[Figure]] = {level: [] for level in queues}
        for name, (operation, messages) in LOADS.items():
            loads: list[Load] = [partial(_load, operation, queue) for queue in queues.values()]
            costs = dict(zip(queues, interleaved(loads, rounds), strict=True))
            yardstick = costs.pop("bare")
            for level, cost in costs.items():
                figures[level].append(_figure(level, name, messages, yardstick, cost))
    return [figure for group in figures.values() for figure in group]


def _figure(level: str, load: str, messages: int, bare: Cost, cost: Cost) -> Figure:
    return Figure(
        table=f"Hot path: {level} in one thread; the ratio is its speed over that of bare sqlite3",
        load=load,
        columns={
            "bare, µs": bare.wall,
            "Hermod, µs": cost.wall,
            "bare, cpu µs": bare.cpu,
            "Hermod, cpu µs": cost.cpu,
            "messages/s": round(messages / cost.wall * 1e6),
        },
        ratio=bare.wall / cost.wall,
    )
