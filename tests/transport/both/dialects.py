"""One client that speaks REST, or the websocket protocol in either encoding.

A test names an operation of the service and its arguments, and is told a status and a value. How
these travel is the business of a `Dialect`; what is of one transport alone (links and hrefs, the
reserved defaults in metadata, the texts of a 204) is no part of a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.transport.conftest import DEFAULTS, NO_BODY, PATCH_TYPE, Client
from tests.transport.sockets import ABSENT, ENCODINGS, Socket
from transport.service import Service
from transport.wsgi.routes import ByIds, routes

REST = "rest"
DIALECTS = [REST, *(f"websocket-{encoding}" for encoding in ENCODINGS)]

#: Arguments that travel in the query of a REST request, where they are no part of its path, and their names there.
QUERY = {
    "detailed": "detailed",
    "echo": "echo",
    "include_claimed": "include_claimed",
    "include_delayed": "include_delayed",
    "limit": "limit",
    "marker": "marker",
    "name": "name",
    "pop": "pop",
    "wait": "wait",
    "with_count": "with_count",
    "message_ids": "ids",
    "claim_ids": "claim_ids",
}

#: Arguments that are the whole body of a REST request.
WHOLE = ("metadata", "changes", "events")

#: Operations of which REST wants a body even if there is nothing to say.
WITH_BODY = {"claim_update", "queue_share", "subscription_create", "subscription_update", "message_post"}


class Outcome(NamedTuple):
    """What came of a request."""

    status: int
    value: Any  # None where it was refused, or where there is nothing to tell


class Dialect(Protocol):
    """The way of one transport."""

    def tell(self, headers: Mapping[str, str], operation: str, arguments: Mapping[str, Any]) -> Outcome:
        """Ask for an operation."""


@dataclass(frozen=True)
class Claim:
    """A claim that was granted."""

    id: str
    messages: list[dict[str, Any]]

    @property
    def bodies(self) -> list[Any]:
        return [message["body"] for message in self.messages]

    @property
    def ids(self) -> list[str]:
        return [message["id"] for message in self.messages]


@dataclass(frozen=True)
class Speaker:
    """A client of a service."""

    dialect: Dialect
    service: Service
    headers: Mapping[str, str]

    def ask(self, operation: str, /, **arguments: Any) -> Outcome:
        """Ask for an operation; an argument that is ABSENT is not sent."""
        sent = {name: value for name, value in arguments.items() if value is not ABSENT}
        return self.dialect.tell(self.headers, operation, sent)

    def status(self, operation: str, /, **arguments: Any) -> int:
        return self.ask(operation, **arguments).status

    def get(self, operation: str, /, **arguments: Any) -> Any:
        """Do something that succeeds; return the value."""
        status, value = self.ask(operation, **arguments)
        assert status < 300, (operation, arguments, status)
        return value

    def saying(self, **headers: str) -> Speaker:
        """This client with other headers; `X_Roles` stands for `X-Roles`."""
        return replace(
            self,
            headers={**self.headers, **{name.replace("_", "-"): text for name, text in headers.items()}},
        )

    def of(self, project: str) -> Speaker:
        return self.saying(X_Project_ID=project)

    def another(self, number: int = 1) -> Speaker:
        """Somebody else of the same project."""
        return self.saying(Client_ID=f"00000000-0000-4000-8000-{number:012}")

    # What many tests need before they come to their point. Each expects success, and means the queue q1.

    def create(self, queue: str = "q1", **metadata: Any) -> None:
        assert self.status("queue_create", queue_name=queue, metadata=metadata) == 201

    def post(self, *bodies: Any, queue: str = "q1", **members: Any) -> list[str]:
        """Post a message for each body, all with the same ttl or delay, and return their ids."""
        messages = [{"body": body, **members} for body in bodies]
        ids: list[str] = self.get("message_post", queue_name=queue, messages=messages)
        return ids

    def claim(self, queue: str = "q1", **terms: Any) -> Claim:
        found = self.get("claim_create", queue_name=queue, **terms)
        assert found is not None, "there was nothing to claim"
        return Claim(found["claim_id"], found["messages"])

    def page(self, queue: str = "q1", **options: Any) -> list[dict[str, Any]]:
        """Return a listing: by default of all but the claimed and the delayed."""
        found: list[dict[str, Any]] = self.get(
            "message_list", queue_name=queue, **{"echo": True, "limit": 20, **options}
        )
        return found

    def listed(self, queue: str = "q1", **options: Any) -> list[Any]:
        """Return the bodies of a listing."""
        return [message["body"] for message in self.page(queue, **options)]

    def counts(self, queue: str = "q1") -> tuple[int, int]:
        """Return how many messages are free and claimed."""
        counted = self.get("queue_get_stats", queue_name=queue)
        return counted["free"], counted["claimed"]

    def queues(self, **options: Any) -> list[str]:
        found = self.get("queue_list", **{"limit": 20, **options})
        return [queue["name"] for queue in found["queues"]]

    def subscribe(self, subscriber: str = "http://hook.example.org/", queue: str = "q1", **wish: Any) -> str:
        """Subscribe somebody; return the id."""
        return str(self.get("subscription_create", queue_name=queue, subscriber=subscriber, **wish))

    def subscriptions(self, queue: str = "q1", **options: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("subscription_list", queue_name=queue, **options)
        return found


def speaker(api: Client, dialect: str) -> Speaker:
    """Return a client of a service who speaks a dialect."""
    headers = {name: text for name, text in api.headers.items() if text is not None}
    if dialect == REST:
        return Speaker(OverRest(api), api.service, headers)
    return Speaker(OverSocket(api.service, dialect.partition("-")[2]), api.service, headers)


# --- REST


@dataclass
class OverRest:
    """Requests to an application, each by itself."""

    api: Client

    def tell(self, headers: Mapping[str, str], operation: str, arguments: Mapping[str, Any]) -> Outcome:
        """Ask for an operation."""
        rest = dict(arguments)
        method, template = _routes()[operation]
        path = template.format_map(_Taking(rest))
        if "filters" in rest:
            rest |= rest.pop("filters", {})
        in_query = (lambda _: True) if method == "GET" else QUERY.__contains__
        taken = [name for name in rest if in_query(name) or (name == "claim_id" and method == "DELETE")]
        query = [(QUERY.get(name, name), _as_text(rest.pop(name))) for name in taken]
        sent = dict(headers)
        if "idempotency_key" in rest:
            sent["Idempotency-Key"] = rest.pop("idempotency_key")
        if operation in ("queue_update", "topic_update"):
            sent["Content-Type"] = PATCH_TYPE
        if operation == "event_post":
            batch = "-batch" if isinstance(rest["events"], list) else ""
            sent["Content-Type"] = f"application/cloudevents{batch}+json"
        document: Any = rest if rest or operation in WITH_BODY else NO_BODY
        for name in WHOLE:
            if set(rest) == {name}:
                document = rest[name]
        answer = replace(self.api, headers=sent).request(
            method, f"{path}?{urlencode(query)}" if query else path, document
        )
        status = answer.status_code
        if operation == "message_get_many" and status == 404:  # where the websocket lists none
            return Outcome(200, [])
        body = answer.json if answer.content else None
        if status >= 400:
            return Outcome(status, None)
        value = _REST_VALUES.get(operation, _nothing)(body)
        if operation == "claim_create" and status == 201:
            value["claim_id"] = _tail(answer.headers["location"])
        return Outcome(status, value)


class _Taking(dict[str, str]):
    """The variables of a path, taken out of the arguments."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self._arguments = arguments

    def __missing__(self, name: str) -> str:
        # On the websocket a topic, too, is named by the member queue_name.
        return str(self._arguments.pop("queue_name" if name == "topic_name" else name))


@cache
def _routes() -> Mapping[str, tuple[str, str]]:
    """Return method and path of each operation."""
    found: dict[str, tuple[str, str]] = {}
    for path, methods in routes(admin=True, pooling=True).items():
        for method, choice in methods.items():
            endpoints = (choice.with_ids, choice.without) if isinstance(choice, ByIds) else (choice,)
            for endpoint in endpoints:
                found.setdefault(endpoint.operation.name, (method, path))
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _tail(path: str) -> str:
    return path.rpartition("/")[2]


def _message(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every transport shows of a message."""
    found = dict(shown)
    if "href" in found:
        claim_ids = parse_qs(urlsplit(found.pop("href")).query).get("claim_id", [None])
        found["claim_id"] = claim_ids[0]
    return found


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_message(each) for each in body["messages"]]


def _with_messages(body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a claim; None where there is none."""
    if body is None or body.get("claim_id", "") is None:
        return None
    named = {name: value for name, value in body.items() if name != "href"}
    return {**named, "messages": _messages(body)}


def _stored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if DEFAULTS.get(key, NO_BODY) != value}


def _queues(body: Mapping[str, Any]) -> dict[str, Any]:
    queues = []
    for each in body["queues" if "queues" in body else "topics"]:
        shown = {"name": each["name"]}
        if "metadata" in each:
            shown["metadata"] = _stored(each["metadata"])
        queues.append(shown)
    counted = {"count": body["count"]} if body.get("count") else {}  # none are not counted over REST
    return {"queues": queues, **counted}


def _stats(body: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(body["messages"])
    for end in ("oldest", "newest"):
        if end in found:
            shown = dict(found[end])
            href = shown.pop("href", None)
            found[end] = shown if href is None else {"id": _tail(href), **shown}
    return found


def _member(name: str) -> Callable[[Any], Any]:
    return lambda body: body[name]


def _nothing(_body: object) -> None:
    return None


def _as_it_is(body: Any) -> Any:
    return body


def _popped(body: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    return _messages(body) if body else None


#: What is common to both: values that have the same members everywhere.
_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "queue_get": _stored,
    "queue_update": _stored,
    "queue_list": _queues,
    "queue_get_stats": _stats,
    "topic_get": _stored,
    "topic_update": _stored,
    "topic_list": _queues,
    "topic_get_stats": _stats,
    "queue_share": _as_it_is,
    "message_list": _messages,
    "message_get_many": _messages,
    "message_delete_many": _popped,
    "claim_create": _with_messages,
    "claim_get": _with_messages,
    "subscription_create": _member("subscription_id"),
    "subscription_list": _member("subscriptions"),
    "subscription_get": _as_it_is,
    "subscription_status": _as_it_is,
    "subscription_failed": _member("deliveries"),
    "subscription_replay": _member("replayed"),
    "check_node_health": _as_it_is,
    "pool_list": _member("pools"),
    "pool_get": _as_it_is,
    "pool_update": _as_it_is,
    "pool_drain": _as_it_is,
    "pool_drain_get": _as_it_is,
    "flavor_list": _member("flavors"),
    "flavor_get": _as_it_is,
    "flavor_update": _as_it_is,
}

_REST_VALUES: Mapping[str, Callable[[Any], Any]] = {
    **_VALUES,
    "message_post": lambda body: [_tail(path) for path in body["resources"]],
    "event_post": lambda body: [_tail(path) for path in body["resources"]],
    "message_get": _message,
}

_SOCKET_VALUES: Mapping[str, Callable[[Any], Any]] = {
    **_VALUES,
    "message_post": _member("message_ids"),
    "event_post": _member("message_ids"),
    "message_get": lambda body: _message(body["messages"]),
}


# --- websocket


@dataclass
class OverSocket:
    """Frames over connections, one for each token."""

    service: Service
    encoding: str
    _sockets: dict[str, Socket] = field(default_factory=dict)

    def tell(self, headers: Mapping[str, str], operation: str, arguments: Mapping[str, Any]) -> Outcome:
        """Ask for an operation."""
        socket = self._socket(headers)
        socket.headers = dict(headers)
        status, body = socket.call(operation, dict(arguments))
        if operation in ("queue_get_stats", "topic_get_stats") and status == 404:  # where REST counts none
            status = 200
        if status >= 400:
            return Outcome(status, None)
        return Outcome(status, _SOCKET_VALUES.get(operation, _nothing)(body))

    def _socket(self, headers: Mapping[str, str]) -> Socket:
        secret = headers.get("X-Auth-Token", "")
        if secret not in self._sockets:
            found = self._sockets[secret] = Socket(self.service, headers, encoding=self.encoding)
            if secret:
                found.call("authenticate")
        return self._sockets[secret]
