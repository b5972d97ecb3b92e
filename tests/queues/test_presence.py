"""G6: what belongs to the connections of a process that was killed is over soon, and nobody has to fail for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from queues.errors import SubscriptionNotFound
from queues.models import Address, Push, Subscription
from queues.service.presence import INTERVAL, LEASE
from queues.service.subscriptions import Terms
from tests.boxes import take
from tests.storage.probe import Clock
from transport.service import Service
from transport.settings import Settings
from transport.wiring import open_service

ADDRESS = Address(project="blue", queue="jobs")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Iterator[Service]:
    with closing(open_service(Settings(store="memory:"), clock=clock)) as opened:
        yield opened


def connected(service: Service, node: str = "one", *, resumable: bool = False) -> Subscription:
    """Subscribe a connection of a process that is there."""
    service.presence.appear(node)
    name = f"{node}-{resumable}"
    push = Push(node=node, connection=name, after=0, resumable=resumable)
    terms = Terms(subscriber=f"http://h/{name}", ttl=3600)
    return service.subscriptions.create(ADDRESS, terms, push=push).subscription


def test_g6_a_subscription_ends_with_the_process_that_served_its_connection(service, clock):
    found = connected(service)
    clock.advance(LEASE)

    with pytest.raises(SubscriptionNotFound):
        service.subscriptions.get(ADDRESS, found.id)
    assert service.subscriptions.list(ADDRESS)[0] == []
    assert service.subscriptions.all(ADDRESS) == []
    again = connected(service, "two")
    assert [each.id for each in service.subscriptions.all(ADDRESS)] == [again.id]


def test_g6_a_process_that_gives_signs_of_life_keeps_them(service, clock):
    found = connected(service)
    for _ in range(20):
        clock.advance(INTERVAL)
        assert service.presence.appear("one")

        assert [each.id for each in service.subscriptions.all(ADDRESS)] == [found.id]


def test_g6_what_can_be_resumed_outlives_the_process(service, clock):
    found = connected(service, resumable=True)
    clock.advance(10 * LEASE)

    assert [each.id for each in service.subscriptions.all(ADDRESS)] == [found.id]


def test_g6_other_processes_are_not_taken_for_dead(service, clock):
    dead, alive = connected(service, "one"), connected(service, "two")
    clock.advance(LEASE - 1)
    service.presence.appear("two")
    clock.advance(2)

    assert dead.id != alive.id
    assert [each.id for each in service.subscriptions.all(ADDRESS)] == [alive.id]


def test_a_process_that_was_away_for_too_long_is_told(service, clock):
    assert not service.presence.appear("one")
    assert service.presence.appear("one")
    clock.advance(LEASE)
    assert not service.presence.appear("one")
    assert service.presence.is_here("one")


def test_a_process_that_leaves_is_gone_once_its_last_sign_is_old(service, clock):
    service.presence.appear("one")
    service.presence.leave("one")

    assert not service.presence.is_here("one")


def test_g6_nobody_is_left_to_be_told_of_what_is_posted(service, clock):
    connected(service)
    clock.advance(LEASE)
    service.subscriptions.purge(ADDRESS)

    assert take(service.deliveries) == []
    assert service.pushes.end(ADDRESS).place == 0
