"""The bridge on a real RabbitMQ: nothing is lost and nothing is stored twice, whoever ends when."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.messaging import Producer
from structlog.testing import capture_logs

import notifiers.bridge as module
from notifiers.bridge import Bridge, Counts, Source
from queues.errors import StoreUnavailable
from queues.events import Event
from queues.models import Address, Caller, Selection
from tests.notifiers import rabbitmq
from tests.notifiers.rabbitmq import Broker
from tests.servers import eventually
from transport.operations.events import store_events
from transport.service import Service
from transport.settings import Settings
from transport.settings.model import BridgeSettings
from transport.wiring import event_bridge, open_service

QUEUE = Address(project="operators", queue="events")
CALLER = Caller(project="operators", client_id="0" * 32)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    made = rabbitmq.broker()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def own_broker(broker: Broker) -> Iterator[Broker]:
    """A broker that may be killed; it runs again after the test."""
    if not broker.processes:
        pytest.skip("the broker of HERMOD_TEST_RABBITMQ is not ours to kill")
    yield broker
    broker.start()


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pause_after", lambda failures: 0.05)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with closing(open_service(Settings(store=store_of(tmp_path)))) as opened:
        yield opened


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder}/hermod.db"


@pytest.fixture
def lines(broker: Broker, service: Service) -> Iterator[Lines]:
    """A source of one test's own on the broker, and the store that it leads to."""
    name = secrets.token_hex(4)
    source = Source(url=broker.url, exchanges=[f"nova-{name}", f"neutron-{name}"], queue=f"hermod-{name}")
    made = Lines(broker=broker, source=source, service=service)
    yield made
    with broker.connected() as channel:
        for queue in (source.queue, f"dead-{name}"):
            channel.queue_delete(queue)
        for exchange in (*source.exchanges, f"dead-{name}"):
            channel.exchange_delete(exchange)


@dataclass
class Lines:
    """What leads from the broker to the store."""

    broker: Broker
    source: Source
    service: Service
    posts: list[list[str]] = field(default_factory=list)  # ids in each attempt to store
    hooks: list[Callable[[], None]] = field(default_factory=list)  # one for each of the first attempts
    after: list[Callable[[], None]] = field(default_factory=list)  # the same, once it is stored

    def post(self, events: Sequence[Event]) -> None:
        self.posts.append([event.attributes["id"] for event in events])
        if self.hooks:
            self.hooks.pop(0)()
        store_events(self.service, CALLER, QUEUE, events)
        if self.after:
            self.after.pop(0)()

    @contextmanager
    def running(self, source: Source | None = None) -> Iterator[Bridge]:
        """Let a bridge run; it ends by itself where a hook kills it."""
        bridge, stop = Bridge(source or self.source, self.post), threading.Event()

        def run() -> None:
            with suppress(Killed):
                bridge.run(stop)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield bridge
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def declare(self, source: Source | None = None) -> None:
        with self.broker.connected() as channel:
            (source or self.source).declaration()(channel).declare()

    def publish(
        self, *bodies: bytes, key: str = "notifications.info", exchange: str = "", **more: Any
    ) -> None:
        with self.broker.connected() as channel:
            for body in bodies:
                Producer(channel).publish(
                    body,
                    exchange=exchange or self.source.exchanges[0],
                    routing_key=key,
                    content_type="application/json",
                    content_encoding="utf-8",
                    delivery_mode=2,
                    **more,
                )

    def left(self, queue: str = "") -> int:
        """How many notifications the broker has that nobody holds."""
        with self.broker.connected() as channel:
            return int(channel.queue_declare(queue or self.source.queue, passive=True).message_count)

    def stored(self) -> list[str]:
        """The ids of what is stored, in its order."""
        store, found, marker = self.service.pools.driver("").messages, [], None
        while page := store.list(QUEUE, Selection(limit=100, marker=marker), now=self.service.clock()):
            found += [json.loads(message.body)["id"] for message in page]
            marker = page[-1].id
        return found

    def until_stored(self, *ids: str) -> None:
        eventually(lambda: set(self.stored()) >= set(ids))


class Killed(BaseException):
    """The bridge ends here."""


def kill() -> None:
    raise Killed


def fail() -> None:
    raise StoreUnavailable


def notification(id_: str) -> bytes:
    inner = {"message_id": id_, "publisher_id": "compute.h1", "event_type": "e", "payload": {"n": id_}}
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()


# --- what arrives


def test_every_priority_of_the_topics_and_exchanges_arrives_and_nothing_else(lines: Lines) -> None:
    topics = ["notifications", "versioned_notifications"]
    wide = replace(lines.source, topics=topics)
    lines.declare(wide)
    wanted, number = [], 0
    for exchange in wide.exchanges:
        for topic in topics:
            for priority in ("audit", "debug", "info", "warn", "error", "critical", "sample"):
                lines.publish(notification(str(number)), key=f"{topic}.{priority}", exchange=exchange)
                wanted.append(str(number))
                number += 1
    lines.publish(notification("other topic"), key="other.info")
    lines.publish(notification("too deep"), key="notifications.info.more")
    lines.publish(notification("z"))
    with lines.running(wide):
        lines.until_stored("z")

    assert lines.stored() == [*wanted, "z"]
    assert lines.left() == 0


def test_what_was_published_while_no_bridge_ran_waits_for_one(lines: Lines) -> None:
    with lines.running():
        eventually(lambda: lines.source.queue and lines.broker.answers())
        lines.declare()
    lines.publish(*(notification(str(number)) for number in range(250)))
    with lines.running() as bridge:
        lines.until_stored("249")
        eventually(lambda: bridge.counts.posted == 250)

    assert lines.stored() == [str(number) for number in range(250)]
    assert max(map(len, lines.posts)) <= lines.source.prefetch
    assert lines.left() == 0


def test_bridges_share_the_work(lines: Lines) -> None:
    few = replace(lines.source, prefetch=5)
    lines.declare(few)
    lines.publish(*(notification(str(number)) for number in range(100)))
    with lines.running(few) as one, lines.running(few) as other:
        eventually(lambda: one.counts.posted + other.counts.posted == 100)

    assert sorted(lines.stored(), key=int) == [str(number) for number in range(100)]


# --- acknowledged when it is stored, and not before


def test_a_bridge_that_ends_before_it_has_stored_leaves_all_to_the_broker(lines: Lines) -> None:
    lines.declare()
    lines.publish(notification("a"), notification("b"))
    lines.hooks = [kill]
    with lines.running() as bridge:
        eventually(lambda: lines.posts)
    assert bridge.counts == Counts()
    eventually(lambda: lines.left() == 2)
    assert lines.stored() == []

    with lines.running():
        lines.until_stored("a", "b")
    assert lines.stored() == ["a", "b"]
    eventually(lambda: lines.left() == 0)


def test_a_bridge_that_ends_between_store_and_broker_stores_it_once(lines: Lines) -> None:
    lines.declare()
    lines.publish(notification("a"), notification("b"))
    lines.after = [kill]
    with lines.running() as bridge:
        eventually(lambda: lines.posts)
    assert bridge.counts == Counts()
    eventually(lambda: lines.left() == 2)

    with lines.running() as again:
        eventually(lambda: again.counts.posted == 2)
    assert [id_ for post in lines.posts for id_ in post].count("a") == 2
    assert lines.stored() == ["a", "b"]
    eventually(lambda: lines.left() == 0)


def test_a_store_that_fails_gets_it_again_and_once(lines: Lines) -> None:
    lines.declare()
    lines.publish(*(notification(id_) for id_ in "abc"))
    lines.hooks, lines.after = [fail, fail], [fail]  # the third time it is stored, and the answer gets lost
    with lines.running() as bridge:
        eventually(lambda: bridge.counts.posted == 3)

    assert bridge.counts.requeued == 9
    assert lines.posts == [["a", "b", "c"]] * 4
    assert lines.stored() == ["a", "b", "c"]
    eventually(lambda: lines.left() == 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_that_are_killed_at_random_lose_nothing_and_store_nothing_twice(
    lines: Lines, tmp_path: Path, seed: int
) -> None:
    lines.declare()
    random, number = Random(seed), 0
    for _ in range(5):
        process = bridge_process(lines.source, tmp_path)
        eventually(lambda: consumers(lines) == 1)
        enough = len(lines.stored()) + random.randrange(1, 200)  # to be anywhere in the middle of it
        lines.publish(*(notification(str(number + each)) for each in range(200)))
        number += 200
        eventually(lambda enough=enough: len(lines.stored()) >= enough)  # type: ignore[misc]
        process.kill()
        process.wait()
        eventually(lambda: consumers(lines) == 0)
    last = bridge_process(lines.source, tmp_path)
    try:
        eventually(lambda: consumers(lines) == 1)
        lines.until_stored(*map(str, range(number)))
    finally:
        last.terminate()
    assert last.wait(30) == 0

    assert Counter(lines.stored()) == Counter(map(str, range(number)))
    assert lines.left() == 0


def bridge_process(source: Source, folder: Path) -> subprocess.Popen[bytes]:
    """Start `hermod bridge`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
    environ |= {
        "HERMOD_STORE": store_of(folder),
        "HERMOD_LOG_LEVEL": "warning",
        "HERMOD_BRIDGE_URL": source.url,
        "HERMOD_BRIDGE_EXCHANGES": ",".join(source.exchanges),
        "HERMOD_BRIDGE_SOURCE_QUEUE": source.queue,
        "HERMOD_BRIDGE_PROJECT": QUEUE.project,
        "HERMOD_BRIDGE_QUEUE": QUEUE.queue,
    }
    return subprocess.Popen([sys.executable, "-m", "transport", "bridge"], env=environ)


def consumers(lines: Lines) -> int:
    with lines.broker.connected() as channel:
        return int(channel.queue_declare(lines.source.queue, passive=True).consumer_count)


# --- a broker that goes away


def test_a_broker_that_is_started_again_is_found_again(own_broker: Broker, lines: Lines) -> None:
    with lines.running():
        eventually(lambda: bridge_is_ready(lines))
        lines.publish(notification("before"))
        lines.until_stored("before")
        own_broker.kill()
        own_broker.start()
        eventually(lambda: bridge_is_ready(lines))
        # Its exchanges were not durable; the bridge has made them anew.
        lines.publish(notification("after"), exchange=lines.source.exchanges[1])
        lines.until_stored("after")

    assert lines.stored() == ["before", "after"]


def test_what_a_broker_had_when_it_was_killed_is_stored_once(own_broker: Broker, lines: Lines) -> None:
    lines.declare()
    lines.publish(*(notification(str(number)) for number in range(50)))
    lines.after = [own_broker.kill]  # stored, and nobody there to be told
    with lines.running() as bridge:
        eventually(own_broker.is_killed)
        own_broker.start()
        eventually(lambda: bridge.counts.posted == 50)

    assert len(lines.posts) > 1
    assert lines.stored() == [str(number) for number in range(50)]
    assert lines.left() == 0


def test_of_several_nodes_one_that_answers_is_found(lines: Lines) -> None:
    dead = f"amqp://guest:guest@127.0.0.1:1//;{lines.source.url}"
    with lines.running(replace(lines.source, url=dead)):
        eventually(lambda: bridge_is_ready(lines))
        lines.publish(notification("a"))
        lines.until_stored("a")


def test_a_queue_that_was_deleted_is_made_again(lines: Lines) -> None:
    with lines.running():
        eventually(lambda: bridge_is_ready(lines))
        with lines.broker.connected() as channel:
            channel.queue_delete(lines.source.queue)
        eventually(lambda: bridge_is_ready(lines))
        lines.publish(notification("a"))
        lines.until_stored("a")


def test_a_broker_that_lets_nobody_in_is_asked_again(lines: Lines) -> None:
    stranger = replace(lines.source, url=lines.source.url.replace("guest:guest", "guest:wrong"))
    with capture_logs() as log, lines.running(stranger):
        eventually(lambda: len(log) >= 2)

    assert {line["event"] for line in log} == {"the bridge has no broker"}
    assert "ACCESS_REFUSED" in log[0]["error"]
    assert "wrong" not in str(log)


def bridge_is_ready(lines: Lines) -> bool:
    """Whether a bridge consumes, which it does once all is declared."""
    try:
        return consumers(lines) > 0
    except Connection(lines.broker.url).channel_errors:  # there is no such queue yet
        return False


# --- what can never be stored


def dead_letters(lines: Lines) -> tuple[Source, str]:
    """Make an exchange for dead letters with a queue; return the source that uses it, and the queue's name."""
    name = lines.source.queue.replace("hermod", "dead")
    with lines.broker.connected() as channel:
        channel.exchange_declare(name, "fanout", durable=True, auto_delete=False)
        channel.queue_declare(name, durable=True, auto_delete=False)
        channel.queue_bind(name, exchange=name)
    return replace(lines.source, dead_letter_exchange=name), name


BROKEN = [b"", b"{", b"[]", b"\xff", b'{"oslo.version":"9","oslo.message":"{}"}', b'{"a":1}']


def test_what_is_malformed_goes_to_the_dead_letter_exchange_as_it_is(lines: Lines) -> None:
    source, dead = dead_letters(lines)
    lines.declare(source)
    lines.publish(notification("a"), *BROKEN, notification("b"))
    lines.publish(notification("c"), headers={"compression": "application/x-gzip"})
    lines.publish(notification("x" * 300_000))  # more than a post may have
    lines.publish(notification("d"))
    with lines.running(source) as bridge:
        lines.until_stored("a", "b", "d")
        eventually(lambda: lines.left(dead) == len(BROKEN) + 2)

    assert lines.stored() == ["a", "b", "d"]
    assert bridge.counts == Counts(posted=3, refused=len(BROKEN) + 2)
    assert lines.left() == 0
    with lines.broker.connected() as channel:
        found = [channel.basic_get(dead, no_ack=True) for _ in range(len(BROKEN) + 2)]
    bodies = {body if isinstance(body := message.body, bytes) else body.encode() for message in found}
    assert bodies >= set(BROKEN)
    assert {message.headers["x-first-death-reason"] for message in found} == {"rejected"}


def test_what_is_malformed_is_dropped_and_logged_without_such_an_exchange(lines: Lines) -> None:
    lines.declare()
    lines.publish(*BROKEN, notification("a"))
    with capture_logs() as log, lines.running() as bridge:
        lines.until_stored("a")

    assert bridge.counts == Counts(posted=1, refused=len(BROKEN))
    refused = [line for line in log if line["event"] == "the bridge refused a notification"]
    assert len(refused) == len(BROKEN)
    assert {(line["exchange"], line["routing_key"]) for line in refused} == {
        (lines.source.exchanges[0], "notifications.info")
    }
    assert lines.left() == 0


def test_an_exchange_for_dead_letters_that_is_not_there_is_worth_a_warning(lines: Lines) -> None:
    source = replace(lines.source, dead_letter_exchange="nowhere")
    with capture_logs() as log, lines.running(source):
        eventually(lambda: bridge_is_ready(lines))
        lines.publish(notification("a"))
        lines.until_stored("a")

    assert [(line["event"], line["exchange"]) for line in log] == [
        ("the bridge has no exchange for dead letters", "nowhere")
    ]


# --- settings


def test_the_settings_say_what_is_declared(lines: Lines) -> None:
    source, dead = dead_letters(lines)
    with lines.broker.connected() as channel:  # as services with amqp_durable_queues do
        for exchange in source.exchanges:
            channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
    settings = {
        "url": source.url,
        "exchanges": source.exchanges,
        "source_queue": source.queue,
        "project": "operators",
        "durable_exchanges": True,
        "dead_letter_exchange": dead,
        "queue_arguments": {"x-queue-type": "quorum", "x-max-length": "1000"},
    }
    bridge = event_bridge(BridgeSettings.model_validate(settings), lines.post)
    stop = threading.Event()
    thread = threading.Thread(target=bridge.run, args=[stop])
    thread.start()
    try:
        eventually(lambda: bridge_is_ready(lines))
        lines.publish(b"{", notification("a"))
        lines.until_stored("a")
        eventually(lambda: lines.left(dead) == 1)
    finally:
        stop.set()
        thread.join(30)
    # The broker refuses another declaration of the same, so these are the arguments.
    wanted = {"x-queue-type": "quorum", "x-max-length": 1000, "x-dead-letter-exchange": dead}
    with lines.broker.connected() as channel:
        channel.queue_declare(source.queue, durable=True, auto_delete=False, arguments=wanted)


def test_an_exchange_that_is_declared_otherwise_is_told_of(lines: Lines) -> None:
    with lines.broker.connected() as channel:
        channel.exchange_declare(lines.source.exchanges[0], "topic", durable=True, auto_delete=False)
    with capture_logs() as log, lines.running():
        eventually(lambda: len(log) >= 2)

    assert "inequivalent arg 'durable'" in log[0]["error"]
    with lines.running(replace(lines.source, durable_exchanges=True, exchanges=lines.source.exchanges[:1])):
        eventually(lambda: bridge_is_ready(lines))


# --- encryption


def test_an_encrypted_broker_has_to_prove_who_it_is(
    broker: Broker, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broker.certificate is None:
        pytest.skip("the broker of HERMOD_TEST_RABBITMQ has a certificate that is not ours")
    encrypted = replace(lines.source, url=broker.tls_url)
    with capture_logs() as log, lines.running(encrypted):
        eventually(lambda: log)
    assert "certificate verify failed" in log[0]["error"]

    monkeypatch.setenv("SSL_CERT_FILE", str(broker.certificate))
    with lines.running(encrypted):
        eventually(lambda: bridge_is_ready(lines))

    elsewhere = replace(encrypted, url=encrypted.url.replace("127.0.0.1", "127.0.0.2"))
    monkeypatch.setattr(module, "Connection", dialling_loopback)
    with capture_logs() as log, lines.running(elsewhere):
        eventually(lambda: log)
    assert "not valid for '127.0.0.2'" in log[0]["error"]


def dialling_loopback(url: str, **options: Any) -> Connection:
    """Connect to 127.0.0.1, as if the network led there."""
    return Connection(url.replace("127.0.0.2", "127.0.0.1"), **options)
