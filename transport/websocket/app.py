"""The falcon application of the websocket service."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response, WebSocket
from falcon.constants import WebSocketPayloadType
from falcon.media import BinaryBaseHandlerWS, TextBaseHandlerWS

from transport.websocket.node import Node

_READ_AHEAD = 4  # requests of a client that are read before they are handled


class _Text(TextBaseHandlerWS):
    """Leaves text as it is: what it means is the session's business."""

    def serialize(self, media: object) -> str:
        """Return text."""
        return str(media)

    def deserialize(self, payload: str) -> object:
        """Return text."""
        return payload


class _Binary(BinaryBaseHandlerWS):
    """Leaves bytes as they are, likewise."""

    def serialize(self, media: object) -> bytes:
        """Return bytes."""
        return bytes(media)  # type: ignore[call-overload,no-any-return]

    def deserialize(self, payload: bytes) -> object:
        """Return bytes."""
        return payload


class _Life:
    """Starts the node with the server, and ends it."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def process_startup(self, _scope: object, _event: object) -> None:
        """Start."""
        await self._node.start()

    async def process_shutdown(self, _scope: object, _event: object) -> None:
        """End."""
        await self._node.stop()


def create_app(node: Node) -> falcon.asgi.App[Request, Response]:
    """Return the application that serves the connections of a node, at any path."""
    app = falcon.asgi.App(middleware=[_Life(node)])
    app.ws_options.media_handlers[WebSocketPayloadType.TEXT] = _Text()
    app.ws_options.media_handlers[WebSocketPayloadType.BINARY] = _Binary()
    app.ws_options.max_receive_queue = _READ_AHEAD

    async def serve(
        req: Request,
        resp: Response | None,
        ws: WebSocket | None = None,
        **_: Any,  # noqa: ANN401 - as falcon has it
    ) -> None:
        if ws is not None:
            await node.serve(req, ws)
        elif resp is not None:
            resp.status = falcon.HTTP_426
            resp.set_headers({"Upgrade": "websocket", "Connection": "Upgrade"})
            resp.media = {"title": "Upgrade required", "description": "This is a websocket service."}

    app.add_sink(serve, "/")
    return app
