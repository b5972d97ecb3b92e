"""The janitor: rounds, failures, the end."""

import threading
from types import SimpleNamespace
from typing import Any

from queues.errors import StoreUnavailable
from transport import janitor
from transport.settings import JanitorSettings, Settings


class Store:
    """Has so many rows to reclaim; fails while it is told to."""

    def __init__(self, rows: int = 0, *, failing: bool = False) -> None:
        self.rows = rows
        self.failing = failing
        self.limits: list[int] = []
        self.seen = threading.Event()

    def clock(self) -> int:
        return 77

    def expire(self, *, now: int, limit: int) -> int:
        assert now == 77
        self.limits.append(limit)
        self.seen.set()
        if self.failing:
            raise StoreUnavailable
        reclaimed = min(limit, self.rows)
        self.rows -= reclaimed
        return reclaimed


def service_over(**stores: Store) -> Any:
    drivers = {name: SimpleNamespace(messages=store) for name, store in stores.items()}
    pools = SimpleNamespace(names=lambda: list(drivers), driver=drivers.__getitem__)
    return SimpleNamespace(pools=pools, dead_letters=SimpleNamespace(sweep_all=lambda stop: None))


def test_a_round_goes_on_until_nothing_is_left():
    store = Store(25)
    assert janitor.make_round(service_over(a=store), 10, threading.Event())
    assert store.rows == 0
    assert store.limits == [10, 10, 10]


def test_a_round_that_meets_a_full_batch_looks_again():
    store = Store(10)
    janitor.make_round(service_over(a=store), 10, threading.Event())
    assert len(store.limits) == 2


def test_a_store_that_fails_does_not_keep_the_others_dirty():
    broken, good = Store(failing=True), Store(3)
    assert not janitor.make_round(service_over(a=broken, b=good), 10, threading.Event())
    assert good.rows == 0


def test_stores_that_cannot_be_found_are_a_failed_round():
    def names() -> Any:
        raise StoreUnavailable

    service = service_over()
    service.pools.names = names
    assert not janitor.make_round(service, 10, threading.Event())


def test_dead_letters_that_cannot_be_forwarded_are_a_failed_round():
    def sweep_all(stop: threading.Event) -> None:
        raise StoreUnavailable

    service = service_over(a=Store(3))
    service.dead_letters.sweep_all = sweep_all
    assert not janitor.make_round(service, 10, threading.Event())
    assert service.pools.driver("a").messages.rows == 0


def test_a_round_ends_when_told_to_stop():
    stop = threading.Event()
    stop.set()
    store = Store(1000)
    janitor.make_round(service_over(a=store), 1, stop)
    assert store.rows == 1000


def test_it_goes_on_after_a_failure_and_stops_when_told():
    store = Store(failing=True)
    service = service_over(a=store)
    settings = Settings(janitor=JanitorSettings(interval=0.01, batch=10))
    stop = threading.Event()
    thread = threading.Thread(target=janitor.run_janitor, args=(service, settings, stop))
    thread.start()
    try:
        assert store.seen.wait(30)
        store.failing, store.rows = False, 5
        store.seen.clear()
        assert store.seen.wait(30)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert store.rows == 0
