"""MongoDB: who watches is told through a change stream, which breaks, goes on, and costs nothing while nothing happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.database import Database
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from queues.ports import Driver
from storage.registry import connect
from tests import servers
from tests.acceptance.faults import Proxy
from tests.storage.probe import Clock, Probe, bring_nothing_new
from tests.storage.test_watching import Bell, settle

MEMBERS = 3


class Commands(CommandListener):
    """Notes what the client sends, and how many requests for more were answered."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.held: list[float] = []  # seconds that each request for more was held

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "getMore":
            self.held.append(event.duration_micros / 1e6)

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return servers.mongodb_uri(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def driver(uri: str, clock: Clock, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    watched: Any = partial(pymongo.MongoClient, event_listeners=[commands])
    monkeypatch.setattr("storage.mongodb_link.MongoClient", watched)
    with closing(connect(uri, timeout=20.0, clock=clock)) as opened:
        yield opened


@pytest.fixture
def queue(driver: Driver, clock: Clock) -> Probe:
    return Probe(driver.messages, clock)


@pytest.fixture
def database(uri: str) -> Iterator[Database[Any]]:
    """The store's database, for those who are not Hermod."""
    client: pymongo.MongoClient[Any]
    with pymongo.MongoClient(uri) as client:
        yield client.get_default_database()


def watch(queue: Probe) -> Bell:
    """Watch a queue; the watch is in force."""
    bell = Bell()
    queue.store.watch(queue.address, bell)
    assert bell.heard()
    return bell


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mongodb-listener"]


def test_what_is_taken_or_looked_at_wakes_nobody(queue: Probe) -> None:
    queue.fill(10)
    bell = watch(queue)
    settle(queue, bell)

    bring_nothing_new(queue)
    tell_of_another(queue)

    assert bell.silent()


def tell_of_another(queue: Probe) -> None:
    """Return when what has happened so far was told."""
    bell = watch(queue.other("fence"))
    queue.other("fence").post("fence")
    assert bell.heard()


def test_nobody_listens_before_somebody_watches(queue: Probe, commands: Commands) -> None:
    queue.post("a")

    servers.eventually(lambda: not listeners())  # those of other tests
    assert "getMore" not in commands.sent


def test_an_idle_watch_costs_a_request_that_the_server_keeps(
    queue: Probe, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.mongodb_listener._HELD", 0.3)
    watch(queue)
    tell_of_another(queue)
    sent, answered = len(commands.sent), len(commands.held)

    servers.eventually(lambda: len(commands.held) >= answered + 3)

    assert set(commands.sent[sent:]) == {"getMore"}
    assert min(commands.held[answered + 1 : answered + 3]) > 0.25


def test_what_is_of_no_interest_is_not_sent(queue: Probe, commands: Commands) -> None:
    queue.fill(10)
    watch(queue)
    tell_of_another(queue)
    asked = commands.sent.count("getMore")

    for _ in range(10):
        queue.pop()

    assert commands.sent.count("getMore") <= asked + 1


def test_a_thread_that_nobody_needs_ends_and_the_next_watch_starts_another(
    queue: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.mongodb_listener._HELD", 0.05)
    monkeypatch.setattr("storage.mongodb_listener._IDLE", 0.1)
    for _ in range(2):
        bell = Bell()
        end = queue.store.watch(queue.address, bell)
        assert bell.heard()
        queue.post("a")
        assert bell.heard()
        end()
        servers.eventually(lambda: not listeners(), seconds=10)


def test_what_was_posted_while_the_connection_was_broken_is_told(
    uri: str, queue: Probe, clock: Clock
) -> None:
    base, _, database = uri.partition("?")[0].rpartition("/")
    host, _, port = base.rpartition(":")
    with Proxy(int(port)) as proxy:
        way = f"{host}:{proxy.port}/{database}?directConnection=true"
        with closing(connect(way, timeout=1.0, clock=clock)) as driver:
            there = Probe(driver.messages, clock, queue.address)
            bell, other = watch(there), watch(there.other("other"))
            for number in range(2):
                proxy.refuse()
                queue.post(str(number))
                late = Bell()
                there.store.watch(there.other(f"late {number}").address, late)
                assert bell.silent()
                proxy.forward()
                assert bell.heard()
                assert late.heard()
            assert other.silent(), "nothing was missed, so there was no reason to wake everybody"


def test_everybody_is_woken_where_the_stream_cannot_go_on(database: Database[Any], queue: Probe) -> None:
    bell = watch(queue)
    held: list[int] = []

    def kill() -> bool:
        for each in database.client.admin.aggregate([{"$currentOp": {}}]):
            if each.get("ns") == f"{database.name}.queue" and "cursor" in each:
                held.append(each["cursor"]["cursorId"])
                database.command("killCursors", "queue", cursors=held)
        return bool(held)

    servers.eventually(kill)
    queue.other().post("the server notices when something is written")

    assert bell.heard()
    queue.post("a")
    assert bell.heard()


def test_everybody_is_woken_where_all_queues_were_dropped(database: Database[Any], queue: Probe) -> None:
    queue.post("a")
    bell = watch(queue)

    database.drop_collection("queue")

    assert bell.heard()
    queue.post("b")
    assert bell.heard()


def test_a_thread_that_waits_ends_with_its_driver(uri: str, clock: Clock) -> None:
    for _ in range(3):
        driver = connect(uri, timeout=20.0, clock=clock)
        watch(Probe(driver.messages, clock))

        driver.close()

        servers.eventually(lambda: not listeners(), seconds=3)


def test_a_driver_that_is_closed_while_its_server_is_away_leaves_no_thread(uri: str, clock: Clock) -> None:
    driver = connect("mongodb://127.0.0.1:1/", timeout=0.5, clock=clock)
    driver.messages.watch(Probe(driver.messages, clock).address, Bell())
    assert listeners()

    driver.close()

    servers.eventually(lambda: not listeners(), seconds=5)


def test_a_watch_of_a_store_that_was_closed_does_nothing(driver: Driver, queue: Probe) -> None:
    driver.close()
    bell = Bell()

    queue.store.watch(queue.address, bell)()

    assert bell.silent()
    servers.eventually(lambda: not listeners())


def replaced(store: servers.Store, leader: servers.Process) -> bool:
    """Whether another member leads."""
    return store.leader() not in (None, leader)


def test_who_watches_is_told_whoever_leads(tmp_path: Path, clock: Clock) -> None:
    store = servers.mongodb_server(MEMBERS)
    try:
        store.start()
        uri = store.uri(tmp_path)
        with closing(connect(uri, clock=clock)) as driver, closing(connect(uri, clock=clock)) as other:
            bell = watch(Probe(driver.messages, clock))
            for change in ("step down", "kill"):
                servers.eventually(store.ready)
                leader = store.leader()
                assert leader is not None
                if change == "step down":
                    servers.mongod_says(leader, "replSetStepDown", value=12)
                else:
                    leader.kill()
                servers.eventually(partial(replaced, store, leader))
                bell.forget()
                Probe(other.messages, clock).post(change)
                assert bell.heard(), change
    finally:
        store.stop()
