"""Whoever watches a queue is told of what is new in it, and of nothing else; what time brings is told by the outlook."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from queues.errors import QueueMoved
from queues.models import Address, DeadLetter, NewMessage, Outlook, Selection
from tests import servers
from tests.acceptance.faults import Proxy
from tests.storage.pooled import connect
from tests.storage.probe import Probe
from tests.storage.variants import over_drivers

pytestmark = over_drivers

WAIT = 10.0  # seconds until a wake that must come counts as lost

#: Watches a queue of the store that the argument names, and ends without a word to anybody.
WATCHER = """
import sys, threading
from queues.models import Address
from storage.registry import connect

rung = threading.Event()
connect(sys.argv[1]).messages.watch(Address(project="p", queue="q"), rung.set)
assert rung.wait(10)
"""


class Bell:
    """Counts how often it was rung, and waits for the next time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = 0
        self._heard = 0

    def __call__(self) -> None:
        with self._changed:
            self._rung += 1
            self._changed.notify_all()

    def heard(self) -> bool:
        """Wait until it has been rung since it was last asked."""
        with self._changed:
            rung = self._changed.wait_for(lambda: self._rung > self._heard, WAIT)
            self._heard = self._rung
            return rung

    def forget(self) -> None:
        """Take what was rung so far for heard."""
        with self._changed:
            self._heard = self._rung

    def silent(self) -> bool:
        """Whether it was not rung since it was last asked."""
        with self._changed:
            return self._rung == self._heard


@pytest.fixture
def bell(queue: Probe) -> Iterator[Bell]:
    """Watch the queue; the watch is in force."""
    rung = Bell()
    end = queue.store.watch(queue.address, rung)
    assert rung.heard()
    yield rung
    end()


def test_a_post_is_told(queue, bell):
    queue.post("a")

    assert bell.heard()


def test_each_of_many_posts_is_told(queue, bell):
    for number in range(20):
        queue.post(str(number))
        assert bell.heard()


def test_a_delayed_post_is_told_at_once_and_the_outlook_says_when_it_is_due(queue, bell):
    queue.post("a", delay=30, ttl=600)

    assert bell.heard()
    assert queue.store.outlook(queue.address, now=queue.clock.now).due == queue.clock.now + 30_000


def test_a_released_claim_is_told(queue, bell):
    queue.post("a")
    claim = queue.claim()
    settle(queue, bell)

    queue.store.release(queue.address, claim.id, now=queue.clock.now)

    assert bell.heard()


def test_a_lease_that_becomes_shorter_is_told(queue, bell):
    queue.post("a", ttl=3600)
    claim = queue.claim(ttl=600)
    settle(queue, bell)

    queue.renew(claim.id, ttl=60)

    assert bell.heard()
    assert queue.store.outlook(queue.address, now=queue.clock.now).due == queue.clock.now + 60_000


def test_tickets_are_told_where_the_outbox_is_watched(queue, driver):
    bells = []
    for box in queue.store.outboxes():
        bells.append(Bell())
        queue.store.watch(box, bells[-1])
        assert bells[-1].heard()
    queue.store.subscribe(queue.address, "stamp")

    queue.store.post(
        queue.address,
        [NewMessage(body=b"1", ttl=60)],
        now=queue.clock.now,
        tickets=[NewMessage(body=b"2", ttl=60)],
    )

    full = [
        bell
        for bell, box in zip(bells, queue.store.outboxes(), strict=True)
        if queue.store.list(box, Selection(), now=queue.clock.now)
    ]
    assert len(full) == 1
    assert full[0].heard()


def test_dead_letters_are_told_where_they_arrive(queue):
    dead = queue.other("dead")
    if not queue.store.joins(queue.address, dead.address):
        dead = queue.other(f"{queue.address.queue}>dead")
    queue.post("a")
    queue.store.release(queue.address, queue.claim().id, now=queue.clock.now)
    bell = Bell()
    end = queue.store.watch(dead.address, bell)
    assert bell.heard()

    taken = queue.try_claim(dead_letter=DeadLetter(address=dead.address, max_claims=1))

    assert taken.dead_lettered == 1
    assert bell.heard()
    end()


def test_a_queue_that_is_shut_is_told(queue, driver, bell):
    queue.post("a")
    settle(queue, bell)

    driver.transfers.depart(queue.address, "1" * 32)
    settle(queue, bell)
    driver.transfers.shut(queue.address, "1" * 32)

    assert bell.heard()


def test_a_queue_that_is_shut_can_be_watched(queue, driver):
    driver.transfers.depart(queue.address, "1" * 32)
    driver.transfers.shut(queue.address, "1" * 32)
    bell = Bell()

    queue.store.watch(queue.address, bell)()

    queue.store.watch(queue.address, bell)
    assert bell.heard()


@pytest.mark.parametrize(
    "other",
    [
        Address(project="project", queue="other"),
        Address(project="other", queue="queue"),
        Address(project="", queue="queue"),
    ],
    ids=repr,
)
def test_other_queues_are_not_told_of(queue, bell, other):
    stranger = Probe(queue.store, queue.clock, other)
    theirs = Bell()
    end = queue.store.watch(other, theirs)
    assert theirs.heard()
    settle(queue, bell)
    for number in range(5):
        stranger.post(str(number))
        assert theirs.heard()

    assert bell.silent()
    end()


def test_what_is_told_to_one_is_told_to_all(queue):
    bells = [Bell() for _ in range(5)]
    for bell in bells:
        queue.store.watch(queue.address, bell)
        assert bell.heard()

    queue.post("a")

    assert all(bell.heard() for bell in bells)


def test_a_watch_that_was_ended_hears_nothing_and_the_others_go_on(queue):
    ended, other = Bell(), Bell()
    end = queue.store.watch(queue.address, ended)
    queue.store.watch(queue.address, other)
    assert ended.heard()
    assert other.heard()
    end()
    end()
    settle(queue, other)
    ended.forget()

    queue.post("a")

    assert other.heard()
    assert ended.silent()


def test_a_queue_can_be_watched_again_after_the_last_watch_ended(queue):
    for _ in range(3):
        bell = Bell()
        end = queue.store.watch(queue.address, bell)
        assert bell.heard()
        queue.post("a")
        assert bell.heard()
        end()


def test_many_queues_are_watched_at_once(queue):
    others = [queue.other(f"queue{number}") for number in range(50)]
    bells = [Bell() for _ in others]
    for other, bell in zip(others, bells, strict=True):
        other.store.watch(other.address, bell)
        assert bell.heard()

    for other, bell in zip(others, bells, strict=True):
        other.post("a")
        assert bell.heard()


def test_what_another_process_would_post_is_told(queue, uri, clock, bell, variant):
    if not variant.shared:
        pytest.skip("this store is inside one process")
    with closing(connect(uri, timeout=5.0, clock=clock)) as other:
        settle(queue, bell)
        Probe(other.messages, clock).post("a")

        assert bell.heard()


def test_what_was_posted_while_the_connection_was_broken_is_told(queue, uri, clock, variant):
    if variant.way is None:
        pytest.skip("there is no one connection that could break")
    with (
        Proxy(urlsplit(uri).port) as proxy,
        closing(connect(variant.way(uri, proxy.port), timeout=1.0, clock=clock)) as driver,
    ):
        bell = Bell()
        driver.messages.watch(queue.address, bell)
        assert bell.heard()
        for number in range(2):
            proxy.refuse()
            queue.post(str(number))
            bell.forget()

            proxy.forward()

            assert bell.heard()
            queue.post("and on it goes")
            assert bell.heard()


def test_the_thread_that_listens_ends_with_its_driver(uri, clock):
    before = set(threading.enumerate())
    driver = connect(uri, clock=clock)
    bell = Bell()
    driver.messages.watch(Probe(driver.messages, clock).address, bell)
    assert bell.heard()

    driver.close()

    servers.eventually(lambda: set(threading.enumerate()) <= before, seconds=5)


def test_a_process_that_watches_comes_to_its_end(uri):
    subprocess.run([sys.executable, "-c", WATCHER, uri], check=True, timeout=20)


def test_an_empty_queue_has_nothing_to_come(queue):
    assert queue.store.outlook(queue.address, now=queue.clock.now) == Outlook()


def test_the_outlook_gives_the_marker_of_what_comes(queue):
    before = queue.fill(3)
    outlook = queue.store.outlook(queue.address, now=queue.clock.now)
    after = queue.fill(2)

    assert outlook.marker == before[-1]
    assert [message.id for message in queue.page(outlook.marker)] == list(after)


def test_the_marker_of_what_comes_outlives_the_messages(queue):
    ids = queue.fill(3, ttl=60)
    queue.clock.advance(61)
    queue.store.expire(now=queue.clock.now, limit=100)

    assert queue.store.outlook(queue.address, now=queue.clock.now).marker == ids[-1]


def test_nothing_falls_due_before_the_outlook_says(queue):
    queue.post("a", ttl=3600, delay=10)
    queue.post("b", ttl=7200)
    claim = queue.claim(ttl=120)
    now = queue.clock.now
    outlook = queue.store.outlook(queue.address, now=now)
    assert outlook.due is not None
    assert now < outlook.due <= now + 10_000
    queue.clock.advance(10)
    queue.try_claim(ttl=300)

    outlook = queue.store.outlook(queue.address, now=queue.clock.now)

    assert outlook.due is not None
    assert queue.clock.now < outlook.due <= claim.expires


def test_a_queue_that_is_shut_has_no_outlook(queue, driver):
    driver.transfers.depart(queue.address, "1" * 32)
    driver.transfers.shut(queue.address, "1" * 32)

    with pytest.raises(QueueMoved):
        queue.store.outlook(queue.address, now=queue.clock.now)


def settle(queue: Probe, bell: Bell) -> None:
    """Wait until nothing that happened so far can ring the bell any more: what came last, elsewhere, is told."""
    fence, rung = queue.other("fence"), Bell()
    end = queue.store.watch(fence.address, rung)
    assert rung.heard()
    fence.post("fence")
    assert rung.heard()
    end()
    bell.forget()
