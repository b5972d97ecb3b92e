"""The AsyncAPI document of the websocket service: made from the table of actions and the types of what is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import msgspec

import queues
from queues.models import JsonObject
from transport.access import RULES
from transport.operations import OPERATIONS
from transport.settings.model import WebsocketSettings
from transport.websocket import shapes
from transport.websocket.actions import ACTIONS, ADMIN_ACTIONS, POOL_ACTIONS, Action
from transport.websocket.session import CONNECTION_ACTIONS

VERSION = "3.0.0"  # of AsyncAPI

_SCHEMAS = "#/components/schemas/{name}"
_CHANNEL = "connection"

_DESCRIPTION = """\
Every frame is a whole request, reply or pushed message: a text frame as JSON, a binary frame as MessagePack of the same
document. A reply has the encoding of its request. Requests of a connection are answered in their order, one reply each.
What is pushed comes between replies, and has no member `request`.\
"""

_REPLY = {
    "type": "object",
    "required": ["request", "body", "headers"],
    "properties": {
        "request": {
            "type": "object",
            "description": "The request, as it was received; of authenticate no more than the action.",
            "required": ["action", "body", "headers", "api"],
            "properties": {"api": {"const": "v2"}},
        },
        "body": {"description": "What came of it."},
        "headers": {
            "type": "object",
            "required": ["status"],
            "properties": {"status": {"type": "integer"}},
        },
    },
}

#: What the actions of the connection itself do; the others are told by their operations.
_OWN = {
    "authenticate": "Tell who speaks on this connection.",
    "subscription_resume": "Go on with a subscription that an earlier connection had, behind what it saw last.",
}


def document() -> JsonObject:
    """Return the document."""
    actions: Mapping[str, Action | None] = {
        **dict.fromkeys(CONNECTION_ACTIONS),
        **ACTIONS,
        **ADMIN_ACTIONS,
        **POOL_ACTIONS,
    }
    types = _Types()
    messages: JsonObject = {}
    operations: JsonObject = {}
    for name, action in sorted(actions.items()):
        messages[name] = _request(name, action, types)
        messages[f"{name}_reply"] = _reply(name, types)
        operations[name] = _asked(name, action)
    messages["refusal"] = _refusal(types)
    for name, kind in shapes.PUSHED.items():
        summary = _first_line(kind.__doc__)
        messages[name] = {"name": name, "summary": summary, "payload": types.schema_of(kind)}
        operations[name] = {
            "action": "send",
            "channel": _to("channels", _CHANNEL),
            "summary": summary,
            "tags": [{"name": "pushed"}],
            "messages": [_to("channels", _CHANNEL, "messages", name)],
        }
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Hermod over websockets",
            "version": queues.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": WebsocketSettings().bind,
                "protocol": "ws",
                "description": "Where the service listens as it comes. It speaks no TLS itself.",
            }
        },
        "channels": {
            _CHANNEL: {
                "address": "/",
                "summary": "One connection, at any path.",
                "messages": {name: _to("components", "messages", name) for name in messages},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            }
        },
        "operations": operations,
        "components": {"messages": messages, "schemas": {"Reply": _REPLY, **types.components()}},
    }


def text() -> str:
    """Return the document as it is printed."""
    return json.dumps(document(), indent=2) + "\n"


class _Types:
    """The types that the document names, and what they are called there."""

    def __init__(self) -> None:
        self._named: dict[str, JsonObject] = {}

    def schema_of(self, kind: Any) -> JsonObject:  # noqa: ANN401 - whatever msgspec can describe
        """Return the schema of a type; the structs in it are named."""
        (schema,), named = msgspec.json.schema_components([kind], ref_template=_SCHEMAS)
        for name, found in named.items():
            for member in found.get("properties", {}).values():
                if "default" in member and member["default"] is None:
                    del member["default"]  # absent, which may not be said by null
            if self._named.setdefault(name, found) != found:
                raise ValueError(f"two types are called {name}")
        return schema

    def components(self) -> JsonObject:
        """Return the named ones."""
        return dict(sorted(self._named.items()))


def body_of(name: str) -> type[msgspec.Struct]:
    """Return the type of an action's body."""
    if name in shapes.BODIES:
        return shapes.BODIES[name]
    known = {**ACTIONS, **ADMIN_ACTIONS, **POOL_ACTIONS}
    body, arguments = known[name].body, OPERATIONS[name].arguments
    return _flat(body if _is_struct(body) and issubclass(body, arguments) else arguments)


def _flat(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return arguments in which the members of a nested one stand beside the others, as they do in a body."""
    fields = list(_flattened(kind))
    if [each.name for each in fields] == [each.name for each in msgspec.structs.fields(kind)]:
        return kind
    nested = (each.type for each in msgspec.structs.fields(kind) if _is_struct(each.type))
    return msgspec.defstruct(
        kind.__name__,
        [(each.encode_name, each.type, _default(each)) for each in fields],
        namespace={"__doc__": kind.__doc__},
        kw_only=True,
        forbid_unknown_fields=any(each.__struct_config__.forbid_unknown_fields for each in nested),
    )


def _flattened(kind: type[msgspec.Struct]) -> Iterator[msgspec.structs.FieldInfo]:
    for each in msgspec.structs.fields(kind):
        yield from msgspec.structs.fields(each.type) if _is_struct(each.type) else (each,)


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _default(each: msgspec.structs.FieldInfo) -> Any:  # noqa: ANN401 - as msgspec has it
    return msgspec.field(default=each.default, default_factory=each.default_factory)  # type: ignore[call-overload]


def _request(name: str, action: Action | None, types: _Types) -> JsonObject:
    body = types.schema_of(body_of(name))
    needed = msgspec.json.schema_components([body_of(name)])[1][body_of(name).__name__]["required"]
    return {
        "name": name,
        "summary": _summary(name, action),
        "payload": {
            "type": "object",
            "required": ["action", "headers", *(["body"] if needed else [])],
            "properties": {
                "action": {"const": name},
                "headers": types.schema_of(
                    shapes.Credentials if name == "authenticate" else shapes.RequestHeaders
                ),
                "body": body,
            },
        },
    }


def _reply(name: str, types: _Types) -> JsonObject:
    by_body = sorted(shapes.ANSWERS[name].items(), key=lambda each: (str(each[1]), each[0]))
    payloads = [
        _envelope({"const": name}, types.schema_of(kind), [status for status, _ in found])
        for kind, found in groupby(by_body, key=lambda each: each[1])
    ]
    return {
        "name": f"{name}_reply",
        "summary": f"The reply to {name}.",
        "payload": payloads[0] if len(payloads) == 1 else {"oneOf": payloads},
    }


def _refusal(types: _Types) -> JsonObject:
    body = {"anyOf": [types.schema_of(kind) for kind in (shapes.Refused, shapes.Failed)]}
    return {
        "name": "refusal",
        "summary": "The reply to what was not done; the action is null if none was understood.",
        "payload": _envelope({}, body, shapes.REFUSALS),
    }


def _envelope(action: JsonObject, body: JsonObject, statuses: Iterable[int]) -> JsonObject:
    """Return the schema of a reply."""
    particular = {
        "request": {"properties": {"action": action}},
        "body": body,
        "headers": {"properties": {"status": {"enum": sorted(statuses)}}},
    }
    return {"allOf": [_to("components", "schemas", "Reply"), {"properties": particular}]}


def _asked(name: str, action: Action | None) -> JsonObject:
    """Return the operation of a request and its reply."""
    answers = [
        _to("channels", _CHANNEL, "messages", f"{name}_reply"),
        _to("channels", _CHANNEL, "messages", "refusal"),
    ]
    asked = {
        "action": "receive",
        "channel": _to("channels", _CHANNEL),
        "summary": _summary(name, action),
        "description": " ".join(_remarks(name, action)),
        "tags": [{"name": name.partition("_")[0]}],
        "messages": [_to("channels", _CHANNEL, "messages", name)],
        "reply": {"channel": _to("channels", _CHANNEL), "messages": answers},
    }
    return {member: value for member, value in asked.items() if value}


def _summary(name: str, action: Action | None) -> str:
    if action is None:
        return _OWN[name]
    run = action.operation.run
    if isinstance(run, partial):  # of queues or topics
        return _first_line(run.func.__doc__).replace("queue", name.partition("_")[0])
    return _first_line(run.__doc__)


def _first_line(told: str | None) -> str:
    return (told or "").partition("\n")[0]


def _remarks(name: str, action: Action | None) -> Sequence[str]:
    remarks = []
    if action is not None and action.operation.rule is not None:
        rule = action.operation.rule
        remarks.append(
            f"Access rule {rule}: role {RULES[rule].name.lower()}, unless the settings say otherwise."
        )
    if name in ADMIN_ACTIONS:
        remarks.append("Known only with the setting admin.")
    if name in POOL_ACTIONS:
        remarks.append("Known only with the settings admin and pooling.")
    return remarks


def _to(*path: str) -> JsonObject:
    return {"$ref": "#/" + "/".join(path)}
