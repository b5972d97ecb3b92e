"""A node that is told to stop loses nothing, and tells its clients to go elsewhere."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientConnectionError, WSServerHandshakeError

from tests.transport.websocket.live import Client, hold, run, until, world

RESTART = (1012, "The service restarts; connect again.")


async def told(client: Client) -> tuple[int | None, str]:
    """Return with which words a client is sent away."""
    end = await client.closed()
    return end.code, end.reason


def test_every_client_is_told_to_connect_again():
    async def scenario() -> None:
        async with world() as w:
            clients = [await w.connect() for _ in range(20)]
            await clients[0].subscribe()

            w.nodes[0].terminate()

            assert await asyncio.gather(*map(told, clients)) == [RESTART] * 20
            await w.nodes[0].ended()

    run(scenario())


def test_a_request_in_flight_is_answered_first(monkeypatch):
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            called, go_on = hold(monkeypatch, w.nodes[0].service.messages, "post")
            await client.send("message_post", queue_name="q", messages=[{"body": 1}])
            await client.send("message_post", queue_name="q", messages=[{"body": 2}])
            await called()

            w.nodes[0].terminate()
            await until(lambda: w.nodes[0].node._closing)
            go_on()

            assert (await client.reply())["headers"]["status"] == 201
            assert await told(client) == RESTART
            assert w.free() == 1  # the other one was not begun, since nobody would hear of it

    run(scenario())


def test_who_waits_for_messages_is_answered_at_once():
    async def scenario() -> None:
        async with world() as w:
            claiming, reading = await w.connect(), await w.connect()
            await claiming.send("claim_create", queue_name="q", wait=20)
            await reading.send("message_list", queue_name="q", wait=20)
            await until(lambda: len(w.nodes[0].service.waiting._all) == 2)

            w.nodes[0].terminate()

            assert (await claiming.reply())["body"] == {"claim_id": None}
            assert (await reading.reply())["body"] == {"messages": []}
            assert await told(claiming) == await told(reading) == RESTART

    run(scenario())


def test_what_was_to_be_sent_is_sent():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()
            await w.post(*("x" * 10_000 for _ in range(300)))
            assert len(await client.bodies(1)) == 1
            await until(lambda: w.told() == 300)
            (stream,) = w.nodes[0].node._streams.values()
            await until(lambda: stream._position.place == 300)

            w.nodes[0].terminate()

            assert len(await client.bodies(299)) == 299
            assert await told(client) == RESTART

    run(scenario())


def test_what_is_leased_is_given_back_before_the_process_ends():
    async def scenario() -> None:
        async with world() as w:
            client, silent = await w.connect(), await w.connect()
            await client.subscribe(mode="claim", credit=2)
            await silent.subscribe(mode="claim", credit=2)
            await w.post(1, 2, 3, 4)
            await until(lambda: w.free() == 0)

            w.nodes[0].terminate()
            assert await told(client) == RESTART
            silent.vanish()
            await w.nodes[0].ended()

            assert w.free() == 4

    run(scenario())


def test_a_client_that_does_not_go_is_not_waited_for_and_what_it_leased_is_given_back():
    async def scenario() -> None:
        async with world(websocket={"graceful_timeout": 1}) as w:
            client = await w.connect()
            await client.subscribe(mode="claim")
            await w.post(1)
            await client.pushed()

            w.nodes[0].terminate()
            await w.nodes[0].ended()  # the client has not read a word of it

            assert w.free() == 1

    run(scenario())


def test_who_leases_does_not_ask_the_store_again_and_again_while_it_is_sent_away(monkeypatch):
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe(mode="claim")
            await until(lambda: w.nodes[0].service.waiting._all)
            (line,) = w.nodes[0].service.waiting._all
            await until(lambda: line.store is not None)
            calls = 0
            real = w.nodes[0].service.claims.create

            def create(*arguments: object, **named: object) -> object:
                nonlocal calls
                calls += 1
                return real(*arguments, **named)  # type: ignore[arg-type]

            monkeypatch.setattr(w.nodes[0].service.claims, "create", create)
            w.nodes[0].terminate()
            await asyncio.sleep(0.3)  # it has not read that it is to go yet
            assert await told(client) == RESTART
            assert calls <= 1

    run(scenario())


def test_nobody_may_connect_any_more():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            w.nodes[0].terminate()
            with pytest.raises((WSServerHandshakeError, ClientConnectionError)):
                await w.connect()
            assert await told(client) == RESTART

    run(scenario())


def test_subscribers_go_on_at_another_node_and_miss_nothing():
    async def scenario() -> None:
        async with world(nodes=2) as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await w.post(1, 2, 3)
            assert await client.bodies(3) == [1, 2, 3]
            w.nodes[0].terminate()
            await w.post(4)
            assert await told(client) == RESTART
            seen = max(frame.get("sequence", 0) for _, frame in client.received)
            await w.post(5)

            again = await w.nodes[1].connect()
            await again.do("subscription_resume", 200, queue_name="q", subscription_id=id_, sequence=seen)
            assert await again.bodies(5 - seen) == list(range(seen + 1, 6))

    run(scenario())
