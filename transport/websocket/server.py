"""Serves the websocket application with gunicorn's ASGI worker."""

from __future__ import annotations

import asyncio
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.asgi import websocket as gunicorn_websocket  # type: ignore[import-untyped]
from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi as gunicorn_worker  # type: ignore[import-untyped]
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]

from transport.server import GunicornServer
from transport.websocket.app import create_app
from transport.websocket.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transport.service import Service
    from transport.settings import Settings

_MARGIN = 65536  # bytes that a frame may have beside the messages in it
_HANDSHAKE = 10.0  # seconds that a client has to become one
_PONG = 0xA
_MOST_UNREAD = 1024 * 1024  # bytes that may wait to be sent when one more ping is answered
_FLUSH = 1.0  # seconds that a client has to take what was sent before its connection was closed
_AS_CODE = 3000  # that falcon adds to a status to have a code by which a connection is refused
_SPARE = 100  # connections beyond the bound, to be refused politely


class WebsocketServer(GunicornServer):
    """The websocket service."""

    scheme = "ws"

    def __init__(self, settings: Settings) -> None:
        self.node: Node | None = None  # that of a worker
        super().__init__(settings)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return self.settings.websocket.address()

    def options(self) -> Mapping[str, object]:
        """Return what is special about this service."""
        own = self.settings.websocket
        return {
            "bind": own.bind,
            "worker_class": SocketWorker,
            "workers": own.workers,
            "graceful_timeout": own.graceful_timeout,
            "worker_connections": own.connections + _SPARE,
            "websocket_max_message_size": self.settings.limits.max_messages_post_size + _MARGIN,
            "asgi_loop": "asyncio",
            "asgi_lifespan": "on",
        }

    @property
    def connections_setting(self) -> str:
        """The setting that says how many connections a worker may have."""
        return "websocket.connections"

    def application(self, service: Service) -> Callable[..., object]:
        """Build the application of a worker."""
        self.node = Node(service)
        return create_app(self.node)


class SocketWorker(ASGIWorker):  # type: ignore[misc]
    """A worker that tells its clients to go elsewhere before it ends, and pings those that are silent."""

    def init_process(self) -> None:
        """Have connections speak by our rules too."""
        SocketProtocol.ping_interval = self.app.settings.websocket.ping_interval
        # gunicorn looks the classes up when a client connects, and has no other place to say which.
        gunicorn_websocket.WebSocketProtocol = SocketProtocol
        gunicorn_worker.ASGIProtocol = BoundedProtocol
        super().init_process()

    def handle_exit_signal(self) -> None:
        """Begin to end."""
        super().handle_exit_signal()
        if self.app.node is not None:
            self._drain = self.loop.create_task(self.app.node.drain())


class BoundedProtocol(ASGIProtocol):  # type: ignore[misc]
    """A connection before its handshake: there are no more of them than fit, and none takes its time."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take it, or not."""
        super().connection_made(transport)
        if self.worker.nr_conns > self.worker.worker_connections:
            transport.abort()
        self._late = self.worker.loop.call_later(_HANDSHAKE, self._give_up)

    def connection_lost(self, error: Exception | None) -> None:
        """Let go of it."""
        self._late.cancel()
        super().connection_lost(error)
        self._flow_control.resume_writing()  # nobody shall wait for room to write into what is gone

    def _give_up(self) -> None:
        if self._websocket is None:
            self.transport.abort()


class SocketProtocol(gunicorn_websocket.WebSocketProtocol):  # type: ignore[misc]
    """One connection, as gunicorn has it, with what it lacks: pings, and an end to those who do not read."""

    ping_interval = 20.0  # seconds

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - gunicorn's
        super().__init__(*args, **named)
        self._silence = Silence(self.ping_interval, time.monotonic())

    async def run(self) -> None:
        """Serve, and ping now and then."""
        self._check_later(self.ping_interval)
        try:
            await super().run()
        finally:
            self._timer.cancel()

    def feed_data(self, data: bytes) -> None:
        """Take what the client sent."""
        self._silence.end(time.monotonic())
        super().feed_data(data)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close" and not self.accepted:
            status = HTTPStatus(message["code"] - _AS_CODE)
            self._deny(status.value, status.phrase)
            return
        await super()._send(message)
        if message["type"] == "websocket.close" and self.accepted:
            # Closing waits for the client to read; one that does not is not waited for.
            asyncio.get_running_loop().call_later(_FLUSH, self.transport.abort)

    async def _send_frame(self, opcode: int, payload: str | bytes) -> None:
        if self._close_sent:  # nothing may follow that
            return
        # Nothing waits for a client to read the answers to its pings.
        if opcode == _PONG and self.transport.get_write_buffer_size() > _MOST_UNREAD:
            self.transport.abort()
            return
        await super()._send_frame(opcode, payload)

    def _unmask(self, payload: bytes, masking_key: bytes) -> bytes:
        """Apply the mask to all bytes at once: gunicorn does it one by one."""
        size = len(payload)
        mask = (masking_key * (size // 4 + 1))[:size]
        order = sys.byteorder
        return (int.from_bytes(payload, order) ^ int.from_bytes(mask, order)).to_bytes(size, order)

    def _check_later(self, delay: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay, self._check)

    def _check(self) -> None:
        step = self._silence.step(time.monotonic())
        if step.ends:
            self.transport.abort()
            return
        if step.asks and self.accepted and not self.closed:
            self.transport.write(b"\x89\x00")
        self._check_later(step.delay)


class Step(NamedTuple):
    """What to do about a silent client, and in how many seconds to look again."""

    delay: float
    asks: bool = False
    ends: bool = False


class Silence:
    """How long a client has been silent: it is asked after one interval, and given up a whole one after that."""

    def __init__(self, interval: float, now: float) -> None:
        """Begin at `now`; both are in seconds."""
        self._interval = interval
        self._asked = False
        self._since = now

    def end(self, now: float) -> None:
        """Note that the client said something."""
        self._since = now
        self._asked = False

    def step(self, now: float) -> Step:
        """Return what is due at `now`."""
        left = self._since + self._interval - now
        if left > 0:
            return Step(left)
        if self._asked:
            return Step(0, ends=True)
        self._asked = True
        self._since = now
        return Step(self._interval, asks=True)
