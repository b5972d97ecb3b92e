"""Messages as CloudEvents 1.0, in the two modes of its HTTP binding.

A message whose body is a CloudEvent in the JSON format is that event; any other is the data of a
new one. The data go out byte for byte as they were posted.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from notifiers.outcome import Delivery

TYPE = "org.hermod.message"  # of an event that is made for a message
STRUCTURED_TYPE = "application/cloudevents+json"

_JSON_TYPE = "application/json"
_REQUIRED = ("specversion", "id", "source", "type")
_DATA = ("data", "data_base64")
_NAME = re.compile(r"[a-z0-9]{1,100}")
_MEDIA_TYPE = re.compile(r"[!-~]+/[ -~]+")
_IS_JSON = re.compile(r"[^;]*[/+]json\s*(;.*)?", re.I)
_ENCODED = re.compile(r"[^!#$&-~]")  # the space, " and % are encoded as well

_Members = Mapping[str, msgspec.Raw]


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What is posted."""

    body: bytes
    headers: Mapping[str, str]  # Content-Type among them


@dataclass(frozen=True, kw_only=True, slots=True)
class _Event:
    attributes: Mapping[str, str | int | bool]  # also the extensions
    body: bytes  # the data
    text: bytes  # the event in the JSON format


def structured(delivery: Delivery) -> Content:
    """Return the whole event as JSON."""
    return Content(body=_event(delivery).text, headers={"Content-Type": STRUCTURED_TYPE})


def binary(delivery: Delivery) -> Content:
    """Return the data as the body and all else in headers, percent-encoded (HTTP binding, 3.1.3.2)."""
    event = _event(delivery)
    content_type = event.attributes.get("datacontenttype", _JSON_TYPE)
    headers = {
        f"ce-{name}": _encode(value) for name, value in event.attributes.items() if name != "datacontenttype"
    }
    return Content(body=event.body, headers=headers | {"Content-Type": str(content_type)})


def _event(delivery: Delivery) -> _Event:
    return _read(delivery.body) or _wrap(delivery)


def _wrap(delivery: Delivery) -> _Event:
    attributes = {
        "specversion": "1.0",
        "id": delivery.id,
        "source": f"/v2/queues/{delivery.queue}",
        "type": TYPE,
        "datacontenttype": _JSON_TYPE,
    }
    text = msgspec.json.encode({**attributes, "data": msgspec.Raw(delivery.body)})
    return _Event(attributes=attributes, body=delivery.body, text=text)


def _read(body: bytes) -> _Event | None:
    """Return the event that a body is; None for one that is none, or breaks the rules of events."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        attributes = {
            name: msgspec.json.decode(raw, type=str | int | bool)
            for name, raw in members.items()
            if name not in _DATA and bytes(raw) != b"null"
        }
        if not _is_valid(attributes):
            return None
        data = _data(members, str(attributes.get("datacontenttype", _JSON_TYPE)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return _Event(attributes=attributes, body=data, text=body)


def _is_valid(attributes: Mapping[str, str | int | bool]) -> bool:
    return (
        all(isinstance(attributes.get(name), str) and attributes[name] for name in _REQUIRED)
        and all(_NAME.fullmatch(name) for name in attributes)
        and _MEDIA_TYPE.fullmatch(str(attributes.get("datacontenttype", _JSON_TYPE))) is not None
    )


def _data(members: _Members, content_type: str) -> bytes:
    """Return the data as bytes (JSON format, 3.1): text that is not of a JSON type loses its quotes."""
    if "data_base64" in members:
        return base64.b64decode(msgspec.json.decode(members["data_base64"], type=str), validate=True)
    if "data" not in members:
        return b""
    raw = bytes(members["data"])
    if raw.startswith(b'"') and not _IS_JSON.fullmatch(content_type):
        return msgspec.json.decode(raw, type=str).encode()
    return raw


def _encode(value: str | int | bool) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _ENCODED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)
