"""Stores that are kept open by their URIs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from queues.errors import StoreUnsupported
from storage import pooling
from storage.pooling import OpenStores
from tests.storage.probe import Clock


class Opened:
    """A driver that knows whether it is closed."""

    def __init__(self, uri: str, timeout: float) -> None:
        self.uri = uri
        self.timeout = timeout
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """Every driver that was made, in the order of time."""
    drivers: list[Opened] = []

    def connect(uri: str, *, timeout: float, clock: object) -> Opened:
        drivers.append(Opened(uri, timeout))
        return drivers[-1]

    monkeypatch.setattr(pooling, "connect", connect)
    return drivers


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The monotonic clock, in ms."""
    clock = Clock(0)
    monkeypatch.setattr(pooling, "time", SimpleNamespace(monotonic=lambda: clock.now / 1000))
    return clock


@pytest.fixture
def stores() -> Iterator[OpenStores]:
    with closing(OpenStores(timeout=5.0)) as opened:
        yield opened


def test_a_store_is_opened_once(stores, made):
    assert stores.open("a", {}) is stores.open("a", {"unknown": 1})
    assert stores.open("b", {}) is not stores.open("a", {})

    assert [driver.uri for driver in made] == ["a", "b"]


def test_the_option_timeout_goes_before_the_setting(stores, made):
    assert stores.open("a", {}) is not stores.open("a", {"timeout": 2})
    assert stores.open("a", {"timeout": 5}) is stores.open("a", {})

    assert [driver.timeout for driver in made] == [5.0, 2.0]


def test_what_nobody_wants_is_closed_after_a_while(stores, made, now):
    """Somebody may be using it still."""
    stores.open("a", {})
    stores.open("b", {})
    stores.retain(["a"])
    now.advance(60)
    stores.retain(["a"])
    assert [driver.closed for driver in made] == [0, 0]

    now.advance(1)
    stores.retain(["a"])

    assert [driver.closed for driver in made] == [0, 1]
    stores.open("b", {})
    assert [driver.uri for driver in made] == ["a", "b", "b"], "it is opened again"


def test_what_is_wanted_again_stays_open(stores, made, now):
    stores.open("a", {})
    stores.retain([])
    now.advance(50)
    stores.retain(["a"])
    now.advance(50)
    stores.retain([])
    now.advance(50)
    stores.retain([])

    assert made[0].closed == 0


def test_everything_is_closed_in_the_end(made):
    stores = OpenStores(timeout=5.0)
    stores.open("a", {})
    stores.open("b", {})

    stores.close()
    stores.close()

    assert [driver.closed for driver in made] == [1, 1]


def test_threads_that_open_the_same_store_share_it(stores, monkeypatch):
    """Both have begun before either is done."""
    barrier = Barrier(2)
    made: list[Opened] = []

    def connect(uri: str, *, timeout: float, clock: object) -> Opened:
        barrier.wait(30)
        made.append(Opened(uri, timeout))
        return made[-1]

    monkeypatch.setattr(pooling, "connect", connect)
    found: list[Any] = []
    threads = [Thread(target=lambda: found.append(stores.open("a", {}))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(made) == 2
    assert found[0] is found[1]
    assert sorted(driver.closed for driver in made) == [0, 1]
    assert found[0].closed == 0


def test_a_uri_that_nobody_knows(stores):
    with pytest.raises(StoreUnsupported):
        stores.open("floppy:///a", {})


def test_stores_go_by_the_clock_that_they_are_given(tmp_path: Path):
    clock = Clock(1234)
    with closing(OpenStores(timeout=5.0, clock=clock)) as stores:
        assert stores.open(f"sqlite:///{tmp_path}/a.db", {}).messages.clock() == 1234
