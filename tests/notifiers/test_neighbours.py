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

    inner: WebhookNotifier = field(default_factory=lambda: WebhookNotifier(WEBHOOKS))
    arrived: dict[bytes, float] = field(default_factory=dict)

    async def deliver(self, delivery: Delivery) -> Outcome:
        outcome = await self.inner.deliver(delivery)
        if delivery.project == QUIET.project and outcome.kind is Kind.DELIVERED:
            self.arrived[delivery.body] = time.monotonic()
        return outcome

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

    async def quick_one(number: int) -> float:
        """Post something quiet, and return the seconds until it is delivered."""
        begun = time.monotonic()
        post(service, QUIET, number)
        while b"%d" % number not in notifier.arrived:
            await asyncio.sleep(0.005)
            assert time.monotonic() < begun + PATIENCE
        return notifier.arrived[b"%d" % number] - begun

    async def run() -> None:
        async with talking(hang_or_answer) as shared, receiver.listening():
            for number in range(HANGING):
                service.subscriptions.create(LOUD, Terms(subscriber=f"{shared}/hangs/{number}"))
            quick = f"{shared}/quick" if where == "one host" else receiver.url
            service.subscriptions.create(QUIET, Terms(subscriber=quick))
            async with working(service, notifier):
                for number in range(40):
                    post(service, LOUD, number)
                    ages.append(await quick_one(number))
                    await asyncio.sleep(0.05)

    asyncio.run(run())
    assert sorted(ages)[len(ages) * 9 // 10] < USUAL
    assert max(ages) < LATEST
