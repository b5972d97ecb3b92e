import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifiers.resolving import SystemResolver, on_behalf_of


@asynccontextmanager
async def a_resolver(threads: int = 1) -> AsyncIterator[SystemResolver]:
    resolver = SystemResolver(threads)
    try:
        yield resolver
    finally:
        await resolver.close()


async def ask(resolver: SystemResolver, project: str, name: str) -> str:
    on_behalf_of.set(project)
    [found] = await resolver.resolve(name, 80)
    return found["host"]


class SlowSystem:
    """Stands for getaddrinfo: answers once it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()
        self.let_later_go = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            assert self.let_go.wait(20)
        if host.startswith("later"):
            assert self.let_later_go.wait(20)
        if host.endswith("unknown"):
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]


@pytest.fixture
def system(monkeypatch):
    slow = SlowSystem()
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield slow
    slow.let_go.set()
    slow.let_later_go.set()


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
        async with a_resolver(threads=3) as resolver:
            slow = asyncio.create_task(resolver.resolve("slow", 80))
            [found] = await resolver.resolve("quick", 80)
            assert found["host"] == "8.8.8.8"
            assert not slow.done()
            system.let_go.set()
            await slow

    asyncio.run(run())


def test_e5_slow_names_of_a_project_do_not_hold_up_another(system):
    async def run() -> None:
        async with a_resolver(threads=4) as resolver:
            slow = [asyncio.create_task(ask(resolver, "blue", f"slow{number}")) for number in range(20)]
            for number in range(5):
                assert await asyncio.create_task(ask(resolver, "red", f"quick{number}")) == "8.8.8.8"
            assert sum(name.startswith("slow") for name in system.asked) == 2
            for task in slow[:10]:
                task.cancel()
            system.let_go.set()
            assert await asyncio.gather(*slow[10:]) == ["8.8.8.8"] * 10

    asyncio.run(run())


def test_who_waits_for_a_thread_takes_the_answer_that_somebody_got_meanwhile(system):
    async def run() -> None:
        async with a_resolver(threads=2) as resolver:
            first = asyncio.create_task(ask(resolver, "blue", "slow"))
            waiting = asyncio.create_task(ask(resolver, "blue", "later"))
            await asyncio.sleep(0)
            other = asyncio.create_task(ask(resolver, "red", "later"))
            await asyncio.sleep(0)
            system.let_go.set()
            await first
            await asyncio.sleep(0)
            system.let_later_go.set()
            assert [await waiting, await other] == ["8.8.8.8"] * 2
            assert system.asked == ["slow", "later"]
            for project in ("blue", "red"):  # every thread was given back
                await asyncio.create_task(ask(resolver, project, "quick"))

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
