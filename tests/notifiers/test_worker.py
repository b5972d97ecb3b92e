"""The worker: who is told, how often, and what failures, slowness and crashes cost the others. Quirks E1 to E13."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

import notifiers.worker as module
from notifiers.outcome import Delivery, Kind, Outcome
from notifiers.worker import Worker, WorkerSettings
from queues.errors import StoreUnavailable
from queues.models import Address, Caller, Message, NewMessage, Selection, Subscription
from queues.ports import Driver, MessageStore
from queues.service.deliveries import LEASE, PENDING
from queues.service.messages import Draft
from queues.service.subscriptions import Terms
from storage.registry import connect
from tests.boxes import take
from tests.storage.probe import Clock
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

QUEUE = Address(project="blue", queue="jobs")
CALLER = Caller(project="blue", client_id="c")
PATIENCE = 20.0  # seconds until a test gives up; far more than anything here takes

DELIVERED = Outcome(kind=Kind.DELIVERED, status=204)
RETRY = Outcome(kind=Kind.RETRY, status=500, detail="no luck")
REJECTED = Outcome(kind=Kind.REJECTED, status=400, detail="no thanks")
GONE = Outcome(kind=Kind.GONE, status=410)

Answer = Callable[[Delivery], Awaitable[Outcome]]


class Exact(Random):
    """Chance that changes no wait."""

    def uniform(self, _low: float, _high: float) -> float:
        return 1.0


@dataclass
class Fake:
    """A notifier that answers as it is told, by subscriber: outcomes one after the other, or a function."""

    script: dict[str, list[Outcome] | Answer] = field(default_factory=dict)
    attempts: list[Delivery] = field(default_factory=list)  # in the order in which they began
    done: list[Delivery] = field(default_factory=list)  # that got through
    under_way: Counter[str] = field(default_factory=Counter)  # by subscriber
    most: Counter[str] = field(default_factory=Counter)  # of them at once; "" for all
    closed: bool = False

    async def deliver(self, delivery: Delivery) -> Outcome:
        assert not self.closed
        self.attempts.append(delivery)
        for key in (delivery.subscriber, ""):
            self.under_way[key] += 1
            self.most[key] = max(self.most[key], self.under_way[key])
        try:
            answer = self.script.get(delivery.subscriber)
            if callable(answer):
                outcome = await answer(delivery)
            else:
                outcome = answer.pop(0) if answer else DELIVERED
        finally:
            for key in (delivery.subscriber, ""):
                self.under_way[key] -= 1
        if outcome.kind is Kind.DELIVERED:
            self.done.append(delivery)
        return outcome

    async def close(self) -> None:
        self.closed = True

    def bodies(self, subscriber: str | None = None) -> list[Any]:
        """Return the bodies that got through, to one subscriber or to any."""
        return [json.loads(each.body) for each in self.done if subscriber in (None, each.subscriber)]


@dataclass
class Bench:
    """A service, its clock, and what its workers are given."""

    service: Service
    driver: Driver
    clock: Clock
    fake: Fake = field(default_factory=Fake)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> MessageStore:
        return self.driver.messages

    def subscribe(self, name: str = "a", *, queue: Address = QUEUE, **terms: Any) -> Subscription:
        # Mail has no circuit breaker in front of it, which is another test's business.
        wanted = Terms(subscriber=f"mailto:{name}", **terms)
        return self.service.subscriptions.create(queue, wanted).subscription

    def post(self, *bodies: Any, queue: Address = QUEUE, **members: Any) -> list[str]:
        """Post messages in one post, and return their ids."""
        drafts = [Draft(body=json.dumps(body).encode(), **members) for body in bodies]
        return list(self.service.messages.post(CALLER, queue, drafts).ids)

    def waiting(self) -> list[Message]:
        """Return the tickets and deliveries that are in the store."""
        selection = Selection(limit=10_000, include_claimed=True, include_delayed=True)
        return [
            message
            for address in (*self.store.outboxes(), PENDING)
            for message in self.store.list(address, selection, now=self.clock.now)
        ]

    def settled(self) -> bool:
        return not self.waiting()

    def dead(self, subscription: Subscription) -> list[Any]:
        """Return the bodies that were given up."""
        page = self.service.deliveries.dead(subscription.address, subscription.id)
        return [json.loads(pending.notice.body) for pending, _ in page]

    def worker(self) -> Worker:
        settings = WorkerSettings(**{"patience": 0.2, "longest_pause": 0.005, **self.settings})
        return Worker(
            self.service.deliveries,
            self.service.subscriptions,
            self.service.pushes,
            self.fake,
            settings,
            random=Exact(),
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let a worker work until the block is over."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.worker().run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, PATIENCE)

    def quiet(self) -> bool:
        """Whether nothing is due now, nor under way."""
        selection = Selection(limit=1, include_claimed=True)
        places = (*self.store.outboxes(), PENDING)
        return not any(self.store.list(address, selection, now=self.clock.now) for address in places)

    def quiet_but_for_what_is_leased(self) -> bool:
        """Whether all that is due is in somebody's hands."""
        places = (*self.store.outboxes(), PENDING)
        return not any(self.store.list(address, Selection(limit=1), now=self.clock.now) for address in places)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await until(self.quiet)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def uris(folder: Path) -> dict[str, str]:
    return {"memory": "memory:", "sqlite": f"sqlite:///{folder / 'store.db'}"}


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Make a bench whose service has these settings."""
    clock = Clock()
    with closing(connect(uris(tmp_path)[request.param], clock=clock)) as driver:

        def build(**settings: Any) -> Bench:
            wanted = Settings(store=uris(tmp_path)[request.param], **settings)
            return Bench(assemble(wanted, driver, clock=clock), driver, clock)

        yield build


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def work(bench: Bench, story: Callable[[], Awaitable[None]]) -> None:
    """Let a worker work while a story is told."""

    async def run() -> None:
        async with bench.working():
            await story()

    asyncio.run(run())


def until_settled(bench: Bench) -> None:
    """Let a worker work until nothing is left to do."""
    work(bench, lambda: until(bench.settled))


# --- what is told


def test_every_subscriber_is_told_of_every_message_once(bench: Bench) -> None:
    ids = [bench.subscribe(name).id for name in ("a", "b")]
    bench.post(1, {"a": "é"}, None)
    bench.post(4)
    until_settled(bench)

    for name, id_ in zip(("a", "b"), ids, strict=True):
        told = [each for each in bench.fake.attempts if each.subscriber == f"mailto:{name}"]
        assert Counter(each.body for each in told) == Counter([b"1", b'{"a": "\\u00e9"}', b"null", b"4"])
        assert {(each.subscription_id, each.attempt) for each in told} == {(id_, 1)}
        assert {(each.project, each.queue) for each in told} == {("blue", "jobs")}
    assert bench.fake.closed


def test_what_is_posted_to_a_subscriber_is_what_the_protocol_says(bench: Bench) -> None:
    bench.subscribe(options={"a": 1})
    bench.post({"any": "json"}, ttl=300)
    until_settled(bench)

    (told,) = bench.fake.attempts
    assert json.loads(told.payload) == {
        "ttl": 300,
        "body": {"any": "json"},
        "Message_Type": "Notification",
        "queue_name": "jobs",
    }
    assert told.options == {"a": 1}


def test_e2_what_is_told_is_stored(bench: Bench) -> None:
    bench.subscribe()
    seen: list[int] = []

    async def look(_delivery: Delivery) -> Outcome:
        seen.append(bench.store.stats(QUEUE, now=bench.clock.now).total)
        return DELIVERED

    bench.fake.script["mailto:a"] = look
    bench.post(1, 2)
    until_settled(bench)

    assert seen == [2, 2]


def test_e2_what_could_not_be_stored_is_told_to_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.subscribe()

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(type(bench.store), "post", fail)
        with pytest.raises(StoreUnavailable):
            bench.post("lost")
    bench.post("there")
    until_settled(bench)

    assert bench.fake.bodies() == ["there"]
    assert len(bench.fake.attempts) == 1


def test_e6_an_id_names_a_message_at_every_subscriber_and_on_every_attempt(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.subscribe(name, options={"_retry_policy": {"delays": [0, 0]}})
    bench.fake.script = {"mailto:a": [RETRY] * 4}
    bench.post(1, 2)
    bench.post(1)
    until_settled(bench)

    ids = {each.id for each in bench.fake.attempts}
    assert len(ids) == 3
    for id_ in ids:
        told = [each for each in bench.fake.attempts if each.id == id_]
        assert len({each.body for each in told}) == 1
        for name in ("a", "b"):
            numbers = [each.attempt for each in told if each.subscriber == f"mailto:{name}"]
            assert numbers == list(range(1, len(numbers) + 1))
    assert len(bench.fake.done) == 6


def test_e9_a_delayed_message_is_announced_when_its_delay_is_over(bench: Bench) -> None:
    bench.service.queues.create(QUEUE, {"_default_message_delay": 30})
    bench.subscribe()

    async def story() -> None:
        bench.post("late")
        bench.post("later", delay=60)
        bench.post("now", delay=0)
        await until(bench.quiet)
        assert bench.fake.bodies("mailto:a") == ["now"]
        await bench.advance(29)
        assert bench.fake.bodies("mailto:a") == ["now"]
        await bench.advance(1)
        await until(lambda: bench.fake.bodies("mailto:a") == ["now", "late"])
        await bench.advance(30)
        await until(lambda: bench.fake.bodies("mailto:a") == ["now", "late", "later"])

    work(bench, story)
    told = [json.loads(each.payload).get("delay") for each in bench.fake.done if each.queue == "jobs"]
    assert told == [None, 30, 60]


def key() -> str:
    return "k1:" + base64.b64encode(b"k" * 32).decode()


def test_e9_subscribers_of_an_encrypted_queue_get_plain_text_and_the_store_never(
    make: Callable[..., Bench],
) -> None:
    bench = make(encryption={"keys": [key()]})
    bench.service.queues.create(QUEUE, {"_enable_encrypt_messages": True})
    told, never = (
        bench.subscribe(name, options={"_retry_policy": {"delays": [60]}}) for name in ("told", "never")
    )
    bench.fake.script = {"mailto:told": [RETRY], "mailto:never": [RETRY, RETRY]}
    kept: list[bytes] = []
    bench.post("attack at dawn")
    kept += [message.body for message in bench.waiting()]
    assert len(kept) == 1

    async def story() -> None:
        await until(bench.quiet)
        kept.extend(message.body for message in bench.waiting())
        await bench.advance(60)
        await until(lambda: bench.dead(never) != [] and bench.settled())

    work(bench, story)
    selection = Selection(limit=10)
    where = Address(project="blue", queue=f"jobs>failed>{never.id}")
    kept += [message.body for message in bench.store.list(where, selection, now=bench.clock.now)]
    assert len(kept) == 4
    assert not any(b"attack" in body for body in kept)
    assert bench.dead(never) == ["attack at dawn"]
    assert bench.dead(told) == []
    payloads = [json.loads(each.payload)["body"] for each in bench.fake.attempts if each.queue == "jobs"]
    assert payloads == ["attack at dawn"] * 4


# --- failures


def attempts_at(bench: Bench, moments: Sequence[int], *, subscriber: str = "mailto:a") -> list[int]:
    """Let the clock go from moment to moment (s), and return how many attempts there were at each."""
    counts: list[int] = []

    async def story() -> None:
        start = bench.clock.now
        for moment in moments:
            bench.clock.now = start + moment * 1000
            await until(bench.quiet)
            counts.append(sum(each.subscriber == subscriber for each in bench.fake.attempts))

    work(bench, story)
    return counts


def test_e3_what_failed_is_tried_again_by_the_policy(bench: Bench) -> None:
    found = bench.subscribe(options={"_retry_policy": {"delays": [0, 5, 60]}})
    bench.fake.script = {"mailto:a": [RETRY, RETRY, RETRY]}
    bench.post(1)

    assert attempts_at(bench, [0, 4, 5, 64, 65, 200]) == [2, 2, 3, 3, 4, 4]
    assert bench.fake.bodies("mailto:a") == [1]
    assert bench.dead(found) == []
    assert bench.settled()


def test_the_protocols_own_policy_is_followed(bench: Bench) -> None:
    """Section 15.6: at once, at the least delay, growing, at the greatest."""
    policy = {
        "retries_with_no_delay": 1,
        "minimum_delay_retries": 1,
        "minimum_delay": 10,
        "maximum_delay": 20,
        "maximum_delay_retries": 1,
    }
    found = bench.subscribe(options={"_retry_policy": policy})
    bench.fake.script = {"mailto:a": [RETRY] * 10}
    bench.post(1)
    waits = [0, 10, 10, 15, 20]
    moments = [sum(waits[: number + 1]) for number in range(len(waits))]

    assert attempts_at(bench, moments[0:]) == [2, 3, 4, 5, 6]
    assert bench.dead(found) == [1]


QUICK = {"delays": [10]}
SLOW = {"delays": [20]}
FIXED = {"ignore_subscription_override": True}


@pytest.mark.parametrize(
    ("queue", "subscription", "wait"),
    [
        (QUICK, None, 10),
        (None, SLOW, 20),
        (QUICK, SLOW, 20),
        (QUICK, {}, 10),
        (QUICK | FIXED, SLOW, 10),
        (QUICK, SLOW | FIXED, 10),
    ],
)
def test_whose_policy_counts(
    bench: Bench, queue: dict[str, Any] | None, subscription: dict[str, Any] | None, wait: int
) -> None:
    bench.service.queues.create(QUEUE, {} if queue is None else {"_retry_policy": queue})
    bench.subscribe(options={} if subscription is None else {"_retry_policy": subscription})
    bench.fake.script = {"mailto:a": [RETRY]}
    bench.post(1)

    assert attempts_at(bench, [0, wait - 1, wait]) == [1, 1, 2]


def test_a_subscriber_may_ask_to_be_left_alone_for_longer(bench: Bench) -> None:
    bench.subscribe(options={"_retry_policy": {"delays": [5, 50]}})
    busy = Outcome(kind=Kind.RETRY, status=429, retry_after=30.0)
    bench.fake.script = {"mailto:a": [busy, busy]}
    bench.post(1)

    assert attempts_at(bench, [0, 5, 29, 30, 79, 80]) == [1, 1, 1, 2, 2, 3]
    assert bench.fake.bodies("mailto:a") == [1]


def test_e4_a_failure_costs_the_other_messages_and_subscribers_nothing(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.subscribe(name, options={"_retry_policy": {"delays": [60]}})

    async def refuse_one(delivery: Delivery) -> Outcome:
        return RETRY if delivery.body == b"2" and delivery.attempt == 1 else DELIVERED

    bench.fake.script["mailto:a"] = refuse_one
    bench.post(1, 2, 3)

    async def story() -> None:
        await until(bench.quiet)
        assert sorted(bench.fake.bodies("mailto:a")) == [1, 3]
        assert sorted(bench.fake.bodies("mailto:b")) == [1, 2, 3]
        await bench.advance(60)
        await until(bench.settled)

    work(bench, story)
    assert sorted(bench.fake.bodies("mailto:a")) == [1, 2, 3]


def test_what_was_refused_for_good_is_given_up_at_once(bench: Bench) -> None:
    found = bench.subscribe()
    bench.fake.script = {"mailto:a": [REJECTED]}
    bench.post(1, 2)
    until_settled(bench)

    assert len(bench.fake.attempts) == 2
    assert len(bench.dead(found)) == 1
    assert sorted(bench.dead(found) + bench.fake.bodies()) == [1, 2]
    assert bench.service.subscriptions.get(QUEUE, found.id).disabled is None


def test_a_subscriber_that_is_gone_is_told_nothing_more(bench: Bench) -> None:
    found, other = bench.subscribe("a"), bench.subscribe("b")
    bench.fake.script = {"mailto:a": [GONE]}
    bench.post(1)
    until_settled(bench)
    reason = bench.service.subscriptions.get(QUEUE, found.id).disabled
    assert reason is not None
    assert "410" in reason
    bench.fake.closed = False
    bench.post(2)
    until_settled(bench)

    assert [each.body for each in bench.fake.attempts if each.subscriber == "mailto:a"] == [b"1"]
    assert bench.fake.bodies("mailto:b") == [1, 2]
    assert bench.dead(found) == [1]
    counts = bench.service.deliveries.counts(QUEUE, found.id)
    assert (counts.delivered, counts.failed, counts.dead) == (0, 1, 1)
    assert bench.service.deliveries.counts(QUEUE, other.id).delivered == 2


def test_what_waits_for_a_subscription_that_is_disabled_or_deleted_is_dropped(bench: Bench) -> None:
    found, gone = (bench.subscribe(name, options={"_retry_policy": {"delays": [60]}}) for name in ("a", "b"))
    bench.fake.script = {"mailto:a": [RETRY], "mailto:b": [RETRY]}
    bench.post(1)

    async def story() -> None:
        await until(bench.quiet)
        bench.service.subscriptions.disable(QUEUE, found.id, "enough")
        bench.service.subscriptions.delete(QUEUE, gone.id)
        await bench.advance(60)
        await until(bench.settled)

    work(bench, story)
    assert bench.fake.bodies() == []


def test_a_notifier_that_breaks_harms_its_own_message_alone(bench: Bench) -> None:
    found = bench.subscribe("a", options={"_retry_policy": {"delays": [1]}})
    bench.subscribe("b")

    async def break_down(delivery: Delivery) -> Outcome:
        if delivery.body == b"2":
            raise ZeroDivisionError
        return DELIVERED

    bench.fake.script["mailto:a"] = break_down
    bench.post(1, 2, 3)

    async def story() -> None:
        await until(bench.quiet)
        await bench.advance(1)
        await until(bench.settled)

    work(bench, story)
    assert sorted(bench.fake.bodies("mailto:a")) == [1, 3]
    assert bench.dead(found) == [2]


def test_counts_tell_what_became_of_it(bench: Bench) -> None:
    found = bench.subscribe(
        options={"_retry_policy": {"delays": [0]}, "filter": {"not": {"exact": {"/kind": "no"}}}}
    )
    bench.fake.script = {"mailto:a": [RETRY, DELIVERED, RETRY, RETRY, REJECTED]}

    async def story() -> None:
        for number in range(3):
            bench.post({"number": number})
            await until(bench.settled)
        bench.post({"kind": "no"})
        await until(bench.settled)

    work(bench, story)
    counts = bench.service.deliveries.counts(QUEUE, found.id)
    assert (counts.delivered, counts.failed, counts.dead, counts.filtered) == (1, 4, 2, 1)
    assert counts.last_error == "no thanks"
    assert [(each.attempt, each.outcome, each.status) for each in counts.attempts] == [
        (1, "rejected", 400),
        (2, "retry", 500),
        (1, "retry", 500),
        (2, "delivered", 204),
        (1, "retry", 500),
    ]


def test_what_was_given_up_is_sent_again(bench: Bench) -> None:
    found = bench.subscribe(options={"_retry_policy": {"delays": []}})
    bench.fake.script = {"mailto:a": [RETRY, RETRY]}

    async def story() -> None:
        bench.post(1)
        for _ in range(2):
            await until(lambda: bench.dead(found) == [1] and bench.settled())
            bench.clock.advance(1)
            assert bench.service.deliveries.replay(QUEUE, found.id, since=0) == 1
            assert bench.dead(found) == []
        await until(bench.settled)

    work(bench, story)
    assert bench.fake.bodies() == [1]
    assert bench.dead(found) == []
    assert len({each.id for each in bench.fake.attempts}) == 1
    assert [each.attempt for each in bench.fake.attempts] == [1, 1, 1]


# --- who is told


def test_filters_hold_back_what_is_not_wanted(bench: Bench) -> None:
    found = bench.subscribe("a", options={"filter": {"exact": {"type": "x"}}})
    bench.subscribe("b", options={"filter": [{"prefix": {"/deep/name": "n"}}]})
    bench.subscribe("c", options={"filter": []})
    bodies = [{"type": "x"}, {"type": "y"}, 7, {"deep": {"name": "nn"}}]
    bench.post(*bodies)
    until_settled(bench)

    assert bench.fake.bodies("mailto:a") == [{"type": "x"}]
    assert bench.fake.bodies("mailto:b") == [{"deep": {"name": "nn"}}]
    assert len(bench.fake.bodies("mailto:c")) == 4
    assert bench.service.deliveries.counts(QUEUE, found.id).filtered == 3


def test_a_body_that_is_hard_to_parse_holds_nobody_up(bench: Bench) -> None:
    """A number that no float can hold is valid JSON, and one tenant's filter must not stop all others."""
    bench.subscribe("a", options={"filter": {"exact": {"type": "x"}}})
    other = Address(project="red", queue="jobs")
    bench.subscribe("b", queue=other)
    draft = Draft(body=b'{"type": "x", "size": 1e999}')
    bench.service.messages.post(CALLER, QUEUE, [draft])
    bench.post(1, queue=other)
    until_settled(bench)

    assert [each.body for each in bench.fake.done if each.subscriber == "mailto:a"] == [draft.body]
    assert bench.fake.bodies("mailto:b") == [1]


def asking(make: Callable[..., Bench]) -> Bench:
    bench = make(notifier={"require_confirmation": True}, signed_url={"secret_keys": ["a key of the tests"]})
    bench.settings["require_confirmation"] = True
    return bench


def test_who_has_not_confirmed_is_told_nothing_where_that_is_required(make: Callable[..., Bench]) -> None:
    bench = asking(make)
    confirmed, _ = bench.subscribe("a"), bench.subscribe("b")
    bench.service.subscriptions.confirm(QUEUE, confirmed.id, confirmed=True)
    bench.post(1)
    until_settled(bench)

    assert [each.subscriber for each in bench.fake.attempts] == ["mailto:a"]


def test_unconfirmed_subscribers_are_told_where_it_is_not_required(bench: Bench) -> None:
    bench.subscribe()
    bench.post(1)
    until_settled(bench)

    assert bench.fake.bodies() == [1]


@pytest.mark.parametrize("how", ["taken back", "redirected"])
def test_e10_what_waits_is_not_told_to_who_has_not_confirmed(make: Callable[..., Bench], how: str) -> None:
    bench = asking(make)
    found = bench.subscribe("a", options={"_retry_policy": {"delays": [60]}})
    service = bench.service.subscriptions
    service.confirm(QUEUE, found.id, confirmed=True)
    bench.fake.script = {"mailto:a": [RETRY]}
    bench.post(1)

    async def story() -> None:
        await until(bench.quiet)
        if how == "taken back":
            service.confirm(QUEUE, found.id, confirmed=False)
        else:
            service.update(QUEUE, found.id, Terms(subscriber="mailto:victim"))
        await bench.advance(60)
        await until(bench.settled)

    work(bench, story)
    assert [each.subscriber for each in bench.fake.attempts] == ["mailto:a"]


def test_e10_a_confirmation_is_tried_again_and_told_to_who_has_not_confirmed(
    make: Callable[..., Bench],
) -> None:
    bench = asking(make)
    terms = Terms(subscriber="http://hook.example.org/", options={"_retry_policy": {"delays": [60]}})
    found = bench.service.subscriptions.create(QUEUE, terms).subscription
    bench.fake.script = {found.subscriber: [RETRY]}
    bench.service.confirmations.ask(found, confirmed=True)

    assert attempts_at(bench, [0, 59, 60], subscriber=found.subscriber) == [1, 1, 2]
    messages = [
        json.loads(each.payload)["Message_Type"] for each in bench.fake.attempts if each.queue == "jobs"
    ]
    assert messages == ["SubscriptionConfirmation"] * 2


def test_an_expired_subscription_is_told_nothing(bench: Bench) -> None:
    bench.subscribe("a", ttl=60)
    bench.subscribe("b", ttl=120)
    bench.post(1)
    bench.clock.advance(60)
    until_settled(bench)

    assert [each.subscriber for each in bench.fake.attempts] == ["mailto:b"]


# --- slowness


def test_e5_a_subscriber_that_hangs_delays_nobody(bench: Bench) -> None:
    bench.settings.update(per_subscriber=5, in_flight=20)
    bench.subscribe("a")
    for name in ("b", "c"):
        bench.subscribe(name)

    async def run() -> None:
        release = asyncio.Event()

        async def hang(_delivery: Delivery) -> Outcome:
            await release.wait()
            return DELIVERED

        bench.fake.script["mailto:a"] = hang
        async with bench.working():
            for number in range(30):
                bench.post(number)
            await until(lambda: len(bench.fake.bodies("mailto:b")) == 30)
            await until(lambda: len(bench.fake.bodies("mailto:c")) == 30)
            assert bench.fake.bodies("mailto:a") == []
            assert 1 <= bench.fake.most["mailto:a"] <= 5
            release.set()
            while len(bench.fake.bodies("mailto:a")) < 30 or not bench.settled():
                bench.clock.advance(1)
                await until(bench.quiet)

    asyncio.run(run())
    assert sorted(bench.fake.bodies("mailto:a")) == list(range(30))
    assert bench.fake.most["mailto:a"] <= 5
    assert bench.fake.most[""] <= 20


def test_e5_subscribers_that_hang_leave_room_for_other_projects(bench: Bench) -> None:
    bench.settings.update(in_flight=20)
    projects = [Address(project=name, queue="jobs") for name in ("blue", "red", "green")]
    for number in range(60):
        bench.subscribe(f"hangs-{number}")
        bench.subscribe(f"hangs-too-{number}", queue=projects[1])
    bench.subscribe("quick", queue=projects[2])

    async def hang(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        bench.fake.script = {f"mailto:hangs-{number}": hang for number in range(60)}
        bench.fake.script |= {f"mailto:hangs-too-{number}": hang for number in range(60)}
        task = asyncio.create_task(bench.worker().run(asyncio.Event()))
        for address in projects[:2]:
            bench.post(1, 2, queue=address)
        await until(bench.quiet)
        for number in range(20):
            bench.post(number, queue=projects[2])
            await until(lambda number=number: number in bench.fake.bodies())  # type: ignore[misc]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    hung = Counter(each.project for each in bench.fake.attempts)
    assert 6 <= hung["blue"] <= 10
    assert 5 <= hung["red"] <= 10


def test_e5_a_slow_attempt_is_not_repeated_and_its_failure_is(bench: Bench) -> None:
    found = bench.subscribe(options={"_retry_policy": {"delays": [60]}})

    async def run() -> None:
        release = asyncio.Event()

        async def take_time(delivery: Delivery) -> Outcome:
            await release.wait()
            return RETRY if delivery.body == b"2" else DELIVERED

        bench.fake.script["mailto:a"] = take_time
        bench.post(1, 2)
        async with bench.working():
            await until(bench.quiet)
            await bench.advance(20)
            assert len(bench.fake.attempts) == 2
            release.set()
            await until(lambda: [b'"attempt":2' in each.body for each in bench.waiting()] == [True])
            assert bench.fake.bodies("mailto:a") == [1]
            await bench.advance(59)
            assert len(bench.waiting()) == 1
            await bench.advance(1)
            await until(bench.settled)

    asyncio.run(run())
    told = [(each.body, each.attempt) for each in bench.fake.attempts if each.queue == "jobs"]
    assert sorted(told) == [(b"1", 1), (b"2", 1), (b"2", 2)]
    assert bench.dead(found) == [2]


def test_e5_many_deliveries_are_made_a_bounded_number_at_a_time(bench: Bench) -> None:
    bench.settings.update(in_flight=7, per_subscriber=3, patience=5.0)
    for number in range(20):
        bench.subscribe(str(number))

    async def take_a_moment(_delivery: Delivery) -> Outcome:
        for _ in range(3):
            await asyncio.sleep(0)
        return DELIVERED

    bench.fake.script = {f"mailto:{number}": take_a_moment for number in range(20)}
    for number in range(20):
        bench.post(number)
    until_settled(bench)

    assert len(bench.fake.done) == 400
    assert bench.fake.most[""] <= 7
    assert max(bench.fake.most[f"mailto:{number}"] for number in range(20)) <= 3


# --- ends and crashes


def test_a_worker_that_is_told_to_stop_ends_what_it_has_begun(bench: Bench) -> None:
    bench.subscribe("a")
    bench.subscribe("b")

    async def run() -> None:
        release = asyncio.Event()

        async def take_time(_delivery: Delivery) -> Outcome:
            await release.wait()
            return DELIVERED

        bench.fake.script = {"mailto:a": take_time}
        stop = asyncio.Event()
        bench.post(1, 2)
        task = asyncio.create_task(bench.worker().run(stop))
        await until(lambda: len(bench.fake.attempts) == 4)
        stop.set()
        await until(lambda: len(bench.waiting()) == 2)  # copies of what is under way
        assert not task.done()
        release.set()
        await asyncio.wait_for(task, PATIENCE)

    asyncio.run(run())
    assert sorted(bench.fake.bodies("mailto:a")) == [1, 2]
    assert bench.fake.closed
    assert bench.settled()
    counts = [
        bench.service.deliveries.counts(QUEUE, each.id).delivered
        for each in bench.service.subscriptions.all(QUEUE)
    ]
    assert counts == [2, 2]


def test_a_worker_that_cannot_end_in_time_leaves_it_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END", 0.05)
    bench.subscribe("a")

    async def hang(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    bench.fake.script = {"mailto:a": hang}

    async def run() -> None:
        stop = asyncio.Event()
        bench.post(1)
        task = asyncio.create_task(bench.worker().run(stop))
        await until(bench.quiet)
        stop.set()
        await asyncio.wait_for(task, PATIENCE)

    asyncio.run(run())
    assert len(bench.waiting()) == 1
    bench.fake = Fake()
    bench.clock.advance(60)
    until_settled(bench)
    assert bench.fake.bodies() == [1]


def test_a_worker_that_is_told_to_stop_gives_back_what_it_has_not_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PARTS", 1)
    bench.settings["patience"] = PATIENCE
    bench.subscribe("a")

    async def run() -> None:
        release = asyncio.Event()

        async def take_time(_delivery: Delivery) -> Outcome:
            await release.wait()
            return DELIVERED

        bench.fake.script = {"mailto:a": take_time}
        stop = asyncio.Event()
        task = asyncio.create_task(bench.worker().run(stop))
        bench.post(1)
        await until(lambda: len(bench.fake.attempts) == 1)
        bench.post(2)
        await until(bench.quiet_but_for_what_is_leased)
        stop.set()
        release.set()
        await asyncio.wait_for(task, PATIENCE)

    asyncio.run(run())
    assert bench.fake.bodies() == [1]
    bench.fake = Fake()
    until_settled(bench)
    assert bench.fake.bodies() == [2]


def test_a_worker_that_cannot_end_in_time_gives_back_what_nothing_stands_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END", 0.05)
    bench.settings["patience"] = PATIENCE
    bench.subscribe("a")

    async def hang(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    bench.fake.script = {"mailto:a": hang}

    async def run() -> None:
        stop = asyncio.Event()
        bench.post(1)
        task = asyncio.create_task(bench.worker().run(stop))
        await until(lambda: len(bench.fake.attempts) == 1)
        stop.set()
        await asyncio.wait_for(task, PATIENCE)

    asyncio.run(run())
    bench.fake = Fake()
    until_settled(bench)
    assert bench.fake.bodies() == [1]


@pytest.mark.parametrize("patience", [0.05, PATIENCE])
def test_e1_what_a_worker_had_when_it_died_is_done_by_another(bench: Bench, patience: float) -> None:
    bench.settings["patience"] = patience
    found, other = bench.subscribe("a"), bench.subscribe("b")

    async def hang(_delivery: Delivery) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    bench.fake.script = {"mailto:a": hang}

    async def run() -> None:
        bench.post(1, 2)
        task = asyncio.create_task(bench.worker().run(asyncio.Event()))
        await until(lambda: len(bench.fake.attempts) == 4 and len(bench.fake.done) == 2)
        if patience < 1:
            await until(bench.quiet)
        task.cancel()  # the end of the loop is the end of all it had begun
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    before, bench.fake = bench.fake, Fake()
    bench.clock.advance(LEASE)
    until_settled(bench)

    assert sorted(bench.fake.bodies("mailto:a")) == [1, 2]
    assert bench.dead(found) == bench.dead(other) == []
    names = {(each.id, each.body) for fake in (before, bench.fake) for each in fake.attempts}
    assert len(names) == 2


def fail_sometimes(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> list[str]:
    """Let a step of the deliveries fail so many times; return what failed."""
    failures: list[str] = []
    real = getattr(bench.service.deliveries, name)

    def step(*arguments: Any, **named: Any) -> Any:
        if len(failures) < times:
            failures.append(name)
            raise StoreUnavailable
        return real(*arguments, **named)

    monkeypatch.setattr(bench.service.deliveries, name, step)
    return failures


@pytest.mark.parametrize("name", ["take", "keep", "settle", "bury", "note", "forget", "boxes"])
def test_a_store_that_fails_for_a_while_costs_no_delivery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bench.settings["patience"] = 0.02
    found = bench.subscribe(options={"_retry_policy": {"delays": [0]}})
    bench.subscribe("b")
    failures = fail_sometimes(bench, monkeypatch, name, 2)

    async def answer(delivery: Delivery) -> Outcome:
        if delivery.body == b"3":
            await asyncio.sleep(0.05)  # slow enough to be kept meanwhile
        return REJECTED if delivery.body == b"1" else RETRY if delivery.attempt == 1 else DELIVERED

    bench.fake.script = {"mailto:a": answer}

    async def story() -> None:
        bench.post(1, 2, 3)
        async with asyncio.timeout(PATIENCE):
            while len(failures) < 2 or not bench.settled():
                bench.clock.advance(5)
                await asyncio.sleep(0.01)

    work(bench, story)
    assert set(bench.fake.bodies("mailto:a")) == {2, 3}
    assert set(bench.fake.bodies("mailto:b")) == {1, 2, 3}
    assert bench.dead(found) == [1]
    assert bench.service.deliveries.counts(QUEUE, found.id).delivered >= 2


def test_a_store_that_fails_in_the_middle_of_many_deliveries_stops_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 5)
    bench.settings["backlog"] = 10
    for number in range(12):
        bench.subscribe(str(number), options={"_retry_policy": {"delays": [0] * 9}})
    bench.fake.script = {f"mailto:{number}": [RETRY] * 6 for number in range(12)}
    failures = fail_sometimes(bench, monkeypatch, "keep", 4)

    async def story() -> None:
        bench.post(1)
        while len(failures) < 4 or not bench.settled():
            bench.clock.advance(5)
            await asyncio.sleep(0.01)
        bench.post(2)
        await until(lambda: bench.fake.bodies().count(2) == 12)

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await story()

    work(bench, bounded)
    assert {each.subscriber for each in bench.fake.done} == {f"mailto:{number}" for number in range(12)}


def test_a_ticket_that_nobody_can_read_holds_nobody_up(bench: Bench) -> None:
    """It cannot be, but if it is, it must not take others with it, again and again."""
    bench.subscribe()
    bench.post(1)
    (box,) = bench.store.outboxes()
    damaged = NewMessage(body=b"{damaged", ttl=3600)
    bench.store.post(box, [damaged], now=bench.clock.now, tickets=None)
    bench.store.post(PENDING, [damaged], now=bench.clock.now, create=True, tickets=None)
    bench.post(2)

    work(bench, lambda: until(lambda: len(bench.fake.done) == 2))
    assert sorted(bench.fake.bodies("mailto:a")) == [1, 2]


# --- endpoints that fail

OTHER = Address(project="red", queue="jobs")
GATEWAY = "http://gateway.example.org"
ABSENT = Outcome(kind=Kind.RETRY, detail="nobody there", reached=False)


def hook(bench: Bench, path: str = "/", *, queue: Address = QUEUE, delays: Sequence[int] = (60,)) -> str:
    """Subscribe a webhook, and return its URI."""
    terms = Terms(subscriber=GATEWAY + path, options={"_retry_policy": {"delays": list(delays)}})
    bench.service.subscriptions.create(queue, terms)
    return GATEWAY + path


def failing(bench: Bench, outcome: Outcome = RETRY) -> tuple[Answer, list[tuple[Any, int]]]:
    """Return an answer that is always the same, and where it notes what was tried and when (ms)."""
    tried: list[tuple[Any, int]] = []

    async def fail(delivery: Delivery) -> Outcome:
        tried.append((json.loads(delivery.body), bench.clock.now))
        return outcome

    return fail, tried


def test_a_failing_endpoint_is_left_alone_and_nothing_is_lost(bench: Bench) -> None:
    """Its circuit opens after some failures; what could not be tried waits, at no cost of attempts."""
    uri = hook(bench, delays=[60] * 3)
    bench.fake.script[uri], tried = failing(bench)
    bench.post(*range(8))
    work(bench, lambda: until(bench.quiet))

    assert len(tried) == 5
    rest = leased(bench)
    assert sorted(json.loads(pending.notice.body) for pending in rest) == list(range(8))
    assert sorted(pending.attempt for pending in rest) == [1, 1, 1, 2, 2, 2, 2, 2]


def test_an_endpoint_that_fails_costs_nobody_else_on_its_host(bench: Bench) -> None:
    """Many tenants share the host of a gateway; a path of one that is broken says nothing of the others."""
    broken, ours, theirs = hook(bench, "/broken"), hook(bench, "/ours"), hook(bench, "/", queue=OTHER)
    bench.fake.script[broken], tried = failing(bench)

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        bench.post("to all")
        bench.post("to theirs", queue=OTHER)
        await until(bench.quiet)

    work(bench, story)
    assert len(tried) == 5
    assert sorted(map(str, bench.fake.bodies(ours))) == [*map(str, range(8)), "to all"]
    assert bench.fake.bodies(theirs) == ["to theirs"]


def test_a_subscriber_that_was_changed_is_tried_at_once(bench: Bench) -> None:
    uri = hook(bench, "/old")
    bench.fake.script[uri], _ = failing(bench)
    (found,) = bench.service.subscriptions.all(QUEUE)

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        bench.service.subscriptions.update(QUEUE, found.id, Terms(subscriber=GATEWAY + "/new"))
        bench.post("new")
        await until(bench.quiet)

    work(bench, story)
    assert bench.fake.bodies(GATEWAY + "/new") == ["new"]


def test_a_host_that_is_not_there_is_asked_now_and_then_however_many_subscribed_it(bench: Bench) -> None:
    bench.settings["in_flight"] = 20
    tried: list[str] = []

    async def nobody(delivery: Delivery) -> Outcome:
        tried.append(delivery.subscriber)
        await asyncio.sleep(0.001)
        return ABSENT

    for number in range(300):
        queue = (QUEUE, OTHER)[number % 2]
        bench.fake.script[hook(bench, f"/{number}", queue=queue, delays=[3600] * 3)] = nobody

    async def story() -> None:
        for queue in (QUEUE, OTHER):
            bench.post(1, queue=queue)
        for _ in range(5):
            await until(bench.quiet)
            bench.clock.advance(5)

    work(bench, story)
    # Those that were under way together when it showed, and no probe before the pause is over, in real seconds.
    assert 5 <= len(tried) <= 30
    assert len(bench.waiting()) == 300


@pytest.mark.parametrize("answer", [RETRY, ABSENT])
def test_what_rests_is_tried_when_its_last_attempt_is_due(bench: Bench, answer: Outcome) -> None:
    uri = hook(bench, delays=[10, 20])
    bench.fake.script[uri], tried = failing(bench, answer)
    (found,) = bench.service.subscriptions.all(QUEUE)
    start = bench.clock.now

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        assert len({body for body, _ in tried}) < 8  # the others rest
        for _ in range(29):
            await bench.advance(1)
        assert bench.dead(found) == []
        assert len(tried) <= 6
        await bench.advance(1)
        await until(bench.settled)

    work(bench, story)
    assert sorted(bench.dead(found)) == list(range(8))
    assert {body for body, at in tried if at == start + 30_000} == set(range(8))


def test_what_rests_gets_through_at_last_where_the_endpoint_is_well_again(bench: Bench) -> None:
    uri = hook(bench, delays=[10])
    bench.fake.script[uri], _ = failing(bench)
    (found,) = bench.service.subscriptions.all(QUEUE)

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        bench.fake.script = {}
        for _ in range(10):
            await bench.advance(1)
        await until(bench.settled)

    work(bench, story)
    assert sorted(bench.fake.bodies(uri)) == list(range(8))
    assert bench.dead(found) == []


def test_what_waited_long_for_its_first_attempt_has_all_its_time(bench: Bench) -> None:
    """Whether a message was delayed, or no notifier there to take it."""
    uri = hook(bench, delays=[10])
    bench.fake.script[uri], tried = failing(bench)
    bench.post("late", delay=600)
    bench.post("later")
    bench.clock.advance(600)
    (found,) = bench.service.subscriptions.all(QUEUE)

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        assert bench.dead(found) == []
        await bench.advance(10)
        await until(bench.settled)

    work(bench, story)
    assert len(bench.dead(found)) == 10
    assert {body for body, at in tried if at == bench.clock.now} == {*range(8), "late", "later"}


def test_what_is_sent_again_to_an_endpoint_that_rests_has_all_its_time(bench: Bench) -> None:
    uri = hook(bench, delays=[10])
    bench.fake.script[uri], tried = failing(bench)
    (found,) = bench.service.subscriptions.all(QUEUE)

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        await bench.advance(10)
        await until(bench.settled)
        bench.clock.advance(600)
        assert bench.service.deliveries.replay(QUEUE, found.id, since=0) == 8
        before = len(tried)
        await until(bench.quiet)
        assert bench.dead(found) == []
        assert len(tried) == before
        await bench.advance(10)
        await until(bench.settled)

    work(bench, story)
    assert sorted(bench.dead(found)) == list(range(8))


def test_a_last_attempt_that_finds_no_room_is_given_up_in_the_end_and_that_is_said(bench: Bench) -> None:
    uri = hook(bench, delays=[10])
    (found,) = bench.service.subscriptions.all(QUEUE)
    count = 0

    async def fail_then_hang(_delivery: Delivery) -> Outcome:
        nonlocal count
        count += 1
        if count > 5:
            await asyncio.Event().wait()
        return RETRY

    bench.fake.script[uri] = fail_then_hang

    async def story() -> None:
        bench.post(*range(8))
        await until(bench.quiet)
        await bench.advance(10)
        await bench.advance(590)
        assert bench.dead(found) == []
        await bench.advance(30)
        await until(lambda: len(bench.dead(found)) == 8)

    async def run() -> None:
        task = asyncio.create_task(bench.worker().run(asyncio.Event()))
        await story()
        await until(lambda: bench.service.deliveries.counts(QUEUE, found.id).dead == 8)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert count <= 9
    counts = bench.service.deliveries.counts(QUEUE, found.id)
    assert counts.last_error == "Given up without a last attempt: those before it take too long."


def leased(bench: Bench) -> list[Any]:
    """Take what waits, whenever it is due."""
    bench.clock.advance(3600)
    return [pending for batch in take(bench.service.deliveries) for pending in batch.pending]
