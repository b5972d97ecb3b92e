"""Random histories of queues that move to and fro: everybody sees what the model says, wherever a queue lives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from queues.errors import MoveInterrupted, QueueMoved
from queues.models import Address, Lease, Stats
from queues.ports import Driver
from tests.storage.model import Held
from tests.storage.moving import Passage, Stores
from tests.storage.probe import Clock
from tests.storage.test_model import FACTOR, NAMES, History, places
from tests.storage.variants import VARIANTS

limits = st.sampled_from([1, 2, 3, 100])
repeats = st.sampled_from([1, 1, 2])
waits = st.sampled_from([0, 0, 1, 999, 5000, 61_000])  # ms


class Homes:
    """Two stores that look like one: each queue lives in one of them."""

    def __init__(self, one: Driver, other: Driver) -> None:
        self.drivers = one, other
        self.homes: dict[Address, int] = {}
        self.emptied: set[Address] = set()  # by a purge or a drop, since somebody looked

    def source(self, address: Address) -> Driver:
        return self.drivers[self.homes.get(address, 0)]

    def target(self, address: Address) -> Driver:
        return self.drivers[1 - self.homes.get(address, 0)]

    def arrive(self, address: Address) -> None:
        self.homes[address] = 1 - self.homes.get(address, 0)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(address: Address, *arguments: Any, **terms: Any) -> Any:
            if name in ("purge", "drop"):
                self.emptied.add(address)
            return getattr(self.source(address).messages, name)(address, *arguments, **terms)

        return ask

    def expire(self, *, now: int, limit: int) -> int:
        return sum(driver.messages.expire(now=now, limit=limit) for driver in self.drivers)

    def totals(self, *, now: int) -> Stats:
        parts = [driver.messages.totals(now=now) for driver in self.drivers]
        return Stats(free=sum(part.free for part in parts), claimed=sum(part.claimed for part in parts))


class MovingHistory(History):
    """A history in which each queue may be on its way."""

    def __init__(self, one: Driver, other: Driver, clock: Clock) -> None:
        self.homes: Any = Homes(one, other)
        super().__init__(self.homes, clock)
        self.passages: dict[str, Passage] = {}
        self.over: list[Passage] = []

    def teardown(self) -> None:
        for name, passage in self.passages.items():
            if passage.address not in self.homes.emptied:
                passage.catch_up(2).land(2)
                passage.open()
                self.homes.arrive(self.at(name))
        self.every_queue_holds_what_it_must_in_order()
        self.every_claimed_message_is_in_one_live_claim()
        for name, driver in product(NAMES, self.homes.drivers):
            driver.messages.drop(self.at(name))

    def store_and_model_claim(
        self, name: str, lease: Lease, letter: tuple[str, int, int | None] | None = None
    ) -> None:
        # Between two stores dead letters take a way that is no store's business.
        if letter is not None and self.homes.source(self.at(letter[0])) != self.homes.source(self.at(name)):
            letter = None
        super().store_and_model_claim(name, lease, letter)

    @initialize(parts=st.integers(0, 6))
    def begin_on_the_way(self, parts: int) -> None:
        self.set_out("main", parts)

    @rule(name=places, parts=st.integers(0, 6))
    def set_out(self, name: str, parts: int) -> None:
        """Begin a move, and copy a little; one that is under way already is over."""
        address = self.at(name)
        if name in self.passages:
            self.over.append(self.passages[name])
        passage = Passage(self.homes.source(address), self.homes.target(address), address)
        self.passages[name] = passage.begin()
        self.homes.emptied.discard(address)
        self.model.queues.setdefault(address, Held())
        for _ in range(parts):
            self.passages[name].part(2)

    def moving(self, name: str) -> Passage | None:
        """Return a move that goes on, begun now if need be; one that a purge or a drop has ended is put aside."""
        if name not in self.passages:
            self.set_out(name, 1)
        passage = self.passages[name]
        if passage.address not in self.homes.emptied:
            return passage
        self.over.append(self.passages.pop(name))
        self.all_that_is_over_is_interrupted()
        passage.call_off()
        return None

    @rule(name=places, limit=limits, times=repeats, parts=st.integers(1, 4))
    def copy(self, name: str, limit: int, times: int, parts: int) -> None:
        if passage := self.moving(name):
            for _ in range(parts):
                passage.part(limit, times=times)

    @rule(
        name=places,
        limit=limits,
        times=repeats,
        before=waits,
        meanwhile=waits,
        end=st.sampled_from(["there", "there", "there", "back", "back before"]),
    )
    def finish(self, name: str, limit: int, times: int, before: int, meanwhile: int, end: str) -> None:
        if not (passage := self.moving(name)):
            return
        self.move_to(self.clock.now + before)
        for _ in range(times if end != "back before" else 0):
            passage.land(limit)
            for driver in self.homes.drivers:
                with pytest.raises(QueueMoved):
                    driver.messages.stats(passage.address, now=self.clock.now)
            self.move_to(self.clock.now + meanwhile)
        for _ in range(times):
            if end == "there":
                passage.open()
            else:
                passage.call_off()
        if end == "there":
            self.homes.arrive(passage.address)
        self.over.append(self.passages.pop(name))

    @precondition(lambda self: self.over)
    @rule()
    def all_that_is_over_is_interrupted(self) -> None:
        while self.over:
            passage = self.over.pop()
            with pytest.raises(MoveInterrupted):
                passage.part(1)
            with pytest.raises(MoveInterrupted):
                passage.source.transfers.shut(passage.address, passage.move)


PAIRS = [*product(VARIANTS, VARIANTS)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    opened = Stores(tmp_path_factory.mktemp("stores"))
    yield opened
    opened.close()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].name}-to-{pair[1].name}")
def test_any_history_of_queues_that_move_leads_where_the_model_leads(stores, pair):
    one, other = stores.open(pair[0]), stores.open(pair[1], "2")

    class HistoryBetweenTheTwo(MovingHistory):
        def __init__(self):
            super().__init__(one, other, stores.clock)

    run_state_machine_as_test(
        HistoryBetweenTheTwo,
        settings=settings(
            max_examples=max(3, min(variant.batches for variant in pair) // 30) * FACTOR,
            stateful_step_count=30,
            deadline=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
