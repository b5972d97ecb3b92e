"""A node: the connections of one process, the streams that they share, and what is looked after now and then."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import falcon
import structlog
from falcon.asgi import Request, WebSocket

from queues.errors import HermodError
from queues.models import Address
from queues.service.presence import INTERVAL
from transport.service import Service
from transport.websocket.actions import actions
from transport.websocket.connection import Connection
from transport.websocket.crew import Crew
from transport.websocket.streams import Member, Stream

T = TypeVar("T")

_LOOK = 5.0  # seconds between two looks at subscriptions
_LAST = 10.0  # seconds that there are to clean up in when the process ends
_TOKENS = 60.0  # seconds between two looks at a connection's token

_log = structlog.get_logger()


class Node:
    """All connections of a process; lives in one event loop."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self.service = service
        self.settings = settings.websocket
        self.actions = actions(admin=settings.admin, pooling=settings.pooling)
        host = self.settings.notification_host or socket.gethostname()
        self.base_url = f"http://{host}:{self.settings.address()[1]}"
        self._crew: Crew | None = None  # until it starts
        self._connections: set[Connection] = set()
        self._streams: dict[Address, Stream] = {}
        self._closing = False
        self.id = str(uuid.uuid4())
        self._seen = 0.0  # monotonic seconds; when it gave a sign of life last
        self._chores: list[asyncio.Task[None]] = []
        self._ends: set[asyncio.Task[None]] = set()  # of connections

    async def start(self) -> None:
        """Begin to look after connections."""
        self._crew = Crew(self.settings.threads)
        self._chores = [
            asyncio.create_task(self._often(self.settings.heartbeat, self._beat)),
            asyncio.create_task(self._often(_LOOK, self._look_after_streams)),
            asyncio.create_task(self._often(INTERVAL, self._appear)),
            asyncio.create_task(self._often(_TOKENS, self._look_after_connections)),
        ]

    async def drain(self) -> None:
        """Tell all clients to connect again, elsewhere perhaps."""
        self._closing = True
        self.service.waiting.close()
        await asyncio.gather(*(connection.retire() for connection in self._connections))

    async def stop(self) -> None:
        """End, when the connections are closed, or would not be."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for connection in self._connections:
            self._end(connection)
        if self._ends:
            await asyncio.wait(self._ends, timeout=_LAST)
        for stream in list(self._streams.values()):
            await stream.close()
        if self._seen:
            with suppress(HermodError):
                await self.call(partial(self.service.presence.leave, self.id))
        if self._crew is not None:
            self._crew.close()

    async def serve(self, request: Request, websocket: WebSocket) -> None:
        """Serve a client for as long as it is connected."""
        self._check_origin(request)
        if self._closing or len(self._connections) >= self.settings.connections:
            raise falcon.HTTPServiceUnavailable
        await websocket.accept()
        connection = Connection(self, websocket)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            # The server gives a connection that is closed little time; what was leased is given back all the same.
            await asyncio.shield(self._end(connection))
            await connection.closed()

    def _end(self, connection: Connection) -> asyncio.Task[None]:
        """Clean up after a connection."""
        task = asyncio.create_task(connection.clean_up())
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        return task

    def call(self, work: Callable[[], T], /) -> asyncio.Future[T]:
        """Run something that waits for a store in a thread."""
        if self._crew is None:
            raise RuntimeError("The node has not started.")
        return self._crew.call(work)

    @property
    def crowded(self) -> bool:
        """Whether no more requests may stand in line for a thread."""
        return self._crew is not None and self._crew.line >= self.settings.backlog

    def check_in(self) -> bool:
        """Give a sign of life, unless one was given just now; tells whether the last one was in time."""
        if time.monotonic() - self._seen < INTERVAL / 2:
            return True
        in_time = self.service.presence.appear(self.id)
        self._seen = time.monotonic()
        return in_time

    async def join(self, member: Member) -> None:
        """Pass the messages of a queue on to a subscription."""
        address = member.subscription.address
        stream = self._streams.get(address)
        if stream is None:
            stream = self._streams[address] = Stream(self.service, address, self.call)
        try:
            await stream.join(member)
        finally:
            await self._drop_if_deserted(stream)

    async def leave(self, member: Member) -> None:
        """Pass nothing more on to a subscription."""
        stream = self._streams.get(member.subscription.address)
        if stream is not None:
            stream.leave(member)
            await self._drop_if_deserted(stream)

    async def _drop_if_deserted(self, stream: Stream) -> None:
        if stream.deserted and self._streams.get(stream.address) is stream:
            del self._streams[stream.address]
            await stream.close()

    async def part(self, member: Member) -> None:
        """Remove a subscription whose connection is closed, unless another one may go on with it."""
        await self.leave(member)
        if not member.numbered:
            subscription = member.subscription
            remove = partial(self.service.subscriptions.delete, subscription.address, subscription.id)
            try:
                await self.call(remove)
            except HermodError as error:  # it expires
                _log.warning("cannot remove a subscription", reason=str(error))

    def _check_origin(self, request: Request) -> None:
        """Refuse pages of foreign origins; raises HTTPForbidden."""
        origin = request.get_header("Origin")
        allowed = self.settings.allowed_origins
        if origin is None or "*" in allowed or origin in allowed:
            return
        if origin.partition("://")[2] != request.get_header("Host"):
            raise falcon.HTTPForbidden

    async def _often(self, seconds: float, chore: Callable[[], object]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await chore()  # type: ignore[misc]
            except HermodError as error:
                _log.warning("cannot look after connections", reason=str(error))

    async def _beat(self) -> None:
        for connection in list(self._connections):
            connection.beat()

    async def _appear(self) -> None:
        first = not self._seen
        if not await self.call(self.check_in) and not first:
            await self._look_after_streams(lapsed=True)

    async def _look_after_streams(self, *, lapsed: bool = False) -> None:
        for stream in list(self._streams.values()):
            await stream.look_after(lapsed=lapsed)

    async def _look_after_connections(self) -> None:
        for connection in list(self._connections):
            await connection.look_after()
