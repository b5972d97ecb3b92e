"""Long polling over a connection: requests that wait for messages, without a thread."""

from __future__ import annotations

import asyncio

import pytest

from queues.errors import StoreUnavailable
from tests.transport.websocket.live import World, hold, run, until, world


async def until_waiting(w: World, count: int = 1) -> None:
    """Wait until so many requests wait, and watch their queues."""
    room = w.nodes[0].service.waiting
    await until(lambda: sum(len(line.members) for line in room._all) == count)
    await until(lambda: all(line.store for line in room._all))


def test_a_claim_waits_for_a_message():
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.send("claim_create", queue_name="q", wait=20)
            await until_waiting(w)
            await w.post(1, 2)
            body = (await client.reply())["body"]
            assert [message["body"] for message in body["messages"]] == [1, 2]

    run(scenario())


def test_a_listing_waits_for_a_message():
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.send("message_list", queue_name="q", wait=20)
            await until_waiting(w)
            await w.post(1)
            assert [message["body"] for message in (await client.reply())["body"]["messages"]] == [1]

    run(scenario())


def test_it_waits_no_longer_than_it_was_told():
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            start = asyncio.get_running_loop().time()
            assert await client.do("claim_create", 204, queue_name="q", wait=1) == {"claim_id": None}
            assert 0.99 < asyncio.get_running_loop().time() - start < 10

    run(scenario())


@pytest.mark.parametrize("seconds", [-1, 21, "1", 1.5, True])
def test_a_time_out_of_range_is_refused(seconds):
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.do("claim_create", 400, queue_name="q", wait=seconds)
            await client.do("message_list", 400, queue_name="q", wait=seconds)

    run(scenario())


def test_requests_behind_it_are_answered_after_it_in_order():
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.send("claim_create", queue_name="q", wait=20)
            await client.send("ping_node")
            await client.send("queue_list")
            await until_waiting(w)
            await w.post(1)
            actions = [(await client.reply())["request"]["action"] for _ in range(3)]
            assert actions == ["claim_create", "ping_node", "queue_list"]

    run(scenario())


def test_many_wait_without_a_thread():
    async def scenario() -> None:
        async with world(notifying=False, websocket={"threads": 2}) as w:
            clients = [await w.connect() for _ in range(50)]
            for client in clients:
                await client.send("claim_create", queue_name="q", limit=1, wait=20)
            await until_waiting(w, 50)
            other = await w.connect()
            await other.do("ping_node", 204)
            await w.post(*range(50))
            found = [(await client.reply())["body"]["messages"][0]["body"] for client in clients]
            assert sorted(found) == list(range(50))

    run(scenario())


@pytest.mark.parametrize("more", [0, 1, 40])
def test_who_goes_while_it_waits_takes_nothing(more):
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client, other = await w.connect(), await w.connect()
            await client.send("claim_create", queue_name="q", wait=20)
            for _ in range(more):
                await client.send("ping_node")
            await until_waiting(w)
            await other.send("claim_create", queue_name="q", wait=20)
            await until_waiting(w, 2)
            client.vanish()
            await until(lambda: len(w.nodes[0].node._connections) == 1)
            await w.post(1)
            assert [each["body"] for each in (await other.reply())["body"]["messages"]] == [1]

    run(scenario())


def test_what_was_claimed_just_when_the_client_goes_is_given_back(monkeypatch):
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.send("claim_create", queue_name="q", wait=20)
            await until_waiting(w)
            called, go_on = hold(monkeypatch, w.driver.messages, "claim", after=True)
            await w.post(1)
            await called()
            client.vanish()
            await until(lambda: not w.nodes[0].worker.nr_conns)
            assert w.free() == 0
            go_on()
            await until(lambda: w.free() == 1)

    run(scenario())


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailable, 503), (ZeroDivisionError, 500)], ids=["store", "mistake"]
)
def test_what_fails_meanwhile_is_told_and_costs_no_connection(monkeypatch, error, status):
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.send("claim_create", queue_name="q", wait=20)
            await until_waiting(w)

            def fail(*_: object, **__: object) -> None:
                raise error

            monkeypatch.setattr(w.driver.messages, "claim", fail)
            await w.post(1)
            assert (await client.reply())["headers"]["status"] == status
            await client.do("ping_node", 204)

    run(scenario())
