"""The websocket service in this process: gunicorn's worker with its sockets, a store in memory, and real clients.

A scenario runs in the event loop of the workers, of the notifier and of the clients. Every wait has an end.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType

from queues.models import Address, Caller
from queues.ports import Driver
from queues.service.messages import Draft
from storage.registry import connect
from transport.server import _QuietLogger
from transport.service import Service
from transport.settings import Settings
from transport.websocket.server import SocketWorker, WebsocketServer
from transport.wiring import assemble, notifier_worker

PATIENCE = 15.0  # seconds until a test gives up; far more than anything here takes
CLIENT = "30387f00-4ff4-4f4f-8d5c-4b3a7c5c2f10"
ANOTHER = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
PROJECT = "blue"

Document: TypeAlias = dict[str, Any]


class Closed(Exception):
    """The service closed the connection."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Client:
    """One connection. Replies and what is pushed arrive in one stream, and are kept apart here."""

    def __init__(self, socket: ClientWebSocketResponse, *, project: str, binary: bool) -> None:
        self.socket = socket
        self.headers: Document = {"Client-ID": CLIENT, "X-Project-ID": project}
        self.binary = binary
        self.received: list[tuple[WSMsgType, Document]] = []  # all frames
        self._replies: deque[Document] = deque()
        self._pushed: deque[Document] = deque()

    async def ask(self, action: str, *, binary: bool | None = None, **body: Any) -> Document:
        """Send a request and return the whole reply."""
        await self.send(action, binary=binary, **body)
        return await self.reply()

    async def send(self, action: str, *, binary: bool | None = None, **body: Any) -> None:
        """Send a request."""
        frame = {"action": action, "headers": self.headers, "body": body}
        if self.binary if binary is None else binary:
            await self.socket.send_bytes(msgspec.msgpack.encode(frame))
        else:
            await self.socket.send_str(json.dumps(frame))

    async def reply(self) -> Document:
        """Return the reply to a request that was sent."""
        while not self._replies:
            await self._receive()
        return self._replies.popleft()

    async def do(self, action: str, status: int, **body: Any) -> Any:
        """Send a request that must be answered so; return the body of the reply."""
        reply = await self.ask(action, **body)
        assert reply["headers"]["status"] == status, reply
        return reply["body"]

    async def subscribe(self, queue_name: str = "q", /, *, ttl: int = 3600, **options: Any) -> str:
        """Subscribe this connection; return the id of the subscription."""
        made = await self.do("subscription_create", 201, queue_name=queue_name, ttl=ttl, options=options)
        return str(made["subscription_id"])

    async def pushed(self) -> Document:
        """Return the next frame that is no reply."""
        while not self._pushed:
            await self._receive()
        return self._pushed.popleft()

    async def bodies(self, count: int) -> list[Any]:
        """Return the bodies of the next notifications."""
        return [(await self.notification())["body"] for _ in range(count)]

    async def notification(self) -> Document:
        """Return the next notification, dropping the heartbeats before it."""
        while (frame := await self.pushed())["Message_Type"] != "Notification":
            pass
        return frame

    async def heartbeat(self) -> Document:
        """Return the next heartbeat, dropping what is before it."""
        while (frame := await self.pushed())["Message_Type"] != "Heartbeat":
            pass
        return frame

    async def nothing_pushed(self) -> bool:
        """Whether no frame that is no reply is there before the answer to a request; what is there is dropped."""
        await self.do("ping_node", 204)
        nothing = not self._pushed
        self._pushed.clear()
        return nothing

    async def closed(self) -> Closed:
        """Wait until the service closes the connection, dropping what comes before that."""
        try:
            while True:
                await self._receive()
        except Closed as end:
            return end

    async def close(self) -> None:
        """Close the connection politely."""
        await self.socket.close()

    def vanish(self) -> None:
        """End the connection without a word."""
        transport = self.socket._writer.transport
        assert transport is not None
        transport.abort()

    async def _receive(self) -> None:
        async with asyncio.timeout(PATIENCE):
            message = await self.socket.receive()
        if message.type is WSMsgType.TEXT:
            frame = json.loads(message.data)
        elif message.type is WSMsgType.BINARY:
            frame = msgspec.msgpack.decode(message.data)
        else:
            raise Closed(self.socket.close_code, str(message.extra or ""))
        self.received.append((message.type, frame))
        (self._replies if "request" in frame else self._pushed).append(frame)


class _Server(WebsocketServer):
    """The service over a store that is open already."""

    def __init__(self, service: Service) -> None:
        self._service = service
        super().__init__(service.settings)

    def load(self) -> Callable[..., object]:
        return self.application(self._service)


class _Worker(SocketWorker):
    """A worker that lives in the event loop of a test, and gets no signals."""

    def _setup_event_loop(self) -> None:
        self.loop = asyncio.get_running_loop()

    def init_signals(self) -> None:
        pass

    def run(self) -> None:
        self._idle = True
        self.serving = self.loop.create_task(self._serve())

    def look(self) -> None:
        """Look at once whether it is to end: by itself it does so every second."""
        if self._idle:
            self._idle = False
            self.serving.cancel()


@dataclass(frozen=True)
class _Listener:
    """A socket as gunicorn wraps it."""

    sock: socket.socket

    def fileno(self) -> int:
        return self.sock.fileno()


class Live:
    """One node: a worker of the websocket service."""

    def __init__(self, service: Service, session: ClientSession) -> None:
        self.service = service
        self._session = session
        self._clients: list[Client] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.server = _Server(service)
        self.worker = _Worker(
            0,
            os.getppid(),
            [_Listener(self._listener)],
            self.server,
            30,
            self.server.cfg,
            _QuietLogger(self.server.cfg),
        )
        self.worker.init_process()

    @property
    def node(self) -> Any:
        """The heart of it."""
        return self.server.node

    async def connect(self, *, project: str = PROJECT, binary: bool = False, **options: Any) -> Client:
        """Return a new connection; raises aiohttp's error where it is refused."""
        opened = await self._session.ws_connect(f"http://127.0.0.1:{self.port}/", **options)
        client = Client(opened, project=project, binary=binary)
        self._clients.append(client)
        return client

    def terminate(self) -> None:
        """Do what SIGTERM does."""
        self.worker.handle_exit_signal()
        self.worker.look()

    async def ended(self) -> None:
        """Wait for the end of the worker."""
        async with asyncio.timeout(PATIENCE):
            await self.worker.serving

    async def stop(self) -> None:
        """End, and wait for that."""
        for client in self._clients:
            client.vanish()
        self.worker.alive = False
        self.worker.look()
        await self.ended()
        for number in self.worker.PIPE:
            os.close(number)
        self.worker.tmp.close()
        self._listener.close()


class Clock:
    """The time of day of a store, which a test can put on; it goes on by itself."""

    def __init__(self) -> None:
        self._ahead = 0  # ms

    def __call__(self) -> int:
        return int(time.time() * 1000) + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += int(seconds * 1000)


@dataclass
class World:
    """Nodes over one store, and what a test does beside them."""

    clock: Clock
    driver: Driver
    settings: Settings
    session: ClientSession
    service: Service
    nodes: list[Live] = field(default_factory=list)

    def node(self) -> Live:
        """Start one more node."""
        self.nodes.append(Live(assemble(self.settings, self.driver, clock=self.clock), self.session))
        return self.nodes[-1]

    @asynccontextmanager
    async def notifying(self) -> AsyncIterator[None]:
        """Run a notifier until the block is over."""
        stop = asyncio.Event()
        task = asyncio.create_task(notifier_worker(self.service).run(stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await task

    async def connect(self, **options: Any) -> Client:
        """Return a new connection to the first node."""
        return await self.nodes[0].connect(**options)

    async def post(self, *bodies: Any, queue: str = "q", project: str = PROJECT, **members: Any) -> list[str]:
        """Post messages, all in one post, as another client would over REST."""
        drafts = [Draft(body=json.dumps(body).encode(), **members) for body in bodies]
        caller, address = Caller(project=project, client_id=ANOTHER), Address(project=project, queue=queue)
        posted = await asyncio.to_thread(self.service.messages.post, caller, address, drafts)
        return list(posted.ids)

    def free(self, queue: str = "q") -> int:
        """Return how many messages of a queue nobody has claimed."""
        return self.service.queues.stats(Address(project=PROJECT, queue=queue))[0].free

    def told(self, queue: str = "q") -> int:
        """Return how many messages those who are connected have been told of, in all."""
        log = Address(project=PROJECT, queue=f"{queue}>pushed")
        return self.driver.messages.outlook(log, now=self.clock()).last

    def subscriptions(self, queue: str = "q") -> Sequence[str]:
        """Return the ids of the subscriptions of a queue."""
        found = self.service.subscriptions.all(Address(project=PROJECT, queue=queue))
        return [each.id for each in found]


async def until(condition: Callable[[], object], what: str = "it comes true") -> None:
    """Wait for a condition."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited in vain until {what}") from None


def hold(
    monkeypatch: pytest.MonkeyPatch, part: object, name: str, *, after: bool = False
) -> tuple[Callable[[], Awaitable[None]], Callable[[], None]]:
    """Let a method pause in its thread, before or after what it does.

    Return what waits until it is called, and what lets it go on, then and later.
    """
    real = getattr(part, name)
    at_it, may_go = threading.Event(), threading.Event()

    def held(*arguments: Any, **named: Any) -> Any:
        answer = real(*arguments, **named) if after else None
        at_it.set()
        assert may_go.wait(PATIENCE)
        return answer if after else real(*arguments, **named)

    async def called() -> None:
        await until(at_it.is_set, f"{name} is called")

    monkeypatch.setattr(part, name, held)
    return called, may_go.set


@asynccontextmanager
async def world(
    uri: str = "memory:", *, nodes: int = 1, notifying: bool = True, **settings: Any
) -> AsyncIterator[World]:
    """Run nodes, and a notifier, until the block is over."""
    wanted = Settings(store=uri, **settings)
    clock = Clock()
    driver = connect(uri, timeout=wanted.storage.timeout, clock=clock)
    async with AsyncExitStack() as stack:
        stack.callback(driver.close)
        session = await stack.enter_async_context(ClientSession(connector=TCPConnector(limit=0)))
        found = World(clock, driver, wanted, session, assemble(wanted, driver, clock=clock))
        if notifying:
            await stack.enter_async_context(found.notifying())
        for _ in range(nodes):
            found.node()
        try:
            yield found
        finally:
            await asyncio.gather(*(node.stop() for node in found.nodes))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario to its end."""
    asyncio.run(scenario)
