"""Quotas of messages and subscriptions: what is counted now and then, and what is added in between."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from queues.errors import QuotaExceeded, StoreUnavailable
from queues.models import Address, Record
from queues.service import quotas as quotas_module
from queues.service.quotas import Census, Has, QuotaService


class World:
    """What projects have, and a service that counts it when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.messages: Counter[str] = Counter()
        self.counted = 0
        self.fails = False
        self.takes = 0.0  # seconds
        self.waiting: list[Callable[[], None]] = []

    def count(self, project: str, _stop: Callable[[], bool]) -> Has:
        self.counted += 1
        self.now += self.takes
        if self.fails:
            raise StoreUnavailable
        return Has(messages=self.messages[project], subscriptions=self.messages[project])

    def service(self, **quotas: int) -> QuotaService:
        return QuotaService(self.count, **quotas, timer=lambda: self.now, run=self.waiting.append)

    def catch_up(self) -> None:
        """Count whatever is to be counted."""
        while self.waiting:
            self.waiting.pop()()


@pytest.fixture
def world() -> World:
    return World()


def test_without_a_quota_nothing_is_counted(world: World) -> None:
    service = world.service()
    service.post("p", 10**9)
    service.subscribe("p")
    assert world.waiting == []


def test_what_is_let_pass_counts_before_it_was_counted(world: World) -> None:
    service = world.service(messages=10)
    service.post("p", 6)
    with pytest.raises(QuotaExceeded, match="10 messages"):
        service.post("p", 5)
    service.post("p", 4)
    service.post("q", 10)


def test_what_was_there_counts_once_it_was_counted(world: World) -> None:
    world.messages["p"] = 9
    service = world.service(messages=10)
    service.post("p", 1)
    world.messages["p"] += 1
    world.catch_up()
    with pytest.raises(QuotaExceeded):
        service.post("p", 1)


def test_what_was_deleted_makes_room_with_the_next_count(world: World) -> None:
    world.messages["p"] = 10
    service = world.service(messages=10, subscriptions=10)
    service.post("p", 1)
    world.catch_up()
    world.messages["p"] = 2
    world.now += 4
    for refused in (lambda: service.post("p", 1), lambda: service.subscribe("p")):
        with pytest.raises(QuotaExceeded):
            refused()
    assert world.waiting == []
    world.now += 1
    with pytest.raises(QuotaExceeded):
        service.post("p", 1)
    world.catch_up()
    service.post("p", 8)
    for _ in range(8):
        service.subscribe("p")
    with pytest.raises(QuotaExceeded, match="10 subscriptions"):
        service.subscribe("p")


@pytest.mark.parametrize("stored", [0, 6], ids=["before it is counted", "after it is counted"])
def test_what_is_let_pass_meanwhile_counts_once_whenever_it_is_stored(world: World, stored: int) -> None:
    service = world.service(messages=10)
    service.post("p", 6)
    world.messages["p"] = stored
    world.catch_up()
    service.post("p", 4)
    with pytest.raises(QuotaExceeded):
        service.post("p", 1)


def test_a_project_is_counted_seldom_where_counting_takes_long(world: World) -> None:
    world.takes = 3.0
    service = world.service(messages=10)
    service.post("p", 1)
    world.catch_up()
    world.now += 59
    service.post("p", 1)
    assert world.waiting == []
    world.now += 1
    service.post("p", 1)
    assert len(world.waiting) == 1
    service.post("p", 1)
    assert len(world.waiting) == 1, "once at a time"


def test_a_store_that_fails_leaves_what_is_known(world: World) -> None:
    world.messages["p"] = 10
    service = world.service(messages=10)
    service.post("p", 1)
    world.catch_up()
    world.fails = True
    world.now += 60
    with pytest.raises(QuotaExceeded):
        service.post("p", 1)
    world.catch_up()
    with pytest.raises(QuotaExceeded):
        service.post("p", 1)
    world.fails, world.messages["p"] = False, 0
    world.now += 60
    with pytest.raises(QuotaExceeded):
        service.post("p", 1)
    world.catch_up()
    service.post("p", 1)


def test_only_so_many_projects_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "_MOST", 10)
    service = world.service(messages=10)
    for number in range(100):
        service.post(f"p{number}", 1)
    assert len(service._accounts) == 10


@contextmanager
def opened(service: QuotaService) -> Iterator[QuotaService]:
    try:
        yield service
    finally:
        service.close()


def test_counting_happens_in_another_thread_and_ends_when_it_is_closed() -> None:
    begun, names = threading.Event(), []

    def count(_project: str, stop: Callable[[], bool]) -> Has | None:
        names.append(threading.current_thread().name)
        begun.set()
        while not stop():
            pass
        return None

    with opened(QuotaService(count, messages=10)) as service:
        service.post("p", 1)
        assert begun.wait(10)
        service.post("p", 1)
    service.post("q", 1)  # nobody counts any more
    assert names == ["quotas_0"]


def test_a_census_asks_queue_by_queue() -> None:
    names = [f"q{number:03}" for number in range(250)]

    def queues(project: str, after: str) -> list[Record]:
        page = [name for name in names if name > after][:100]
        return [Record(kind="queue", scope=project, name=name, data={}) for name in page]

    asked: list[Address] = []

    def messages(address: Address) -> int:
        asked.append(address)
        return 2

    census = Census(queues, messages, lambda _address: 1)
    assert census("p", lambda: False) == Has(messages=500, subscriptions=250)
    assert asked == [Address(project="p", queue=name) for name in names]
    assert census("p", lambda: len(asked) > 300) is None
    assert len(asked) == 301
