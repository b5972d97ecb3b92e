"""The store's clock decides (P11): a machine whose own clock is wrong sees the same ends as all others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis

from queues.errors import ClaimNotFound
from queues.ports import Driver
from storage.registry import connect
from tests import servers
from tests.storage.probe import Clock, Probe, bodies
from tests.storage.variants import over_shared

WRONG = 60  # seconds by which a machine's clock is wrong
BLINK = 10  # seconds that the slowest machine takes between two looks at a clock


def _redis_time(uri: str) -> float:
    with closing(redis.Redis.from_url(uri.partition("?")[0])) as client:
        seconds, microseconds = client.time()
        return float(seconds) + float(microseconds) / 1e6


def _cluster_time(uri: str) -> float:
    return _redis_time(uri.replace("+cluster", "").partition(",")[0])


def _mongodb_time(uri: str) -> float:
    with pymongo.MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
        seconds: float = client.admin.command("hello")["localTime"].timestamp()
        return seconds


#: How to make a store, and how to ask its server for the time.
SERVERS: dict[str, tuple[Callable[[Path], str], Callable[[str], float]]] = {
    "redis": (servers.redis_uri, _redis_time),
    "redis-cluster": (servers.redis_cluster_uri, _cluster_time),
    "mongodb": (servers.mongodb_uri, _mongodb_time),
}


@contextmanager
def wrong_by(seconds: float) -> Iterator[None]:
    """Let this machine's clock be wrong; the monotonic clock goes on as it did."""
    right, right_ns = time.time, time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + seconds)
        patch.setattr(time, "time_ns", lambda: right_ns() + int(seconds * 1e9))
        yield


@dataclass
class Machine:
    """A machine with a driver of its own, and with a clock that is right or wrong."""

    driver: Driver
    wrong: float  # seconds

    def __call__(self, act: Callable[[Probe], Any], *, later: float = 0) -> Any:
        """Do something to the queue, at the time that the store's clock tells here, or some seconds later."""
        with wrong_by(self.wrong):
            clock = Clock(self.driver.messages.clock())
            clock.advance(later)
            return act(Probe(self.driver.messages, clock))


@pytest.fixture(params=SERVERS)
def server(request, tmp_path) -> tuple[str, Callable[[str], float]]:
    make, ask = SERVERS[request.param]
    return make(tmp_path), ask


@pytest.fixture(
    params=[(-WRONG, 0), (WRONG, 0), (0, -WRONG), (0, WRONG)],
    ids=["slow", "fast", "other-slow", "other-fast"],
)
def machines(request, server) -> Iterator[tuple[Machine, Machine]]:
    """Two machines on a store: the clock of one is wrong."""
    uri, _ = server
    with ExitStack() as opened:
        found = []
        for wrong in request.param:
            with wrong_by(wrong):
                found.append(Machine(opened.enter_context(closing(connect(uri))), wrong))
        yield found[0], found[1]


def test_p11_the_clock_is_the_servers(server, machines) -> None:
    uri, ask = server
    for machine in machines:
        before = int(ask(uri) * 1000)
        told = machine(lambda queue: queue.clock.now)
        after = int(ask(uri) * 1000)

        assert before - 1000 <= told <= after + 1000


def test_p11_a_message_expires_at_the_same_time_everywhere(machines) -> None:
    there, here = machines
    there(lambda queue: queue.post("a", ttl=30))

    assert here(lambda queue: bodies(queue.everything())) == ["a"]
    assert here(lambda queue: bodies(queue.everything()), later=30 - BLINK) == ["a"]
    assert here(lambda queue: queue.everything(), later=30 + BLINK) == []


def test_p11_a_delay_ends_at_the_same_time_everywhere(machines) -> None:
    there, here = machines
    there(lambda queue: queue.post("a", delay=30))

    assert here(lambda queue: queue.try_claim().claim) is None
    assert here(lambda queue: queue.page(), later=30 - BLINK) == []
    assert here(lambda queue: bodies(queue.claim().messages), later=30 + BLINK) == ["a"]


def test_p11_a_lease_ends_at_the_same_time_everywhere(machines) -> None:
    there, here = machines
    there(lambda queue: queue.post("a"))
    claim = there(lambda queue: queue.claim(ttl=60))

    assert here(lambda queue: queue.try_claim().claim, later=60 - BLINK) is None
    assert here(lambda queue: bodies(queue.read_claim(claim.id).messages)) == ["a"]
    with pytest.raises(ClaimNotFound):
        here(lambda queue: queue.read_claim(claim.id), later=60 + BLINK)
    assert bodies(here(lambda queue: queue.claim(), later=60 + BLINK).messages) == ["a"]


def test_p11_idempotency_keys_live_as_long_everywhere(machines) -> None:
    there, here = machines
    posted = there(lambda queue: queue.post_once("a", window=30)).ids

    assert here(lambda queue: queue.post_once("a", window=30)).ids == posted
    assert here(lambda queue: queue.post_once("a", window=30), later=30 + BLINK).ids != posted


@over_shared
def test_p11_two_drivers_of_a_store_tell_the_same_time(uri) -> None:
    with closing(connect(uri)) as one, closing(connect(uri)) as other:
        told = [driver.messages.clock() for driver in (one, other, one, other)]

    assert max(told) - min(told) < BLINK * 1000


def test_p11_processes_on_a_file_have_the_machines_clock(tmp_path) -> None:
    with closing(connect(f"sqlite:///{tmp_path}/store.db")) as driver:
        for wrong in (0, WRONG):
            with wrong_by(wrong):
                before = time.time_ns() // 1_000_000
                assert before <= driver.messages.clock() <= time.time_ns() // 1_000_000
