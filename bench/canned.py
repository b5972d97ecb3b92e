"""A server that answers each request at once, with the same bytes: what the load generator can do at most.

`python -m bench.canned --bind HOST:PORT`
"""

from __future__ import annotations

import asyncio

import click

from bench.answering import Answering
from bench.bodies import body


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


class Canned(Answering):
    """One connection."""

    def answer(self, head: bytes, _body: bytes) -> bytes:
        """Return what was made beforehand."""
        method, path, _ = head.split(b" ", 2)
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
