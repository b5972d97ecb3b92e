"""The requests that the loads consist of, for a socket and for a WSGI application in this process."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import SplitResult, urlsplit

from bench.bodies import PRODUCER, body
from bench.conditions import BODY_SIZE

PROJECT = "bench"
QUEUE = "load"

_ID = re.compile(rb'"id"\s*:\s*"([^"]+)"')
_TTL = 86_400  # seconds, of messages
_LEASE = b'{"ttl":300,"grace":60}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where requests go, and in whose name."""

    url: str = "http://127.0.0.1:8888"  # without /v2
    project: str = PROJECT
    token: str = ""  # none is sent if empty

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = self._parts
        return parts.hostname or "", parts.port or (443 if self.secure else 80)

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self._parts.scheme == "https"

    @property
    def path(self) -> str:
        """What goes before the path of each request."""
        return self._parts.path.rstrip("/")

    def headers(self) -> Mapping[str, str]:
        """Return what every request has."""
        token = {"X-Auth-Token": self.token} if self.token else {}
        return {
            "Host": self._parts.netloc,
            "User-Agent": "bench",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Client-ID": PRODUCER,
            "X-Project-ID": self.project,
            **token,
        }

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request, ready to be sent any number of times."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    statuses: tuple[int, ...]  # of the answers that are expected

    def environ(self, target: Target) -> dict[str, Any]:
        """Return what a server would make of it."""
        headers = dict(target.headers())
        host, port = target.address
        return {
            "CONTENT_TYPE": headers.pop("Content-Type"),
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
            "SCRIPT_NAME": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "RAW_URI": self._target,
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.input": BytesIO(self.body),
        }

    def wire(self, target: Target) -> bytes:
        """Return the bytes to send."""
        headers = {**target.headers(), "Content-Length": str(len(self.body))}
        lines = [
            f"{self.method} {target.path}{self._target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    @property
    def _target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def post(count: int, size: int = BODY_SIZE, *, queue: str = QUEUE) -> Request:
    """Return a post of so many messages."""
    message = b'{"ttl":%d,"body":%s}' % (_TTL, body(size))
    document = b'{"messages":[' + b",".join([message] * count) + b"]}"
    return Request(method="POST", path=f"{_queue(queue)}/messages", body=document, statuses=(201,))


def claim(count: int, *, queue: str = QUEUE, wait: int = 0) -> Request:
    """Return a claim of so many messages, for which the service may wait so many seconds."""
    query = f"limit={count}" + (f"&wait={wait}" if wait else "")
    path = f"{_queue(queue)}/claims"
    return Request(method="POST", path=path, query=query, body=_LEASE, statuses=(201, 204))


def found(answer: bytes) -> list[str]:
    """Return the ids of the messages in the answer to a claim or a listing."""
    return [id_.decode() for id_ in _ID.findall(answer)]


def delete(ids: Sequence[str], *, queue: str = QUEUE) -> Request:
    """Return the deletion of messages."""
    path = f"{_queue(queue)}/messages"
    return Request(method="DELETE", path=path, query=f"ids={','.join(ids)}", statuses=(204,))


def get(id_: str, *, queue: str = QUEUE) -> Request:
    """Return the look at one message."""
    return Request(method="GET", path=f"{_queue(queue)}/messages/{id_}", statuses=(200,))


def list_page(limit: int = 10, *, queue: str = QUEUE) -> Request:
    """Return a listing of the first page, one's own messages included."""
    path = f"{_queue(queue)}/messages"
    return Request(method="GET", path=path, query=f"echo=true&limit={limit}", statuses=(200,))


def stats(*, queue: str = QUEUE) -> Request:
    """Return the request for the statistics."""
    return Request(method="GET", path=f"{_queue(queue)}/stats", statuses=(200,))


def subscribe(uri: str, *, queue: str = QUEUE) -> Request:
    """Return the subscription of a webhook."""
    document = json.dumps({"subscriber": uri, "ttl": _TTL, "options": {}}).encode()
    return Request(method="POST", path=f"{_queue(queue)}/subscriptions", body=document, statuses=(201,))


def drop(*, queue: str = QUEUE) -> Request:
    """Return the deletion of the queue with all that is in it."""
    return Request(method="DELETE", path=_queue(queue), statuses=(204,))


def _queue(name: str) -> str:
    return f"/v2/queues/{name}"
