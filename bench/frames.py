"""Websockets over plain sockets, with frames made beforehand: a library for them costs more than the server does."""

from __future__ import annotations

import base64
import os
import selectors
import socket
import time
from collections.abc import Sequence

_TEXT = 0x81  # the first byte of a frame that is all of a message
_LONG, _LONGER = 126, 127  # in place of a length: two bytes, or eight, follow
_MASKED = 0x80
_NO_MASK = bytes(4)  # which leaves the bytes as they are


def frame(text: bytes) -> bytes:
    """Return a frame as a client sends it; of less than 64 KiB."""
    size = len(text)
    length = bytes((size | _MASKED,)) if size < _LONG else bytes((_LONG | _MASKED,)) + size.to_bytes(2)
    return bytes((_TEXT,)) + length + _NO_MASK + text


class Client:
    """A connection; at most one request is under way."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET / HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        self.socket.sendall("\r\n".join((*lines, "", "")).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._more()
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"the handshake was answered by {answer[:100]!r}")
        self._received = b""

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def receive(self) -> bytes | None:
        """Take what has arrived of a message; return it when it is whole. Raises OSError."""
        self._received += self._more()
        data = self._received
        if len(data) < 2:
            return None
        begin, size = 2, data[1]
        if size == _LONG:
            begin, size = 4, int.from_bytes(data[2:4])
        elif size == _LONGER:
            begin, size = 10, int.from_bytes(data[2:10])
        if len(data) < begin + size:
            return None
        self._received = data[begin + size :]
        return data[begin : begin + size]

    def _more(self) -> bytes:
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part


def keep_asking(clients: Sequence[Client], request: bytes, expected: bytes, seconds: float) -> int:
    """Send a frame over each connection again and again, as soon as it is answered; return how often it was.

    Raises ConnectionError for an answer that does not have what is expected.
    """
    count = 0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.socket.sendall(request)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(1.0):
                client = key.data
                answer = client.receive()
                if answer is None:
                    continue
                if expected not in answer:
                    raise ConnectionError(f"the service answered {answer[:200]!r}")
                count += 1
                client.socket.sendall(request)
    return count
