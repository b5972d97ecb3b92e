"""Events of cloud services on their way in: CloudEvents 1.0, and the notifications of OpenStack.

Whatever the form in which an event arrives, it is kept in one: the JSON format of
CloudEvents, which becomes the body of a message. The rules are those of

- CloudEvents 1.0.2, <https://github.com/cloudevents/spec>: the core ("CE"), its
  JSON format ("JSON") and its HTTP binding ("HTTP"), with their sections;
- oslo.messaging, for notifications: its envelope 2.0 (driver `messagingv2`), and the
  bare object (driver `messaging`).

An intermediary must not lose what it does not understand, so unknown extensions stay,
and numbers and strings in the data keep their spelling; only the blanks between
them go. What breaks a rule is refused as a whole, with a sentence that says why.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import quote, unquote_to_bytes

import msgspec

from queues.errors import Invalid
from queues.limits import MAX_DEPTH, MAX_INTEGER
from queues.models import Json, JsonObject

MAX_EVENTS = 100  # in one request
SPEC_VERSION = "1.0"  # of CloudEvents

T = TypeVar("T")

_REQUIRED = ("specversion", "id", "source", "type")
_OPTIONAL = ("datacontenttype", "dataschema", "subject", "time")
_CORE = frozenset(_REQUIRED + _OPTIONAL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# CE 3.1.1: names are lower-case letters and digits, and `data` belongs to the formats.
_NAME = re.compile(r"(?!data\Z)[a-z0-9]+").fullmatch
# CE 3.1.2, String: neither control characters nor noncharacters. Half surrogate pairs never get so far.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
).search
# CE 3.1.2, Integer: 32 bits with a sign.
_INTEGERS = range(-(2**31), 2**31)
# RFC 3986: 4.1 URI-reference, and 3 for a URI, which has a scheme. A fragment is let pass in both.
_PCHAR = r"[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2}"
_REST = rf"(?://(?:{_PCHAR}|[\[\]])*+)?(?:{_PCHAR}|/)*+(?:\?(?:{_PCHAR}|[/?])*+)?(?:#(?:{_PCHAR}|[/?])*+)?"
_URI = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*:{_REST}").fullmatch
_URI_REFERENCE = re.compile(rf"(?:[A-Za-z][A-Za-z0-9+.\-]*:)?{_REST}").fullmatch
# RFC 3339, 5.6.
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
).fullmatch
# RFC 2046 with the tokens of RFC 7230.
_MEDIA_TYPE = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)/([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(;[\t -~]*)?"
).fullmatch
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE).search

# HTTP 3.1.3.2: what a header's value consists of; a quotation mark that is left over opens a string without end.
_PIECE = re.compile(r'[^"]++|"((?:[^"\\]|\\.)*+)"|"')
_ESCAPED = re.compile(r"\\(.)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_PRINTABLE = re.compile(r"[\t -~]*").fullmatch

# W3C Trace Context, 3.2.2. An invalid one is ignored, as it demands, and does not cost the event.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?"
).fullmatch

_LONG_DIGITS = re.compile(rb"\d{19}").search

# Where the context of a notification names them, in the spellings of old and new releases.
_PROJECT_KEYS = ("project_id", "tenant_id", "tenant", "project")
_REQUEST_KEYS = ("request_id",)
# Where the payload of a notification names the resource that it is about.
_RESOURCE_PATHS = (
    ("nova_object.data", "uuid"),
    ("instance_id",),
    ("volume_id",),
    ("resource_id",),
    ("resource_info",),
    ("id",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event, valid by CloudEvents 1.0."""

    attributes: JsonObject  # the context: strings, integers of 32 bits and booleans; the required ones first
    data: bytes | None = None  # compact JSON text, UTF-8; None for none, while b"null" is a value
    data_base64: str | None = None  # what is no JSON and no text; never together with `data`

    @property
    def document(self) -> bytes:
        """The event in the JSON format (JSON 3), UTF-8 and compact: the body of a message."""
        context = msgspec.json.encode(self.attributes)[:-1]
        if self.data is not None:
            return b'%b,"data":%b}' % (context, self.data)
        if self.data_base64 is not None:
            return b'%b,"data_base64":"%b"}' % (context, self.data_base64.encode("ascii"))
        return context + b"}"

    @property
    def key(self) -> str:
        """The idempotency key: equal for, and only for, events of one source and id (CE 3.1, id).

        75 visible ASCII characters. The length of the source goes into the digest, so (a, bc)
        and (ab, c) differ.
        """
        source, id_ = (self.attributes[name].encode() for name in ("source", "id"))
        return "cloudevent:" + hashlib.sha256(b"%d:%b%b" % (len(source), source, id_)).hexdigest()

    @property
    def expires(self) -> datetime | None:
        """When the event is no longer useful, by the extension `expirytime`; with an offset from UTC."""
        text = self.attributes.get("expirytime")
        return None if text is None else _moment(text)

    def ttl(self, now: int) -> int | None:
        """Return the whole seconds, rounded up, for which the event is useful from `now` (ms) on.

        0 if that is over, None if the event does not say.
        """
        if self.expires is None:
            return None
        left = (self.expires - _EPOCH) // timedelta(milliseconds=1) - now
        return max(0, -(-left // 1000))


def read(
    content_type: str, headers: Iterable[tuple[str, str]], body: bytes, *, max_events: int = MAX_EVENTS
) -> list[Event]:
    """Return the events of an HTTP request, in their order.

    The mode follows from the content type (HTTP 1.3, 3): `application/cloudevents-batch+json`
    holds a JSON array of events, which may be empty, `application/cloudevents+json` one event.
    With any other type, the event's attributes are headers `ce-*` and the body is its data. Without
    such headers, `application/json` holds a notification of OpenStack or an array of them.

    `headers` has the names in any case, and the values as they arrived, one character for each
    byte. `max_events` bounds an array. The size of the body is for the caller to bound.

    Raises Invalid, saying what is wrong, and which event of an array it is.
    """
    kind = content_type.strip().lower()
    if kind.startswith("application/cloudevents-batch"):
        _check_format(kind, "application/cloudevents-batch+json")
        return _each(_structured, _decode(body, list[msgspec.Raw], "batch"), max_events)
    if kind.startswith("application/cloudevents"):
        _check_format(kind, "application/cloudevents+json")
        return [_structured(body)]
    context, trace = _sort_headers(headers)
    if context:
        return [_binary(content_type.strip(), context, trace, body)]
    if kind.partition(";")[0].rstrip() == "application/json":
        if body.lstrip(b" \t\r\n").startswith(b"["):
            return _each(read_notification, _decode(body, list[msgspec.Raw], "request"), max_events)
        return [read_notification(body)]
    raise Invalid(
        "This is no event: the content type is none of CloudEvents, there are no ce- headers,"
        " and a notification of OpenStack has the content type application/json."
    )


def read_notification(body: bytes | msgspec.Raw) -> Event:
    """Return a notification of OpenStack as an event.

    The body is JSON: either the envelope `{"oslo.version": "2.0", "oslo.message": text}`, where the text
    is the JSON of the notification, or the notification itself. What becomes of its members:

    - `message_id` is the id, `payload` the data, unchanged;
    - `publisher_id` makes the source `/openstack/<publisher>`, or `/openstack` where there is none;
    - `event_type` makes the type `org.openstack.<event_type>`;
    - `timestamp`, which is UTC where it has no zone, becomes the time, in UTC;
    - `priority` becomes the extension of this name, the project and the request of the context become
      `projectid` and `requestid`; the resource, where the payload names one, is the subject.

    All else is dropped. Above all, the rest of the context: old services put tokens there.

    Raises Invalid, saying what is wrong.
    """
    fields = _open_envelope(_decode(body, dict[str, msgspec.Raw], "notification"))
    if missing := [name for name in ("message_id", "event_type", "payload") if name not in fields]:
        raise Invalid(f"This is no notification of OpenStack: it has no {', no '.join(missing)}.")
    payload, data = _read_data(fields["payload"], "payload")
    publisher = _text_of(fields, "publisher_id")
    source = "/openstack/" + quote(publisher, safe="-._~!$&'()*+,;=:@") if publisher else "/openstack"
    attributes = {
        "specversion": SPEC_VERSION,
        "id": _needed_text_of(fields, "message_id"),
        "source": source,
        "type": "org.openstack." + _needed_text_of(fields, "event_type"),
        "datacontenttype": "application/json",
        "subject": _resource(payload),
        "time": _utc(_text_of(fields, "timestamp")),
        "priority": _text_of(fields, "priority"),
        "projectid": _from_context(fields, _PROJECT_KEYS),
        "requestid": _from_context(fields, _REQUEST_KEYS),
    }
    return Event(attributes=_check_attributes(attributes), data=data)


def _check_format(kind: str, known: str) -> None:
    if kind.partition(";")[0].rstrip() != known:
        raise Invalid(f"Events in this format are not understood; use {known}.")
    _check_charset(kind)


def _check_charset(kind: str) -> None:
    if not _is_utf8(kind):
        raise Invalid("The charset of JSON is UTF-8.")


def _each(reader: Callable[[msgspec.Raw], Event], documents: list[msgspec.Raw], most: int) -> list[Event]:
    if len(documents) > most:
        raise Invalid(f"At most {most} events can be posted at once; these are {len(documents)}.")
    events = []
    for place, document in enumerate(documents):
        try:
            events.append(reader(document))
        except Invalid as error:
            raise Invalid(f"Event {place} of the array is not acceptable: {error}") from error
    return events


# Structured mode


def _structured(body: bytes | msgspec.Raw) -> Event:
    """Read an event in the JSON format (JSON 3)."""
    members = _decode(body, dict[str, msgspec.Raw], "event")
    data, encoded = members.pop("data", None), members.pop("data_base64", None)
    attributes = _check_attributes({name: _value(raw, name) for name, raw in members.items()})
    binary = None if encoded is None else _value(encoded, "data_base64")
    if data is None:
        return Event(attributes=attributes, data_base64=_check_base64(binary))
    if binary is not None:
        raise Invalid("An event has data or data_base64, not both.")
    value, text = _read_data(data, "data")
    if isinstance(value, str) or _declares_json(attributes.get("datacontenttype", "application/json")):
        return Event(attributes=attributes, data=text)
    if value is None:
        return Event(attributes=attributes)
    raise Invalid(
        "The data must be a string, since datacontenttype does not declare JSON (JSON format, 3.1.2)."
    )


def _check_base64(text: Json) -> str | None:
    if text is None:
        return None
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode("ascii")
    except (TypeError, ValueError) as error:
        raise Invalid("The member data_base64 must be a string in Base64 (RFC 4648, section 4).") from error


# Binary mode


def _sort_headers(headers: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the headers that are attributes, by attribute, and those of the trace, by name."""
    context: dict[str, str] = {}
    trace: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for header, value in headers:
        name = header.lower()
        if name in trace:
            trace[name].append(value.strip(" \t"))
        elif name.startswith("ce-"):
            if name[3:] in context:
                raise Invalid(f"The header {_shown(name)} is there twice.")
            context[name[3:]] = value.strip(" \t")
    return context, trace


def _binary(
    content_type: str, context: Mapping[str, str], trace: Mapping[str, list[str]], body: bytes
) -> Event:
    """Read an event whose attributes are headers (HTTP 3.1)."""
    if "datacontenttype" in context:
        raise Invalid(
            "There must be no header ce-datacontenttype: Content-Type says it (HTTP binding, 3.1.1)."
        )
    given: JsonObject = {name: _unescape(value, name) for name, value in context.items()}
    if content_type:
        given["datacontenttype"] = content_type
    if "traceparent" not in given:
        given.pop("tracestate", None)  # means nothing without the other, and would join a foreign trace
        given.update(_trace(trace))
    attributes = _check_attributes(given)
    if not body:
        return Event(attributes=attributes)
    # Nothing is guessed: what declares neither JSON nor text in UTF-8 stays the bytes that it is.
    if _declares_json(content_type) and _is_utf8(content_type):
        return Event(attributes=attributes, data=_read_data(body, "data")[1])
    if _declares_text(content_type) and _is_utf8(content_type) and (text := _decoded(body)) is not None:
        return Event(attributes=attributes, data=msgspec.json.encode(text))
    return Event(attributes=attributes, data_base64=base64.b64encode(body).decode("ascii"))


def _unescape(value: str, name: str) -> str:
    """Undo quoted strings, then one round of percent-encoding (HTTP 3.1.3.2)."""
    if not _PRINTABLE(value):
        raise Invalid(f"The header ce-{_shown(name)} has characters that must be percent-encoded.")
    pieces = []
    for piece in _PIECE.finditer(value):
        if piece[0] == '"':
            raise Invalid(f"The header ce-{_shown(name)} has a quoted string without end.")
        pieces.append(piece[0] if piece[1] is None else _ESCAPED.sub(r"\1", piece[1]))
    unquoted = "".join(pieces)
    if _BAD_ESCAPE(unquoted):
        raise Invalid(f"The header ce-{_shown(name)} has a percent sign without two hexadecimal digits.")
    text = _decoded(unquote_to_bytes(unquoted))
    if text is None:
        raise Invalid(f"The header ce-{_shown(name)} is no UTF-8 when it is percent-decoded.")
    return text


def _trace(trace: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the extensions that the headers of the trace stand for, if they are valid."""
    parents, states = trace["traceparent"], [state for state in trace["tracestate"] if state]
    if len(parents) != 1 or not _TRACEPARENT(parents[0]):
        return {}
    state = ",".join(states)
    return {"traceparent": parents[0], **({"tracestate": state} if state and _PRINTABLE(state) else {})}


# Notifications


def _open_envelope(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    if not {"oslo.version", "oslo.message"} <= fields.keys():
        return fields
    if _value(fields["oslo.version"], "oslo.version") != "2.0":
        raise Invalid("The version of the envelope, oslo.version, must be 2.0.")
    message = _value(fields["oslo.message"], "oslo.message")
    if not isinstance(message, str):
        raise Invalid("The member oslo.message must be a string that holds JSON.")
    return _decode(message.encode(), dict[str, msgspec.Raw], "oslo.message")


def _text_of(fields: Mapping[str, msgspec.Raw], name: str) -> str | None:
    value = _value(fields[name], name) if name in fields else None
    if value is None or isinstance(value, str):
        return value or None
    raise Invalid(f"The member {name} of the notification must be a string.")


def _needed_text_of(fields: Mapping[str, msgspec.Raw], name: str) -> str:
    text = _text_of(fields, name)
    if text is None:
        raise Invalid(f"The notification has no {name}.")
    return text


def _from_context(fields: Mapping[str, msgspec.Raw], names: tuple[str, ...]) -> str | None:
    """Return the first of some values that the context has, which is flat on RabbitMQ and one object on Kafka."""
    nested = _value(fields["_context"], "_context") if "_context" in fields else None
    for name in names:
        flat = f"_context_{name}"
        value = _value(fields[flat], flat) if flat in fields else None
        if value is None and isinstance(nested, dict):
            value = nested.get(name)
        if value and isinstance(value, str):
            return value
    return None


def _resource(payload: Json) -> str | None:
    for path in _RESOURCE_PATHS:
        value = payload
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value and isinstance(value, str) and not _FORBIDDEN(value):
            return value
    return None


def _utc(text: str | None) -> str | None:
    """Return the time of a notification, `str(datetime)`, by RFC 3339 in UTC."""
    if text is None:
        return None
    stamp = text.replace(" ", "T", 1)
    moment = _moment(stamp) or _moment(stamp + "Z")
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else _no_time()
    except OverflowError:
        return _no_time()


def _no_time() -> str:
    raise Invalid("The timestamp of the notification must be a date and a time.")


# Attributes


def _check_attributes(given: Mapping[str, Json]) -> JsonObject:
    """Return the attributes that are there, the required ones first, then by name.

    Raises Invalid unless names, types and values keep the rules (CE 3.1). Null means unset (JSON 2.2).
    """
    present = {name: value for name, value in given.items() if value is not None}
    for name, value in present.items():
        _check_attribute(name, value)
    for name in _REQUIRED:
        if name not in present:
            raise Invalid(f"The attribute {name} is missing.")
    if present["specversion"] != SPEC_VERSION:
        raise Invalid(f"The attribute specversion must be {SPEC_VERSION}.")
    for name, (keeps, demand) in _RULES.items():
        if name in present and not keeps(present[name]):
            raise Invalid(f"The attribute {name} must be {demand}.")
    rest = sorted(present.keys() - set(_REQUIRED))
    return {name: present[name] for name in (*_REQUIRED, *rest)}


def _check_attribute(name: str, value: Json) -> None:
    if not _NAME(name):
        raise Invalid(
            f"The attribute {_shown(name)} has a wrong name: lower-case letters and digits, not data."
        )
    if name in _CORE and not (value and isinstance(value, str)):
        raise Invalid(f"The attribute {name} must be a string that is not empty.")
    if isinstance(value, str):
        if _FORBIDDEN(value):
            raise Invalid(f"The attribute {_shown(name)} has control characters or noncharacters.")
    elif not isinstance(value, bool) and not (isinstance(value, int) and value in _INTEGERS):
        raise Invalid(f"The attribute {_shown(name)} must be a string, a boolean or an integer of 32 bits.")


def _is_timestamp(value: Json) -> bool:  # an extension can be of any type
    return isinstance(value, str) and _moment(value) is not None


# Attributes with a form of their own: what checks it, and its name.
_RULES: dict[str, tuple[Callable[[str], object], str]] = {
    "source": (_URI_REFERENCE, "a URI reference (RFC 3986)"),
    "dataschema": (_URI, "a URI (RFC 3986)"),
    "datacontenttype": (_MEDIA_TYPE, "a media type (RFC 2046)"),
    "time": (_is_timestamp, "a timestamp (RFC 3339)"),
    "expirytime": (_is_timestamp, "a timestamp (RFC 3339)"),
}


def _moment(text: str) -> datetime | None:
    """Return a point in time of RFC 3339, to the microsecond; None for what is none."""
    found = _TIMESTAMP(text)
    if found is None:
        return None
    day, minute, second, fraction, zone = found.groups()
    leap = second == "60"  # which datetime does not know
    text = f"{day}T{minute}{'59' if leap else second}{(fraction or '')[:7]}{zone.upper()}"
    try:
        return datetime.fromisoformat(text) + timedelta(seconds=leap)
    except (ValueError, OverflowError):
        return None


def _declares_json(content_type: str) -> bool:
    """Tell whether a media type has the form */json or */*+json (JSON 3.1.1)."""
    found = _MEDIA_TYPE(content_type)
    return found is not None and (found[2].lower() == "json" or found[2].lower().endswith("+json"))


def _declares_text(content_type: str) -> bool:
    found = _MEDIA_TYPE(content_type)
    return found is not None and found[1].lower() == "text"


def _is_utf8(content_type: str) -> bool:
    charset = _CHARSET(content_type)
    return charset is None or charset[1].lower() in ("utf-8", "utf8", "us-ascii", "ascii")


# JSON


def _read_data(raw: bytes | msgspec.Raw, what: str) -> tuple[Json, bytes]:
    """Return a JSON value that will be the data of an event: parsed, and as compact text."""
    value = _value(raw, what, MAX_DEPTH - 1)
    # Tokens keep their spelling: re-encoding would change numbers beyond the precision of a double.
    return value, msgspec.json.format(bytes(raw), indent=-1)


def _value(raw: bytes | msgspec.Raw, what: str, depth: int = MAX_DEPTH) -> Json:
    """Parse a JSON value, and hold it against the bounds that every document has here."""
    value = _decode(raw, object, what)
    text = bytes(raw)
    if _LONG_DIGITS(text) or text.count(b"[") + text.count(b"{") > depth:
        _check_bounds(value, what, depth)
    return value


def _check_bounds(value: Json, what: str, depth: int) -> None:
    level = [value]
    while level:
        inner: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, int) and not -MAX_INTEGER - 1 <= item <= MAX_INTEGER:
                raise Invalid(f"The {_shown(what)} has an integer outside the signed 64-bit range.")
        depth -= any(isinstance(item, dict | list) for item in level)
        if depth < 0:
            raise Invalid(f"The {_shown(what)} is nested too deep.")
        level = inner


def _decode(raw: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"The {_shown(what)} has the wrong shape: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The {_shown(what)} could not be parsed as JSON: {error}.") from error


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _shown(name: str) -> str:
    """Return a name of the sender's as it may be shown: short, and visible ASCII."""
    return ascii(name)[1:-1][:40]
