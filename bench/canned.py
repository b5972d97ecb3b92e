"""A server that answers each request at once, with the same bytes: what the load generator can do at most.

`python -m bench.canned --bind HOST:PORT`
"""

from __future__ import annotations

import asyncio
import re

import click

from bench.bodies import body

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _answer(status: bytes, document: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(document) if document else b""
    return b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n" + document


_MESSAGES = b",".join(
    b'{"id":"%032x","href":"/v2/queues/q/messages/%032x","ttl":86400,"age":0,"body":%s}' % (n, n, body())
    for n in range(10)
)
_POSTED = _answer(b"201 Created", b'{"resources":["/v2/queues/q/messages/0"]}')
_CLAIMED = _answer(b"201 Created", b'{"messages":[' + _MESSAGES + b"]}")
_LISTED = _answer(b"200 OK", b'{"links":[],"messages":[' + _MESSAGES + b"]}")
_DELETED = _answer(b"204 No Content")


class Canned(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end)
            after = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < after:
                return
            self._transport.write(_answer_to(self._buffer))
            self._buffer = self._buffer[after:]


def _answer_to(request: bytes) -> bytes:
    method, path, _ = request.split(b" ", 2)
    if method == b"GET":
        return _LISTED
    if method == b"DELETE":
        return _DELETED
    return _CLAIMED if b"/claims" in path else _POSTED


async def _serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Canned, host, port)
    await server.serve_forever()


@click.command()
@click.option("--bind", required=True)
def main(bind: str) -> None:
    """Serve until the process is ended."""
    host, _, port = bind.rpartition(":")
    asyncio.run(_serve(host, int(port)))


if __name__ == "__main__":
    main()
