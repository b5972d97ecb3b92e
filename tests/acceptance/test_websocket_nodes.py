"""Subscribers miss nothing, though websocket nodes and the notifier are killed in the middle of pushing."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType

from tests import servers
from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import CLIENT, PROJECT, Hermod

SUBSCRIBERS = 6
ROUNDS = 4  # of killing
PATIENCE = 60.0  # seconds until a test gives up
LEASE = 5  # seconds after which somebody takes over what a notifier had
SEED = 20261121

IDENTITY = {"Client-ID": CLIENT, "X-Project-ID": PROJECT}
ENVIRON = {"HERMOD_NOTIFIER_LEASE": str(LEASE)}

STORES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/shared.db",
    "redis": servers.redis_uri,
}


class Gone(Exception):
    """The connection has ended."""


class Socket:
    """A connection to a node."""

    def __init__(self, ws: ClientWebSocketResponse) -> None:
        self._ws = ws
        self.pushed: list[dict[str, Any]] = []  # what came before the reply that was waited for

    async def ask(self, action: str, **body: Any) -> dict[str, Any]:
        """Send a request, and return the reply; raises Gone."""
        with suppress(ClientError):
            await self._ws.send_str(json.dumps({"action": action, "headers": IDENTITY, "body": body}))
        while "request" not in (frame := await self.receive()):
            self.pushed.append(frame)
        return frame

    async def receive(self) -> dict[str, Any]:
        """Return the next frame; raises Gone."""
        message = await self._ws.receive()
        if message.type is not WSMsgType.TEXT:
            raise Gone(self._ws.close_code)
        frame: dict[str, Any] = json.loads(message.data)
        return frame


@asynccontextmanager
async def connected(session: ClientSession, port: int) -> AsyncIterator[Socket]:
    """Connect to a node; raises Gone where that cannot be had."""
    try:
        async with session.ws_connect(f"http://127.0.0.1:{port}/") as ws:
            yield Socket(ws)
    except (ClientError, OSError) as error:
        raise Gone(str(error)) from error


class Subscriber:
    """Reads what is pushed, at whatever node there is, and remembers what it saw."""

    def __init__(self, session: ClientSession, ports: Sequence[int]) -> None:
        self._session = session
        self._ports = itertools.cycle(ports)
        self.id: str | None = None  # of its subscription
        self.seen = 0  # the last sequence number
        self.frames: list[dict[str, Any]] = []
        self.ends: list[object] = []  # of its connections

    async def run(self) -> None:
        while True:
            try:
                async with connected(self._session, next(self._ports)) as client:
                    await self._read(client)
            except Gone as end:
                self.ends.append(end.args[0])
                await asyncio.sleep(0.02)

    async def _read(self, client: Socket) -> None:
        if self.id is None:
            made = await client.ask("subscription_create", queue_name="q", options={"sequence": True})
            assert made["headers"]["status"] == 201, made
            self.id = made["body"]["subscription_id"]
        else:
            wish = {"queue_name": "q", "subscription_id": self.id, "sequence": self.seen}
            answer = await client.ask("subscription_resume", **wish)
            if answer["headers"]["status"] == 503:
                raise Gone(503)
            assert answer["headers"]["status"] == 200, answer
            assert answer["body"]["gap"] is None
        for frame in client.pushed:
            self._take(frame)
        while True:
            self._take(await client.receive())

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["Message_Type"] == "Heartbeat":
            assert frame["previous"] <= self.seen, "it missed something"
            return
        assert frame["previous"] == self.seen, "it missed something, or was told it twice"
        assert frame["sequence"] == self.seen + 1
        self.seen = frame["sequence"]
        self.frames.append(frame)

    def bodies(self) -> list[int]:
        return [frame["body"] for frame in self.frames]


class Poster:
    """Posts numbers, one after the other, until it is told to stop."""

    def __init__(self, session: ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/v2/queues/q/messages"
        self.over = False
        self.posted: list[int] = []

    async def run(self) -> None:
        for number in itertools.count():
            if self.over:
                return
            document = {"messages": [{"body": number, "ttl": 600}]}
            async with self._session.post(self._url, json=document, headers=IDENTITY) as answer:
                assert answer.status == 201, await answer.text()
            self.posted.append(number)
            await asyncio.sleep(0.005)


async def until(condition: Callable[[], object], what: str, *tasks: asyncio.Task[None]) -> None:
    """Wait for a condition, or for the first task that fails."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        assert asyncio.get_running_loop().time() < end, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


async def answers(session: ClientSession, node: Hermod) -> None:
    """Wait until a node takes connections."""

    async def ask() -> bool:
        with suppress(Gone):
            async with connected(session, node.port) as client:
                return bool((await client.ask("ping_node"))["headers"]["status"] == 204)
        return False

    async with asyncio.timeout(PATIENCE):
        while not await ask():
            assert node.process is not None
            assert node.process.poll() is None, node.log
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("store", STORES)
def test_g6_whoever_is_killed_every_subscriber_sees_every_message_once_and_in_order(
    hermod: MakeHermod, tmp_path: Path, store: str
) -> None:
    uri = STORES[store](tmp_path)
    api = hermod("api", "--workers", "1", "--threads", "4", store=uri).start()
    nodes = [hermod("websocket", "--workers", "1", store=uri, **ENVIRON) for _ in range(2)]
    notifier = hermod("notifier", store=uri, **ENVIRON)
    for service in (*nodes, notifier):
        service.launch()
    asyncio.run(_tell_while_killing(api, nodes, notifier))


async def _tell_while_killing(api: Hermod, nodes: Sequence[Hermod], notifier: Hermod) -> None:
    chance = random.Random(SEED)
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        for node in nodes:
            await answers(session, node)
        ports = [node.port for node in nodes]
        subscribers = [Subscriber(session, ports if n % 2 else ports[::-1]) for n in range(SUBSCRIBERS)]
        reading = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
        await until(lambda: all(each.id for each in subscribers), "everybody subscribes", *reading)
        poster = Poster(session, api.port)
        posting = asyncio.create_task(poster.run())

        async def flows(number: int) -> None:
            """Wait until everybody has seen what was posted by now, and some more."""
            goal = len(poster.posted) + number
            what = "messages go on to everybody"
            await until(lambda: min(each.seen for each in subscribers) >= goal, what, posting, *reading)

        await flows(20)
        for number in range(ROUNDS):
            node = nodes[number % 2]
            if number % 3 == 2:
                notifier.kill()
                notifier.launch()
            if number == ROUNDS - 1:  # once politely
                node.terminate()
                await asyncio.to_thread(node.ended)
            else:
                node.kill()
            await flows(chance.randint(20, 60))
            node.launch()
            await answers(session, node)
        poster.over = True
        await posting
        total = len(poster.posted)
        what = "everybody has seen everything"
        await until(lambda: all(each.seen >= total for each in subscribers), what, *reading)

        told = subscribers[0].bodies()
        assert sorted(told) == poster.posted
        assert all(subscriber.bodies() == told for subscriber in subscribers)
        ends = [end for subscriber in subscribers for end in subscriber.ends]
        assert 1006 in ends, "nobody noticed a thing"
        assert 1012 in ends
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    for service in (*nodes, notifier, api):
        assert service.stop() == 0
        assert "Traceback" not in service.log


def test_messages_leased_by_a_node_that_is_killed_stay_leased_until_their_time_or_somebody_gives_them_back(
    hermod: MakeHermod, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/shared.db"
    api = hermod("api", "--workers", "1", "--threads", "4", store=uri).start()
    nodes = [hermod("websocket", "--workers", "1", store=uri) for _ in range(2)]
    for node in nodes:
        node.launch()

    async def story() -> None:
        async with ClientSession() as session, asyncio.timeout(PATIENCE):
            for node in nodes:
                await answers(session, node)
            options = {"mode": "claim", "credit": 1, "claim_ttl": 60}
            with api.client() as client, suppress(Gone):
                async with connected(session, nodes[0].port) as first:
                    await first.ask("subscription_create", queue_name="q", options=options)
                    await asyncio.to_thread(client.post, "q", ["a", "b"])
                    leased = await first.receive()
                    assert leased["message"]["body"] == "a"
                    await asyncio.to_thread(nodes[0].kill)
                    await first.receive()
            with api.client() as client:
                found = client.request("GET", f"/v2/queues/q/claims/{leased['claim_id']}")
                assert found.status == 200
                async with connected(session, nodes[1].port) as second:
                    await second.ask("subscription_create", queue_name="q", options=options)
                    other = await second.receive()
                    assert other["message"]["body"] == "b"
                    assert client.request("DELETE", f"/v2/queues/q/claims/{leased['claim_id']}").status == 204
                    claim = other["claim_id"]
                    await second.ask("claim_delete", queue_name="q", claim_id=claim)
                    frames = second.pushed or [await second.receive()]
                    assert frames[0]["message"]["body"] == "a"
                    assert frames[0]["message"]["claim_count"] == 2

    asyncio.run(story())
