"""What tenants cost each other: a worker with real webhooks, subscribers that hang, and others that do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import pytest

import notifiers.worker as module
from notifiers.egress import EgressPolicy
from notifiers.outcome import Delivery, Kind, Outcome
from notifiers.webhook import WebhookNotifier, WebhookSettings
from notifiers.worker import Worker, WorkerSettings
from queues.models import Address, Caller
from queues.service.messages import Draft
from queues.service.subscriptions import Terms
from storage.registry import connect
from tests.notifiers.receivers import Receiver, read_request, talking
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble

LOUD, QUIET = Address(project="loud", queue="jobs"), Address(project="quiet", queue="jobs")
HANGING = 300  # subscribers
ROOM = 100  # attempts at a time
WEBHOOKS = WebhookSettings(egress=EgressPolicy(allow=["127.0.0.0/8"]))
USUAL = 0.5  # seconds, of the 20 that one who hangs takes
LATEST = 3.0  # seconds; at first nobody knows who hangs
PATIENCE = 30.0  # seconds


@pytest.fixture
def service() -> Iterator[Service]:
    with closing(connect("memory:")) as driver:
        yield assemble(Settings(store="memory:"), driver)


async def hang_or_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a host with paths that hang and others that answer."""
    while not reader.at_eof():
        try:
            head = await read_request(reader)
        except asyncio.IncompleteReadError:
            return
        if b"/hangs" in head.partition(b"\r\n")[0]:
            await reader.read()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()


@dataclass
class Timed:
    """Webhooks, and when the quiet ones got through (seconds, monotonic), by body."""

    failures: int = 0  # of each quiet one, before it gets through
    inner: WebhookNotifier = field(default_factory=lambda: WebhookNotifier(WEBHOOKS))
    arrived: dict[bytes, float] = field(default_factory=dict)

    async def deliver(self, delivery: Delivery) -> Outcome:
        is_quiet = delivery.project == QUIET.project
        if is_quiet and delivery.attempt <= self.failures:
            return Outcome(kind=Kind.RETRY)
        outcome = await self.inner.deliver(delivery)
        if is_quiet and outcome.kind is Kind.DELIVERED:
            self.arrived[delivery.body] = time.monotonic()
        return outcome

    async def is_there(self, number: int) -> float:
        """Wait for something quiet, and return when it got through."""
        async with asyncio.timeout(PATIENCE):
            while b"%d" % number not in self.arrived:
                await asyncio.sleep(0.005)
        return self.arrived[b"%d" % number]

    async def close(self) -> None:
        await self.inner.close()


def post(service: Service, address: Address, number: int) -> None:
    caller = Caller(project=address.project, client_id="c")
    service.messages.post(caller, address, [Draft(body=b"%d" % number)])


@asynccontextmanager
async def working(service: Service, notifier: Timed) -> AsyncIterator[None]:
    settings, stop = WorkerSettings(in_flight=ROOM), asyncio.Event()
    worker = Worker(service.deliveries, service.subscriptions, service.pushes, notifier, settings)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE)


@pytest.mark.parametrize("where", ["one host", "other hosts"])
def test_e5_a_tenant_whose_subscribers_hang_delays_no_other(
    service: Service, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END", 0.1)  # what hangs is not waited for
    receiver, notifier, ages = Receiver(), Timed(), []

    async def run() -> None:
        async with talking(hang_or_answer) as shared, receiver.listening():
            for number in range(HANGING):
                service.subscriptions.create(LOUD, Terms(subscriber=f"{shared}/hangs/{number}"))
            quick = f"{shared}/quick" if where == "one host" else receiver.url
            service.subscriptions.create(QUIET, Terms(subscriber=quick))
            async with working(service, notifier):
                for number in range(40):
                    begun = time.monotonic()
                    post(service, LOUD, number)
                    post(service, QUIET, number)
                    ages.append(await notifier.is_there(number) - begun)
                    await asyncio.sleep(0.05)

    asyncio.run(run())
    assert sorted(ages)[len(ages) * 9 // 10] < USUAL
    assert max(ages) < LATEST


def test_e5_what_piles_up_for_who_hangs_takes_no_time_of_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END", 0.1)
    receiver, notifier = Receiver(), Timed(failures=1)

    async def run() -> float:
        async with talking(hang_or_answer) as shared, receiver.listening(), working(service, notifier):
            for number in range(HANGING):
                service.subscriptions.create(LOUD, Terms(subscriber=f"{shared}/hangs/{number}"))
            again = {"_retry_policy": {"delays": [1] * 3}}
            service.subscriptions.create(QUIET, Terms(subscriber=receiver.url, options=again))
            begun = time.monotonic()
            for number in range(100):
                post(service, LOUD, number)
            post(service, QUIET, 0)
            return await notifier.is_there(0) - begun

    assert asyncio.run(run()) < 12  # of the 25 that it takes where all of that is looked at each second
