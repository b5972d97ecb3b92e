"""What a connection may cost, and how it ends. Quirks A10, G1, G3, G5."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, WSMsgType, WSServerHandshakeError

from queues.models import Role
from tests.transport.websocket.live import PROJECT, Client, World, hold, run, until, world
from transport.websocket import connection as connection_module
from transport.websocket import node as node_module
from transport.websocket import server as server_module
from transport.websocket import streams

ONCE = {"Connection": "close"}


async def refused(w: World, **options: Any) -> int:
    """Return the status with which a connection is refused."""
    with pytest.raises(WSServerHandshakeError) as caught:
        await w.connect(**options)
    return caught.value.status


# --- who may connect


def test_any_path_will_do_and_no_protocol_is_agreed_on():
    async def scenario() -> None:
        async with world() as w:
            url = f"http://127.0.0.1:{w.nodes[0].port}/any/path?and=query"
            async with w.session.ws_connect(url, protocols=("zaqar",)) as ws:
                assert ws.protocol is None

    run(scenario())


def test_what_is_no_websocket_is_told_so():
    async def scenario() -> None:
        async with world() as w:
            answer = await w.session.get(f"http://127.0.0.1:{w.nodes[0].port}/", headers=ONCE)
            assert answer.status == 426
            assert answer.headers["Upgrade"] == "websocket"
            answer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ((), None, 101),
        ((), "same", 101),
        ((), "https://console.example.org", 403),
        ((), "null", 403),
        (("https://console.example.org",), "https://console.example.org", 101),
        (("https://console.example.org",), "http://console.example.org", 403),
        (("https://console.example.org",), "https://console.example.org.evil.example", 403),
        (("*",), "https://anywhere.example", 101),
    ],
)
def test_pages_of_foreign_origins_may_not_connect(allowed, origin, status):
    async def scenario() -> None:
        async with world(websocket={"allowed_origins": allowed}) as w:
            named = f"http://127.0.0.1:{w.nodes[0].port}" if origin == "same" else origin
            headers = {} if named is None else {"Origin": named}
            if status == 101:
                client = await w.connect(headers=headers)
                await client.do("ping_node", 204)
            else:
                assert await refused(w, headers=headers) == status

    run(scenario())


def test_connections_beyond_the_bound_are_refused_until_one_ends():
    async def scenario() -> None:
        async with world(websocket={"connections": 2}) as w:
            first, second = await w.connect(), await w.connect()
            assert await refused(w) == 503
            await first.close()
            await until(lambda: len(w.nodes[0].node._connections) == 1)
            third = await w.connect()
            for client in (second, third):
                await client.do("ping_node", 204)

    run(scenario())


def test_subscriptions_beyond_the_bound_are_refused_until_one_ends():
    async def scenario() -> None:
        async with world(websocket={"subscriptions": 2}) as w:
            client = await w.connect()
            id_ = await client.subscribe("q", sequence=True)
            await client.subscribe("r", mode="claim")
            for options in ({}, {"mode": "claim"}):
                await client.do("subscription_create", 400, queue_name="s", options=options)
            assert not w.subscriptions("s")
            await client.do("subscription_resume", 400, queue_name="q", subscription_id=id_, sequence=9)
            await client.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
            await client.subscribe("s")

    run(scenario())


def test_who_does_not_become_a_client_in_time_is_dropped(monkeypatch):
    monkeypatch.setattr(server_module, "_HANDSHAKE", 1)

    async def dropped(port: int, said: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        with suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(1000), 10):
                pass
        writer.close()

    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            head = b"GET / HTTP/1.1\r\nHost: h\r\n"
            port = w.nodes[0].port
            await asyncio.gather(*(dropped(port, said) for said in (b"", head, head + b"\r\n")))
            await until(lambda: w.nodes[0].worker.nr_conns == 1)
            await client.do("ping_node", 204)

    run(scenario())


def test_connections_that_are_no_clients_are_bounded_too():
    async def scenario() -> None:
        async with world(websocket={"connections": 2}) as w, AsyncExitStack() as stack:
            client = await w.connect()
            w.nodes[0].worker.worker_connections = 5
            for _ in range(8):
                _, writer = await asyncio.open_connection("127.0.0.1", w.nodes[0].port)
                stack.callback(writer.close)
            await until(lambda: w.nodes[0].worker.nr_conns == 5)
            await client.do("ping_node", 204)

    run(scenario())


# --- what a connection may cost


def test_requests_of_a_connection_are_answered_in_their_order():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            for number in range(100):
                await client.send("message_post", queue_name="q", messages=[{"body": number}])
                await client.send("queue_get_stats", queue_name="q")
            for number in range(1, 101):
                assert len((await client.reply())["body"]["message_ids"]) == 1
                assert (await client.reply())["body"]["messages"]["total"] == number

    run(scenario())


def test_g1_a_request_that_waits_for_the_store_stalls_nobody_else(monkeypatch):
    async def scenario() -> None:
        async with world() as w:
            stuck, other, subscriber = [await w.connect() for _ in range(3)]
            await subscriber.subscribe()
            called, go_on = hold(monkeypatch, w.nodes[0].service.queues, "stats")
            await stuck.send("queue_get_stats", queue_name="q")
            await called()

            for number in range(20):
                await other.do("message_post", 201, queue_name="q", messages=[{"body": number}])
            assert await subscriber.bodies(20) == list(range(20))

            go_on()
            assert (await stuck.reply())["headers"]["status"] == 200

    run(scenario())


def test_a_frame_that_is_too_large_ends_the_connection():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            limit = w.settings.limits.max_messages_post_size
            too_much = await client.ask("message_post", queue_name="q", messages=[{"body": "x" * limit}])
            assert too_much["headers"]["status"] == 400

            await client.send("message_post", queue_name="q", messages=[{"body": "x" * (limit + 70_000)}])
            assert (await client.closed()).code == 1009

            other = await w.connect()
            await other.do("ping_node", 204)

    run(scenario())


@asynccontextmanager
async def lazy(w: World) -> AsyncIterator[Client]:
    """Connect a client that has little room for what it does not read."""

    def small(info: tuple[Any, ...]) -> socket.socket:
        made = socket.socket(*info[:3])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        return made

    async with (
        ClientSession(connector=TCPConnector(socket_factory=small)) as session,
        session.ws_connect(f"http://127.0.0.1:{w.nodes[0].port}/") as ws,
    ):
        yield Client(ws, project=PROJECT, binary=False)


async def flood(w: World, other: Client) -> None:
    """Post more than a client may leave unread, and than the system takes for it; somebody else gets it all."""
    for number in range(30):
        _, bodies = await asyncio.gather(w.post(*("x" * 200_000 for _ in range(4))), other.bodies(4))
        assert len(bodies) == 4, number


def test_g5_a_slow_consumer_is_disconnected_and_nobody_else_is_delayed():
    async def scenario() -> None:
        async with world(websocket={"send_queue": 20}) as w, lazy(w) as slow:
            await slow.subscribe()
            (connection,) = w.nodes[0].node._connections
            other = await w.connect()
            await other.subscribe()

            await flood(w, other)

            assert connection._closing is not None
            assert not connection._outgoing
            end = await slow.closed()
            assert end.code == 1008
            assert len(w.subscriptions()) == 1

    run(scenario())


def test_g5_a_consumer_that_never_reads_is_not_waited_for():
    async def scenario() -> None:
        async with world(websocket={"send_queue": 20}) as w, lazy(w) as slow:
            await slow.subscribe()
            (connection,) = w.nodes[0].node._connections
            other = await w.connect()
            await other.subscribe()
            await flood(w, other)
            await until(lambda: len(w.nodes[0].node._connections) == 1)
            await until(lambda: w.nodes[0].worker.nr_conns == 1)
            await until(lambda: connection._sender is None, "nothing is left of it")

    run(scenario())


def test_a_client_that_pings_and_never_reads_is_dropped(monkeypatch):
    monkeypatch.setattr(server_module, "_MOST_UNREAD", 2**16)

    async def scenario() -> None:
        async with world() as w, lazy(w) as client:
            transport = client.socket._writer.transport
            ping = b"\x89\xfd" + bytes(4) + b"x" * 125
            while not transport.is_closing():
                transport.write(ping * 100)
                await asyncio.sleep(0)
            await until(lambda: not w.nodes[0].node._connections)

    run(scenario())


def test_who_reads_is_not_disconnected_however_much_comes_at_once(monkeypatch):
    monkeypatch.setattr(connection_module, "_MOST_BYTES", 2 * 2**20)
    monkeypatch.setattr(streams, "_MUCH", 2**18)

    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()
            _, go_on = hold(monkeypatch, w.nodes[0].service.pushes, "read")
            for _ in range(20):
                await w.post(*("x" * 60_000 for _ in range(5)))
            await until(lambda: w.told() == 100)
            go_on()
            assert len(await client.bodies(100)) == 100

    run(scenario())


# --- silence


@pytest.mark.parametrize("late", [0, 0.02, 5], ids=["in time", "a little late", "late"])
def test_who_answers_is_asked_again_and_again_however_late_the_timer_is(late):
    now = 0.0
    silence = server_module.Silence(20, now)
    asked = 0
    delay = 20.0
    for _ in range(100):
        now += delay + late
        step = silence.step(now)
        assert not step.ends
        if step.asks:
            asked += 1
            silence.end(now + 0.01)
        delay = step.delay
    assert asked >= 40


def test_who_does_not_answer_is_given_up_after_an_interval():
    silence = server_module.Silence(20, 0)
    assert silence.step(20) == (20, True, False)
    assert silence.step(39.9).ends is False
    assert silence.step(40).ends is True


def test_a_silent_client_is_pinged_and_stays_as_long_as_it_answers():
    async def scenario() -> None:
        async with world(websocket={"ping_interval": 1.5}) as w:
            client = await w.connect(autoping=False)
            for _ in range(2):
                assert (await client.socket.receive(10)).type is WSMsgType.PING
                await client.socket.pong()
            await client.do("ping_node", 204)

    run(scenario())


def test_a_client_that_does_not_answer_is_dropped():
    async def scenario() -> None:
        async with world(websocket={"ping_interval": 0.5}) as w:
            client = await w.connect(autoping=False)
            await client.subscribe()
            while (message := await client.socket.receive(10)).type is WSMsgType.PING:
                pass
            assert message.type is WSMsgType.CLOSED
            assert client.socket.close_code == 1006  # without a word
            await until(lambda: not w.subscriptions())

    run(scenario())


def test_a_client_that_talks_is_not_pinged():
    async def scenario() -> None:
        async with world(websocket={"ping_interval": 1.0}) as w:
            client = await w.connect(autoping=False)
            for _ in range(30):
                await client.do("ping_node", 204)  # fails at anything but a reply
                await asyncio.sleep(0.07)

    run(scenario())


def test_a_connection_that_is_of_no_use_is_closed_and_one_with_a_subscription_is_not(monkeypatch):
    monkeypatch.setattr(node_module, "_TOKENS", 0.05)

    async def scenario() -> None:
        async with world(websocket={"idle_timeout": 1}) as w:
            idle, pushed, leased = [await w.connect() for _ in range(3)]
            await pushed.subscribe()
            await leased.subscribe("r", mode="claim")

            end = await idle.closed()

            assert end.code == 1001
            await w.post(1)
            assert await pushed.bodies(1) == [1]
            await leased.do("ping_node", 204)

    run(scenario())


# --- tokens


def test_a_connection_is_closed_when_its_token_expires_unless_another_one_came():
    async def scenario() -> None:
        async with world(auth_strategy="token") as w:
            client, other = await w.connect(), await w.connect()

            async def authenticate(who: Client, seconds: float) -> None:
                expires = w.clock() + int(seconds * 1000)
                _, who.headers["X-Auth-Token"] = w.service.tokens.create(
                    PROJECT, Role.MEMBER, expires=expires
                )
                await who.do("authenticate", 200)
                del who.headers["X-Auth-Token"]

            await authenticate(client, 1.5)
            await authenticate(other, 1.5)
            await authenticate(other, 60)
            await client.subscribe()
            await other.subscribe()

            end = await client.closed()

            assert (end.code, end.reason) == (4003, "Authentication expired.")
            await other.do("queue_list", 200)
            await w.post(1)
            assert await other.bodies(1) == [1]

    run(scenario())


def test_a_connection_is_closed_when_its_token_is_revoked(monkeypatch):
    monkeypatch.setattr(node_module, "_TOKENS", 0.05)

    async def scenario() -> None:
        async with world(auth_strategy="token") as w:
            client = await w.connect()
            token, client.headers["X-Auth-Token"] = w.service.tokens.create(PROJECT, Role.MEMBER)
            await client.do("authenticate", 200)
            await client.subscribe()
            w.service.tokens.revoke(token.id)
            assert (await client.closed()).code == 4003

    run(scenario())


# --- nobody else can speak to a connection


def test_a10_g3_the_subscriber_that_is_shown_opens_no_way_to_a_connection():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()
            (shown,) = (await client.do("subscription_list", 200, queue_name="q"))["subscriptions"]
            path = shown["subscriber"].rpartition("/")[2]
            injected = {"body": "injected", "Message_Type": "Notification"}
            for method in ("POST", "PUT", "GET"):
                url = f"http://127.0.0.1:{w.nodes[0].port}/{path}"
                async with w.session.request(method, url, json=injected, headers=ONCE) as answer:
                    assert answer.status == 426
            assert await client.nothing_pushed()

    run(scenario())
