"""Frames: a whole request or reply each, as JSON text or as MessagePack.

MessagePack is turned into JSON text on its way in, and back on its way out, so that there
is one way of reading what a client says. Message bodies stay the text that arrived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from queues.bodies import parse
from queues.limits import MAX_DEPTH
from queues.models import Json, JsonObject
from transport.documents import check
from transport.problems import MalformedBody

#: A frame as it travels: text or binary.
Payload: TypeAlias = str | bytes

_EMPTY = msgspec.Raw(b"{}")
_SECRET = "X-Auth-Token"  # noqa: S105 - the name of a header
_HIDDEN = "hidden"


class FrameRefused(MalformedBody):
    """The frame cannot be understood."""

    code = "frame-refused"

    def __init__(self, text: str, frame: Frame | None = None) -> None:
        super().__init__(text)
        self.frame = frame or Frame()


class _Envelope(msgspec.Struct):
    action: msgspec.Raw = msgspec.Raw(b"null")
    headers: msgspec.Raw = _EMPTY
    body: msgspec.Raw = _EMPTY


_envelope = msgspec.json.Decoder(_Envelope)
_anything = msgspec.json.Decoder()
_object = msgspec.json.Decoder(dict[str, Any])
_unpack = msgspec.msgpack.Decoder()
_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


def _empty() -> msgspec.Raw:
    return _EMPTY


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A request."""

    action: Json = None
    headers: JsonObject | None = field(default_factory=dict)  # None where they are no object
    body: msgspec.Raw = field(default_factory=_empty)  # JSON text
    echo: msgspec.Raw = field(default_factory=_empty)  # the headers as they are shown to the client again
    binary: bool = False  # whether it came as MessagePack


def read(payload: Payload) -> Frame:
    """Read a request.

    Raises FrameRefused for what is no JSON or MessagePack, or no object.
    """
    binary = not isinstance(payload, str)
    try:
        raw = _transcoded(payload) if isinstance(payload, bytes) else payload.encode()
        check(raw)
        if raw.lstrip()[:1] != b"{":
            _anything.decode(raw)
            raise FrameRefused("Unexpected body type. Expected dict or object.", Frame(binary=binary))
        envelope = _envelope.decode(raw)
        action, echo = _anything.decode(envelope.action), envelope.headers
        headers = _object.decode(echo) if bytes(memoryview(echo)[:1]) == b"{" else None
    except FrameRefused:
        raise
    except (MalformedBody, UnicodeError, ValueError, RecursionError) as error:
        kind = "binary (MessagePack)" if binary else "text (JSON)"
        raise FrameRefused(f"Can't decode {kind} request: {error}", Frame(binary=binary)) from error
    if headers and _SECRET in headers:
        echo = msgspec.Raw(_encode({**headers, _SECRET: _HIDDEN}))
    return Frame(action=action, headers=headers, body=envelope.body, echo=echo, binary=binary)


def reply(frame: Frame, status: int, body: object, *, bare: bool = False) -> Payload:
    """Write the reply to a request, in its encoding; a `bare` one shows no more of it than the action."""
    text = _encode(
        {
            "request": {
                "action": frame.action,
                "body": _EMPTY if bare else frame.body,
                "headers": _EMPTY if bare else frame.echo,
                "api": "v2",
            },
            "body": body,
            "headers": {"status": status},
        }
    )
    return encoded(text, binary=frame.binary)


def encoded(text: bytes, *, binary: bool) -> Payload:
    """Return JSON text as a frame of one kind or the other."""
    return _pack(parse(text)) if binary else text.decode()


def _transcoded(payload: bytes) -> bytes:
    """Return MessagePack as JSON text; raises ValueError for what JSON cannot say."""
    return _encode(_as_json(_unpack.decode(payload), MAX_DEPTH))


def _as_json(value: Any, depth: int) -> Json:  # noqa: ANN401 - whatever a client sends
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, bytes):  # text, from clients that know no other
        return value.decode()
    if not depth:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_as_json(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_as_key(key): _as_json(item, depth - 1) for key, item in value.items()}
    raise ValueError("it has a value that JSON does not know")


def _as_key(key: Any) -> str:  # noqa: ANN401 - whatever a client sends
    if isinstance(key, bytes):
        return key.decode()
    if not isinstance(key, str):
        raise ValueError("the keys of a map must be strings")  # noqa: TRY004 - as any other wrong value
    return key
