"""Waiting for messages: whose turn it is, what wakes, what is over, and that nothing is asked while nothing happens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from queues.errors import Invalid, StoreUnavailable
from queues.models import Address
from queues.service.claims import SeenClaim
from queues.service.waiting import Vigil, WaitingRoom
from storage.registry import connect
from tests.queues.nodes import World, opened
from tests.storage.probe import HOME, Clock, Probe
from transport.settings import Settings
from transport.wiring import assemble

PATIENCE = 15.0  # seconds until a test gives up


def is_given(seen: SeenClaim | None) -> bool:
    return seen is not None


@dataclass
class Waiter:
    """Somebody who waits by steps that a test takes for it, and what it noticed."""

    vigil: Vigil[SeenClaim | None]
    wakes: int = 0  # since it was last looked
    leave: Callable[[], None] = lambda: None

    def woken(self) -> int:
        wakes, self.wakes = self.wakes, 0
        return wakes

    def ring(self) -> None:
        self.wakes += 1

    def step(self) -> float:
        return self.vigil.step()

    def bodies(self) -> list[str]:
        found = self.vigil.found
        return [] if found is None else [message.body.decode() for message in found.claim.messages]


@dataclass
class Bench:
    """A service over a store in memory, with a clock and a timer that stand still."""

    clock: Clock = field(default_factory=Clock)
    timer: float = 0.0  # seconds
    attempts: int = 0
    calls: list[str] = field(default_factory=list)  # of the store, as far as waiting goes

    def __post_init__(self) -> None:
        self.driver = connect("memory:", clock=self.clock)
        self.service = assemble(Settings(store="memory:"), self.driver, clock=self.clock)
        self.queue = Probe(self.driver.messages, self.clock)
        self.stack = ExitStack()
        for name in ("claim", "watch", "outlook"):
            self._count(name)

    def _count(self, name: str) -> None:
        real = getattr(self.driver.messages, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            return real(*arguments, **named)

        setattr(self.driver.messages, name, call)

    def room(
        self, *, seats: int = 100, hands: int = 100, timer: Callable[[], float] | None = None
    ) -> WaitingRoom:
        catalogue = self.service.moving._catalogue
        return WaitingRoom(catalogue, seats=seats, hands=hands, timer=timer or (lambda: self.timer))

    def claim(self, address: Address = HOME, limit: int = 1) -> SeenClaim | None:
        self.attempts += 1
        found: SeenClaim | None = self.service.claims.create(address, limit=limit)
        return found

    def vigil(self, room: WaitingRoom, *, seconds: int = 20, alone: bool = False) -> Vigil[SeenClaim | None]:
        found = room.until(HOME, self.claim, is_given, seconds=seconds, alone=alone)
        assert isinstance(found, Vigil)
        return found

    def waiter(self, room: WaitingRoom, *, seconds: int = 20, alone: bool = False) -> Waiter:
        """Let somebody begin to wait."""
        waiter = Waiter(self.vigil(room, seconds=seconds, alone=alone))
        stack = self.stack.enter_context(ExitStack())
        stack.enter_context(waiter.vigil.begun(waiter.ring))
        waiter.leave = stack.close
        return waiter


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    with made.stack:
        yield made
    assert not made.driver.messages._state.wakeups.watched()  # type: ignore[attr-defined]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


# --- whether there is anything to wait for


@pytest.mark.parametrize("seconds", [None, 0, 20])
def test_what_is_there_is_returned_at_once(bench, seconds):
    bench.queue.post("a")
    found = bench.room().until(HOME, bench.claim, is_given, seconds=seconds, alone=False)
    assert isinstance(found, SeenClaim)
    assert bench.attempts == 1


@pytest.mark.parametrize("seconds", [None, 0])
def test_who_does_not_want_to_wait_does_not(bench, seconds):
    assert bench.room().until(HOME, bench.claim, is_given, seconds=seconds, alone=False) is None
    assert bench.calls == ["claim"]


@pytest.mark.parametrize("seconds", [-1, 21])
def test_a_time_out_of_range_is_refused_before_anything_is_done(bench, seconds):
    bench.queue.post("a")
    with pytest.raises(Invalid, match="wait"):
        bench.room().until(HOME, bench.claim, is_given, seconds=seconds, alone=False)
    assert bench.attempts == 0


def test_a_room_that_is_closed_lets_nobody_wait(bench):
    room = bench.room()
    room.close()
    assert room.until(HOME, bench.claim, is_given, seconds=20, alone=False) is None


def test_a_step_before_the_beginning_is_a_mistake(bench):
    with pytest.raises(RuntimeError):
        bench.vigil(bench.room()).step()


# --- the line


def test_only_the_first_one_tries(bench):
    room = bench.room()
    first, second, third = [bench.waiter(room) for _ in range(3)]
    bench.attempts = 0
    assert [waiter.step() for waiter in (third, second, first)] == [20, 20, 20]
    assert bench.attempts == 1
    assert bench.calls.count("watch") == 1


def test_a_message_wakes_the_first_one_alone(bench):
    room = bench.room()
    first, second = bench.waiter(room), bench.waiter(room)
    first.step()
    first.woken()  # the watch is in force
    bench.queue.post("a")
    assert (first.woken(), second.woken()) == (1, 0)
    assert first.step() == 0
    assert first.bodies() == ["a"]


def test_who_leaves_wakes_the_next_one_who_finds_what_was_left(bench):
    room = bench.room()
    first, second, third = [bench.waiter(room) for _ in range(3)]
    first.step()
    bench.queue.post("a", "b")
    assert first.step() == 0
    assert second.woken() == 0
    first.leave()
    assert (second.woken(), third.woken()) == (1, 0)
    assert second.step() == 0
    assert second.bodies() == ["b"]
    second.leave()
    assert third.woken() == 1
    assert third.step() == 20
    bench.queue.post("c")
    assert third.step() == 0
    assert third.bodies() == ["c"]
    assert bench.calls.count("watch") == 1  # it was handed on


def test_somebody_in_the_middle_may_leave(bench):
    room = bench.room()
    first, second, third = [bench.waiter(room) for _ in range(3)]
    first.step()
    second.leave()
    first.leave()
    assert third.woken() == 1
    bench.queue.post("a")
    assert third.step() == 0


def test_lines_of_different_queues_have_nothing_to_do_with_each_other(bench):
    room = bench.room()
    other = Address(project="another", queue=HOME.queue)
    here = bench.waiter(room)
    there = Vigil(room, other, partial(bench.claim, other), is_given, None, seconds=20, alone=False)
    wakes: list[int] = []
    with there.begun(lambda: wakes.append(1)):
        assert here.step() == there.step() == 20
        here.woken()
        wakes.clear()
        bench.queue.other(HOME.queue, project="another").post("a")
        assert here.woken() == 0
        assert wakes == [1]


def test_everybody_who_waits_alone_is_told(bench):
    room = bench.room()
    readers = [bench.waiter(room, alone=True) for _ in range(3)]
    claimer = bench.waiter(room)
    for waiter in (*readers, claimer):
        assert waiter.step() == 20
        waiter.woken()
    bench.queue.post("a")
    assert [waiter.woken() for waiter in (*readers, claimer)] == [1, 1, 1, 1]


def test_what_came_before_the_watch_was_in_force_is_found(bench):
    room = bench.room()
    waiter = bench.waiter(room)
    bench.queue.post("a")  # nobody watches yet
    assert waiter.step() == 0
    assert waiter.bodies() == ["a"]


def test_what_comes_while_the_watch_is_begun_is_told(bench):
    """Between a try that finds nothing and the watch there is a moment; whoever posts then is not missed."""
    room = bench.room()
    waiter = bench.waiter(room)
    real = bench.driver.messages.watch

    def watch(*arguments: Any) -> Any:
        bench.queue.post("a")
        return real(*arguments)

    bench.driver.messages.watch = watch
    assert waiter.step() > 0
    assert waiter.woken()
    assert waiter.step() == 0


# --- how long


def test_the_pause_ends_when_something_falls_due(bench):
    room = bench.room()
    bench.queue.post("delayed", delay=7)
    waiter = bench.waiter(room)
    assert waiter.step() == 7
    bench.clock.advance(6.995)
    assert waiter.step() == pytest.approx(0.02)  # never less: two clocks may disagree a little
    bench.clock.advance(0.005)
    assert waiter.step() == 0
    assert waiter.bodies() == ["delayed"]


def test_the_pause_ends_when_a_lease_does(bench):
    room = bench.room()
    bench.queue.post("leased")
    bench.queue.claim(ttl=5)
    waiter = bench.waiter(room)
    assert waiter.step() == 5
    bench.clock.advance(5)
    assert waiter.step() == 0
    assert waiter.bodies() == ["leased"]


def test_a_lease_that_is_made_shorter_or_given_back_wakes(bench):
    room = bench.room()
    bench.queue.post("leased")
    claim = bench.queue.claim(ttl=15)
    waiter = bench.waiter(room)
    assert waiter.step() == 15
    waiter.woken()
    bench.queue.renew(claim.id, ttl=3)
    assert waiter.woken()
    assert waiter.step() == 3
    bench.queue.release(claim.id)
    assert waiter.woken()
    assert waiter.step() == 0


def test_the_pause_is_never_longer_than_there_is_time(bench):
    room = bench.room()
    bench.queue.post("delayed", delay=7)
    waiter = bench.waiter(room, seconds=5)
    assert waiter.step() == 5
    bench.timer = 4.5
    assert waiter.step() == 0.5
    bench.timer = 5
    assert waiter.step() == 0
    assert waiter.bodies() == []


def test_when_the_time_is_over_nothing_more_is_tried(bench):
    room = bench.room()
    waiter = bench.waiter(room, seconds=5)
    waiter.step()
    bench.timer = 5
    bench.queue.post("a")
    bench.attempts = 0
    assert waiter.step() == 0
    assert bench.attempts == 0


def test_waking_for_nothing_costs_one_try_each(bench):
    room = bench.room()
    waiter, behind = bench.waiter(room), bench.waiter(room)
    waiter.step()
    bench.attempts = 0
    for _ in range(10):
        waiter.ring()
        assert waiter.step() == 20
        assert behind.step() == 20
    assert bench.attempts == 10
    assert bench.calls.count("watch") == 1


# --- threads


class Thread:
    """Waits in a thread, and keeps what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.found: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.found = self._work()
        except BaseException as error:
            self.error = error

    def ended(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it still waits"
        if self.error is not None:
            raise self.error
        return self.found

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


@contextmanager
def waiting(bench: Bench, room: WaitingRoom, count: int, **named: Any) -> Iterator[list[Thread]]:
    """Let threads wait; they do when the block begins."""
    vigils = [bench.vigil(room, **named) for _ in range(count)]
    threads = []
    for number, vigil in enumerate(vigils, 1):
        threads.append(Thread(vigil.wait))
        eventually(lambda number=number: standing(room) == number)  # type: ignore[misc]
    eventually(lambda: all(line.store for line in room._all))
    bench.calls.clear()
    try:
        yield threads
    finally:
        room.close()
        for thread in threads:
            thread.ended()


def standing(room: WaitingRoom) -> int:
    return sum(len(line.members) for line in list(room._all))


def bodies(found: SeenClaim | None) -> list[str]:
    return [] if found is None else [message.body.decode() for message in found.claim.messages]


def test_messages_go_to_those_who_wait_in_the_order_in_which_they_came(bench):
    room = bench.room(timer=time.monotonic)
    with waiting(bench, room, 5) as threads:
        bench.queue.post("a", "b")
        assert [bodies(thread.ended()) for thread in threads[:2]] == [["a"], ["b"]]
        assert all(thread.waits for thread in threads[2:])
        for number in range(3):
            bench.queue.post(str(number))
        assert sorted(bodies(thread.ended())[0] for thread in threads[2:]) == ["0", "1", "2"]


def test_while_nothing_happens_nothing_is_asked(bench):
    room = bench.room(timer=time.monotonic)
    with waiting(bench, room, 50):
        time.sleep(0.3)  # that nothing happens can but be watched
        asked = [call for call in bench.calls if call != "outlook"]
        assert len(asked) <= 1  # the try after the watch had come into force
        assert len(bench.calls) <= 2
        bench.calls.clear()
        time.sleep(0.2)
        assert bench.calls == []


def test_a_message_costs_two_tries_however_many_wait(bench):
    room = bench.room(timer=time.monotonic)
    with waiting(bench, room, 50) as threads:
        for number in range(10):
            bench.calls.clear()
            bench.queue.post("a")
            threads[number].ended()
            eventually(lambda: bench.calls.count("outlook") >= 1)
            assert bench.calls.count("claim") <= 3


def test_who_finds_no_seat_is_answered_at_once(bench):
    room = bench.room(seats=3, timer=time.monotonic)
    with waiting(bench, room, 3) as threads:
        start = time.monotonic()
        assert bench.vigil(room).wait() is None
        assert time.monotonic() - start < 10
        assert standing(room) == 3
        bench.queue.post("a")
        threads[0].ended()
        another = Thread(bench.vigil(room).wait)
        eventually(lambda: standing(room) == 3)
        assert another.waits
        room.close()
        another.ended()


def test_who_waits_lets_others_work(bench):
    room = bench.room(hands=1, timer=time.monotonic)

    def work(what: Callable[[], Any]) -> Any:
        with room.busy():
            return what()

    vigils = [bench.vigil(room) for _ in range(5)]
    threads = [Thread(partial(work, vigil.wait)) for vigil in vigils]
    eventually(lambda: standing(room) == 5)
    assert Thread(partial(work, lambda: "done")).ended() == "done"
    room.close()
    for thread in threads:
        assert thread.ended() is None
    assert Thread(partial(work, lambda: "done")).ended() == "done"  # and every hand was given back


def test_no_more_work_at_once_than_there_are_hands(bench: Bench):
    room = bench.room(hands=2, timer=time.monotonic)
    at_once, most, lock = 0, 0, threading.Lock()

    def attempt() -> SeenClaim | None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return bench.claim()
        finally:
            with lock:
                at_once -= 1

    def wait() -> Any:
        with room.busy():
            found = room.until(HOME, attempt, is_given, seconds=20, alone=True)
            return found.wait() if isinstance(found, Vigil) else found

    threads = [Thread(wait) for _ in range(20)]
    eventually(lambda: standing(room) == 20)
    bench.queue.fill(20)
    for thread in threads:
        assert thread.ended() is not None
    assert most <= 2


def test_closing_lets_everybody_go_with_what_they_have(bench):
    room = bench.room(timer=time.monotonic)
    with waiting(bench, room, 10) as threads:
        alone = Thread(bench.vigil(room, alone=True).wait)
        eventually(lambda: standing(room) == 11)
        room.close()
        assert [thread.ended() for thread in (*threads, alone)] == [None] * 11
        assert standing(room) == 0


def test_nothing_is_tried_for_somebody_who_has_gone(bench):
    room = bench.room(timer=time.monotonic)
    here = True
    gone = Thread(partial(bench.vigil(room).wait, lambda: not here))
    eventually(lambda: standing(room) == 1)
    with waiting_behind(bench, room) as behind:
        here = False
        bench.queue.post("a")
        assert bodies(behind.ended()) == ["a"]
        assert gone.ended() is None


@contextmanager
def waiting_behind(bench: Bench, room: WaitingRoom) -> Iterator[Thread]:
    """Let one more thread wait, behind those who do."""
    there = standing(room)
    thread = Thread(bench.vigil(room).wait)
    eventually(lambda: standing(room) == there + 1)
    eventually(lambda: all(line.store for line in room._all))
    yield thread


@pytest.mark.parametrize("call", ["claim", "outlook"])
def test_a_store_that_fails_is_told_to_whoever_asked_and_the_next_one_goes_on(bench: Bench, call):
    room = bench.room(timer=time.monotonic)
    with waiting(bench, room, 2) as threads:
        real, failing = getattr(bench.driver.messages, call), threading.Event()

        def fail_once(*arguments: Any, **named: Any) -> Any:
            if not failing.is_set():
                failing.set()
                raise StoreUnavailable
            return real(*arguments, **named)

        setattr(bench.driver.messages, call, fail_once)
        if call == "outlook":
            bench.driver.messages._state.wakeups.wake(HOME)  # type: ignore[attr-defined]
        else:
            bench.queue.post("a")
        with pytest.raises(StoreUnavailable):
            threads.pop(0).ended()
        if call == "outlook":
            bench.queue.post("a")
        assert bodies(threads.pop().ended()) == ["a"]
    assert not room._all


# --- an event loop in place of threads


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


def test_what_somebody_found_who_was_cancelled_is_given_back(bench: Bench):
    async def story() -> None:
        room = bench.room(timer=time.monotonic)
        rescued: list[SeenClaim | None] = []
        found, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def claim() -> SeenClaim | None:
            seen = bench.claim()
            if seen is not None:
                loop.call_soon_threadsafe(found.set)
                assert go_on.wait(PATIENCE)
            return seen

        async def rescue(seen: SeenClaim | None) -> None:
            assert seen is not None
            rescued.append(seen)
            await asyncio.to_thread(bench.service.claims.release, HOME, seen.claim.id)

        vigil = Vigil(room, HOME, claim, is_given, None, seconds=20, alone=False)
        task = asyncio.create_task(vigil.sit(in_thread, rescue))
        while standing(room) == 0 or not all(line.store for line in room._all):
            await asyncio.sleep(0.001)
        bench.queue.post("a")
        await asyncio.wait_for(found.wait(), PATIENCE)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()  # it sees to it first
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(rescued) == 1
        assert bench.queue.counts() == (1, 0, 1)
        assert standing(room) == 0

    asyncio.run(story())


def test_who_is_cancelled_while_nothing_is_found_just_goes(bench):
    async def story() -> None:
        room = bench.room(timer=time.monotonic)

        async def rescue(seen: SeenClaim | None) -> None:
            raise AssertionError(seen)

        vigil = Vigil(room, HOME, bench.claim, is_given, None, seconds=20, alone=False)
        task = asyncio.create_task(vigil.sit(in_thread, rescue))
        while standing(room) == 0 or not all(line.store for line in room._all):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert standing(room) == 0

    asyncio.run(story())


@pytest.mark.parametrize("turns", range(8))
def test_who_is_cancelled_just_when_it_is_woken_goes_too(bench, turns):
    """However many turns of the loop lie between the two."""

    async def story() -> None:
        room = bench.room(timer=time.monotonic)
        vigil = Vigil(room, HOME, bench.claim, is_given, None, seconds=20, alone=False)
        task = asyncio.create_task(vigil.sit(in_thread, lambda _: asyncio.sleep(0)))
        while standing(room) == 0 or not all(line.store for line in room._all):
            await asyncio.sleep(0.001)
        (line,) = room._all
        line.ring()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=PATIENCE)
        assert task.cancelled()
        assert standing(room) == 0

    asyncio.run(story())


def test_a_loop_that_is_gone_hears_nothing(bench: Bench):
    room = bench.room(timer=time.monotonic)

    async def story() -> Callable[[], None]:
        vigil = Vigil(room, HOME, bench.claim, is_given, None, seconds=20, alone=False)
        task = asyncio.create_task(vigil.sit(in_thread, lambda _: asyncio.sleep(0)))
        while standing(room) == 0:
            await asyncio.sleep(0.001)
        (line,) = room._all
        wake = line.members[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return wake

    asyncio.run(story())()


# --- pools


@pytest.fixture
def pools(tmp_path) -> Iterator[World]:
    with opened(tmp_path, "sqlite", "sqlite") as world:
        yield world


def test_a_queue_that_moves_while_somebody_waits_is_followed(pools):
    node = pools.node()
    node.create()
    room = node.service.waiting
    vigil = room.until(HOME, partial(node.service.claims.create, HOME), is_given, seconds=20, alone=False)
    assert isinstance(vigil, Vigil)
    thread = Thread(vigil.wait)
    eventually(lambda: [line.store for line in room._all] == [pools.store(1).messages])

    assert pools.node().move("p2") is not None
    eventually(lambda: [line.store for line in room._all] == [pools.store(2).messages])
    pools.node().post("a")

    assert bodies(thread.ended()) == ["a"]


def test_a_queue_that_is_made_while_somebody_waits_is_found_in_whatever_pool(pools):
    node = pools.node()
    room = node.service.waiting
    vigil = room.until(HOME, partial(node.service.claims.create, HOME), is_given, seconds=20, alone=False)
    assert isinstance(vigil, Vigil)
    start = time.monotonic()
    thread = Thread(vigil.wait)
    eventually(lambda: [line.store for line in room._all if line.store])

    pools.node(draw=lambda: 0.99).post("a")

    assert bodies(thread.ended()) == ["a"]
    assert time.monotonic() - start < 15
    assert node.pool() == "p2"


def test_what_falls_due_between_a_try_and_the_look_at_what_is_to_come_is_not_missed(bench):
    bench.queue.post("a", delay=1)
    waiter = bench.waiter(bench.room())
    bench.clock.advance(ms=995)

    def slow_claim(*arguments: Any, **named: Any) -> Any:
        found = claim(*arguments, **named)
        bench.clock.advance(ms=10)
        bench.timer += 0.010
        return found

    claim, bench.driver.messages.claim = bench.driver.messages.claim, slow_claim
    pause = waiter.step()

    assert pause < 1
    assert waiter.step() == 0
    assert waiter.bodies() == ["a"]
