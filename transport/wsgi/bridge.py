"""Serves a WSGI application where requests come by ASGI, each in a thread of its own: see `transport.wsgi.threads`.

The application sees what it sees behind gunicorn: the same headers, none of them by a name with an underscore, the
path as it was sent (`RAW_URI`), and a body that is all there. What gunicorn refuses because its meaning is doubtful
is refused here too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from transport.wsgi.app import HUNG_UP
from transport.wsgi.threads import HangUp

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[object]]
Wsgi: TypeAlias = Callable[..., Iterable[bytes]]

_LONGEST_LINE = 8190  # bytes of a request's target, or of a header
_MOST_HELD = 64 * 2**20  # bytes of what comes slowly
_CLOSE = (b"connection", b"close")
_METHOD = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class _Refused(Exception):
    """What came is no request that could be answered in another way."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Bridge:
    """The ASGI application.

    `most` is how many bytes of a body are read; one that says it has more is not read at all, and the application
    refuses it. `patience` is how many seconds a body may take to come.
    """

    def __init__(self, app: Wsgi, *, most: int, patience: float) -> None:
        self._app = app
        self._most = most
        self._patience = patience
        self._lock = threading.Lock()
        self._held = 0  # bytes of bodies that come slowly

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            environ = _environ(scope)
            environ["wsgi.input"] = BytesIO(await self._body(environ, receive))
            environ[HUNG_UP] = HangUp(receive)
        except _Refused as refused:
            await _answer(send, refused.status, [_CLOSE, (b"content-length", b"0")], b"")
            return
        said: list[tuple[int, list[tuple[bytes, bytes]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
            encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            said.append((int(status[:3]), encoded))

        answer = self._app(environ, start_response)
        body = b"".join(answer)
        status, headers = said[-1]
        await _answer(send, status, headers, body)

    async def _body(self, environ: Mapping[str, Any], receive: Receive) -> bytes:
        """Read a body, or as much of it as shows that it is too long. Raises _Refused."""
        length = environ.get("CONTENT_LENGTH")
        if length is None and "HTTP_TRANSFER_ENCODING" not in environ:
            return b""
        wanted = self._most + 1 if length is None else int(length)
        if wanted == 0 or (length is not None and wanted > self._most):
            return b""
        body, more = await self._piece(receive)
        if more and len(body) < wanted:  # to be told that nothing more comes would cost another call
            body = await self._rest(body, wanted, receive)
        if length is not None and len(body) != wanted:
            raise _Refused(400)
        return body

    async def _rest(self, begun: bytes, wanted: int, receive: Receive) -> bytes:
        """Read what does not come at once, until there are so many bytes."""
        deadline = time.monotonic() + self._patience
        body, more = bytearray(begun), True
        self._hold(len(body))
        try:
            while more and len(body) < wanted:
                if time.monotonic() > deadline:
                    raise _Refused(408)
                piece, more = await self._piece(receive)
                body += piece
                self._hold(len(piece))
        finally:
            self._hold(-len(body))
        return bytes(body)

    async def _piece(self, receive: Receive) -> tuple[bytes, bool]:
        """Return the next piece, and whether there may be more."""
        try:
            message = await receive()
        except TimeoutError:
            raise _Refused(408) from None
        if message["type"] != "http.request":  # it ended in the middle, or was no body
            raise _Refused(400)
        return message.get("body", b""), bool(message.get("more_body"))

    def _hold(self, size: int) -> None:
        """Count bytes of bodies that are not all there. Raises _Refused for more than there is room for."""
        with self._lock:
            self._held += size
            if size > 0 and self._held > _MOST_HELD:
                raise _Refused(503)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=1024)
def _name(header: bytes) -> str:
    """Return what a header is called in an environ; empty for one that could be mistaken for another."""
    return "" if b"_" in header else "HTTP_" + header.decode("latin-1").upper().replace("-", "_")


def _environ(scope: Scope) -> dict[str, Any]:
    """Return what a WSGI application is to know of a request. Raises _Refused."""
    method: str = scope["method"]
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    if len(raw) + len(query) > _LONGEST_LINE:
        raise _Refused(414)
    if method == "CONNECT" or not _METHOD.issuperset(method):  # what follows CONNECT may be no HTTP
        raise _Refused(400)
    host, port = scope["server"]
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "RAW_URI": raw.decode("latin-1"),
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/1.1" if scope["http_version"] == "1.1" else "HTTP/1.0",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope["client"]:
        environ["REMOTE_ADDR"] = scope["client"][0]
    for header, value in scope["headers"]:
        name = _name(header)
        if not name:
            continue
        if len(header) + len(value) > _LONGEST_LINE:
            raise _Refused(431)
        text = value.decode("latin-1")
        environ[name] = f"{environ[name]},{text}" if name in environ else text
    _move(environ)
    return environ


def _move(environ: dict[str, Any]) -> None:
    """Give the two headers that have no prefix their names, and refuse what leaves open where a body ends."""
    if "HTTP_CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
    length = environ.pop("HTTP_CONTENT_LENGTH", None)
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None and (length is not None or coding.lower() != "chunked"):
        raise _Refused(400)
    if length is not None:
        if not (length.isascii() and length.isdigit()):
            raise _Refused(400)
        environ["CONTENT_LENGTH"] = length
    if (
        "," in environ.get("HTTP_HOST", "")
        or environ.get("HTTP_EXPECT", "100-continue").lower() != "100-continue"
    ):
        raise _Refused(400)
