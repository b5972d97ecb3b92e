"""Hostile frames: an error frame or a clean close, and never an exception, a 500 or a dead process."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from queues.models import Address, Caller
from queues.service.messages import Draft
from tests.acceptance.fuzzing import examples
from tests.transport.conftest import CLIENT, PROJECT
from tests.transport.sockets import ABSENT, Socket, check_reply, request
from tests.transport.test_websocket_frames import UNREADABLE_BINARY, UNREADABLE_TEXT
from tests.transport.websocket import live
from transport.settings import Settings
from transport.websocket.actions import actions
from transport.websocket.session import CONNECTION_ACTIONS
from transport.wiring import open_service

HEADERS = {"Client-ID": CLIENT, "X-Project-ID": PROJECT, "X-Roles": "admin"}
ACTIONS = [*CONNECTION_ACTIONS, *actions(admin=True, pooling=True)]

#: Texts with a meaning somewhere.
WORDS = [
    *("q1", "q2", "", "\x00", "\u00e9", "x" * 65, "q1>pushed", "../q1", "a.b", "0", "true", "p1", "t1"),
    *("CLAIM-ID", "CLAIMED-ID", "FREE-ID", "SUBSCRIPTION-ID", "LEASE-ID", "OWN-ID"),
    *("http://hook.example.org/", "mailto:a@example.org", "fake://x", "http://[::1", "memory:", "sqlite:///"),
    *(
        "messages",
        "subscriptions",
        "claims",
        "GET",
        "2026-11-21T00:00:00",
        "9" * 30,
        "0001-01-01T00:00:00-23:59",
    ),
]

NUMBERS = [0, 1, -1, 20, 21, 59, 60, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, -(2**63) - 1]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=20),
    st.text(alphabet=st.characters(categories=["Cs", "Cc", "Lo"]), max_size=3),
)
OPTIONS = ["sequence", "mode", "credit", "claim_ttl", "claim_grace", "filter", "post_headers", "trust_id"]
known = st.sampled_from(
    ["body", "ttl", "delay", "op", "path", "value", "specversion", "id", "source", "type"]
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(known, st.sampled_from(OPTIONS), st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=12,
)

#: What is probably right, by member.
PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "queue_name": st.sampled_from(["q1", "q1", "q1", "q2"]),
    "messages": st.lists(
        st.fixed_dictionaries(
            {"body": st.one_of(st.sampled_from(["BIG-NUMBER", {"a": ["BIG-NUMBER"]}]), values)},
            optional={
                "ttl": st.sampled_from([60, 3600, 3600, 59, "x"]),
                "delay": st.sampled_from([0, 0, 60, -1]),
            },
        ),
        min_size=1,
        max_size=3,
    ),
    "metadata": st.dictionaries(st.text(max_size=4), values, max_size=3),
    "changes": st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace"]),
                "path": st.sampled_from(["/metadata/a", "/metadata/_max_claim_count", "/metadata/a~1b", "/"]),
            },
            optional={"value": values},
        ),
        max_size=3,
    ),
    "events": st.fixed_dictionaries(
        {
            "specversion": st.just("1.0"),
            "id": st.text(min_size=1, max_size=3),
            "source": st.just("/a"),
            "type": st.just("t"),
        },
        optional={"data": values, "time": values, "expirytime": values, "own": values},
    ),
    "options": st.fixed_dictionaries(
        {},
        optional={
            "sequence": st.booleans(),
            "mode": st.sampled_from(["push", "claim", "x"]),
            "credit": st.sampled_from([1, 0, 1000, 1001, "x"]),
            "claim_ttl": st.sampled_from([60, None, 59]),
            "filter": st.one_of(values, st.just({"exact": {"a": 1}})),
        },
    ),
    "message_ids": st.lists(st.sampled_from(["CLAIMED-ID", "FREE-ID", "1"]), max_size=3),
    "claim_ids": st.lists(st.sampled_from(["CLAIM-ID", "1"]), max_size=2),
    "ids": st.lists(st.sampled_from(["1", ""]), max_size=2),
    "message_id": st.sampled_from(["CLAIMED-ID", "FREE-ID", "1"]),
    "claim_id": st.sampled_from(["CLAIM-ID", "1"]),
    "subscription_id": st.sampled_from(["SUBSCRIPTION-ID", "OWN-ID", "LEASE-ID", "1"]),
    "marker": st.sampled_from(["CLAIMED-ID", "q1", "1"]),
    "subscriber": st.sampled_from(["", "http://hook.example.org/", "mailto:a@example.org"]),
    "paths": st.lists(st.sampled_from(["messages", "claims"]), max_size=2),
    "methods": st.lists(st.sampled_from(["GET", "POST"]), max_size=2),
    "pool_list": st.lists(st.just("p1"), max_size=2),
    "resource_types": st.lists(st.sampled_from(["messages", "subscriptions"]), max_size=2),
    "filters": st.dictionaries(st.just("a"), st.text(max_size=3)),
    "idempotency_key": st.sampled_from(["k1", "k2"]),
    "pool_name": st.sampled_from(["p1", "p2"]),
    "flavor_name": st.just("f1"),
    "uri": st.sampled_from(["memory:", "memory:other"]),
    "echo": st.just(True),
    **{name: st.booleans() for name in ("detailed", "include_claimed", "confirmed", "with_count")},
    **{name: st.sampled_from([1, 2, 20, 60]) for name in ("limit", "ttl", "grace", "pop", "weight")},
    **{name: st.sampled_from(WORDS) for name in ("since", "expires", "flavor", "name")},
    "wait": st.just(0),
    "sequence": st.sampled_from([0, 1]),
}

#: Actions by which something comes in that others have to show.
OFTEN = [
    "message_post",
    "message_list",
    "message_post",
    "message_list",
    "claim_create",
    "subscription_create",
]

#: Members without which an action says little, though the shape of its body does not demand them.
MORE = {
    "message_list": ["echo"],
    "queue_share": ["paths", "methods"],
    "subscription_replay": ["subscription_id", "ids"],
    "subscription_resume": ["queue_name", "subscription_id", "sequence"],
    "pool_create": ["pool_name", "uri", "weight"],
    "pool_update": ["pool_name", "weight"],
    "flavor_create": ["flavor_name", "pool_list"],
    "flavor_update": ["flavor_name", "pool_list"],
}


def members_of(action: str) -> tuple[list[str], list[str]]:
    """Return the members that an action's body must have, and those that it may have."""
    known = actions(admin=True, pooling=True)
    shape = known[action].body if action in known else None
    fields = (
        msgspec.structs.fields(shape) if shape is not None and hasattr(shape, "__struct_fields__") else ()
    )
    needed = ["queue_name", *MORE.get(action, ()), *(each.name for each in fields if each.required)]
    return [*dict.fromkeys(needed)], [each.name for each in fields if not each.required]


OF = {name: members_of(name) for name in ACTIONS}
MEMBERS = sorted({*PLAUSIBLE, *(member for both in OF.values() for members in both for member in members)})


@st.composite
def bodies_of(draw: st.DrawFn, action: str) -> Any:
    """Draw a body that an action may accept, often with one member that is wrong."""
    needed, optional = OF[action]
    members = [*needed, *(draw(st.lists(st.sampled_from(optional), max_size=3)) if optional else [])]
    body = {name: draw(PLAUSIBLE.get(name, values)) for name in dict.fromkeys(members)}
    wrong = draw(st.sampled_from(["nothing", "nothing", "nothing", "member", "gone", "all"]))
    if wrong == "member":
        body[draw(st.sampled_from(MEMBERS))] = draw(values)
    if wrong == "gone":
        del body[draw(st.sampled_from(sorted(body)))]
    return draw(values) if wrong == "all" else body


headers = st.one_of(
    st.just(HEADERS),
    values,
    st.dictionaries(
        st.one_of(
            st.sampled_from(
                [*HEADERS, "X-Auth-Token", "Date", "URL-Signature", "URL-Paths", "URL-Methods", "URL-Expires"]
            ),
            st.text(max_size=5),
        ),
        values,
        max_size=4,
    ).map(lambda more: {**HEADERS, **more}),
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a request to one of the actions, or to none."""
    action = draw(st.sampled_from([*ACTIONS, *OFTEN]))
    asked = {"action": action, "headers": HEADERS, "body": draw(bodies_of(action))}
    wrong = draw(st.sampled_from([*["nothing"] * 6, "headers", "action", "id", "gone"]))
    if wrong == "headers":
        asked["headers"] = draw(headers)
    elif wrong == "gone":
        del asked[draw(st.sampled_from(["action", "headers", "body"]))]
    elif wrong != "nothing":
        asked[wrong] = draw(values)
    return asked


class Scene:
    """A service in which there is something of everything, and connections to it."""

    def __init__(self, **settings: Any) -> None:
        wanted: dict[str, Any] = {"admin": True, "pooling": True, **settings}
        wanted["signed_url"] = {"secret_keys": ["a key of the tests"]}
        self.service = open_service(Settings(store="memory:", **wanted))
        self.bystander = Socket(self.service, {**HEADERS, "X-Project-ID": "bystander"})
        self.socket = Socket(self.service, HEADERS)
        self.words: dict[str, str] = {}

    def fill(self) -> Scene:
        """Put something of everything in."""
        do = self.socket.done
        claimed, free = self.socket.post("claimed", "free")
        self.words = {
            "CLAIMED-ID": claimed,
            "FREE-ID": free,
            "CLAIM-ID": do("claim_create", queue_name="q1", limit=1)["claim_id"],
            "SUBSCRIPTION-ID": do(
                "subscription_create", queue_name="q1", subscriber="http://hook.example.org/"
            )["subscription_id"],
            "OWN-ID": do("subscription_create", queue_name="q1", options={"sequence": True})[
                "subscription_id"
            ],
            "LEASE-ID": do("subscription_create", queue_name="q2", options={"mode": "claim"})[
                "subscription_id"
            ],
        }
        self.bystander.post("a", "b")
        return self

    def meant(self, value: Any) -> Any:
        """Return a value in which words stand for what can only be known now."""
        if isinstance(value, str):
            return self.words.get(value, value)
        if isinstance(value, list):
            return [self.meant(each) for each in value]
        if isinstance(value, dict):
            return {name: self.meant(each) for name, each in value.items()}
        return value

    def send(self, frame: str | bytes) -> tuple[int, Any]:
        """Send a frame and check that it is answered as it should be, and logged as nothing unexpected."""
        with capture_logs() as entries:
            reply = self.socket.send(frame)
        assert not [each for each in entries if each.get("exc_info") or each["log_level"] == "error"], entries
        told = check_reply(reply)
        self.socket.link.room = 100  # however many there were
        return told

    def check(self) -> None:
        """Check that others noticed nothing."""
        assert self.bystander.listed() == ["a", "b"]
        assert self.bystander.done("queue_list") == {"queues": [{"name": "q1"}]}
        assert self.socket.do("ping_node").status in (204, 403)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """One scene for all examples: what came of one is what the next one meets."""
    return Scene().fill()


@examples(400)
@given(asked=requests())
def test_a_request_of_any_shape_is_answered(scene: Scene, asked: dict[str, Any]) -> None:
    meant = scene.meant(asked)
    for write in (_written, _packed):
        frame = write(meant)
        if frame is not None:
            scene.send(frame)
    scene.check()


def _written(document: Any) -> str:
    """Return a document as JSON, with a number in it that no float can hold."""
    return json.dumps(document).replace('"BIG-NUMBER"', "1e400")


def _packed(document: Any) -> bytes | None:
    """Return a document as MessagePack; None where that cannot say it."""
    try:
        data: bytes = msgpack.packb(document, unicode_errors="surrogatepass")
    except (OverflowError, ValueError):
        return None
    return data


#: A body that each action accepts, where a queue is not enough.
GOOD: dict[str, dict[str, Any]] = {
    "queue_update": {"queue_name": "q1", "changes": [{"op": "add", "path": "/metadata/a", "value": 1}]},
    "queue_share": {"queue_name": "q1", "paths": ["messages"]},
    "message_post": {"queue_name": "q1", "messages": [{"body": 1, "ttl": 60}]},
    "message_get": {"queue_name": "q1", "message_id": "FREE-ID"},
    "message_get_many": {"queue_name": "q1", "message_ids": ["FREE-ID"]},
    "message_delete": {"queue_name": "q1", "message_id": "CLAIMED-ID", "claim_id": "CLAIM-ID"},
    "message_delete_many": {"queue_name": "q1", "message_ids": ["CLAIMED-ID"]},
    "event_post": {
        "queue_name": "q1",
        "events": {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"},
    },
    "claim_get": {"queue_name": "q1", "claim_id": "CLAIM-ID"},
    "claim_update": {"queue_name": "q1", "claim_id": "CLAIM-ID", "ttl": 60},
    "claim_delete": {"queue_name": "q1", "claim_id": "CLAIM-ID"},
    "subscription_create": {"queue_name": "q1", "options": {"mode": "claim", "credit": 1}},
    "subscription_update": {"queue_name": "q1", "subscription_id": "SUBSCRIPTION-ID", "ttl": 60},
    "subscription_confirm": {"queue_name": "q1", "subscription_id": "SUBSCRIPTION-ID", "confirmed": True},
    "subscription_resume": {"queue_name": "q1", "subscription_id": "OWN-ID", "sequence": 0},
    "subscription_replay": {"queue_name": "q1", "subscription_id": "SUBSCRIPTION-ID", "ids": ["1"]},
    "pool_create": {"pool_name": "p1", "uri": "memory:", "weight": 1},
    "pool_update": {"pool_name": "p1", "weight": 1},
    "flavor_create": {"flavor_name": "f1", "pool_list": ["p1"]},
    "flavor_update": {"flavor_name": "f1", "pool_list": ["p1"]},
    **{name: {"pool_name": "p1"} for name in ("pool_get", "pool_delete", "pool_drain", "pool_drain_get")},
    **{name: {"flavor_name": "f1"} for name in ("flavor_get", "flavor_delete")},
    **{
        name: {"queue_name": "q1", "subscription_id": "SUBSCRIPTION-ID"}
        for name in ("subscription_get", "subscription_delete", "subscription_status", "subscription_failed")
    },
}


@examples(200)
@given(
    frame=st.one_of(
        st.text(), st.binary(), st.text(alphabet='{}[]":,\\u0d8fnulltrue1e-.'), st.binary(max_size=8)
    )
)
def test_noise_is_answered(scene: Scene, frame: str | bytes) -> None:
    status, _ = scene.send(frame)

    assert status == 400


@examples(200)
@given(
    name=st.sampled_from(sorted(GOOD)),
    binary=st.booleans(),
    where=st.integers(min_value=0, max_value=400),
    what=st.binary(max_size=6),
    gone=st.integers(min_value=0, max_value=6),
)
def test_a_frame_that_was_damaged_is_answered(
    scene: Scene, name: str, binary: bool, where: int, what: bytes, gone: int
) -> None:
    asked = request(name, scene.meant(GOOD[name]), HEADERS)
    good = msgpack.packb(asked) if binary else json.dumps(asked).encode()
    at = where % len(good)
    bad = good[:at] + what + good[at + gone :]

    scene.send(bad if binary else bad.decode(errors="replace"))
    scene.check()


@pytest.fixture(scope="module")
def guarded() -> Scene:
    """A scene in which tokens are demanded and nobody has one."""
    return Scene(auth_strategy="token")


@examples(150)
@given(asked=requests())
def test_who_has_no_token_gets_nothing_but_refusals(guarded: Scene, asked: dict[str, Any]) -> None:
    for write in (_written, _packed):
        frame = write(asked)
        if frame is not None:
            status, _ = guarded.send(frame)
            assert status in (400, 401, 403)


# --- over real connections


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    live.run(scenario())


def test_frames_that_cannot_be_read_end_no_connection() -> None:
    async def scenario() -> None:
        async with live.world(notifying=False) as world:
            client = await world.connect()
            frames: list[str | bytes] = [*UNREADABLE_TEXT, *UNREADABLE_BINARY]
            for frame in frames:
                if len(frame) > 300_000:  # that ends it, see below
                    continue
                if isinstance(frame, str):
                    await client.socket.send_str(frame)
                else:
                    await client.socket.send_bytes(frame)
                assert (await client.reply())["headers"] == {"status": 400}
            assert await client.do("queue_list", 200) == {"queues": []}

    run(scenario)


def test_f2_a_number_that_no_float_holds_stops_no_stream() -> None:
    """Neither one that filters by what is in a body, nor one that tells it in MessagePack."""

    async def scenario() -> None:
        async with live.world() as world:
            packed, filtered = await world.connect(binary=True), await world.connect()
            await packed.subscribe()
            await filtered.subscribe(filter={"exact": {"/kind": "x"}})
            drafts = [Draft(body=body) for body in (b'{"kind": "x", "size": 1e400}', b'{"kind": "x"}')]
            caller = Caller(project=live.PROJECT, client_id=live.ANOTHER)
            address = Address(project=live.PROJECT, queue="q")
            await asyncio.to_thread(world.service.messages.post, caller, address, drafts)

            for client in (packed, filtered):
                assert await client.bodies(2) == [{"kind": "x", "size": float("inf")}, {"kind": "x"}]

    run(scenario)


def masked(opcode: int, payload: bytes = b"", *, length: bytes | None = None, mask: bool = True) -> bytes:
    """Return a frame of the wire, whole and masked by nothing unless it is to be otherwise."""
    size = length if length is not None else _size(len(payload))
    first = size[0] | (0x80 if mask else 0)
    return bytes([opcode, first]) + size[1:] + (bytes(4) if mask else b"") + payload


def _size(length: int) -> bytes:
    if length < 126:
        return bytes([length])
    return b"\x7e" + struct.pack("!H", length) if length < 65536 else b"\x7f" + struct.pack("!Q", length)


#: What no client may send, and the code that it is told.
BROKEN: dict[str, tuple[bytes, int]] = {
    "text that is no UTF-8": (masked(0x81, b"\xff\xfe"), 1007),
    "half a character at the end": (masked(0x81, "\u00e9".encode()[:1]), 1007),
    "half a surrogate pair": (masked(0x81, b'{"action": "\xed\xa0\x80"}'), 1007),
    "a frame without a mask": (masked(0x81, b"{}", mask=False), 1002),
    "a reserved bit": (masked(0xC1, b"{}"), 1002),
    "a reserved opcode": (masked(0x83, b"{}"), 1002),
    "a reserved control opcode": (masked(0x8B), 1002),
    "a ping in fragments": (masked(0x09, b"a"), 1002),
    "a ping that is too long": (masked(0x89, b"x" * 126), 1002),
    "a continuation of nothing": (masked(0x80, b"{}"), 1002),
    "a new message within another": (masked(0x01, b"{") + masked(0x81, b"}"), 1002),
    "a length that is not the shortest": (masked(0x81, b"{}", length=b"\x7e\x00\x02"), 1002),
    "a length beyond all bounds": (masked(0x82, length=b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), 1002),
    "a length that is too great": (masked(0x82, length=b"\x7f\x00\x00\x00\x00\xff\xff\xff\xff"), 1009),
    "too much in fragments": (masked(0x02, b"x" * 300_000) + masked(0x80, b"x" * 300_000), 1009),
    "a close with half a code": (masked(0x88, b"\x03"), 1002),
    "a close with a code that is none": (masked(0x88, struct.pack("!H", 1005)), 1002),
    "a close whose reason is no UTF-8": (masked(0x88, struct.pack("!H", 1000) + b"\xff"), 1007),
}


def test_a_broken_protocol_closes_the_connection_and_hurts_nobody_else() -> None:
    async def scenario() -> None:
        async with live.world(notifying=False) as world:
            witness = await world.connect()
            for what, (sent, code) in BROKEN.items():
                assert await _close_code(world.nodes[0].port, sent) == code, what
                assert await witness.do("queue_list", 200) == {"queues": []}, what

    run(scenario)


def test_a_client_that_is_gone_in_the_middle_hurts_nobody() -> None:
    """Of the handshake, of the head of a frame, of its payload, between two fragments."""

    async def scenario() -> None:
        async with live.world(notifying=False) as world:
            witness = await world.connect()
            whole = masked(0x81, json.dumps(request("queue_list", ABSENT, HEADERS)).encode())
            for sent in (b"", whole[:1], whole[:3], whole[:5], whole[:-1], masked(0x01, b"{"), whole * 3):
                _, writer = await _handshake(world.nodes[0].port)
                writer.write(sent)
                writer.transport.abort()
            _, writer = await asyncio.open_connection("127.0.0.1", world.nodes[0].port)
            writer.write(b"GET / HTTP/1.1\r\nUpgrade: webso")
            writer.transport.abort()
            await live.until(lambda: len(world.nodes[0].node._connections) == 1, "only the witness is there")

            assert await witness.do("queue_list", 200) == {"queues": []}

    run(scenario)


def test_a_message_may_come_in_fragments_with_a_ping_between_them() -> None:
    async def scenario() -> None:
        async with live.world(notifying=False) as world:
            text = json.dumps(request("queue_list", {}, HEADERS)).encode()
            reader, writer = await _handshake(world.nodes[0].port)
            writer.write(masked(0x01, text[:9]) + masked(0x89, b"?") + masked(0x00) + masked(0x80, text[9:]))
            async with asyncio.timeout(live.PATIENCE):
                pong = await reader.readexactly(3)
                head = await reader.readexactly(4)
                reply = json.loads(await reader.readexactly(struct.unpack("!H", head[2:])[0]))

            assert pong == b"\x8a\x01?"
            assert check_reply(reply) == (200, {"queues": []})
            writer.transport.abort()

    run(scenario)


async def _handshake(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with asyncio.timeout(live.PATIENCE):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def _close_code(port: int, sent: bytes) -> int:
    """Return the code with which the service closes a connection that sends something."""
    reader, writer = await _handshake(port)
    writer.write(sent)
    async with asyncio.timeout(live.PATIENCE):
        head = await reader.readexactly(2)
        payload = await reader.readexactly(head[1] & 0x7F)
        assert head[0] == 0x88, "a close frame"
        writer.write(masked(0x88, payload[:2]))
        await reader.read()
    writer.close()
    (code,) = struct.unpack("!H", payload[:2])
    return int(code)
