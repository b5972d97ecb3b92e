"""Tickets and deliveries: leases, what is kept, what was given up, and what is sent again."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from queues.errors import Invalid, StoreUnavailable
from queues.models import Address, Attempt, Caller, DeliveryCounts, Notice, PendingDelivery
from queues.ports import Driver, MessageStore
from queues.service.deliveries import LEASE, PENDING, Batch, DeliveryService
from queues.service.messages import Draft
from queues.service.subscriptions import Terms
from storage.registry import connect
from tests import servers
from tests.boxes import take
from tests.queues.nodes import KINDS
from tests.storage.probe import START, Clock
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

QUEUE = Address(project="blue", queue="jobs")
SUBSCRIPTION = "5" * 24
STORES = {"memory": lambda _: "memory:", **KINDS, "redis-cluster": servers.redis_cluster_uri}

PENDING_ONE = PendingDelivery(
    notice=Notice(id="msg_1", body=b'{"n": 1}', ttl=300, delay=7),
    address=QUEUE,
    subscription_id=SUBSCRIPTION,
    attempt=3,
    posted=START - 5000,
)


def key(name: str) -> str:
    return f"{name}:{base64.b64encode(name.encode() * 16).decode()}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=STORES)
def driver(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[Driver]:
    with closing(connect(STORES[request.param](tmp_path), clock=clock)) as opened:
        yield opened


@pytest.fixture
def make(driver: Driver, clock: Clock) -> Callable[..., Service]:
    """Make a service over the store with these settings."""
    return lambda **settings: assemble(Settings(store="memory:", **settings), driver, clock=clock)


@pytest.fixture
def service(make: Callable[..., Service]) -> Service:
    return make()


@pytest.fixture
def deliveries(service: Service) -> DeliveryService:
    return service.deliveries


def post(service: Service, *bodies: bytes, queue: str = "jobs", **members: Any) -> None:
    """Post messages in one post to a queue that has a subscriber."""
    address = replace(QUEUE, queue=queue)
    if not service.subscriptions.all(address):
        service.subscriptions.create(address, Terms(subscriber="http://h/"))
    drafts = [Draft(body=body, **members) for body in bodies]
    service.messages.post(Caller(project="blue", client_id="c"), address, drafts)


def notices(batches: list[Batch]) -> list[bytes]:
    return [notice.body for batch in batches for ticket in batch.tickets for notice in ticket.notices]


def kept(batches: list[Batch]) -> list[PendingDelivery]:
    return [pending for batch in batches for pending in batch.pending]


# --- tickets


def test_a_ticket_says_what_was_posted(service, clock):
    post(service, b'{"a": "1"}', b"null", ttl=120)
    (batch,) = take(service.deliveries)
    (ticket,) = batch.tickets

    assert ticket.address == QUEUE
    assert (ticket.posted, ticket.sealed) == (clock.now, False)
    assert [(each.body, each.ttl, each.delay) for each in ticket.notices] == [
        (b'{"a": "1"}', 120, None),
        (b"null", 120, None),
    ]
    ids = [each.id for each in ticket.notices]
    assert len(set(ids)) == 2
    assert all(each.startswith("msg_") and each.isascii() and "." not in each for each in ids)


def test_what_is_taken_is_nobody_elses_until_the_lease_ends(service, clock):
    post(service, b"1")
    (first,) = take(service.deliveries)
    clock.advance(LEASE - 1)
    assert take(service.deliveries) == []
    clock.advance(1)
    (again,) = take(service.deliveries)

    assert again.tickets == first.tickets
    service.deliveries.settle(again, [each.id for each in again.tickets])
    clock.advance(LEASE)
    assert take(service.deliveries) == []


def test_how_long_a_lease_lasts_is_a_setting(make, clock):
    service = make(notifier={"lease": 10})
    post(service, b"1")
    assert notices(take(service.deliveries)) == [b"1"]
    clock.advance(10)

    assert notices(take(service.deliveries)) == [b"1"]


def test_what_is_given_back_can_be_taken_at_once(service):
    post(service, b"1")
    post(service, b"2")
    (batch,) = take(service.deliveries)
    service.deliveries.settle(batch, [batch.tickets[0].id])
    service.deliveries.give_back(batch)

    assert notices(take(service.deliveries)) == [b"2"]


def test_a_bounded_number_is_taken_from_each_place(service):
    for number in range(5):
        post(service, b"%d" % number)
    service.deliveries.keep("", [(PENDING_ONE, 0)] * 5)
    batches = take(service.deliveries, 2)

    assert len(notices(batches)) == len(kept(batches)) == 2


def test_tickets_of_all_queues_are_found(service):
    names = [f"q{number}" for number in range(24)]
    for name in names:
        post(service, f'"{name}"'.encode(), queue=name)

    assert sorted(notices(take(service.deliveries))) == sorted(f'"{name}"'.encode() for name in names)


def test_messages_with_other_delays_have_other_tickets(service, clock):
    address, caller = QUEUE, Caller(project="blue", client_id="c")
    service.subscriptions.create(address, Terms(subscriber="http://h/"))
    drafts = [Draft(body=b"%d" % delay, delay=delay) for delay in (0, 60, 0, 30)]
    service.messages.post(caller, address, drafts)

    assert notices(take(service.deliveries)) == [b"0", b"0"]
    clock.advance(30)
    assert notices(take(service.deliveries)) == [b"30"]
    clock.advance(29)
    assert notices(take(service.deliveries)) == []
    clock.advance(1)
    late = take(service.deliveries)
    assert b"60" in notices(late)


class Broken:
    """A store that does not let anybody claim in some places."""

    def __init__(self, store: MessageStore, places: list[Address]) -> None:
        self._store = store
        self._places = places

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, address: Address, *arguments: Any, **named: Any) -> Any:
        if address in self._places:
            raise StoreUnavailable
        return self._store.claim(address, *arguments, **named)


@pytest.mark.parametrize("broken", [0, -1])
def test_a_place_that_cannot_be_asked_keeps_nothing_back_elsewhere(service, driver, monkeypatch, broken):
    for number in range(24):
        post(service, b"%d" % number, queue=f"q{number}")
    service.deliveries.keep("", [(PENDING_ONE, 0)])
    places = [*driver.messages.outboxes(), PENDING]
    store = Broken(driver.messages, [places[broken]])
    monkeypatch.setattr(driver, "messages", store)
    found: list[Batch] = []

    for box in service.deliveries.boxes():
        if box.address == places[broken]:
            with pytest.raises(StoreUnavailable):
                service.deliveries.take(box, 100)
        elif batch := service.deliveries.take(box, 100):
            found.append(batch)
    store._places = []
    rest = take(service.deliveries)
    assert len(notices(found) + notices(rest)) == 24
    assert len(kept(found) + kept(rest)) == 1


# --- what is kept


def test_a_delivery_is_kept_as_it_is_until_it_is_due(deliveries, clock):
    other = replace(PENDING_ONE, attempt=4, payload=b"not JSON", options={"a": 1}, replayed=START - 1)
    ids = deliveries.keep("", [(PENDING_ONE, 0), (other, 90)])
    assert kept(take(deliveries)) == [replace(PENDING_ONE, id=ids[0])]
    clock.advance(59)
    assert kept(take(deliveries)) == []
    clock.advance(31)

    assert replace(other, id=ids[1]) in kept(take(deliveries))


def test_what_was_kept_can_be_forgotten(deliveries):
    one, two = deliveries.keep("", [(PENDING_ONE, 0), (PENDING_ONE, 0)])
    deliveries.forget("", [one])

    assert [each.id for each in kept(take(deliveries))] == [two]
    assert deliveries.keep("", []) == []
    deliveries.forget("", [])


def test_what_is_sent_is_there_once_for_each_key(deliveries, clock):
    for name in ("k", "k", "other"):
        deliveries.send(PENDING_ONE, key=name, window=60)
    assert len(kept(take(deliveries))) == 2
    clock.advance(60)
    deliveries.send(PENDING_ONE, key="k", window=60)

    assert len(kept(take(deliveries))) == 3  # the two whose lease is over, and this one


def test_h1_what_is_sealed_needs_its_key(make, clock, driver):
    old = make(encryption={"keys": [key("k1")]})
    sealed = replace(PENDING_ONE, sealed=True)
    (id_,) = old.deliveries.keep("", [(sealed, 0)])
    old.deliveries.bury(sealed)
    stored = driver.messages.get(PENDING, [id_], now=clock.now)
    assert all(b'"n": 1' not in each.body for each in stored)

    stranger = make(encryption={"keys": [key("k2")]})
    assert kept(take(stranger.deliveries)) == []
    assert stranger.deliveries.dead(QUEUE, SUBSCRIPTION) == []
    clock.advance(LEASE)
    rotated = make(encryption={"keys": [key("k2"), key("k1")]})
    assert kept(take(rotated.deliveries)) == [replace(sealed, id=id_)]
    assert len(rotated.deliveries.dead(QUEUE, SUBSCRIPTION)) == 1


# --- what was given up


def dead(deliveries: DeliveryService, **page: Any) -> list[str]:
    """Return the ids of the notices that were given up."""
    return [each.notice.id for each, _ in deliveries.dead(QUEUE, SUBSCRIPTION, **page)]


def notice(number: int) -> PendingDelivery:
    return replace(PENDING_ONE, notice=replace(PENDING_ONE.notice, id=f"msg_{number}"))


def test_what_was_given_up_is_there_once_for_a_while(make, clock):
    deliveries = make(notifier={"dead_letter_ttl": 600}).deliveries
    for _ in range(2):
        deliveries.bury(PENDING_ONE)
    ((found, when),) = deliveries.dead(QUEUE, SUBSCRIPTION)
    assert found == replace(PENDING_ONE, id=found.id)
    assert when == clock.now
    clock.advance(600)

    assert deliveries.dead(QUEUE, SUBSCRIPTION) == []


def test_subscriptions_have_dead_letters_of_their_own(deliveries):
    deliveries.bury(PENDING_ONE)

    assert deliveries.dead(QUEUE, "6" * 24) == []
    assert deliveries.dead(replace(QUEUE, project="red"), SUBSCRIPTION) == []
    assert deliveries.dead(replace(QUEUE, queue="jobs2"), SUBSCRIPTION) == []


def test_dead_letters_come_page_by_page(deliveries):
    for number in range(12):
        deliveries.bury(notice(number))
    first = deliveries.dead(QUEUE, SUBSCRIPTION)
    rest = dead(deliveries, marker=first[-1][0].id, limit=20)

    assert [each.notice.id for each, _ in first] == [f"msg_{number}" for number in range(10)]
    assert rest == ["msg_10", "msg_11"]
    for limit in (0, 21):
        with pytest.raises(Invalid):
            deliveries.dead(QUEUE, SUBSCRIPTION, limit=limit)


def test_a_replay_takes_all_of_them_from_a_time_on(deliveries, clock):
    for number in range(120):
        if number == 5:
            clock.advance(1)
        deliveries.bury(notice(number))

    assert deliveries.replay(QUEUE, SUBSCRIPTION, since=clock.now) == 115
    assert dead(deliveries) == [f"msg_{number}" for number in range(5)]
    again = kept(take(deliveries, 200))
    assert [each.notice.id for each in again] == [f"msg_{number}" for number in range(5, 120)]
    assert {(each.attempt, each.posted, each.replayed) for each in again} == {
        (1, PENDING_ONE.posted, clock.now)
    }


def test_a_replay_says_what(deliveries):
    for wish in ({}, {"ids": ["1"], "since": 0}):
        with pytest.raises(Invalid):
            deliveries.replay(QUEUE, SUBSCRIPTION, **wish)


def test_a_replay_that_fails_half_way_sends_nothing_twice(service, driver, monkeypatch):
    deliveries = service.deliveries
    deliveries.bury(PENDING_ONE)
    real, failures = driver.messages.delete_many, [1]

    def fail_once(*arguments: Any, **named: Any) -> None:
        if failures:
            failures.pop()
            raise StoreUnavailable
        real(*arguments, **named)

    monkeypatch.setattr(driver.messages, "delete_many", fail_once)
    with pytest.raises(StoreUnavailable):
        deliveries.replay(QUEUE, SUBSCRIPTION, since=0)
    deliveries.replay(QUEUE, SUBSCRIPTION, since=0)

    assert len(kept(take(deliveries))) == 1
    assert dead(deliveries) == []


def test_what_was_sent_again_can_be_given_up_again(deliveries, clock):
    deliveries.bury(PENDING_ONE)
    for _ in range(3):
        clock.advance(1)
        assert deliveries.replay(QUEUE, SUBSCRIPTION, since=0) == 1
        (batch,) = take(deliveries)
        for _ in range(2):
            deliveries.bury(batch.pending[0])
        deliveries.settle(batch, [batch.pending[0].id])
        assert dead(deliveries) == ["msg_1"]


# --- counts


def attempt(number: int) -> Attempt:
    return Attempt(id=f"msg_{number}", at=number, attempt=1, outcome="delivered", status=200)


def test_counts_add_up_and_the_last_attempts_are_kept(deliveries):
    assert deliveries.counts(QUEUE, SUBSCRIPTION) == DeliveryCounts()
    for number in range(25):
        last_error = "no" if number == 3 else None
        news = DeliveryCounts(delivered=1, failed=2, last_error=last_error, attempts=[attempt(number)])
        deliveries.note(QUEUE, SUBSCRIPTION, news)
    counts = deliveries.counts(QUEUE, SUBSCRIPTION)

    assert (counts.delivered, counts.failed, counts.dead, counts.last_error) == (25, 50, 0, "no")
    assert list(counts.attempts) == [attempt(number) for number in range(24, 4, -1)]
    assert deliveries.counts(QUEUE, "6" * 24) == DeliveryCounts()


def test_what_is_dropped_is_gone(deliveries):
    deliveries.note(QUEUE, SUBSCRIPTION, DeliveryCounts(delivered=1))
    deliveries.bury(PENDING_ONE)
    for _ in range(2):
        deliveries.drop(QUEUE, SUBSCRIPTION)

    assert deliveries.counts(QUEUE, SUBSCRIPTION) == DeliveryCounts()
    assert dead(deliveries) == []
