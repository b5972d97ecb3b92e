"""The requests of the hot path, for a WSGI application in this process and for a socket."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from bench.bodies import PRODUCER, body
from bench.conditions import BODY_SIZE

PROJECT = "bench"
QUEUE = "load"

_QUEUE_PATH = f"/v2/queues/{QUEUE}"
_ID = re.compile(rb'"id":"([0-9a-f]{32})"')
_HEADERS = {
    "Host": "127.0.0.1",
    "User-Agent": "bench",
    "Accept": "application/json",
    "Content-Type": "application/json",
    "Client-ID": PRODUCER,
    "X-Project-ID": PROJECT,
}

_ENVIRON = {
    **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in _HEADERS.items()},
    "CONTENT_TYPE": _HEADERS["Content-Type"],
    "SCRIPT_NAME": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8888",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
}
_ENVIRON.pop("HTTP_CONTENT_TYPE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request, ready to be sent any number of times."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    status: int  # of the answer that is expected

    def environ(self) -> dict[str, Any]:
        """Return what a server would make of it."""
        return {
            **_ENVIRON,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "RAW_URI": self._target,
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.input": BytesIO(self.body),
        }

    def wire(self) -> bytes:
        """Return the bytes to send."""
        headers = {**_HEADERS, "Content-Length": str(len(self.body))}
        lines = [
            f"{self.method} {self._target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    @property
    def _target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def post(count: int, size: int = BODY_SIZE) -> Request:
    """Return a post of so many messages."""
    message = b'{"ttl":86400,"body":' + body(size) + b"}"
    document = b'{"messages":[' + b",".join([message] * count) + b"]}"
    return Request(method="POST", path=f"{_QUEUE_PATH}/messages", body=document, status=201)


def claim(count: int) -> Request:
    """Return a claim of so many messages."""
    terms = b'{"ttl":300,"grace":60}'
    return Request(
        method="POST", path=f"{_QUEUE_PATH}/claims", query=f"limit={count}", body=terms, status=201
    )


def claimed(answer: bytes) -> list[str]:
    """Return the ids of the messages in the answer to a claim."""
    return [id_.decode() for id_ in _ID.findall(answer)]


def delete(ids: Sequence[str]) -> Request:
    """Return the deletion of messages."""
    return Request(method="DELETE", path=f"{_QUEUE_PATH}/messages", query=f"ids={','.join(ids)}", status=204)


def list_page() -> Request:
    """Return a listing of the first page."""
    return Request(method="GET", path=f"{_QUEUE_PATH}/messages", query="echo=true", status=200)
