"""A client of the websocket service for one thread, and whether a process of it answers."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import deque
from typing import Any

import msgpack
from websocket import ABNF, WebSocketException, create_connection

from tests.acceptance.processes import ANSWER, CLIENT, PROJECT, Hermod

Frame = dict[str, Any]


class Gone(Exception):
    """There is no connection, or none any more."""


class Socket:
    """One connection, in one encoding."""

    def __init__(self, port: int, *, binary: bool = False) -> None:
        self.port = port
        self.binary = binary
        self.headers: Frame = {"Client-ID": CLIENT, "X-Project-ID": PROJECT}
        self.pushed: deque[Frame] = deque()  # what came while a reply was waited for
        try:
            self._ws = create_connection(f"ws://127.0.0.1:{port}/", timeout=ANSWER)
        except (OSError, WebSocketException) as error:
            raise Gone(str(error)) from error

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._ws.shutdown()

    def cut(self) -> None:
        """End the connection, while another thread waits for a frame."""
        with contextlib.suppress(OSError):
            if self._ws.sock is not None:
                self._ws.sock.shutdown(socket.SHUT_RDWR)

    def ask(self, action: str, **body: Any) -> Frame:
        """Send a request, and return the reply; raises Gone."""
        return self.send({"action": action, "headers": self.headers, "body": body})

    def send(self, document: Any) -> Frame:
        """Send any document, and return the reply; raises Gone."""
        try:
            if self.binary:
                self._ws.send(msgpack.packb(document), ABNF.OPCODE_BINARY)
            else:
                self._ws.send(json.dumps(document))
        except (OSError, WebSocketException) as error:
            raise Gone(str(error)) from error
        while "request" not in (frame := self._receive()):
            self.pushed.append(frame)
        return frame

    def next(self) -> Frame:
        """Return the next frame that is pushed; raises Gone."""
        return self.pushed.popleft() if self.pushed else self._receive()

    def _receive(self) -> Frame:
        """Return the next frame, which must have the encoding of this connection."""
        try:
            kind, data = self._ws.recv_data()
        except (OSError, WebSocketException) as error:
            raise Gone(str(error)) from error
        if kind == ABNF.OPCODE_CLOSE:
            raise Gone(int.from_bytes(data[:2]))
        assert kind == (ABNF.OPCODE_BINARY if self.binary else ABNF.OPCODE_TEXT), "another encoding"
        frame = msgpack.unpackb(data, strict_map_key=True) if self.binary else json.loads(data)
        assert isinstance(frame, dict)
        return frame


def answers(node: Hermod) -> bool:
    """Whether a process of the websocket service answers; fails if it has ended."""
    assert node.process is not None
    assert node.process.poll() is None, node.log
    with contextlib.suppress(Gone), Socket(node.port) as client:
        return bool(client.ask("ping_node")["headers"]["status"])
    return False
