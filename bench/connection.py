"""HTTP over a plain socket, with requests made beforehand: a library for HTTP costs more than the server does."""

from __future__ import annotations

import re
import socket
import ssl
from typing import NamedTuple

from bench.rest import Request, Target

TIMEOUT = 30.0  # seconds for the server to go on

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Answer(NamedTuple):
    """What the server answered."""

    status: int
    body: bytes
    last: bool  # whether the server closes the connection behind it


class Unexpected(ConnectionError):
    """The server did not answer as it should."""


class Connection:
    """One kept-alive connection; at most one request is under way."""

    def __init__(self, target: Target) -> None:
        self.target = target
        plain = socket.create_connection(target.address, timeout=TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        if target.secure:
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(plain, server_hostname=target.address[0])
        self._received = b""

    def fileno(self) -> int:
        """Return the number by which it can be waited for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, wire: bytes) -> None:
        """Send the bytes of a request."""
        self._socket.sendall(wire)

    def receive(self) -> Answer | None:
        """Take what has arrived, or wait for it; None while the answer is not complete.

        Raises OSError.
        """
        answer = None
        while answer is None:
            part = self._socket.recv(65536)
            if not part:
                raise Unexpected("the server closed the connection")
            self._received += part
            answer = _parse(self._received)
            if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                break
        if answer is not None:
            self._received = b""
        return answer

    def ask(self, request: Request) -> Answer:
        """Send a request and wait for the answer; raises OSError, also for one that is not expected."""
        return self.exchange(request.wire(self.target), request)

    def exchange(self, wire: bytes, request: Request) -> Answer:
        """Do the same with the bytes that were made of the request beforehand."""
        self.send(wire)
        answer = None
        while answer is None:
            answer = self.receive()
        if answer.status not in request.statuses:
            raise Unexpected(
                f"{request.method} {request.path} was answered by {answer.status}: {answer.body[:200]!r}"
            )
        return answer


def _parse(received: bytes) -> Answer | None:
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    body = received[end + 4 :]
    length = _LENGTH.search(received, 0, end)
    if length:
        if len(body) < int(length[1]):
            return None
    elif _CHUNKED.search(received, 0, end + 2):
        whole = _joined(body)
        if whole is None:
            return None
        body = whole
    return Answer(int(received[9:12]), body, _CLOSE.search(received, 0, end + 2) is not None)


def _joined(chunks: bytes) -> bytes | None:
    """Return what the chunks of a body contain, None while some are missing."""
    body, at = b"", 0
    while (line := chunks.find(b"\r\n", at)) >= 0:
        size = int(chunks[at:line].partition(b";")[0], 16)
        if len(chunks) < line + 2 + size + 2:
            return None
        if not size:
            return body
        body += chunks[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
    return None
