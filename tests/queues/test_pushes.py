"""The log of what those who are connected are told: appended once, read in order, kept for a while."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from queues.errors import Unsealable
from queues.models import Address, Caller, Push, Selection, Ticket
from queues.service.messages import Draft
from queues.service.pushes import PAGE, Position, PushService
from queues.service.subscriptions import Terms
from storage.registry import connect
from tests import servers
from tests.boxes import take
from tests.storage.probe import HOME, Clock
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

RETENTION = 100  # seconds
KEY = base64.b64encode(b"k" * 32).decode()

URIS: Mapping[str, Callable[[Path], str]] = {
    "memory": lambda _folder: "memory:",
    "sqlite": lambda folder: f"sqlite:///{folder}/store.db",
    "redis": servers.redis_uri,
    "mongodb": servers.mongodb_uri,
}


class Desk:
    """A service whose posts to a queue make tickets, since somebody is connected."""

    def __init__(self, uri: str, **settings: Any) -> None:
        self.clock = Clock()
        self.driver = connect(uri, clock=self.clock)
        websocket = {"retention": RETENTION}
        wanted = Settings(store=uri, websocket=websocket, **settings)  # type: ignore[arg-type]
        self.service: Service = assemble(wanted, self.driver, clock=self.clock)
        self.pushes: PushService = self.service.pushes

    def close(self) -> None:
        self.driver.close()

    def subscribe(self, address: Address = HOME) -> None:
        self.service.presence.appear("node")
        push = Push(node="node", connection="c", after=self.pushes.end(address).place)
        self.service.subscriptions.create(address, Terms(subscriber="http://node:9000/c"), push=push)

    def tickets(self, *bodies: Any, address: Address = HOME, **members: Any) -> list[Ticket]:
        """Post messages and take the tickets of them."""
        drafts = [Draft(body=json.dumps(body).encode(), **members) for body in bodies]
        self.service.messages.post(Caller(project=address.project, client_id="x"), address, drafts)
        found: list[Ticket] = []
        for batch in take(self.service.deliveries):
            found += batch.tickets
            self.service.deliveries.settle(batch, [ticket.id for ticket in batch.tickets])
        return found

    def tell(self, *bodies: Any, address: Address = HOME) -> Ticket:
        """Post messages, and append the ticket of them."""
        (ticket,) = self.tickets(*bodies, address=address)
        self.pushes.append(ticket)
        return ticket

    def read(self, after: Position | None = None, address: Address = HOME) -> list[tuple[int, Any]]:
        """Return the places and bodies of a page of the log."""
        page = self.pushes.read(address, after or Position())
        return [(pushed.position.place, json.loads(pushed.notice.body)) for pushed in page]


@pytest.fixture(params=URIS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    with closing(Desk(URIS[request.param](tmp_path))) as made:
        made.subscribe()
        yield made


def test_notices_stand_in_the_order_of_their_tickets_and_have_places_without_gaps(desk):
    desk.tell("a", "b")
    desk.tell("c")
    assert desk.read() == [(1, "a"), (2, "b"), (3, "c")]


def test_a_notice_says_what_subscribers_are_told(desk):
    (ticket,) = desk.tickets({"a": [1.5, None]}, ttl=90, delay=0)
    desk.pushes.append(ticket)
    (pushed,) = desk.pushes.read(HOME, Position())
    assert pushed.notice.body == b'{"a": [1.5, null]}'
    assert (pushed.notice.ttl, pushed.notice.delay) == (90, None)


def test_a_ticket_that_is_taken_again_is_told_once_and_leaves_no_gap(desk):
    first, second = desk.tell("a", "b"), desk.tell("c")
    for ticket in (second, first, second):
        desk.pushes.append(ticket)
    desk.tell("d")
    assert desk.read() == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_the_end_is_where_what_is_told_from_now_on_begins(desk):
    assert desk.pushes.end(HOME).place == 0
    desk.tell("a", "b")
    end = desk.pushes.end(HOME)
    assert end.place == 2
    assert desk.read(end) == []
    desk.tell("c")
    assert desk.read(end) == [(3, "c")]


def test_a_log_is_read_page_by_page(desk):
    for first in range(0, PAGE + 50, 50):
        desk.tell(*range(first, first + 50))
    page = desk.pushes.read(HOME, Position())
    assert len(page) == PAGE
    assert desk.read(page[-1].position) == [(number + 1, number) for number in range(PAGE, PAGE + 50)]


def test_a_place_that_is_known_by_its_number_alone_will_do(desk):
    """A client that comes back names a number; the generation is that of the log."""
    desk.tell("a", "b", "c")
    assert desk.read(replace(desk.pushes.end(HOME), place=1)) == [(2, "b"), (3, "c")]


def test_notices_are_kept_for_a_while_and_places_go_on_behind_those_that_are_gone(desk):
    desk.tell("a", "b")
    generation = desk.pushes.end(HOME).generation
    desk.clock.advance(RETENTION - 1)
    desk.tell("c")
    assert desk.read() == [(1, "a"), (2, "b"), (3, "c")]
    desk.clock.advance(1)
    assert desk.read() == [(3, "c")]
    desk.clock.advance(RETENTION)
    while desk.driver.messages.expire(now=desk.clock(), limit=1000):
        pass
    assert desk.read() == []

    assert desk.pushes.end(HOME) == Position(place=3, generation=generation)
    desk.tell("d")
    assert desk.read() == [(4, "d")]
    assert desk.pushes.end(HOME) == Position(place=4, generation=generation)


def test_the_log_outlives_its_queue(desk):
    """Subscriptions do, so whoever comes back has to find its number again."""
    desk.tell("a")
    end = desk.pushes.end(HOME)
    desk.service.queues.delete(HOME)
    assert desk.pushes.end(HOME) == end
    desk.tell("b")
    assert desk.read(end) == [(2, "b")]


def test_whoever_watches_is_told(desk):
    rung = threading.Event()
    end = desk.pushes.watch(HOME, rung.set)
    assert rung.wait(10)  # as soon as it is in force
    rung.clear()
    desk.tell("a")
    assert rung.wait(10)
    end()


def test_logs_of_tenants_and_queues_have_nothing_in_common(desk):
    green, other = replace(HOME, project="green"), replace(HOME, queue="other")
    for address in (green, other):
        desk.subscribe(address)
    desk.tell("a")
    desk.tell("b", address=green)
    desk.tell("c", address=other)
    assert desk.read() == [(1, "a")]
    assert desk.read(address=green) == [(1, "b")]
    assert desk.read(address=other) == [(1, "c")]


def test_a_log_is_not_among_the_queues(desk):
    desk.tell("a")
    assert desk.service.queues.find(replace(HOME, queue=f"{HOME.queue}>pushed")) is None


@pytest.fixture
def sealed() -> Iterator[Desk]:
    with closing(Desk("memory:", encryption={"keys": [f"one:{KEY}"]})) as made:
        made.service.queues.create(HOME, {"_enable_encrypt_messages": True})
        made.subscribe()
        yield made


def test_what_is_encrypted_in_its_queue_is_in_the_log(sealed):
    sealed.tell("a great secret")
    log = replace(HOME, queue=f"{HOME.queue}>pushed")
    (kept,) = sealed.driver.messages.list(log, Selection(), now=sealed.clock())
    assert b"secret" not in kept.body
    assert sealed.read() == [(1, "a great secret")]


def test_without_the_key_it_cannot_be_read(sealed):
    sealed.tell("a great secret")
    another = Settings(store="memory:", encryption={"keys": []})  # type: ignore[arg-type]
    with pytest.raises(Unsealable):
        assemble(another, sealed.driver, clock=sealed.clock).pushes.read(HOME, Position())
