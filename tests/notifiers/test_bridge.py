import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.messaging import Producer
from kombu.transport import memory

from notifiers.bridge import LONGEST_PAUSE, Bridge, Counts, Source, pause_after
from queues.errors import Invalid, PoolMissing, QueueNotFound, StoreUnavailable
from queues.events import Event

BROKEN = memory.Transport.connection_errors[0]
OPTIONS = {"transport_options": {"polling_interval": 0.001}}


class Stop(threading.Event):
    """Remembers the pauses, and makes none."""

    def __init__(self, after_pauses: int = 1000) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._after_pauses = after_pauses

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        if len(self.pauses) >= self._after_pauses:
            self.set()
        return self.is_set()


class Killed(BaseException):
    """The process ends here."""


class Store:
    """Where events are posted; each attempt first goes through the next of the hooks, if there is one."""

    def __init__(self, stop: Stop, expected: int) -> None:
        self.stop = stop
        self.expected = expected  # so many attempts end the run
        self.attempts: list[list[Event]] = []
        self.stored: list[Event] = []
        self.hooks: list[Callable[[Sequence[Event]], None]] = []

    def post(self, events: Sequence[Event]) -> None:
        self.attempts.append(list(events))
        if len(self.attempts) >= self.expected:
            self.stop.set()
        if self.hooks:
            self.hooks.pop(0)(events)
        self.stored.extend(events)

    @property
    def ids(self) -> list[str]:
        return [event.attributes["id"] for event in self.stored]


def failing(error: BaseException) -> Callable[[Sequence[Event]], None]:
    def fail(events: Sequence[Event]) -> None:
        raise error

    return fail


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a broker does: what was not settled when a connection ends is delivered again."""
    monkeypatch.setattr(memory.Channel, "do_restore", True)


@pytest.fixture
def source() -> Iterator[Source]:
    name = uuid.uuid4().hex
    source = Source(url="memory://", exchanges=[f"nova-{name}"], queue=name, options=OPTIONS)
    yield source
    memory.Channel.queues.pop(name, None)


def notification(id_: str) -> bytes:
    inner = {
        "message_id": id_,
        "publisher_id": "h",
        "event_type": "e",
        "payload": {},
        "_context_auth_token": "x",
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()


def publish(source: Source, *bodies: bytes | str, key: str = "notifications.info", **more: Any) -> None:
    more.setdefault("exchange", source.exchanges[0])
    with Connection(source.url) as connection, connection.channel() as channel:
        for body in bodies:
            Producer(channel).publish(
                body,
                routing_key=key,
                content_type="application/json",
                content_encoding="utf-8",
                declare=[source.declaration()],
                **more,
            )


def left(source: Source) -> int:
    """How many notifications the broker has, once every connection is closed."""
    return int(memory.Channel.queues[source.queue].qsize())


def test_what_was_posted_is_acknowledged(source):
    publish(source, *(notification(id_) for id_ in "abc"))
    stop = Stop()
    store = Store(stop, 1)
    bridge = Bridge(source, store.post)
    bridge.run(stop)
    assert store.ids == ["a", "b", "c"]
    assert bridge.counts == Counts(posted=3)
    assert left(source) == 0
    assert stop.pauses == []


def test_nothing_is_acknowledged_before_post_returned(source):
    publish(source, notification("a"), notification("b"))
    stop = Stop()
    store = Store(stop, 1)
    store.hooks = [failing(Killed())]
    bridge = Bridge(source, store.post)
    with pytest.raises(Killed):
        bridge.run(stop)
    assert bridge.counts == Counts()
    assert left(source) == 2


def test_who_is_killed_between_post_and_acknowledgement_posts_again_with_the_same_keys(source, monkeypatch):
    publish(source, notification("a"), notification("b"))
    stop = Stop()
    store = Store(stop, 1)

    def die(self: object, *args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(memory.Channel, "basic_ack", die)
        with pytest.raises(Killed):
            Bridge(source, store.post).run(stop)
    assert sorted(store.ids) == ["a", "b"]
    again = Stop()
    restarted = Store(again, 1)
    Bridge(source, restarted.post).run(again)
    assert sorted(event.key for event in restarted.stored) == sorted(event.key for event in store.stored)
    assert left(source) == 0


@pytest.mark.parametrize("error", [StoreUnavailable, PoolMissing, QueueNotFound])
def test_a_store_that_fails_is_tried_again_after_pauses_that_grow(source, error):
    publish(source, notification("a"), notification("b"))
    stop = Stop()
    store = Store(stop, 4)
    store.hooks = [failing(error())] * 3
    bridge = Bridge(source, store.post)
    bridge.run(stop)
    assert sorted(store.ids) == ["a", "b"]
    assert [len(attempt) for attempt in store.attempts] == [2, 2, 2, 2]
    assert len({event.key for attempt in store.attempts for event in attempt}) == 2
    assert stop.pauses == [1, 2, 4]
    assert bridge.counts == Counts(posted=2, requeued=6)
    assert left(source) == 0


def test_after_a_success_pauses_begin_anew(source):
    publish(source, notification("a"))
    stop = Stop()
    store = Store(stop, 5)

    def publish_more(events: Sequence[Event]) -> None:
        publish(source, notification("b"))

    fail = failing(StoreUnavailable())
    store.hooks = [fail, fail, publish_more, fail]
    Bridge(source, store.post).run(stop)
    assert store.ids == ["a", "b"]
    assert stop.pauses == [1, 2, 1]


def test_pauses_are_bounded():
    assert [pause_after(failures) for failures in (1, 2, 3, 6, 7, 100_000)] == [
        1,
        2,
        4,
        32,
        LONGEST_PAUSE,
        LONGEST_PAUSE,
    ]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"a":1}', "nul", b'{"oslo.version":"9","oslo.message":"{}"}']
)
def test_what_is_malformed_is_rejected_and_does_not_come_again(source, body):
    publish(source, notification("a"), body, notification("b"))
    stop = Stop()
    store = Store(stop, 1)
    bridge = Bridge(source, store.post)
    bridge.run(stop)
    assert store.ids == ["a", "b"]
    assert bridge.counts == Counts(posted=2, refused=1)
    assert left(source) == 0


def test_what_cannot_be_unpacked_is_malformed_too(source):
    publish(source, notification("a"))
    publish(source, notification("b"), headers={"compression": "application/x-gzip"})
    publish(source, notification("c"))
    stop = Stop()
    store = Store(stop, 1)
    bridge = Bridge(source, store.post)
    bridge.run(stop)
    assert store.ids == ["a", "c"]
    assert bridge.counts.refused == 1
    assert left(source) == 0


def test_the_dead_letters_are_the_brokers_business(source, monkeypatch):
    settled: list[bool] = []
    reject = memory.Channel.basic_reject

    def note(self: Any, delivery_tag: str, requeue: bool = False) -> None:
        settled.append(requeue)
        reject(self, delivery_tag, requeue=requeue)

    monkeypatch.setattr(memory.Channel, "basic_reject", note)
    publish(source, b"{", notification("a"))
    stop = Stop()
    Bridge(source, Store(stop, 1).post).run(stop)
    assert settled == [False]


def test_what_can_never_be_stored_does_not_hold_up_the_others(source):
    publish(source, *(notification(id_) for id_ in "abc"))
    stop = Stop()
    store = Store(stop, 4)

    def refuse_b(events: Sequence[Event]) -> None:
        if any(event.attributes["id"] == "b" for event in events):
            raise Invalid

    store.hooks = [refuse_b] * 4
    bridge = Bridge(source, store.post)
    bridge.run(stop)
    assert [[event.attributes["id"] for event in attempt] for attempt in store.attempts] == [
        ["a", "b", "c"],
        ["a"],
        ["b"],
        ["c"],
    ]
    assert store.ids == ["a", "c"]
    assert bridge.counts == Counts(posted=2, refused=1)
    assert left(source) == 0


def test_a_store_that_fails_half_way_gets_the_rest_again(source):
    publish(source, *(notification(id_) for id_ in "abc"))
    stop = Stop()
    store = Store(stop, 5)
    store.hooks = [failing(Invalid()), lambda events: None, failing(Invalid()), failing(StoreUnavailable())]
    bridge = Bridge(source, store.post)
    bridge.run(stop)
    assert store.ids == ["a", "c"]
    assert bridge.counts == Counts(posted=2, refused=1, requeued=1)
    assert left(source) == 0


def test_no_more_is_held_than_allowed(source):
    few = Source(url=source.url, exchanges=source.exchanges, queue=source.queue, options=OPTIONS, prefetch=3)
    publish(few, *(notification(str(number)) for number in range(8)))
    stop = Stop()
    store = Store(stop, 3)
    Bridge(few, store.post).run(stop)
    assert [len(attempt) for attempt in store.attempts] == [3, 3, 2]
    assert store.ids == [str(number) for number in range(8)]
    assert left(few) == 0


def test_every_priority_of_the_topics_and_exchanges_arrives_and_nothing_else(source):
    name = source.queue
    wide = Source(
        url=source.url,
        exchanges=[f"nova-{name}", f"neutron-{name}"],
        topics=["notifications", "versioned_notifications"],
        queue=name,
        options=OPTIONS,
    )
    publish(wide, notification("a"), key="notifications.info")
    publish(wide, notification("b"), key="notifications.error", exchange=wide.exchanges[1])
    publish(wide, notification("c"), key="versioned_notifications.info")
    publish(wide, notification("x"), key="other.info")
    stop = Stop()
    store = Store(stop, 1)
    Bridge(wide, store.post).run(stop)
    assert store.ids == ["a", "b", "c"]


def test_the_declaration_says_what_the_broker_needs_to_know():
    source = Source(url="memory://", exchanges=["nova"], durable_exchanges=True, dead_letter_exchange="dead")
    queue: Any = source.declaration()
    assert queue.durable
    assert queue.queue_arguments == {"x-queue-type": "classic", "x-dead-letter-exchange": "dead"}
    (bound,) = queue.bindings
    assert (bound.exchange.name, bound.exchange.type, bound.exchange.durable) == ("nova", "topic", True)
    assert bound.routing_key == "notifications.*"


def test_a_url_is_not_shown():
    assert "secret" not in repr(
        Source(url="amqp://u:secret@h", exchanges=["nova"], options={"password": "secret"})
    )


def test_a_bridge_that_is_told_to_stop_does_not_begin(source):
    stop = Stop()
    stop.set()
    Bridge(Source(url="amqp://nowhere.invalid", exchanges=["nova"]), Store(stop, 1).post).run(stop)


def test_an_idle_bridge_stops(source):
    stop = threading.Event()
    publish(source, notification("a"))
    posted = threading.Event()
    bridge = Bridge(source, lambda events: posted.set())
    thread = threading.Thread(target=bridge.run, args=[stop])
    thread.start()
    assert posted.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert left(source) == 0


def test_a_bridge_stops_in_a_pause_and_leaves_the_notifications_to_the_broker(source):
    publish(source, notification("a"))
    stop = Stop(after_pauses=1)
    store = Store(stop, 1000)
    store.hooks = [failing(StoreUnavailable())] * 1000
    Bridge(source, store.post).run(stop)
    assert len(store.attempts) == 1
    assert left(source) == 1


def test_a_lost_connection_is_made_again(source, monkeypatch):
    publish(source, notification("a"))
    broken = iter([True])
    drain = memory.Transport.drain_events

    def drain_or_break(self: Any, connection: Any, timeout: float | None = None) -> Any:
        if next(broken, False):
            raise BROKEN("the broker went away")
        return drain(self, connection, timeout=timeout)

    monkeypatch.setattr(memory.Transport, "drain_events", drain_or_break)
    stop = Stop()
    store = Store(stop, 1)
    Bridge(source, store.post).run(stop)
    assert store.ids == ["a"]
    assert stop.pauses == [1]
    assert left(source) == 0


def test_a_connection_that_is_lost_before_the_acknowledgement_brings_the_notification_again(
    source, monkeypatch
):
    publish(source, notification("a"))
    broken = iter([True])
    ack = memory.Channel.basic_ack

    def ack_or_break(self: Any, delivery_tag: str, multiple: bool = False) -> None:
        if next(broken, False):
            raise BROKEN("the broker went away")
        ack(self, delivery_tag, multiple=multiple)

    monkeypatch.setattr(memory.Channel, "basic_ack", ack_or_break)
    stop = Stop()
    store = Store(stop, 2)
    Bridge(source, store.post).run(stop)
    assert store.ids == ["a", "a"]
    assert store.stored[0].key == store.stored[1].key
    assert left(source) == 0


def test_a_broker_that_is_not_there_does_not_keep_the_bridge_from_stopping(source, monkeypatch):
    stop = Stop()

    def refuse(self: object) -> None:
        stop.set()
        raise BROKEN("nobody listens")

    monkeypatch.setattr(memory.Transport, "establish_connection", refuse)
    store = Store(stop, 1)
    Bridge(source, store.post).run(stop)
    assert store.attempts == []
