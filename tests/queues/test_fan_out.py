"""What a post does for subscribers, and what it does not."""

from collections import Counter
from contextlib import closing
from functools import partial
from threading import Event
from typing import Any

import msgspec
import pytest

from queues.errors import PoolInUse
from queues.models import Address, Caller
from queues.service.messages import Draft
from queues.service.subscriptions import Terms
from queues.tickets import notification
from storage.registry import connect
from tests.boxes import take
from tests.storage.probe import Clock
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

QUEUE = Address(project="blue", queue="jobs")
CALLER = Caller(project="blue", client_id="0" * 32)
BODY = b'{"a": [1, 2],  "queue_name": "mine"}'


class Counting:
    """Passes calls on, and counts them by name."""

    def __init__(self, inner: Any, calls: Counter[str]) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if callable(found):
            self._calls[name] += 1
        return found


class CountingDriver:
    """A store in memory whose calls are counted."""

    def __init__(self, clock: Clock) -> None:
        self._inner = connect("memory:", clock=clock)
        self.calls: Counter[str] = Counter()
        self.messages = Counting(self._inner.messages, self.calls)
        self.records = Counting(self._inner.records, self.calls)
        self.transfers = self._inner.transfers
        self.capabilities = self._inner.capabilities

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def driver():
    return CountingDriver(Clock())


@pytest.fixture
def service(driver):
    with closing(assemble(Settings(store="memory:"), driver)) as opened:
        yield opened


def post(service: Service, *bodies: bytes) -> None:
    service.messages.post(CALLER, QUEUE, [Draft(body=body) for body in bodies])


def test_e7_what_subscribers_get_changes_nothing_of_what_is_stored(service):
    service.subscriptions.create(QUEUE, Terms(subscriber="http://one.example.org/"))
    post(service, BODY, BODY)
    (batch,) = take(service.deliveries, 10)
    (ticket,) = batch.tickets

    sent = [msgspec.json.decode(notification(notice, "jobs")) for notice in ticket.notices for _ in range(2)]

    assert [notice.body for notice in ticket.notices] == [BODY, BODY]
    assert sent[0] == {
        "ttl": 3600,
        "body": {"a": [1, 2], "queue_name": "mine"},
        "Message_Type": "Notification",
        "queue_name": "jobs",
    }
    page = service.messages.list(CALLER, QUEUE, echo=True)
    assert [message.body for message in page.messages] == [BODY, BODY]


def test_e8_a_post_asks_nothing_of_subscriptions(service, driver):
    post(service, b"1")
    driver.calls.clear()
    post(service, b"2")
    assert driver.calls == {"clock": 1, "post": 1}


def test_e8_a_post_costs_the_same_for_one_subscriber_and_for_many(service, driver):
    service.subscriptions.create(QUEUE, Terms(subscriber="http://one.example.org/"))
    post(service, b"1")
    driver.calls.clear()
    post(service, b"2")
    for_one = Counter(driver.calls)

    for number in range(50):
        service.subscriptions.create(QUEUE, Terms(subscriber=f"http://n{number}.example.org/"))
    post(service, b"3")
    driver.calls.clear()
    post(service, b"4")

    assert driver.calls == for_one == {"clock": 1, "post": 1}


def test_a_pool_is_not_removed_while_subscribers_have_to_be_told(tmp_path):
    clock = Clock()
    settings = Settings(store="memory:", pooling=True)
    with closing(assemble(settings, connect("memory:", clock=clock), clock=clock)) as service:
        service.pools.put("old", uri=f"sqlite:///{tmp_path / 'old.db'}", weight=1)
        service.subscriptions.create(QUEUE, Terms(subscriber="http://one.example.org/"))
        post(service, b"1")
        service.pools.put("new", uri=f"sqlite:///{tmp_path / 'new.db'}", weight=1)
        service.moving.start("old")
        service.moving.run(Event())
        assert service.moving.progress("old").left == 0

        in_use = partial(service.moving.in_use, "old")
        with pytest.raises(PoolInUse):
            service.pools.remove("old", in_use=in_use)

        (batch,) = take(service.deliveries, 10, pool="old")
        service.deliveries.settle(batch, [ticket.id for ticket in batch.tickets])
        service.pools.remove("old", in_use=in_use)
        assert [pool.name for pool in service.pools.all()] == ["new"]
