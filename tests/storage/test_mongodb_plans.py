"""MongoDB: no operation scans, and each takes a fixed number of commands, whatever the batch.

The server's own profiler tells how each statement found its documents; the client tells
what it sent. Both look at queues that are deep enough for a scan to show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from queues.models import Claim, DeadLetter, NewMessage, Record
from queues.ports import Driver
from storage.registry import connect
from tests import servers
from tests.storage.probe import Clock, Probe, ids

READY, DELAYED, CLAIM, CLAIMS = 700, 500, 20, 30  # CLAIMS claims of CLAIM messages each, in each queue
RECORDS = 150  # in each scope
LETTER = 3  # hand-outs until a message is dead
SLACK = 6  # keys that a statement may look at beyond three for each document that it returns or changes


class Listener(CommandListener):
    """Notes which commands the client sends."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        raise AssertionError(f"{event.command_name} failed: {event.failure}")


@dataclass
class Deep:
    """A store with two deep queues, a look at its profile, and a list of what was sent to it."""

    driver: Driver
    clock: Clock
    database: Any
    listener: Listener
    queue: Probe = field(init=False)

    def __post_init__(self) -> None:
        self.queue = Probe(self.driver.messages, self.clock)

    def fill(self, name: str) -> Probe:
        """Fill a queue with messages in every state."""
        queue = self.queue.other(name)
        queue.fill(CLAIM * CLAIMS, ttl=86_400, client_id="one")
        for _ in range(CLAIMS):
            queue.claim(CLAIM, ttl=43_200)
        queue.fill(READY, ttl=86_400, client_id="one")
        queue.fill(DELAYED, ttl=86_400, delay=40_000, client_id="two")
        return queue

    @contextmanager
    def profiled(self) -> Iterator[list[dict[str, Any]]]:
        """Fill the list with what the profiler noted meanwhile, once it is over."""
        found: list[dict[str, Any]] = []
        self.database.command("profile", 0)
        self.database.system.profile.drop()
        self.database.create_collection("system.profile", capped=True, size=8_000_000)
        self.database.command("profile", 2)
        yield found
        self.database.command("profile", 0)
        own = f"{self.database.name}.system.profile"
        found += [each for each in self.database.system.profile.find() if each["ns"] != own]

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Fill the list with the commands that were sent meanwhile, once it is over."""
        commands: list[str] = []
        before = len(self.listener.commands)
        yield commands
        commands += self.listener.commands[before:]


@contextmanager
def opened(uri: str) -> Iterator[Deep]:
    listener, clock = Listener(), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.mongodb_link.MongoClient", partial(MongoClient, event_listeners=[listener]))
        driver = connect(uri, timeout=10.0, clock=clock)
    with closing(driver), MongoClient[dict[str, Any]](uri) as client:
        yield Deep(driver, clock, client.get_default_database(), listener)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deep]:
    with opened(servers.mongodb_uri(tmp_path_factory.mktemp("deep"))) as store:
        store.fill("other")
        store.fill(store.queue.address.queue)
        for scope in ("one", "two"):
            for number in range(RECORDS):
                store.driver.records.insert(record(f"n{number}", scope=scope))
        yield store


def record(name: str, *, scope: str = "one", revision: int = 0) -> Record:
    return Record(kind="queue", scope=scope, name=name, data={"a": 1}, revision=revision)


def dead_letter(queue: Probe) -> DeadLetter:
    return DeadLetter(address=queue.other("dead").address, max_claims=LETTER)


def worn(queue: Probe, batch: int) -> None:
    """Hand the first messages out so often that they are dead."""
    for _ in range(LETTER):
        queue.release(queue.claim(batch).id)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation on so many messages or records, and what it takes."""

    commands: int  # that are sent to the server, whatever the batch
    act: Callable[[Deep, int, Any], object]
    prepare: Callable[[Deep, int], Any] = lambda _deep, _batch: None  # what has to be there before


def _claim(deep: Deep, batch: int) -> Claim:
    return deep.queue.claim(batch)


def _ready(deep: Deep, batch: int) -> Sequence[str]:
    return ids(deep.queue.page(limit=batch))


def _worn(deep: Deep, batch: int) -> None:
    deep.queue.other("dead").fill(1)
    worn(deep.queue, batch)


def _post_and_tell(deep: Deep, batch: int, queue: Probe) -> None:
    messages = [NewMessage(body=b"1", ttl=60)] * batch
    deep.driver.messages.post(queue.address, messages, now=deep.clock.now, tickets=messages)


def _subscribed(deep: Deep, _batch: int) -> Probe:
    queue = deep.queue.other("told")
    queue.drop()
    deep.driver.messages.subscribe(queue.address, "stamp")
    _post_and_tell(deep, 1, queue)  # the outbox is there
    return queue


def _filled(deep: Deep, batch: int) -> Probe:
    queue = deep.queue.other(f"filled {batch}")
    queue.fill(2 * batch)
    queue.claim(batch)
    return queue


def _replace(deep: Deep, _batch: int, old: Record | None) -> None:
    assert old is not None
    assert deep.driver.records.replace(old)


#: What each operation may cost: the one table of commands.
OPERATIONS: dict[str, Operation] = {
    "post": Operation(commands=3, act=lambda deep, batch, _: deep.queue.fill(batch)),
    "post with a key": Operation(
        commands=5,
        act=lambda deep, batch, _: deep.queue.post_once(*map(str, range(batch)), key=f"key {batch}"),
    ),
    "post repeated": Operation(
        commands=4,
        act=lambda deep, batch, _: deep.queue.post_once(*map(str, range(batch)), key=f"again {batch}"),
        prepare=lambda deep, batch: deep.queue.post_once(*map(str, range(batch)), key=f"again {batch}"),
    ),
    "post with tickets": Operation(commands=5, act=_post_and_tell, prepare=_subscribed),
    "subscribe": Operation(
        commands=2,
        act=lambda deep, _batch, queue: deep.driver.messages.subscribe(queue.address, "stamp"),
        prepare=_subscribed,
    ),
    "unsubscribe": Operation(
        commands=3,
        act=lambda deep, _batch, queue: deep.driver.messages.unsubscribe(queue.address, "stamp"),
        prepare=_subscribed,
    ),
    "get": Operation(commands=2, act=lambda deep, _, found: deep.queue.get(*found), prepare=_ready),
    "list": Operation(commands=2, act=lambda deep, batch, _: deep.queue.page(limit=batch)),
    "list behind a marker": Operation(
        commands=2,
        act=lambda deep, batch, found: deep.queue.page(found[-1], limit=batch),
        prepare=lambda deep, _: _ready(deep, READY // 2),
    ),
    "list everything": Operation(
        commands=2,
        act=lambda deep, batch, found: deep.queue.page(
            found[-1], limit=batch, include_claimed=True, include_delayed=True
        ),
        prepare=lambda deep, _: _ready(deep, READY // 2),
    ),
    "list of others": Operation(
        commands=2, act=lambda deep, batch, _: deep.queue.page(limit=batch, hide_client="nobody")
    ),
    "delete": Operation(commands=4, act=lambda deep, _, found: deep.queue.delete(found[0]), prepare=_ready),
    "delete claimed": Operation(
        commands=3,
        act=lambda deep, _, claim: deep.queue.delete(claim.messages[0].id, claim.id),
        prepare=_claim,
    ),
    "delete many": Operation(
        commands=5, act=lambda deep, _, found: deep.queue.delete_many(found), prepare=_ready
    ),
    "delete many claimed": Operation(
        commands=4,
        act=lambda deep, _, claim: deep.queue.delete_many(ids(claim.messages), [claim.id]),
        prepare=_claim,
    ),
    "pop": Operation(commands=4, act=lambda deep, batch, _: deep.queue.pop(batch)),
    "claim": Operation(commands=5, act=lambda deep, batch, _: deep.queue.claim(batch)),
    "claim with dead letters": Operation(
        commands=11,
        act=lambda deep, batch, _: deep.queue.claim(batch, dead_letter=dead_letter(deep.queue)),
        prepare=_worn,
    ),
    "read a claim": Operation(
        commands=3, act=lambda deep, _, claim: deep.queue.read_claim(claim.id), prepare=_claim
    ),
    "renew": Operation(
        commands=5, act=lambda deep, _, claim: deep.queue.renew(claim.id, ttl=90_000), prepare=_claim
    ),
    "release": Operation(commands=6, act=lambda deep, _, claim: deep.queue.release(claim.id), prepare=_claim),
    "outlook": Operation(
        commands=1,
        act=lambda deep, _batch, _: deep.driver.messages.outlook(deep.queue.address, now=deep.clock.now),
    ),
    "stats": Operation(commands=3, act=lambda deep, _batch, _: deep.queue.stats()),
    "purge": Operation(commands=4, act=lambda _deep, _batch, queue: queue.purge(), prepare=_filled),
    "drop": Operation(commands=4, act=lambda _deep, _batch, queue: queue.drop(), prepare=_filled),
    "insert": Operation(
        commands=1, act=lambda deep, batch, _: deep.driver.records.insert(record(f"new {batch}"))
    ),
    "fetch": Operation(
        commands=1, act=lambda deep, batch, _: deep.driver.records.fetch("queue", "one", "n9")
    ),
    "replace": Operation(
        commands=1, act=_replace, prepare=lambda deep, _: deep.driver.records.fetch("queue", "one", "n9")
    ),
    "remove": Operation(
        commands=1, act=lambda deep, batch, _: deep.driver.records.remove("queue", "one", f"n1{batch}")
    ),
    "scan": Operation(
        commands=1,
        act=lambda deep, batch, _: deep.driver.records.scan("queue", "one", after="n11", limit=batch),
    ),
}


MANY = 150  # more than the hundred by which the planner judges, each of them what it looks for


def _first_expired(queue: Probe) -> None:
    queue.fill(MANY, ttl=60)
    queue.fill(2 * READY, ttl=86_400)


def _first_mature(queue: Probe) -> None:
    queue.fill(MANY, ttl=86_400, delay=60)
    queue.fill(2 * READY, ttl=86_400, delay=40_000)


def _first_released(queue: Probe) -> None:
    queue.fill(MANY + 2 * READY, ttl=86_400)
    queue.claim(MANY, ttl=60)
    queue.claim(READY, ttl=43_200)


#: What falls due after a minute, in front of what does not.
OVERDUE: dict[str, Callable[[Probe], None]] = {
    "expired": _first_expired,
    "mature": _first_mature,
    "released": _first_released,
}


def assert_found_by_index(profile: Sequence[dict[str, Any]]) -> None:
    """Check of each statement that it looked at little more than it named, returned or changed."""
    looked = [each for each in profile if "planSummary" in each]
    assert looked, profile
    for each in looked:
        told = f"{each['ns']} {each['planSummary']} {each.get('command')}"
        first_of_all = each["ns"].endswith(".pile") and each["docsExamined"] <= 1
        assert "COLLSCAN" not in each["planSummary"] or first_of_all, told
        got = sum(each.get(count, 0) for count in ("nreturned", "ndeleted", "nMatched"))
        got = max(got, _named(each.get("command", {}).get("q", {})))
        keys, documents = each.get("keysExamined", 0), each.get("docsExamined", 0)
        assert max(keys, documents) <= 3 * got + SLACK, (
            f"{keys} keys, {documents} documents for {got}: {told}"
        )


def _named(query: dict[str, Any]) -> int:
    """Return how many keys a statement names."""
    key = query.get("_id")
    return len(key["$in"]) if isinstance(key, dict) and "$in" in key else 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_p7_no_operation_scans(deep: Deep, name: str) -> None:
    operation = OPERATIONS[name]
    prepared = operation.prepare(deep, 10)

    with deep.profiled() as profile:
        operation.act(deep, 10, prepared)

    assert_found_by_index(profile)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_number_of_commands_does_not_depend_on_the_batch(deep: Deep, name: str) -> None:
    operation = OPERATIONS[name]
    sent = {}
    for batch in (1, 20):
        prepared = operation.prepare(deep, batch)
        with deep.counted() as commands:
            operation.act(deep, batch, prepared)
        sent[batch] = commands

    assert Counter(sent[1]) == Counter(sent[20])
    assert len(sent[20]) == operation.commands, sent[20]


def test_steps_that_share_a_transaction_share_its_statements(deep: Deep) -> None:
    """Four claims, four posts and four deletions that wait together are one transaction of seven commands."""
    queue = deep.queue.other("shared")
    posted = queue.fill(40)
    held = [ids(queue.claim(4).messages) for _ in range(4)]
    writers = deep.driver.messages._writers  # type: ignore[attr-defined]
    begun, waited = Event(), Event()

    def first(_work: object) -> None:
        begun.set()
        assert waited.wait(60)

    with ThreadPoolExecutor(13) as threads:
        jobs = [threads.submit(writers.write, queue.address, first)]
        assert begun.wait(60)
        claims = [threads.submit(queue.claim, 4) for _ in range(4)]
        jobs += [threads.submit(queue.fill, 2) for _ in range(4)]
        jobs += [threads.submit(queue.delete_many, found) for found in held]
        group, _ = writers._groups[queue.address]
        servers.eventually(lambda: group.waiting == 12)
        with deep.counted() as commands:
            waited.set()
            for job in jobs:
                job.result()

    taken = [ids(claim.result().messages) for claim in claims]
    assert sorted(id_ for found in taken for id_ in found) == sorted(posted[16:32])
    assert all(each == sorted(each) for each in taken)
    assert queue.counts() == (8 + 8, 16, 32)
    assert Counter(commands) == Counter(
        {"findAndModify": 1, "delete": 1, "insert": 2, "find": 1, "update": 1, "commitTransaction": 1}
    )


@pytest.mark.parametrize("look", [Probe.stats, Probe.claim, Probe.expire], ids=["look", "change", "janitor"])
@pytest.mark.parametrize("name", OVERDUE)
def test_p7_what_falls_due_is_found_without_a_scan(
    deep: Deep, name: str, look: Callable[[Probe], object]
) -> None:
    queue = deep.queue.other(f"{name}.{look.__name__}")
    OVERDUE[name](queue)
    deep.clock.advance(60)

    with deep.profiled() as profile:
        look(queue)

    assert_found_by_index(profile)
    assert any(each.get("nMatched", 0) + each.get("ndeleted", 0) == MANY for each in profile)


@pytest.mark.parametrize("name", ["purge", "drop"])
def test_p7_what_was_purged_or_dropped_is_cleared_without_a_scan(deep: Deep, name: str) -> None:
    queue = deep.fill(name)
    while queue.expire():
        pass

    with deep.profiled() as emptied:
        getattr(queue, name)()
    with deep.profiled() as cleared:
        queue.expire(MANY)

    assert_found_by_index(emptied)
    assert not any(each["ns"].endswith(".message") for each in emptied), (
        "it takes as long as the queue is deep"
    )
    assert_found_by_index(cleared)
    assert any(each.get("ndeleted", 0) == MANY for each in cleared)


def test_p7_idempotency_keys_are_forgotten_without_a_scan(deep: Deep) -> None:
    while deep.queue.expire():
        pass
    (posted,) = deep.queue.post_once("a", window=10).ids
    keys = deep.database.once
    known = keys.find_one({"_id.h": posted[16:]}, sort=[("ex", 1)])
    keys.insert_many({**known, "_id": {**known["_id"], "k": f"more {n}"}} for n in range(5 * MANY))
    deep.clock.advance(10)

    with deep.profiled() as profile:
        deep.queue.expire(MANY)

    assert_found_by_index(profile)
    assert any(each.get("ndeleted", 0) == MANY for each in profile)


def test_p7_no_step_of_a_move_scans(deep: Deep) -> None:
    """A queue that is moved is read in parts; what changes meanwhile is found by the move."""
    transfers = deep.driver.transfers
    source, target = deep.fill("source"), deep.queue.other("target")
    generation = transfers.depart(source.address, "move")
    transfers.admit(target.address, "move", generation)
    source.release(source.claim(10).id)
    cursor, caught_up = "", False
    while not caught_up:
        with deep.profiled() as profile:
            cargo = transfers.export(source.address, "move", cursor=cursor, limit=300)
            transfers.load(target.address, "move", cargo)
        assert_found_by_index(profile)
        cursor, caught_up = cargo.cursor, cargo.caught_up
    source.claim(10)
    source.fill(20, ttl=60)
    source.fill(20, ttl=86_400, delay=60)
    deep.clock.advance(60)

    with deep.profiled() as profile:
        source.stats()
        source.pop(10)
        transfers.shut(source.address, "move")
        transfers.retire(source.address, "move", now=deep.clock.now)
        transfers.discard(target.address, "move")
    assert_found_by_index(profile)


def test_records_are_counted_in_the_index(deep: Deep) -> None:
    with deep.profiled() as profile:
        count = deep.driver.records.count("queue", "two")

    (each,) = profile
    assert each["planSummary"].startswith("COUNT_SCAN")
    assert each["keysExamined"] <= count + 1 == RECORDS + 1
