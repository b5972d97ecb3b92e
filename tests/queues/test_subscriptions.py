"""Subscriptions beside their queues: who is told whatever becomes of the queue, and what two do at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from queues.errors import StoreUnavailable, SubscriberTaken
from queues.models import Address, Caller, DeliveryCounts, Subscription
from queues.ports import Driver
from queues.service.messages import Draft
from queues.service.subscriptions import Made, Terms
from storage.registry import connect
from tests.boxes import take
from tests.queues.nodes import KINDS, Steps
from tests.storage.probe import Clock
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

ADDRESS = Address(project="blue", queue="jobs")
CALLER = Caller(project="blue", client_id="c")
HOOK = "http://hook.example.org/"

Meanwhile = Callable[[str, Callable[[], object]], None]


class _Watched:
    """A driver whose messages and records are steps."""

    def __init__(self, driver: Driver, steps: Steps) -> None:
        self._driver = driver
        self.messages = steps.watch("messages", driver.messages)
        self.records = steps.watch("records", driver.records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class Node:
    """A process of the service."""

    def __init__(self, driver: Driver, clock: Clock, **settings: Any) -> None:
        self.steps = Steps()
        wanted = Settings(store="memory:", **settings)
        self.service: Service = assemble(wanted, cast(Driver, _Watched(driver, self.steps)), clock=clock)

    def subscribe(self, subscriber: str = HOOK, **terms: Any) -> Made:
        return self.service.subscriptions.create(ADDRESS, Terms(subscriber=subscriber, **terms))

    def subscriptions(self) -> list[str]:
        return [each.id for each in self.service.subscriptions.all(ADDRESS)]

    def post(self, body: bytes = b"1", address: Address = ADDRESS) -> None:
        self.service.messages.post(replace(CALLER, project=address.project), address, [Draft(body=body)])

    def told(self) -> list[bytes]:
        """Take the tickets that wait, and return the bodies that are in them."""
        found = []
        for batch in take(self.service.deliveries):
            found += [notice.body for ticket in batch.tickets for notice in ticket.notices]
            self.service.deliveries.settle(batch, [ticket.id for ticket in batch.tickets])
        return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", *KINDS])
def driver(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[Driver]:
    uri = "memory:" if request.param == "memory" else KINDS[request.param](tmp_path)
    with closing(connect(uri, clock=clock)) as opened:
        yield opened


@pytest.fixture
def nodes(driver: Driver, clock: Clock) -> tuple[Node, Node]:
    """Two processes over one store, each with a memory of its own."""
    return Node(driver, clock), Node(driver, clock)


@pytest.fixture
def node(nodes: tuple[Node, Node]) -> Node:
    return nodes[0]


# --- who is told


def test_a_post_without_subscribers_costs_no_ticket(node):
    node.post()
    node.service.queues.create(replace(ADDRESS, queue="other"), {})
    node.post(address=replace(ADDRESS, queue="other"))

    assert node.told() == []


def test_another_process_notices_a_subscription_at_its_next_post(nodes):
    one, two = nodes
    one.post(b"1")
    made = two.subscribe()
    one.post(b"2")
    assert one.told() == [b"2"]

    two.service.subscriptions.delete(ADDRESS, made.subscription.id)
    one.post(b"3")
    assert one.told() == []


def test_who_leaves_leaves_the_others(node):
    one, two = node.subscribe(), node.subscribe(HOOK + "2")
    node.service.subscriptions.delete(ADDRESS, one.subscription.id)
    node.post(b"1")
    node.service.subscriptions.delete(ADDRESS, two.subscription.id)
    node.post(b"2")

    assert node.told() == [b"1"]


def test_subscribers_are_told_of_the_next_queue_of_that_name(nodes):
    one, two = nodes
    one.subscribe()
    two.post(b"1")
    one.service.queues.delete(ADDRESS)
    two.post(b"2")
    one.service.queues.delete(ADDRESS)
    two.service.queues.create(ADDRESS, {})
    one.post(b"3")

    assert one.told() == [b"1", b"2", b"3"]


def test_subscribers_are_told_although_dead_letters_came_first(node, clock):
    """The queue of dead letters is there again before anybody posts to it."""
    source = replace(ADDRESS, queue="source")
    node.subscribe()
    node.service.queues.delete(ADDRESS)
    node.service.queues.create(source, {"_max_claim_count": 1, "_dead_letter_queue": ADDRESS.queue})
    node.post(b'"dead"', source)
    for _ in range(2):
        node.service.claims.create(source, ttl=60, grace=60)
        clock.advance(60)
    assert node.service.queues.stats(ADDRESS)[0].total == 1
    assert node.told() == []  # section 15.1: dead letters are not announced

    node.post(b'"alive"')
    assert node.told() == [b'"alive"']


def test_e9_dead_letters_are_not_announced(node, clock):
    source = replace(ADDRESS, queue="source")
    node.subscribe()
    node.service.queues.create(source, {"_max_claim_count": 1, "_dead_letter_queue": ADDRESS.queue})
    node.post(b'"dead"', source)
    for _ in range(2):
        node.service.claims.create(source, ttl=60, grace=60)
        clock.advance(60)

    assert node.service.queues.stats(ADDRESS)[0].total == 1
    assert node.told() == []


@pytest.mark.parametrize("step", ["records.insert", "records.fetch", "records.count", "messages.post"])
@pytest.mark.parametrize("after", [False, True])
def test_e1_whoever_subscribes_during_a_post_is_told_of_the_next(nodes, step, after):
    one, two = nodes
    one.steps.hold(step, two.subscribe, after=after)
    one.post(b'"first"')
    assert two.subscriptions() != [], "the post never came to that step"
    one.post(b'"next"')

    assert one.told()[-1] == b'"next"'


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "step", ["records.remove", "records.count", "records.fetch", "messages.subscribe", "messages.drop"]
)
def test_whoever_subscribes_while_the_last_one_leaves_is_told(nodes, step, after):
    one, two = nodes
    last = one.subscribe()
    one.steps.hold(step, lambda: two.subscribe(HOOK + "2"), after=after)
    one.service.subscriptions.delete(ADDRESS, last.subscription.id)
    assert len(two.subscriptions()) == 1
    one.post(b"1")
    two.post(b"2")

    assert one.told() == [b"1", b"2"]


# --- one subscription for each subscriber


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["records.insert", "records.fetch", "messages.subscribe"])
def test_two_that_subscribe_one_get_one_subscription(nodes, step, after):
    one, two = nodes
    found: list[Made] = []
    one.steps.hold(step, lambda: found.append(two.subscribe()), after=after)
    made = one.subscribe()

    assert found[0].subscription.id == made.subscription.id
    assert one.subscriptions() == [made.subscription.id]
    assert [found[0].new, made.new].count(True) == 1


def test_a_confirmed_subscriber_is_taken(node):
    made = node.subscribe()
    node.service.subscriptions.confirm(ADDRESS, made.subscription.id, confirmed=True)

    with pytest.raises(SubscriberTaken):
        node.subscribe()
    assert node.subscriptions() == [made.subscription.id]


@pytest.mark.parametrize("after", [False, True])
def test_two_that_change_one_do_not_undo_each_other(nodes, after):
    one, two = nodes
    id_ = one.subscribe().subscription.id
    services = one.service.subscriptions, two.service.subscriptions
    one.steps.hold("records.fetch", lambda: services[1].confirm(ADDRESS, id_, confirmed=True), after=after)
    services[0].update(ADDRESS, id_, Terms(options={"a": 1}))

    found = services[0].get(ADDRESS, id_)
    assert (found.confirmed, found.options) == (True, {"a": 1})


def test_two_that_want_one_subscriber_by_a_change(nodes):
    one, two = nodes
    ids = [one.subscribe(HOOK + name).subscription.id for name in ("a", "b")]
    taken: list[bool] = []

    def change(node: Node, id_: str) -> None:
        try:
            node.service.subscriptions.update(ADDRESS, id_, Terms(subscriber=HOOK))
            taken.append(True)
        except SubscriberTaken:
            taken.append(False)

    one.steps.hold("records.insert", lambda: change(two, ids[1]))
    change(one, ids[0])

    assert sorted(taken) == [False, True]
    assert [each.subscriber for each in one.service.subscriptions.all(ADDRESS)].count(HOOK) == 1


def test_what_fails_half_way_can_be_repeated(node):
    """Whatever step fails, the next attempt leaves one subscription that is told."""
    number = 0
    while True:
        address = replace(ADDRESS, queue=f"q{number}")
        node.steps.taken.clear()
        node.steps.fail(number, after=bool(number % 2))
        try:
            node.service.subscriptions.create(address, Terms(subscriber=HOOK))
            node.steps.before = node.steps.after = lambda _number, _name: None
            break
        except StoreUnavailable:
            pass
        node.steps.before = node.steps.after = lambda _number, _name: None
        made = node.service.subscriptions.create(address, Terms(subscriber=HOOK)).subscription
        node.service.subscriptions.confirm(address, made.id, confirmed=True)
        with pytest.raises(SubscriberTaken):
            node.service.subscriptions.create(address, Terms(subscriber=HOOK))
        node.post(str(number).encode(), address)
        assert node.told() == [str(number).encode()]
        number += 1
    assert number > 4


# --- what is gone is gone


def test_what_is_known_of_a_subscription_goes_when_it_expires(node, clock):
    made = node.subscribe(ttl=60).subscription
    node.service.deliveries.note(ADDRESS, made.id, DeliveryCounts(delivered=1))
    clock.advance(60)
    assert node.subscriptions() == []

    assert node.service.deliveries.counts(ADDRESS, made.id) == DeliveryCounts()


def test_an_expired_subscription_that_is_renewed_meanwhile_stays(nodes, clock):
    """Who clears up must not remove what somebody has just prolonged."""
    one, two = nodes
    id_ = one.subscribe(ttl=60).subscription.id
    clock.advance(59)
    seen: list[Subscription] = []

    def prolong() -> None:
        clock.now -= 2_000  # for the other one, whose clock is behind
        seen.append(two.service.subscriptions.update(ADDRESS, id_, Terms(ttl=600)))
        clock.now += 2_000

    clock.advance(1)
    one.steps.hold("records.remove", prolong)
    assert one.subscriptions() == []

    assert [each.id for each in seen] == [id_]
    assert one.subscriptions() == [id_]
    assert one.subscribe().subscription.id == id_


def test_a_disabled_subscription_is_disabled_until_it_is_changed(node):
    id_ = node.subscribe().subscription.id
    service = node.service.subscriptions
    service.disable(ADDRESS, id_, "it is gone")
    assert service.get(ADDRESS, id_).disabled == "it is gone"
    service.confirm(ADDRESS, id_, confirmed=True)
    assert service.get(ADDRESS, id_).disabled == "it is gone"
    service.update(ADDRESS, id_, Terms(options={}))
    assert service.get(ADDRESS, id_).disabled is None

    service.disable(ADDRESS, "0" * 24, "it never was")
    assert node.subscriptions() == [id_]


def test_an_audience_is_everybody_and_the_policy_of_the_queue(node):
    assert node.service.subscriptions.audience(ADDRESS).by_id == {}
    node.service.queues.create(ADDRESS, {"_retry_policy": {"delays": [1]}})
    ids = {node.subscribe(f"{HOOK}{number}").subscription.id for number in range(250)}
    audience = node.service.subscriptions.audience(ADDRESS)

    assert set(audience.by_id) == ids
    assert audience.retry_policy == {"delays": [1]}
