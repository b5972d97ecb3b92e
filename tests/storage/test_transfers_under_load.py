"""Queues that move while producers and consumers work on them: nothing lost, nothing back, nothing held twice."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from threading import Condition, Event
from typing import Any, TypeVar

import pytest

from queues.errors import QueueMoved
from queues.models import Address, Message, NewMessage, Once, Selection, Stats
from queues.ports import Driver, MessageStore
from storage.registry import connect
from tests.storage.moving import Passage
from tests.storage.probe import ids
from tests.storage.variants import VARIANTS
from tests.storage.workers import BATCH, LONG, PATIENCE, PAUSE, Holding

T = TypeVar("T")

QUEUE = Address(project="p", queue="queue")
TRIPS = 4  # moves of the queue, to and fro
PROGRESS = 60  # messages that are deleted before each move
CROWD = 300  # messages that wait at most, so that the copies catch up

KINDS = {variant.name: variant for variant in VARIANTS}
ROUTES = [
    ("sqlite", "redis"),
    ("redis", "mongodb"),
    ("mongodb", "sqlite"),
    ("redis", "redis"),
    ("sqlite", "sqlite"),
]


class Traveller:
    """A queue that lives in one of two stores, for threads that look it up as a service does."""

    def __init__(self, *drivers: Driver) -> None:
        self.stop = Event()
        self.posted: dict[int, list[str]] = defaultdict(list)  # ids, by producer
        self.deleted: list[str] = []  # ids
        self.held: list[Holding] = []
        self.changed = Condition()  # tells of what follows, and of `deleted`
        self._drivers = drivers
        self._home = 0
        self._done: set[str] = set()  # moves that are over
        self._met = 0  # how often somebody met the queue shut

    @property
    def store(self) -> MessageStore:
        return self._drivers[self._home].messages

    def ask(self, act: Callable[[MessageStore, int], T]) -> T:
        """Let a store do something, wherever the queue lives."""
        while True:
            store = self.store
            try:
                return act(store, store.clock())
            except QueueMoved as error:
                with self.changed:
                    self._met += 1
                    self.changed.notify_all()
                    self._wait(lambda move=error.move: move in self._done)

    def _wait(self, condition: Callable[..., bool]) -> None:
        assert self.changed.wait_for(condition, timeout=PATIENCE), "it never came true"

    def travel(self) -> None:
        """Move the queue to and fro, each time once there was some progress; then stop everybody."""
        try:
            for _ in range(TRIPS):
                self._move()
        finally:
            self.stop.set()

    def _move(self) -> None:
        with self.changed:
            before = len(self.deleted)
            self._wait(lambda: len(self.deleted) >= before + PROGRESS)
        source, target = self._drivers[self._home], self._drivers[1 - self._home]
        passage = Passage(source, target, QUEUE).begin()
        passage.catch_up(200)
        with self.changed:
            met = self._met
        source.transfers.shut(QUEUE, passage.move)
        with self.changed:
            self._wait(lambda: self._met > met)
        passage.land(20)
        self._home = 1 - self._home
        passage.open()
        with self.changed:
            self._done.add(passage.move)
            self.changed.notify_all()


def produce(queue: Traveller, number: int) -> None:
    """Post batches, each with a key, and every third of them twice."""
    mine = queue.posted[number]
    turn = 0
    while not queue.stop.is_set():
        if sum(map(len, queue.posted.values())) - len(queue.deleted) > CROWD:
            queue.stop.wait(PAUSE)
            continue
        turn += 1
        batch = [NewMessage(body=f'"{number}/{turn}/{n}"'.encode(), ttl=3600) for n in range(BATCH)]
        once = Once(key=f"{number}/{turn}", fingerprint=b"", window=3600)

        def post(store: MessageStore, now: int, batch: Any = batch, once: Once = once) -> Any:
            return store.post(QUEUE, batch, now=now, once=once, create=True)

        posted = queue.ask(post)
        mine += posted.ids
        if turn % 3 == 0:
            again = queue.ask(post)
            assert (again.repeated, list(again.ids)) == (True, list(posted.ids))


def consume(queue: Traveller, number: int) -> None:
    """Claim, renew, read, then release or delete."""
    turn = number
    while not queue.stop.is_set():
        claim = queue.ask(lambda store, now: store.claim(QUEUE, LONG, now=now)).claim
        if claim is None:
            queue.stop.wait(PAUSE)
            continue
        since, turn, id_ = time.monotonic_ns(), turn + 1, claim.id
        inside = ids(claim.messages)
        assert inside == sorted(inside)
        if turn % 3 == 0:
            queue.ask(lambda store, now, id_=id_: store.renew(QUEUE, id_, LONG, now=now))  # type: ignore[misc]
        seen = queue.ask(lambda store, now, id_=id_: store.read_claim(QUEUE, id_, now=now))  # type: ignore[misc]
        assert ids(seen.messages) == inside, "a claim lost messages to somebody else"
        until = time.monotonic_ns()
        if turn % 4 == 0:
            queue.ask(lambda store, now, id_=id_: store.release(QUEUE, id_, now=now))  # type: ignore[misc]
        else:
            delete(queue, id_, inside, at_once=turn % 4 == 1)
        queue.held.extend(
            Holding(message.id, id_, message.claim_count, since, until, turn % 4 == 0)
            for message in claim.messages
        )


def delete(queue: Traveller, claim_id: str, wanted: list[str], *, at_once: bool) -> None:
    if at_once:
        queue.ask(lambda store, now: store.delete_many(QUEUE, wanted, now=now, claim_ids=[claim_id]))
    else:
        for id_ in wanted:
            queue.ask(lambda store, now, id_=id_: store.delete(QUEUE, id_, now=now, claim_id=claim_id))  # type: ignore[misc]
    with queue.changed:
        queue.deleted += wanted
        queue.changed.notify_all()


def judge(queue: Traveller) -> None:
    now = queue.store.clock()
    left = list(queue.store.list(QUEUE, Selection(limit=100_000, include_claimed=True), now=now))
    posted = [id_ for mine in queue.posted.values() for id_ in mine]
    assert sorted([*queue.deleted, *ids(left)]) == sorted(posted), "each leaves once, or is there"
    assert ids(left) == sorted(ids(left))
    assert all(mine == sorted(mine) for mine in queue.posted.values()), "each producer's order is kept"
    stats = queue.store.stats(QUEUE, now=now)
    assert stats == Stats(free=len(left), claimed=0, oldest=stats.oldest, newest=stats.newest)
    assert [message.claim_id for message in left if message.claim_id] == []
    _judge_leases(queue, left)


def _judge_leases(queue: Traveller, left: list[Message]) -> None:
    held: dict[str, list[Holding]] = defaultdict(list)
    for holding in sorted(queue.held, key=lambda holding: holding.since):
        held[holding.message_id].append(holding)
    for holdings in held.values():
        assert [holding.count for holding in holdings] == list(range(1, len(holdings) + 1))
        assert all(holding.released for holding in holdings[:-1])
        for one, other in pairwise(holdings):
            assert one.until <= other.since, "two live claims on one message"
    assert {message.id: message.claim_count for message in left} == {
        message.id: len(held[message.id]) for message in left
    }


@pytest.mark.parametrize("route", ROUTES, ids="-to-".join)
def test_c5_c6_a_queue_moves_to_and_fro_while_it_is_used(route, tmp_path):
    def wall() -> int:
        return time.time_ns() // 1_000_000

    def open_one(which: int) -> Driver:
        folder = tmp_path / f"{which}"
        folder.mkdir()
        return connect(KINDS[route[which]].uri(folder), timeout=20.0, clock=wall)

    with closing(open_one(0)) as near, closing(open_one(1)) as far:
        queue = Traveller(near, far)
        with ThreadPoolExecutor(5) as threads:
            tasks = [threads.submit(work, queue, n) for n in range(2) for work in (produce, consume)]
            journey = threads.submit(queue.travel)
            for task in (*tasks, journey):
                task.result(timeout=2 * PATIENCE)

        judge(queue)
