import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifiers.resolving import SystemResolver


@asynccontextmanager
async def a_resolver(threads: int = 1) -> AsyncIterator[SystemResolver]:
    resolver = SystemResolver(threads)
    try:
        yield resolver
    finally:
        await resolver.close()


class SlowSystem:
    """Stands for getaddrinfo: answers once it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            assert self.let_go.wait(20)
        if host.endswith("unknown"):
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]


@pytest.fixture
def system(monkeypatch):
    slow = SlowSystem()
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield slow
    slow.let_go.set()


def test_addresses_of_the_system():
    async def run() -> None:
        async with a_resolver() as resolver:
            found = await resolver.resolve("127.0.0.1", 80)
            assert [(each["host"], each["port"], each["hostname"]) for each in found] == [
                ("127.0.0.1", 80, "127.0.0.1")
            ]

    asyncio.run(run())


def test_one_question_for_all_who_ask_at_a_time(system):
    async def run() -> None:
        async with a_resolver() as resolver:
            questions = [asyncio.create_task(resolver.resolve("slow", 80)) for _ in range(5)]
            await asyncio.sleep(0)  # they have asked
            questions[0].cancel()
            system.let_go.set()
            answers = await asyncio.gather(*questions, return_exceptions=True)
            assert isinstance(answers[0], asyncio.CancelledError)
            assert all(isinstance(answer, list) for answer in answers[1:])
            assert system.asked == ["slow"]
            await resolver.resolve("slow", 80)
            assert system.asked == ["slow"] * 2  # nothing is kept

    asyncio.run(run())


def test_a_slow_name_does_not_hold_up_others(system):
    async def run() -> None:
        async with a_resolver(threads=2) as resolver:
            slow = asyncio.create_task(resolver.resolve("slow", 80))
            [found] = await resolver.resolve("quick", 80)
            assert found["host"] == "8.8.8.8"
            assert not slow.done()
            system.let_go.set()
            await slow

    asyncio.run(run())


def test_an_error_is_for_all_and_for_nobody(system):
    async def run() -> None:
        async with a_resolver() as resolver:
            questions = [asyncio.create_task(resolver.resolve("slow.unknown", 80)) for _ in range(2)]
            await asyncio.sleep(0)
            questions[0].cancel()
            system.let_go.set()
            with pytest.raises(OSError, match="unknown"):
                await questions[1]

    asyncio.run(run())


def test_closing_does_not_wait(system):
    async def run() -> None:
        async with a_resolver() as resolver:
            questions = [asyncio.create_task(resolver.resolve(name, 80)) for name in ("slow", "slow.too")]
            await asyncio.sleep(0)
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        assert system.asked == ["slow"]
        system.let_go.set()

    asyncio.run(run())
