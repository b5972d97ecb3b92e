"""More frames than threads: a bounded line, and 503 beyond it."""

from __future__ import annotations

import asyncio

import pytest

from tests.transport.websocket.live import Client, hold, run, until, world

RETRY = "The request cannot be served now. Please retry in 2 seconds."


async def crowd(clients: list[Client]) -> None:
    """Have each ask for something that waits for a store."""
    for client in clients:
        await client.send("queue_list")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "msgpack"])
def test_who_finds_the_line_too_long_is_refused_at_once_and_the_others_are_served(
    monkeypatch: pytest.MonkeyPatch, binary: bool
) -> None:
    async def scenario() -> None:
        async with world(websocket={"threads": 1, "backlog": 2}) as w:
            clients = [await w.connect(binary=binary) for _ in range(4)]
            *served, refused = clients
            called, go_on = hold(monkeypatch, w.nodes[0].service.queues, "list")
            await crowd(served)
            await called()
            await until(lambda: w.nodes[0].node.crowded)

            reply = await refused.ask("queue_list", limit=5)

            assert reply["headers"] == {"status": 503}
            assert reply["body"] == {"exception": RETRY, "error": RETRY}
            assert reply["request"]["body"] == {"limit": 5}
            assert (await refused.ask("nonsense"))["headers"] == {"status": 503}
            go_on()
            for client in served:
                assert (await client.reply())["headers"] == {"status": 200}
            await until(lambda: not w.nodes[0].node.crowded)
            await refused.do("queue_list", 200)

    run(scenario())


def test_a_frame_that_is_no_request_is_told_so_also_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with world(websocket={"threads": 1, "backlog": 0}) as w:
            busy, other = await w.connect(), await w.connect()
            called, go_on = hold(monkeypatch, w.nodes[0].service.queues, "list")
            await crowd([busy])
            await called()
            await other.socket.send_str("{")
            assert (await other.reply())["headers"] == {"status": 400}
            go_on()
            await busy.reply()

    run(scenario())


def test_who_stood_in_line_for_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with world(websocket={"threads": 1, "patience": 0.05}) as w:
            busy, late = await w.connect(), await w.connect()
            called, go_on = hold(monkeypatch, w.nodes[0].service.queues, "list")
            await crowd([busy])
            await called()
            await late.send("queue_create", queue_name="q")
            await asyncio.sleep(0.2)  # the time that it stands in line is what this is about
            go_on()
            assert (await busy.reply())["headers"] == {"status": 200}
            assert (await late.reply())["headers"] == {"status": 503}
            assert (await late.do("queue_list", 200))["queues"] == []

    run(scenario())


def test_frames_that_concern_the_connection_count_too() -> None:
    async def scenario() -> None:
        async with world(rate={"requests": 0.001, "burst": 2000}) as w:
            client = await w.connect()
            await client.subscribe()
            await client.subscribe("r")
            reply = await client.ask("subscription_create", queue_name="s", ttl=60, options={})
            assert reply["headers"] == {"status": 429}
            assert "retry in 1000 seconds" in reply["body"]["exception"]

    run(scenario())
