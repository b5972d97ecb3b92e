"""A REST request as the endpoints see it: caller, path, query, body."""

from __future__ import annotations

import re
from typing import TypeVar

import falcon
import msgspec

from queues.errors import Invalid
from queues.models import Caller
from transport.documents import decode
from transport.problems import InvalidParameter, MalformedBody
from transport.service import Service

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}").fullmatch
_TRUE = frozenset(("true", "True", "t", "yes", "y", "1", "on"))
_FALSE = frozenset(("false", "False", "f", "no", "n", "0", "off"))


class RestRequest:
    """One request to a route that exists, by a caller who is known."""

    __slots__ = ("caller", "http", "path", "service")

    def __init__(self, http: falcon.Request, service: Service, caller: Caller, path: dict[str, str]) -> None:
        self.http = http
        self.service = service
        self.caller = caller
        self.path = path  # the variables of the route's template

    @property
    def collection(self) -> str:
        """What the path is about: queues or topics."""
        return self.http.path.split("/")[2]

    @property
    def queue_name(self) -> str:
        """The queue, or topic, of the path."""
        return self.path.get("queue_name") or self.path["topic_name"]

    @property
    def queue_path(self) -> str:
        """The path of that queue or topic."""
        return f"/v2/{self.collection}/{self.queue_name}"

    def text(self, name: str) -> str | None:
        """Return a query parameter; None where it is absent or empty. Of several, the last counts."""
        value = self.http.params.get(name)
        if isinstance(value, list):
            value = value[-1]
        return value or None

    def integer(self, name: str) -> int | None:
        """Return a query parameter that is a number; raises InvalidParameter."""
        text = self.text(name)
        if text is None:
            return None
        if not _INTEGER(text):
            raise InvalidParameter(f"The parameter {name} must be an integer.")
        return int(text)

    def boolean(self, name: str) -> bool:
        """Return a query parameter that is true or false (the default); raises InvalidParameter."""
        text = self.text(name)
        if text is None or text in _FALSE:
            return False
        if text not in _TRUE:
            raise InvalidParameter(f"The parameter {name} must be true or false.")
        return True

    def texts(self, name: str) -> list[str] | None:
        """Return a query parameter that is a list: separated by commas, repeated, or both."""
        value = self.http.params.get(name)
        if value is None:
            return None
        parts = value if isinstance(value, list) else [value]
        return [item for part in parts for item in part.split(",") if item] or None

    def body(self, limit: int, *, refusal: type[Invalid] = Invalid) -> bytes:
        """Return the body; empty where there is none.

        Raises `refusal` for one of more than `limit` bytes, before it is read.
        """
        try:
            raw = self._read(limit)
        except Exception as error:
            # Whatever the server says of a body that it cannot read, the client sent it.
            raise MalformedBody("The request body could not be read.") from error
        if raw is None or len(raw) > limit:
            raise refusal(f"The request body must have at most {limit} bytes.")
        return raw

    def _read(self, limit: int) -> bytes | None:
        """Read the body; None for one that says it is longer than the limit."""
        length = self.http.content_length
        stream = self.http.env["wsgi.input"]
        if length is None:
            chunked = "chunked" in self.http.env.get("HTTP_TRANSFER_ENCODING", "").lower()
            return stream.read(limit + 1) if chunked else b""
        if length > limit:
            return None
        raw: bytes = stream.read(length) if length else b""
        if len(raw) < length:
            raise EOFError
        return raw

    def document(self, decoder: msgspec.json.Decoder[T]) -> T:
        """Return the body, parsed; raises MalformedBody, also where there is none."""
        raw = self.body(self.service.settings.limits.max_queue_metadata)
        if not raw:
            raise MalformedBody("The request body could not be parsed: there is none.")
        return decode(raw, decoder)

    def optional_document(self, decoder: msgspec.json.Decoder[T], absent: T) -> T:
        """Return the body, parsed, or `absent` where there is none; raises MalformedBody."""
        raw = self.body(self.service.settings.limits.max_queue_metadata)
        return decode(raw, decoder) if raw else absent
