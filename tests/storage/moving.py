"""What the tests of moving queues share: a queue on its way, a copy that is no store, and a look into the engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from queues.models import (
    Address,
    Cargo,
    Claim,
    KeptClaim,
    KeptMessage,
    KeptPost,
    Message,
    NewMessage,
    Outline,
    Stats,
)
from queues.ports import Driver, QueueTransfers
from storage.memory import MemoryStore
from storage.mongodb import MongoStore
from storage.redis import RedisStore
from storage.registry import connect
from storage.sqlite import SqliteStore
from tests.storage.probe import Clock, Probe
from tests.storage.variants import Variant

PARTS = 10_000  # that a copy may take at most

_moves = (f"{number:032x}" for number in itertools.count(1))
_projects = (f"moving{number}" for number in itertools.count())


def new_move() -> str:
    """Return the id of a move that was never used."""
    return next(_moves)


def new_address() -> Address:
    """Return the address of a queue that was never used."""
    return Address(project=next(_projects), queue="queue")


def catch_up(part: Callable[[], bool]) -> None:
    """Take parts until one says that nothing follows."""
    for _ in range(PARTS):
        if part():
            return
    raise AssertionError("a copy never catches up")


@dataclass
class Copy:
    """What a store exported so far, put together."""

    transfers: QueueTransfers
    address: Address
    move: str = field(default_factory=new_move)
    cursor: str = ""
    messages: dict[int, KeptMessage] = field(default_factory=dict)
    claims: dict[str, KeptClaim] = field(default_factory=dict)
    posts: dict[str, KeptPost] = field(default_factory=dict)

    def depart(self) -> Copy:
        self.transfers.depart(self.address, self.move)
        return self

    def part(self, limit: int) -> Cargo:
        """Take over one part."""
        cargo = self.transfers.export(self.address, self.move, cursor=self.cursor, limit=limit)
        self.cursor = cargo.cursor
        for kept, news in (
            (self.messages, cargo.messages),
            (self.claims, cargo.claims),
            (self.posts, cargo.posts),
        ):
            _take_over(kept, news)
        return cargo

    def catch_up(self, limit: int = 100) -> Copy:
        catch_up(lambda: self.part(limit).caught_up)
        return self

    def contents(self, now: int) -> tuple[Any, ...]:
        """Return what counts: no keys that are over, and of a claim what it still holds."""
        held = {id_: [m.place for m in self.messages.values() if m.claim_id == id_] for id_ in self.claims}
        return (
            dict(sorted(self.messages.items())),
            {id_: replace(claim, places=sorted(held[id_])) for id_, claim in sorted(self.claims.items())},
            {key: post for key, post in sorted(self.posts.items()) if post.expires > now},
        )


def _take_over(kept: dict[Any, Any], news: Any) -> None:
    for key, thing in news.items():
        kept.pop(key, None)
        if thing is not None:
            kept[key] = thing


@dataclass
class Passage:
    """A queue on its way from one store to another, both on one clock."""

    source: Driver
    target: Driver
    address: Address
    move: str = field(default_factory=new_move)
    cursor: str = ""

    def begin(self) -> Passage:
        generation = self.source.transfers.depart(self.address, self.move)
        self.target.transfers.admit(self.address, self.move, generation)
        return self

    def part(self, limit: int, *, times: int = 1) -> bool:
        """Copy a part, loaded so many times; return whether nothing is known to follow."""
        cargo = self.source.transfers.export(self.address, self.move, cursor=self.cursor, limit=limit)
        for _ in range(times):
            self.target.transfers.load(self.address, self.move, cargo)
        self.cursor = cargo.cursor
        return cargo.caught_up

    def catch_up(self, limit: int = 100) -> Passage:
        catch_up(lambda: self.part(limit))
        return self

    def land(self, limit: int = 100) -> Outline:
        """Shut the source and bring the rest."""
        outline = self.source.transfers.shut(self.address, self.move)
        self.catch_up(limit)
        self.target.transfers.arrive(self.address, self.move, outline)
        return outline

    def open(self) -> None:
        """Open the target, and give up the source."""
        self.target.transfers.reopen(self.address, self.move)
        self.source.transfers.retire(self.address, self.move, now=self.source.messages.clock())

    def call_off(self) -> None:
        """Stay at the source."""
        self.source.transfers.reopen(self.address, self.move)
        self.target.transfers.discard(self.address, self.move)


def carry(source: Driver, target: Driver, address: Address, *, limit: int = 100) -> None:
    """Move a queue."""
    passage = Passage(source, target, address).begin().catch_up(limit)
    passage.land(limit)
    passage.open()


@dataclass(frozen=True, kw_only=True)
class Furnished:
    """A queue with something of everything."""

    queue: Probe
    held: Claim  # on two messages that would expire before it, were it not for the grace
    other: Claim  # on one message
    worn: str  # id of a message that was handed out and released
    deleted: str  # id of a message that was there once
    ready: Sequence[str]  # ids
    delayed: Sequence[str]  # ids, ready in 60 s
    brief: Sequence[str]  # ids, gone in 200 s
    posted: Sequence[str]  # ids of the post of "a" and "b" with the key "key", which is over in 600 s
    brief_post: Sequence[str]  # id of the post of "c" with another key, which is over in 60 s
    sealed: Sequence[str]  # id of an encrypted message


def furnish(queue: Probe) -> Furnished:
    """Put something of everything into a queue."""
    short = queue.fill(3, ttl=100, client_id="one")
    held = queue.claim(2, ttl=300, grace=60)
    worn = queue.claim(1, ttl=120, grace=30)
    queue.release(worn.id)
    doomed, *_ = queue.fill(2, client_id="one")
    other = queue.claim(2, ttl=90, grace=0)  # the worn one and the doomed one
    queue.delete(doomed, other.id)
    return Furnished(
        queue=queue,
        held=held,
        other=other,
        worn=short[2],
        deleted=doomed,
        ready=queue.fill(5, client_id="two", ttl=7200),
        delayed=queue.fill(3, delay=60, client_id="one", ttl=7200),
        brief=queue.fill(2, ttl=200),
        posted=queue.post_once("a", "b", key="key").ids,
        brief_post=queue.post_once("c", key="k:\N{SNOWMAN}", window=60).ids,
        sealed=seal(queue, b"secret"),
    )


def seal(queue: Probe, body: bytes) -> Sequence[str]:
    """Post a message that is encrypted."""
    batch = [NewMessage(body=body, ttl=7200, sealed=True)]
    return queue.store.post(queue.address, batch, now=queue.clock.now, create=True).ids


def seen(queue: Probe, *claims: Claim, markers: Sequence[str] = ()) -> tuple[object, ...]:
    """Return what an application can see of a queue."""

    def page(marker: str | None = None, **selection: Any) -> Sequence[Message]:
        return list(queue.page(marker, limit=1000, **selection))

    def claim(id_: str) -> Claim:
        found = queue.read_claim(id_)
        return replace(found, messages=list(found.messages))

    stats: Stats = queue.stats()
    return (
        page(include_claimed=True, include_delayed=True),
        page(),
        [page(marker, include_delayed=True) for marker in markers],
        [page(hide_client=client, include_claimed=True) for client in ("", "one", "two")],
        stats,
        [claim(each.id) for each in claims],
    )


class Stores:
    """Stores that are opened when they are needed first, and kept; all are on one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self._folder = folder
        self._open: dict[tuple[str, str], Driver] = {}
        self._closing = ExitStack()

    def open(self, variant: Variant, which: str = "") -> Driver:
        """Return a store of a variant; `which` tells it from others."""
        key = variant.name, which
        if key not in self._open:
            folder = self._folder / f"{variant.name}{which}"
            folder.mkdir()
            driver = connect(variant.uri(folder), timeout=10.0, clock=self.clock)
            self._closing.callback(driver.close)
            self._open[key] = driver
        return self._open[key]

    def close(self) -> None:
        self._closing.close()


def kept_in(driver: Driver) -> dict[str, int]:
    """Look into an engine: how much there is of each thing that a move, or a queue, could leave behind."""
    for kind, look in _LOOKS.items():
        if isinstance(driver, kind):
            return {name: count for name, count in look(driver) if count}
    raise AssertionError("nobody knows how to look into this store")


def _in_memory(driver: Any) -> Iterator[tuple[str, int]]:
    for queue in driver.messages._state.queues.values():
        yield from (("entries", len(queue.entries)), ("claims", len(queue.claims)), ("kept", len(queue.kept)))
        yield "log", queue.log is not None


def _in_sqlite(driver: Any) -> Iterator[tuple[str, int]]:
    with driver._file.snapshot() as connection:

        def count(what: str) -> int:
            found: int = connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0]
            return found

        for table in ("message", "payload", "claim", "idempotency", "touched", "departing"):
            yield table, count(table)
        yield "triggers", count("sqlite_master WHERE type = 'trigger'")
        yield "lost piles", count("pile WHERE n NOT IN (SELECT pile FROM queue)")


def _in_redis(driver: Any) -> Iterator[tuple[str, int]]:
    for server in driver._link._servers.primaries():
        for key in server.scan_iter(match=f"{driver._link.prefix}:*"):
            suffix = key.decode().rpartition(":")[2]
            if suffix not in ("h", "due", "fence", "layout"):
                yield suffix, 1


def _in_mongodb(driver: Any) -> Iterator[tuple[str, int]]:
    for collection in ("message", "claim", "once", "touched", "pile"):
        yield collection, driver._link.database[collection].count_documents({})


_LOOKS: Mapping[type, Callable[[Any], Iterator[tuple[str, int]]]] = {
    MemoryStore: _in_memory,
    SqliteStore: _in_sqlite,
    RedisStore: _in_redis,
    MongoStore: _in_mongodb,
}
