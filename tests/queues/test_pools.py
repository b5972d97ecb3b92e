"""The list of pools: who is on it, who changes it at the same time, and who is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from queues.errors import (
    ConcurrentChange,
    Invalid,
    LastOfFlavor,
    NoPool,
    PoolInUse,
    PoolMissing,
    PoolNotFound,
    Refused,
    StoreUnavailable,
    UriTaken,
)
from queues.limits import Limits
from queues.models import PoolState
from queues.redaction import hide_password, password_of, without_password
from queues.service.pools import PoolChanges, PoolService
from storage.pooling import OpenStores
from storage.registry import connect


class Timer:
    """Seconds, as the tests want them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Town:
    """One store of records, and any number of processes that share its pools."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.timer = Timer()
        self.control = connect(f"sqlite:///{folder}/control.db", timeout=5.0)
        self.stores = OpenStores(timeout=5.0)

    def node(self, *, enabled: bool = True, draw: Callable[[], float] = lambda: 0.0) -> PoolService:
        limits = Limits()
        return PoolService(self.control, self.stores, limits, enabled=enabled, timer=self.timer, draw=draw)

    def uri(self, name: str) -> str:
        return f"sqlite:///{self.folder}/{name}.db"

    def add(self, pools: PoolService, *names: str, weight: int = 1, flavor: str | None = None) -> None:
        for name in names:
            pools.put(name, uri=self.uri(name), weight=weight, flavor=flavor)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    yield made
    made.stores.close()
    made.control.close()


@pytest.fixture
def pools(town: Town) -> PoolService:
    return town.node()


# --- the list


def test_pools_that_are_added_at_the_same_time_are_all_kept(town):
    """They stand in one record."""
    barrier = Barrier(4)

    def add(number: int) -> None:
        pools = town.node()
        barrier.wait(30)
        town.add(pools, f"p{number}")

    threads = [Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [pool.name for pool in town.node().all()] == ["p0", "p1", "p2", "p3"]


def test_of_two_pools_with_one_store_the_second_is_refused_whoever_is_second(town):
    barrier = Barrier(2)
    ends: list[str] = []

    def add(number: int) -> None:
        pools = town.node()
        barrier.wait(30)
        try:
            pools.put(f"p{number}", uri=town.uri("same"), weight=1)
            ends.append("added")
        except UriTaken:
            ends.append("taken")

    threads = [Thread(target=add, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(ends) == ["added", "taken"]
    assert len(town.node().all()) == 1


def test_who_never_gets_his_turn_is_told(town, pools, monkeypatch):
    town.add(pools, "a")
    monkeypatch.setattr(town.control.records, "replace", lambda _record: False)

    with pytest.raises(ConcurrentChange):
        pools.update("a", PoolChanges(weight=2))


def test_another_process_sees_a_change_at_once_where_it_matters(town, pools):
    other = town.node()
    town.add(pools, "a")
    assert [pool.name for pool in other.all()] == ["a"]
    assert other.driver("a").messages.durability()
    pools.set_state("a", PoolState.DRAINING)

    assert not other.accepts("a")
    with pytest.raises(NoPool):
        other.choose()


def test_the_store_of_a_pool_is_looked_up_in_a_list_a_second_old_at_most(town, pools):
    other = town.node()
    town.add(pools, "a")
    first = other.driver("a")
    pools.update("a", PoolChanges(uri=town.uri("elsewhere")))
    assert other.driver("a") is first

    town.timer.now += 1

    assert other.driver("a") is not first


def test_a_pool_that_is_missing(pools):
    with pytest.raises(PoolMissing):
        pools.driver("nowhere")
    with pytest.raises(PoolNotFound):
        pools.get("nowhere")
    with pytest.raises(PoolNotFound):
        pools.set_state("nowhere", PoolState.OPEN)
    assert not pools.accepts("nowhere")
    assert pools.accepts("")


def test_the_store_of_the_records_can_be_a_pool_too(town, pools):
    pools.put("control", uri=f"sqlite:///{town.folder}/control.db", weight=1)

    assert pools.choose() == "control"


def test_a_change_keeps_the_state(town, pools):
    town.add(pools, "a")
    pools.set_state("a", PoolState.DRAINING)
    town.add(pools, "a", weight=5)
    assert (pools.get("a").state, pools.get("a").weight) == (PoolState.DRAINING, 5)


def test_without_pools_there_is_the_default_store(town):
    pools = town.node(enabled=False)

    assert (pools.choose(), pools.names()) == ("", [""])
    assert pools.driver("") is town.control
    with pytest.raises(Refused):
        town.add(pools, "a")


# --- removal


def test_a_pool_takes_no_queue_while_it_is_found_out_whether_it_can_go(town, pools):
    town.add(pools, "a")
    other = town.node()
    seen: list[bool] = []

    def in_use() -> bool:
        seen.append(other.accepts("a"))
        return True

    with pytest.raises(PoolInUse):
        pools.remove("a", in_use=in_use)

    assert seen == [False]
    assert other.accepts("a")


def test_a_removal_that_fails_changes_nothing(town, pools):
    town.add(pools, "a")

    def in_use() -> bool:
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        pools.remove("a", in_use=in_use)

    assert pools.get("a").state is PoolState.OPEN


def test_the_last_of_a_flavor_is_not_even_looked_at(town, pools):
    town.add(pools, "a", flavor="gold")

    with pytest.raises(LastOfFlavor):
        pools.remove("a", in_use=lambda: pytest.fail("it was asked"))


# --- choice


def test_the_heavier_the_likelier(town):
    points = iter([number / 16 for number in range(16)])
    pools = town.node(draw=points.__next__)
    for name, weight in {"a": 1, "b": 0, "c": 5, "d": 10}.items():
        town.add(pools, name, weight=weight)

    assert Counter(pools.choose() for _ in range(16)) == {"a": 1, "c": 5, "d": 10}


def test_weights_of_any_size_are_drawn_from(town):
    pools = town.node(draw=lambda: 1 - 2**-53)
    for name in "ab":
        town.add(pools, name, weight=2**32 - 1)

    assert pools.choose() == "b"


def test_who_is_left_out_is_not_chosen(town, pools):
    town.add(pools, "a", "b")

    assert (pools.choose(), pools.choose(but=["a"])) == ("a", "b")
    with pytest.raises(NoPool):
        pools.choose(but=["a", "b"])


def test_a_flavor_is_chosen_from_its_own(town, pools):
    town.add(pools, "a")
    town.add(pools, "b", flavor="gold")

    assert (pools.choose(), pools.choose("gold")) == ("a", "b")
    with pytest.raises(NoPool):
        pools.choose("silver")


def test_joining_a_flavor_is_all_or_nothing(town, pools):
    town.add(pools, "a", "b")

    with pytest.raises(PoolNotFound, match="nowhere"):
        pools.join("gold", ["a", "nowhere"])

    assert pools.members("gold") == []
    pools.join("gold", ["a"])
    pools.join("gold", ["b"])
    assert [pool.name for pool in pools.members("gold")] == ["b"]


# --- passwords


@pytest.mark.parametrize(
    ("uri", "shown", "password"),
    [
        ("redis://u:p@h:1/0", "redis://u:***@h:1/0", "p"),
        ("redis://:p@h:1/0", "redis://:***@h:1/0", "p"),
        ("redis://u:p:q@h", "redis://u:***@h", "p:q"),
        ("mongodb://u:a/b@c@h1,h2/x?replicaSet=y", "mongodb://u:***@h1,h2/x?replicaSet=y", "a/b@c"),
        ("redis://u:p%40q@h", "redis://u:***@h", "p%40q"),
        ("redis://u@h:1/0", "redis://u@h:1/0", None),
        ("redis://h:1/0", "redis://h:1/0", None),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db", None),
    ],
)
def test_passwords_are_found_and_hidden(uri, shown, password):
    assert hide_password(uri) == shown
    assert password_of(uri) == password
    assert hide_password(shown) == shown


def test_a_password_is_taken_out_of_an_error_however_it_is_written():
    text = "cannot log in as u with p%40q or p@q"

    assert without_password(text, "redis://u:p%40q@h") == "cannot log in as u with *** or ***"
    assert without_password("as it was", "redis://h") == "as it was"


def test_a_hidden_password_is_refused(pools):
    with pytest.raises(Invalid, match="password"):
        pools.put("a", uri="redis://u:***@127.0.0.1:1/0", weight=1)
