"""Redis: one command for each operation, whatever the batch; the server's own MONITOR tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis

from queues.models import Claim, DeadLetter, NewMessage, Record
from queues.ports import Driver
from storage.redis_keys import SHARDS
from storage.registry import connect
from tests import servers
from tests.storage.probe import Clock, Probe, ids
from tests.storage.test_watching import Bell

WAITING = 300  # messages in the queue: more than any batch
BEGIN, END = "from-here-on", "that-is-all"


@dataclass
class Watched:
    """A store and what its server is told."""

    driver: Driver
    queue: Probe
    client: Any

    @contextmanager
    def sent(self) -> Iterator[list[str]]:
        """Fill the list with the commands that came from outside meanwhile, once it is over."""
        commands: list[str] = []
        with self.client.monitor() as monitor:
            self.client.echo(BEGIN)
            while BEGIN not in monitor.next_command()["command"]:
                pass
            yield commands
            self.client.echo(END)
            while END not in (told := monitor.next_command())["command"]:
                if told["client_type"] != "lua":
                    commands.append(told["command"].split()[0].upper())


@pytest.fixture
def watched(tmp_path) -> Iterator[Watched]:
    uri = servers.redis_uri(tmp_path)
    address = uri.rpartition("prefix=")[0].rstrip("?&")
    clock = Clock()
    with closing(connect(uri, clock=clock)) as driver, closing(Redis.from_url(address)) as client:
        queue = Probe(driver.messages, clock)
        queue.fill(WAITING)
        yield Watched(driver, queue, client)


def record(revision: int = 0) -> Record:
    return Record(kind="queue", scope="p", name="n", data={"a": 1}, revision=revision)


def _nothing(_watched: Watched, _batch: int) -> None:
    pass


def _ready(watched: Watched, batch: int) -> Sequence[str]:
    return ids(watched.queue.page(limit=batch))


def _claim(watched: Watched, batch: int) -> Claim:
    return watched.queue.claim(batch)


def _worn(watched: Watched, batch: int) -> None:
    watched.queue.release(watched.queue.claim(batch).id)


def _overdue(watched: Watched, batch: int) -> None:
    """Let messages expire, delays end and a claim run out at once."""
    watched.queue.claim(batch, ttl=60)
    watched.queue.fill(batch, ttl=60)
    watched.queue.fill(batch, delay=60)
    watched.queue.clock.advance(60)


def _inserted(watched: Watched, _batch: int) -> None:
    watched.driver.records.insert(record())


def _bury(watched: Watched, batch: int, _: Any) -> None:
    letter = DeadLetter(address=watched.queue.other("dead>queue").address, max_claims=1)
    assert watched.queue.try_claim(batch, dead_letter=letter).dead_lettered == batch


def _subscribed(watched: Watched, _batch: int) -> None:
    watched.driver.messages.subscribe(watched.queue.address, "stamp")


def _post_and_tell(watched: Watched, batch: int, _: Any) -> None:
    messages, queue = [NewMessage(body=b"1", ttl=60)] * batch, watched.queue
    watched.driver.messages.post(queue.address, messages, now=queue.clock.now, tickets=messages)


#: What is done with how many, and what has to be there before.
OPERATIONS: dict[str, tuple[Callable[[Watched, int, Any], object], Callable[[Watched, int], Any]]] = {
    "post": (lambda watched, batch, _: watched.queue.fill(batch), _nothing),
    "post with a key": (lambda watched, batch, _: watched.queue.post_once(*map(str, range(batch))), _nothing),
    "post with tickets": (_post_and_tell, _subscribed),
    "subscribe": (lambda watched, batch, _: _subscribed(watched, batch), _nothing),
    "unsubscribe": (
        lambda watched, _batch, _: watched.driver.messages.unsubscribe(watched.queue.address, "stamp"),
        _subscribed,
    ),
    "get": (lambda watched, _, found: watched.queue.get(*found), _ready),
    "list": (lambda watched, batch, _: watched.queue.page(limit=batch), _nothing),
    "list everything": (
        lambda watched, batch, _: watched.queue.page(limit=batch, include_claimed=True, include_delayed=True),
        _claim,
    ),
    "list of others": (
        lambda watched, batch, _: watched.queue.page(limit=batch, hide_client="me"),
        lambda watched, batch: watched.queue.fill(batch, client_id="me"),
    ),
    "list when much is due": (lambda watched, batch, _: watched.queue.page(limit=batch), _overdue),
    "delete": (lambda watched, _, found: watched.queue.delete(found[0]), _ready),
    "delete many": (lambda watched, _, found: watched.queue.delete_many(found), _ready),
    "delete many claimed": (
        lambda watched, _, claim: watched.queue.delete_many(ids(claim.messages), [claim.id]),
        _claim,
    ),
    "pop": (lambda watched, batch, _: watched.queue.pop(batch), _nothing),
    "claim": (lambda watched, batch, _: watched.queue.claim(batch), _nothing),
    "claim when much is due": (lambda watched, batch, _: watched.queue.claim(batch), _overdue),
    "claim with dead letters": (_bury, _worn),
    "read a claim": (lambda watched, _, claim: watched.queue.read_claim(claim.id), _claim),
    "renew": (lambda watched, _, claim: watched.queue.renew(claim.id), _claim),
    "release": (lambda watched, _, claim: watched.queue.release(claim.id), _claim),
    "outlook": (
        lambda watched, _batch, _: watched.driver.messages.outlook(
            watched.queue.address, now=watched.queue.clock.now
        ),
        _overdue,
    ),
    "stats": (lambda watched, _batch, _: watched.queue.stats(), _nothing),
    "purge": (lambda watched, _batch, _: watched.queue.purge(), _claim),
    "drop": (lambda watched, _batch, _: watched.queue.drop(), _claim),
    "insert": (lambda watched, _batch, _: watched.driver.records.insert(record()), _nothing),
    "fetch": (lambda watched, _batch, _: watched.driver.records.fetch("queue", "p", "n"), _inserted),
    "replace": (lambda watched, _batch, _: watched.driver.records.replace(record()), _inserted),
    "remove": (lambda watched, _batch, _: watched.driver.records.remove("queue", "p", "n"), _inserted),
    "scan": (lambda watched, batch, _: watched.driver.records.scan("queue", "p", limit=batch), _inserted),
    "count": (lambda watched, _batch, _: watched.driver.records.count("queue", "p"), _inserted),
}


@pytest.mark.parametrize("batch", [1, 20, 50])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_one_command(watched: Watched, name: str, batch: int) -> None:
    act, prepare = OPERATIONS[name]
    prepared = prepare(watched, batch)

    with watched.sent() as commands:
        act(watched, batch, prepared)

    assert len(commands) == 1, commands


def test_the_janitor_asks_each_shard_once(watched: Watched) -> None:
    for number in range(20):
        watched.queue.other(f"q{number}").fill(10, ttl=60)
    watched.queue.clock.advance(60)

    with watched.sent() as commands:
        assert watched.queue.expire(1000) == 220

    assert len(commands) == SHARDS


def test_what_happens_to_a_queue_that_is_watched_costs_no_command_more(watched: Watched) -> None:
    bell = Bell()
    watched.driver.messages.watch(watched.queue.address, bell)
    assert bell.heard()

    with watched.sent() as commands:
        watched.queue.fill(20)
        assert bell.heard()
        watched.queue.renew(watched.queue.claim(20).id, ttl=60)
        assert bell.heard()

    assert commands == ["EVALSHA", "EVAL", "EVAL"]


def test_another_watch_of_a_queue_that_is_watched_sends_nothing(watched: Watched) -> None:
    bells = [Bell(), Bell()]
    watched.driver.messages.watch(watched.queue.address, bells[0])
    assert bells[0].heard()

    with watched.sent() as commands:
        watched.driver.messages.watch(watched.queue.address, bells[1])
        assert bells[1].heard()

    assert commands == []


def test_who_watches_sends_a_ping_now_and_then_and_nothing_else(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.redis_listener._CHECK", 0.5)
    bell = Bell()
    watched.driver.messages.watch(watched.queue.address, bell)
    assert bell.heard()

    with watched.client.monitor() as monitor:
        told = [monitor.next_command()["command"] for _ in range(3)]

    assert set(told) == {"PING"}
    assert bell.silent()
