"""Tokens for trust+ subscribers: when one is used again, and when another one is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec

import pytest

from notifiers.outcome import Delivery, Kind, Outcome, Undeliverable
from notifiers.trust_tokens import Token, TrustTokens
from queues.errors import TrustsUnavailable
from tests.notifiers.receivers import Receiver
from tests.notifiers.test_webhook import SETTINGS, a_delivery, a_notifier

P = ParamSpec("P")
NOW = 1_800_000_000.0


def in_a_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@dataclass
class Source:
    """Where tokens come from, and the time."""

    now: float = NOW  # Unix seconds
    lifetime: float = 3600.0  # seconds
    problem: Exception | None = None
    blocked: threading.Event | None = None  # until then nothing comes
    fetched: list[str] = field(default_factory=list)  # trusts
    released: int = 0

    def fetch(self, trust_id: str) -> Token:
        self.fetched.append(trust_id)
        if self.blocked is not None:
            self.blocked.wait()
        if self.problem is not None:
            raise self.problem
        return Token(text=f"{trust_id}-{len(self.fetched)}", expires=self.now + self.lifetime)

    def release(self) -> None:
        self.released += 1

    @asynccontextmanager
    async def tokens(self, **options: int) -> AsyncIterator[TrustTokens]:
        tokens = TrustTokens(self.fetch, clock=lambda: self.now, release=self.release, **options)
        try:
            yield tokens
        finally:
            await tokens.close()


@pytest.fixture
def source() -> Source:
    return Source()


def of(trust: object) -> Delivery:
    return a_delivery("trust+http://h/", trust_id=trust)


@in_a_loop
async def test_one_token_serves_all_deliveries_of_a_trust(source):
    async with source.tokens() as tokens:
        assert [await tokens.token(of("a")) for _ in range(3)] == ["a-1"] * 3
        assert await tokens.token(of("b")) == "b-2"
    assert source.released == 1


@in_a_loop
async def test_who_want_the_same_at_once_wait_for_one(source):
    source.blocked = threading.Event()
    async with source.tokens() as tokens:
        waiting = [asyncio.create_task(tokens.token(of("a"))) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        source.blocked.set()
        assert await asyncio.gather(*waiting[1:]) == ["a-1"] * 4
    assert source.fetched == ["a"]


@in_a_loop
async def test_a_token_that_is_about_to_expire_is_replaced(source):
    async with source.tokens() as tokens:
        await tokens.token(of("a"))
        source.now += 3600 - 61
        assert await tokens.token(of("a")) == "a-1"
        source.now += 2
        assert await tokens.token(of("a")) == "a-2"


@in_a_loop
async def test_a_token_that_was_not_taken_is_replaced_but_not_all_the_time(source):
    async with source.tokens() as tokens:
        tokens.refused(of("a"), await tokens.token(of("a")))
        tokens.refused(of("a"), "a-1")
        assert await tokens.token(of("a")) == "a-2"
        tokens.refused(of("a"), "a-1")  # of an attempt that began earlier
        tokens.refused(of("a"), "a-2")
        assert await tokens.token(of("a")) == "a-2"
        source.now += 60
        tokens.refused(of("a"), "a-2")
        assert await tokens.token(of("a")) == "a-3"


@in_a_loop
async def test_a_trust_that_is_gone_is_not_asked_about_all_the_time(source):
    source.problem = Undeliverable("Gone.")
    async with source.tokens() as tokens:
        for _ in range(3):
            with pytest.raises(Undeliverable, match="Gone"):
                await tokens.token(of("a"))
        assert source.fetched == ["a"]
        source.now, source.problem = source.now + 30, None
        assert await tokens.token(of("a")) == "a-2"


@in_a_loop
async def test_a_keystone_that_is_down_is_asked_again(source):
    source.problem = TrustsUnavailable()
    async with source.tokens() as tokens:
        with pytest.raises(TrustsUnavailable):
            await tokens.token(of("a"))
        source.problem = None
        assert await tokens.token(of("a")) == "a-2"


@pytest.mark.parametrize("trust", [None, 7])
@in_a_loop
async def test_a_subscription_without_a_trust(source, trust):
    async with source.tokens() as tokens:
        with pytest.raises(Undeliverable, match="has no trust"):
            await tokens.token(of(trust))
    assert source.fetched == []


@in_a_loop
async def test_the_tokens_used_last_are_remembered(source):
    async with source.tokens(most=2) as tokens:
        for trust in ("a", "b", "a", "c"):
            await tokens.token(of(trust))
        assert [await tokens.token(of(trust)) for trust in ("a", "c")] == ["a-1", "c-3"]
        assert await tokens.token(of("b")) == "b-4"


@in_a_loop
async def test_what_is_under_way_in_the_end_is_given_up(source):
    source.blocked = threading.Event()
    async with source.tokens() as tokens:
        waiting = [asyncio.create_task(tokens.token(of(f"{n}"))) for n in range(20)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    source.blocked.set()

    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert len(source.fetched) <= 8


# --- with webhooks


async def deliveries(source: Source, receiver: Receiver, *before: Callable[[], None]) -> list[Outcome]:
    """Deliver once after each of these."""
    outcomes = []
    async with receiver.listening(), source.tokens() as tokens, a_notifier(credentials=tokens) as notifier:
        for prepare in before:
            prepare()
            outcomes.append(await notifier.deliver(a_delivery(f"trust+{receiver.url}", trust_id="a")))
    return outcomes


def nothing() -> None:
    """Nothing is to be done before."""


@in_a_loop
async def test_a_receiver_that_does_not_take_a_token_gets_another_one(source):
    receiver = Receiver(401)
    first, second = await deliveries(source, receiver, nothing, lambda: setattr(receiver, "status", 204))

    assert (first.kind, first.status, second.kind) == (Kind.RETRY, 401, Kind.DELIVERED)
    assert [request.headers["X-Auth-Token"] for request in receiver.requests] == ["a-1", "a-2"]


@in_a_loop
async def test_a_token_waits_in_no_loop(source):
    """While Keystone takes its time, the others are told."""
    source.blocked, receiver = threading.Event(), Receiver()
    async with receiver.listening(), source.tokens() as tokens, a_notifier(credentials=tokens) as notifier:
        waiting = asyncio.create_task(notifier.deliver(a_delivery(f"trust+{receiver.url}", trust_id="a")))
        plain = await notifier.deliver(a_delivery(receiver.url))
        assert (plain.kind, waiting.done()) == (Kind.DELIVERED, False)
        source.blocked.set()
        assert (await waiting).kind is Kind.DELIVERED


@in_a_loop
async def test_keystone_that_takes_too_long_is_not_the_subscribers_fault(source):
    source.blocked = threading.Event()
    settings = type(SETTINGS)(egress=SETTINGS.egress, timeout=0.05)
    async with source.tokens() as tokens, a_notifier(settings, credentials=tokens) as notifier:
        outcome = await notifier.deliver(a_delivery("trust+http://127.0.0.1:1/", trust_id="a"))
        source.blocked.set()

    assert (outcome.kind, outcome.reached) == (Kind.RETRY, None)
    assert outcome.detail == "Keystone did not give a token in time."
