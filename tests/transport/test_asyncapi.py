"""The AsyncAPI document: it is the one that is committed, it is valid, and what is really said fits it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import pytest
from jsonschema import Draft7Validator
from pydantic import SecretStr

from queues.models import Address, Caller, Notice, PendingDelivery, Push, Role, Subscription
from queues.service.claims import SeenClaim
from queues.service.pushes import Position, Pushed
from storage.registry import connect
from tests.transport.sockets import Link
from transport.settings import Settings
from transport.settings.model import NotifierSettings, SignedUrlSettings
from transport.websocket import asyncapi
from transport.websocket.actions import actions
from transport.websocket.frames import Payload
from transport.websocket.leases import LeaseHolder
from transport.websocket.session import CONNECTION_ACTIONS, ClaimMode, Handled, LeaseWish, Session
from transport.websocket.shapes import PUSHED
from transport.websocket.streams import Frames, Member
from transport.wiring import assemble

T = TypeVar("T")
Json: TypeAlias = Any

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "asyncapi.json"
DOCUMENT: Json = json.loads(PAGE.read_text(encoding="utf-8"))
HEADERS = {
    "Client-ID": "6d0c2f0e-7a0b-4a55-9c0e-2f0d6a3b9f11",
    "X-Project-ID": "blue",
    "X-Roles": "admin",
}
HOOK = "http://hook.example.org/one"
FILTER = {"exact": {"a": 1}}


# --- the document


def test_the_page_is_the_one_that_is_made():
    made = asyncapi.text()
    assert PAGE.read_text(encoding="utf-8") == made, (
        "run: .venv/bin/python -m transport.websocket > docs/reference/asyncapi.json"
    )


def parts(value: Json) -> Iterator[dict[str, Json]]:
    """Return every object of a document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


def found(reference: str) -> Json:
    """Return what a reference leads to."""
    value = DOCUMENT
    beginning, *path = reference.split("/")
    assert beginning == "#"
    for name in path:
        value = value[name]
    return value


def test_every_reference_leads_somewhere_and_everything_named_is_referred_to():
    references = {part["$ref"] for part in parts(DOCUMENT) if "$ref" in part}

    for reference in references:
        assert isinstance(found(reference), dict)
    named = {f"#/components/{kind}/{name}" for kind, all_ in DOCUMENT["components"].items() for name in all_}
    assert named <= references


def test_a_reference_stands_alone():
    for part in parts(DOCUMENT):
        assert "$ref" not in part or set(part) == {"$ref"}, "whatever stands beside it is ignored"


def test_it_has_what_asyncapi_wants():
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert set(DOCUMENT) <= {
        *("asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components")
    }
    assert {"title", "version"} <= set(DOCUMENT["info"])
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= set(server)
    for kind in ("channels", "operations", "components/schemas", "components/messages"):
        assert all(re.fullmatch(r"[\w.-]+", name) for name in found(f"#/{kind}"))
    for message in DOCUMENT["components"]["messages"].values():
        assert set(message) == {"name", "summary", "payload"}
        assert message["summary"]


def test_every_operation_names_its_channel_and_messages_of_it():
    for name, operation in DOCUMENT["operations"].items():
        assert operation["action"] == ("send" if name in PUSHED else "receive")
        assert operation["channel"] == {"$ref": "#/channels/connection"}
        assert operation["summary"]
        answers = operation.get("reply", {"messages": []})
        assert bool(answers["messages"]) == (operation["action"] == "receive")
        for reference in (*operation["messages"], *answers["messages"]):
            assert reference["$ref"].startswith(f"{operation['channel']['$ref']}/messages/")


def test_every_action_and_all_that_is_pushed_is_an_operation():
    all_actions = {*CONNECTION_ACTIONS, *actions(admin=True, pooling=True)}

    assert set(DOCUMENT["operations"]) == all_actions | set(PUSHED)


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_the_payload_of_a_message_is_a_schema(name):
    Draft7Validator.check_schema(DOCUMENT["components"]["messages"][name]["payload"])


# --- what is really said


def exact(schema: Json) -> Json:
    """Return a schema that allows no members but those that it names."""
    if isinstance(schema, list):
        return [exact(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: exact(value) for name, value in schema.items()}
    if copy.get("type") == "object" and "title" in copy and "properties" in copy:
        copy["additionalProperties"] = False
    return copy


EXACT = {**DOCUMENT, "components": exact(DOCUMENT["components"])}


def validator(message: str, *, document: Json = EXACT) -> Draft7Validator:
    payload = document["components"]["messages"][message]["payload"]
    return Draft7Validator({"components": document["components"], "allOf": [payload]})


def check(message: str, value: Json) -> None:
    problems = [error.message for error in validator(message).iter_errors(value)]
    assert not problems, (message, value)


class Speaker:
    """Speaks to a session, and holds each request and each reply against the document."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.answered: dict[str, set[int]] = {}  # statuses that were seen, by action

    def ask(self, action: str, *, headers: Mapping[str, str] = HEADERS, **body: Json) -> Json:
        """Make a request that fits the document, and return the body of the reply."""
        request = {"action": action, "headers": headers, **({"body": body} if body else {})}
        check(action, request)
        status, said = self.say(request)
        self.answered.setdefault(action, set()).add(status)
        return said

    def say(self, request: Json) -> tuple[int, Json]:
        """Make a request of whatever form; return the status and the body of the reply."""
        payload = request if isinstance(request, str) else json.dumps(request)
        handled = self.session.handle(payload)
        assert isinstance(handled, Handled)
        if handled.then is not None:
            handled.then()
        reply = json.loads(handled.reply)
        name = reply["request"]["action"]
        status = reply["headers"]["status"]
        done = name in DOCUMENT["operations"] and validator(f"{name}_reply").is_valid(reply)
        if not done:
            check("refusal", reply)
        return status, reply["body"]


@pytest.fixture
def speak() -> Iterator[Speaker]:
    """Somebody who is connected to a service that knows everything."""
    settings = Settings(
        store="memory:",
        admin=True,
        pooling=True,
        signed_url=SignedUrlSettings(secret_keys=(SecretStr("a key of many characters"),)),
        notifier=NotifierSettings(signing_keys=(SecretStr("a key of many characters"),)),
    )
    service = assemble(settings, connect(settings.store, timeout=5.0))
    yield Speaker(Session(service, actions(admin=True, pooling=True), Link(service.presence)))
    service.close()


def declare(speak: Speaker, noun: str) -> None:
    """Ask all that can be asked of queues and of topics."""
    name = f"{noun}1"
    for _ in range(2):
        speak.ask(f"{noun}_create", queue_name=name, metadata={"a": 1})
    speak.ask(f"{noun}_list")
    speak.ask(f"{noun}_list", limit=5, marker="a", detailed=True, with_count=True, name=noun)
    change = {"op": "add", "path": "/metadata/b", "value": [1]}
    speak.ask(f"{noun}_update", queue_name=name, changes=[change])
    for action in ("get", "exists", "get_stats"):
        speak.ask(f"{noun}_{action}", queue_name=name)
        speak.ask(f"{noun}_{action}", queue_name="missing")
    speak.ask(f"{noun}_purge", queue_name=name)
    speak.ask(f"{noun}_purge", queue_name=name, resource_types=["messages"])
    speak.ask(f"{noun}_delete", queue_name=name)


def administrate(speak: Speaker, folder: Path) -> None:
    """Ask all that can be asked of pools and flavors."""
    for name in ("p1", "p2"):
        speak.ask("pool_create", pool_name=name, uri=f"sqlite:///{folder}/{name}.db", weight=1)
    speak.ask("pool_update", pool_name="p2", options={"timeout": 5.0}, weight=2)
    speak.ask("pool_list")
    speak.ask("pool_list", detailed=True, limit=5, marker="a")
    speak.ask("pool_get", pool_name="p2", detailed=True)
    speak.ask("flavor_create", flavor_name="gold", pool_list=["p1"])
    speak.ask("flavor_update", flavor_name="gold", pool_list=["p2"])
    speak.ask("flavor_list", detailed=True)
    speak.ask("flavor_get", flavor_name="gold")
    speak.ask("flavor_delete", flavor_name="gold")
    for action in ("pool_drain", "pool_drain_get", "pool_drain_stop", "pool_delete", "pool_delete"):
        speak.ask(action, pool_name="p2")


def work(speak: Speaker) -> None:
    """Ask all that can be asked of messages and claims."""
    ids = speak.ask(
        "message_post",
        queue_name="q1",
        idempotency_key="once",
        messages=[{"body": {"a": number}, "ttl": 300} for number in range(4)],
    )["message_ids"]
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "paid"}
    speak.ask("event_post", queue_name="q1", events=event)
    speak.ask("event_post", queue_name="q1", events=[{**event, "id": "2"}])
    speak.ask("queue_get_stats", queue_name="q1")
    speak.ask("message_list", queue_name="q1", echo=True, limit=5, include_claimed=True, wait=0)
    speak.ask("message_get", queue_name="q1", message_id=ids[0])
    speak.ask("message_get", queue_name="q1", message_id="0")
    speak.ask("message_get_many", queue_name="q1", message_ids=ids)
    speak.ask("message_delete_many", queue_name="q1", pop=1)
    speak.ask("message_delete_many", queue_name="q1", message_ids=[ids[0]])
    claim_id = speak.ask("claim_create", queue_name="q1", limit=2, ttl=100, grace=None, wait=0)["claim_id"]
    speak.ask("claim_create", queue_name="missing")
    speak.ask("claim_get", queue_name="q1", claim_id=claim_id)
    speak.ask("claim_update", queue_name="q1", claim_id=claim_id, ttl=60)
    speak.ask("message_delete", queue_name="q1", message_id=ids[1], claim_id=claim_id)
    speak.ask("message_delete", queue_name="q1", message_id=ids[2])
    speak.ask("claim_delete", queue_name="q1", claim_id=claim_id)
    speak.ask(
        "queue_share", queue_name="q1", paths=["claims"], methods=["GET"], expires="2099-01-01T00:00:00"
    )


def subscribe(speak: Speaker) -> None:
    """Ask all that can be asked of subscriptions."""
    options = {"filter": FILTER, "format": "cloudevents-binary", "_retry_policy": {"delays": [1]}}
    id_ = speak.ask("subscription_create", queue_name="q1", subscriber=HOOK, ttl=600, options=options)[
        "subscription_id"
    ]
    names = {"queue_name": "q1", "subscription_id": id_}
    speak.session.service.deliveries.bury(
        PendingDelivery(
            notice=Notice(id="msg_1", body=b"{}", ttl=300),
            address=Address(project="blue", queue="q1"),
            subscription_id=id_,
            attempt=3,
            posted=1_795_211_967_000,
        )
    )
    speak.ask("subscription_failed", **names, limit=5)
    speak.ask("subscription_replay", **names, since="2020-01-01T00:00:00")
    speak.ask("subscription_replay", **names, ids=["1"])
    speak.ask("subscription_confirm", **names, confirmed=True)
    speak.ask("subscription_create", queue_name="q1", subscriber=HOOK)
    speak.ask("subscription_update", **names, ttl=700, options={"post_headers": {"X-Shop": "blue"}})
    speak.ask("subscription_get", **names)
    speak.ask("subscription_status", **names)
    own = speak.ask("subscription_create", queue_name="q1", options={"sequence": True})["subscription_id"]
    speak.ask("subscription_resume", queue_name="q1", subscription_id=own, sequence=0)
    leased = speak.ask("subscription_create", queue_name="q1", options={"mode": "claim", "credit": 2})
    speak.ask("subscription_list", queue_name="q1", limit=5)
    for each in (id_, own, leased["subscription_id"]):
        speak.ask("subscription_delete", queue_name="q1", subscription_id=each)


def test_all_that_is_asked_and_answered_fits_the_document(speak, tmp_path):
    speak.ask("authenticate", headers={"X-Project-ID": "blue"})
    speak.ask("ping_node")
    speak.ask("check_node_health")
    declare(speak, "queue")
    declare(speak, "topic")
    administrate(speak, tmp_path)
    work(speak)
    subscribe(speak)

    assert set(speak.answered) == set(DOCUMENT["operations"]) - set(PUSHED)
    wrong = {action: statuses for action, statuses in speak.answered.items() if statuses & {400, 500, 503}}
    assert not wrong


@pytest.mark.parametrize(
    "request_", ["{", "[]", {"action": "bogus"}, {"action": None}, {}, {"action": "queue_get"}]
)
def test_what_is_refused_is_answered_as_the_document_says(speak, request_):
    assert speak.say(request_)[0] == 400


def required(action: str) -> list[str]:
    """Return the members that a body must have."""
    body = DOCUMENT["components"]["messages"][action]["payload"]["properties"]["body"]
    names: list[str] = found(body["$ref"])["required"]
    return names


def typed(action: str) -> dict[str, Json]:
    """Return a value of the wrong type for each member of a body that has a type."""
    body = DOCUMENT["components"]["messages"][action]["payload"]["properties"]["body"]
    members = found(body["$ref"])["properties"]
    return {name: _wrong(schema) for name, schema in members.items() if _wrong(schema) is not None}


def _wrong(schema: Json) -> Json:
    for value in (5, {}, "text", [5], {"sequence": "yes"}):
        document = {"components": DOCUMENT["components"], "allOf": [schema]}
        if not Draft7Validator(document).is_valid(value):
            return value
    return None


#: A value for each member of a body, by its name.
GOOD: Mapping[str, Json] = {
    "queue_name": "q1",
    "messages": [{"body": 1}],
    "message_ids": ["1"],
    "events": {"specversion": "1.0", "id": "1", "source": "/shop", "type": "paid"},
    "changes": [],
    "confirmed": True,
    "sequence": 0,
    "uri": "memory:",
    "weight": 1,
    "pool_list": ["p1"],
}

BODIES = [
    name
    for name, operation in DOCUMENT["operations"].items()
    if operation["action"] == "receive" and name != "authenticate"
]


@pytest.mark.parametrize("action", BODIES)
def test_what_does_not_fit_the_document_is_refused(speak, action):
    good = {name: GOOD.get(name, "1") for name in required(action)}
    check(action, {"action": action, "headers": HEADERS, "body": good})
    misses = [{name: value for name, value in good.items() if name != missing} for missing in good]
    wrongs = [{**good, name: value} for name, value in typed(action).items()]

    for body in (*misses, *wrongs):
        request = {"action": action, "headers": HEADERS, "body": body}
        assert not validator(action, document=DOCUMENT).is_valid(request)
        assert speak.say(request)[0] == 400, body


@pytest.mark.parametrize("action", BODIES)
def test_null_is_refused_where_the_document_says_so(speak, action):
    good = {name: GOOD.get(name, "1") for name in required(action)}
    body = DOCUMENT["components"]["messages"][action]["payload"]["properties"]["body"]

    for member in found(body["$ref"])["properties"]:
        request = {"action": action, "headers": HEADERS, "body": {**good, member: None}}
        _, said = speak.say(request)
        refused = isinstance(said, dict) and said.get("error") == "Schema validation failed."
        assert validator(action, document=DOCUMENT).is_valid(request) != refused, (member, said)


@pytest.mark.parametrize("missing", ["Client-ID", "X-Project-ID"])
def test_headers_that_do_not_fit_the_document_are_refused(speak, missing):
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    request = {"action": "ping_node", "headers": headers}

    assert not validator("ping_node").is_valid(request)
    assert speak.say(request)[0] == 400


# --- what is pushed


@dataclass
class Sink:
    """Takes what is pushed to a connection."""

    binary: bool = False
    taken: list[Payload] = field(default_factory=list)
    some: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, payload: Payload) -> None:
        self.taken.append(payload)
        self.some.set()

    async def drained(self) -> None:
        pass

    def forget(self, subscription_id: str) -> None:
        raise AssertionError(subscription_id)

    def lost(self, subscription_id: str) -> None:
        raise AssertionError(subscription_id)


def documents(sink: Sink) -> list[Json]:
    return [
        json.loads(each) if isinstance(each, str) else msgspec.msgpack.decode(each) for each in sink.taken
    ]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("delay", [None, 5])
@pytest.mark.parametrize("numbered", [False, True], ids=["plain", "numbered"])
def test_notifications_and_heartbeats_fit_the_document(numbered, delay, binary):
    subscription = Subscription(
        id="0123456789abcdef01234567",
        address=Address(project="blue", queue="q1"),
        subscriber=HOOK,
        ttl=600,
        renewed=0,
        push=Push(node="n", connection="c", after=0, resumable=numbered),
    )
    sink = Sink(binary=binary)
    member = Member(subscription, sink, Position())
    pushed = Pushed(
        Position(place=1, generation="0123456789abcdef"),
        Notice(id="msg_1", body=b'{"a": 1}', ttl=300, delay=delay),
    )

    member.tell(pushed, Frames(pushed, "q1"))
    if numbered:
        member.beat()

    kinds = ["numbered_notification", "heartbeat"] if numbered else ["notification"]
    for kind, said in zip(kinds, documents(sink), strict=True):
        check(kind, said)


def test_leases_fit_the_document(speak):
    speak.ask("message_post", queue_name="q1", messages=[{"body": {"a": 1}}])
    service = speak.session.service
    caller = Caller(project="blue", client_id=HEADERS["Client-ID"], role=Role.MEMBER)
    wish = LeaseWish(id="1", caller=caller, queue_name="q1", mode=ClaimMode(), binary=False)

    async def lease() -> list[Json]:
        sink = Sink()
        with ThreadPoolExecutor(2) as threads:

            async def call(work: Callable[[], T], /) -> T:
                return await asyncio.get_running_loop().run_in_executor(threads, work)

            holder = LeaseHolder(service, wish, sink, call)
            await asyncio.wait_for(sink.some.wait(), 10)
            await holder.close()
        return documents(sink)

    [said] = asyncio.run(lease())

    check("lease", said)
    assert said["message"]["body"] == {"a": 1}
    found_again = service.claims.create(Address(project="blue", queue="q1"), limit=1, ttl=None, grace=None)
    assert isinstance(found_again, SeenClaim), "it was given back"
