"""A websocket client for tests: frames in, frames out, and no network between it and the session.

Every reply is checked for what the protocol says of all of them. Where a connection itself is
what a test is about, `tests/transport/websocket/live.py` has real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from queues.models import Subscription
from queues.service.presence import PresenceService
from queues.service.pushes import Position
from transport.auth import Identity
from transport.dispatch import Reply
from transport.service import Service
from transport.websocket.actions import actions
from transport.websocket.frames import Payload
from transport.websocket.session import LeaseWish, Session, Waiting

ABSENT: Any = object()  # in place of a member that is not there
ENCODINGS = ["json", "msgpack"]
NOBODY_KNOWS: dict[str, Any] = {
    "action": None,
    "body": {},
    "headers": {},
    "api": "v2",
}  # the echo of what cannot be read


class Told(NamedTuple):
    """What a request was answered."""

    status: int
    body: Any


def packed(document: Any, **named: Any) -> bytes:
    """Return a document as MessagePack."""
    data: bytes = msgpack.packb(document, **named)
    return data


def written(document: Any, encoding: str) -> Payload:
    """Return a document as a frame."""
    return packed(document) if encoding == "msgpack" else json.dumps(document)


def unwritten(payload: Payload) -> Any:
    """Return what a frame says; maps have text for keys, and texts are texts."""
    if isinstance(payload, str):
        return json.loads(payload)
    return msgpack.unpackb(payload, raw=False, strict_map_key=True)


def request(action: Any, body: Any = ABSENT, headers: Any = ABSENT) -> dict[str, Any]:
    """Return a request."""
    members = {"action": action, "headers": headers, "body": body}
    return {name: value for name, value in members.items() if value is not ABSENT}


def check_reply(reply: Any, asked: Any = ABSENT) -> Told:
    """Check what holds for every reply, and whether it repeats what was asked; return the answer."""
    assert set(reply) == {"request", "body", "headers"}, "section 2: envelope"
    assert set(reply["request"]) == {"action", "body", "headers", "api"}
    assert reply["request"]["api"] == "v2"
    assert set(reply["headers"]) == {"status"}, "section 2: no other headers"
    status, body = reply["headers"]["status"], reply["body"]
    assert type(status) is int
    assert status != 500, body
    if asked is not ABSENT:
        assert reply["request"] == {"api": "v2", "body": {}, "headers": {}, **asked}, "section 2: echo"
    if status >= 400 and "messages" not in body:
        _check_error(body)
    return Told(status, body)


def _check_error(body: Any) -> None:
    """Check an error for its three shapes; the answer to somebody who has subscribed already is a text."""
    if isinstance(body, str):
        assert body.endswith(" not created.")
        return
    assert set(body) in ({"error"}, {"error", "exception"})
    assert all(text is None or (isinstance(text, str) and text) for text in body.values())
    assert body["error"] or body["exception"]


@dataclass
class Link:
    """A connection that is none: notes what its session wants of it."""

    presence: PresenceService
    node_id: str = "node"
    id: str = "0d15ea5e-0000-4000-8000-000000000001"
    uri: str = "http://node.example.org:9000/0d15ea5e-0000-4000-8000-000000000001"
    room: int = 100
    followed: dict[str, tuple[Subscription, Position, bool]] = field(default_factory=dict)
    leased: dict[str, LeaseWish] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)

    def check_in(self) -> None:
        self.presence.appear(self.node_id)

    def follow(self, subscription: Subscription, after: Position, *, binary: bool) -> None:
        self.followed[subscription.id] = (subscription, after, binary)

    def lease(self, wish: LeaseWish) -> None:
        self.leased[wish.id] = wish

    def forget(self, subscription_id: str) -> None:
        self.forgotten.append(subscription_id)
        self.leased.pop(subscription_id, None)

    def settled(self, claim_id: str) -> None:
        """What was leased is not counted here."""

    def renewed(self, claim_id: str, seconds: int) -> None:
        """Nor is its time."""

    def authenticated(self, identity: Identity) -> None:
        self.identities.append(identity)

    def leases(self, subscription_id: str) -> bool:
        return subscription_id in self.leased


class Socket:
    """One connection of a client that speaks one encoding, unless a frame says otherwise."""

    def __init__(self, service: Service, headers: Mapping[str, Any], *, encoding: str = "json") -> None:
        settings = service.settings
        self.service = service
        self.headers = dict(headers)  # sent with each request
        self.encoding = encoding
        self.link = Link(service.presence)
        self.session = Session(service, actions(admin=settings.admin, pooling=settings.pooling), self.link)

    def raw(self, payload: Payload) -> Payload:
        """Send a frame as it is, and return the frame that answers it, which is in the same encoding."""
        handled = self.session.handle(payload)
        if isinstance(handled, Waiting):
            handled = handled.finish(Reply(value=handled.vigil.wait()))
        if handled.then is not None:
            handled.then()
        assert type(handled.reply) is type(payload), "section 1: the encoding of the request"
        return handled.reply

    def send(self, payload: Payload) -> Any:
        """Send a frame as it is, and return the reply."""
        return unwritten(self.raw(payload))

    def ask(self, document: Any) -> Told:
        """Send a document, and return the answer."""
        return check_reply(self.send(written(document, self.encoding)))

    def call(self, action: Any, body: Any = ABSENT, **headers: Any) -> Told:
        """Send a request, and return the answer; `X_Roles` stands for `X-Roles`, and ABSENT leaves one out."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in {**self.headers, **named}.items() if value is not ABSENT}
        asked = request(action, body, sent)
        reply = self.send(written(asked, self.encoding))
        if action == "authenticate" and reply["headers"]["status"] != 400:
            return check_reply(reply, {"action": action, "body": {}, "headers": {}})
        shown = {**sent, "X-Auth-Token": "hidden"} if "X-Auth-Token" in sent else sent
        return check_reply(reply, {**asked, "headers": shown})

    def do(self, action: str, /, **body: Any) -> Told:
        """Send a request whose body has these members."""
        return self.call(action, body)

    def done(self, action: str, /, **body: Any) -> Any:
        """Do something that succeeds, and return the body of the answer."""
        status, answer = self.do(action, **body)
        assert status < 300, (status, answer)
        return answer

    def post(self, *bodies: Any, queue: str = "q1", **members: Any) -> list[str]:
        """Post a message for each body, all with the same members beside it, and return their ids."""
        messages = [{"body": body, **members} for body in bodies]
        ids: list[str] = self.done("message_post", queue_name=queue, messages=messages)["message_ids"]
        return ids

    def listed(self, queue: str = "q1", **options: Any) -> list[Any]:
        """Return the bodies that a listing shows: by default all but the claimed and the delayed."""
        found = self.done("message_list", queue_name=queue, **{"echo": True, "limit": 20, **options})
        return [message["body"] for message in found["messages"]]
