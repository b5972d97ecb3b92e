"""Envelopes, encodings, and what is answered to a frame before anybody looks at its action. Sections 1 to 3."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from queues.models import Role
from tests.transport.conftest import CLIENT, ONE_STORE, PROJECT
from tests.transport.sockets import (
    ABSENT,
    NOBODY_KNOWS,
    Socket,
    check_reply,
    packed,
    request,
    written,
)

pytestmark = ONE_STORE

HEADERS = {"Client-ID": CLIENT, "X-Project-ID": PROJECT}


@pytest.fixture
def text(open_api) -> Socket:
    """A client that writes JSON."""
    api = open_api()
    return Socket(api.service, api.headers)


# --- section 2: envelopes


def test_g7_a_reply_repeats_the_request(socket: Socket) -> None:
    asked = request("queue_create", {"queue_name": "kitkat"}, {**HEADERS, "User-Agent": "tests"})

    assert socket.send(written(asked, socket.encoding)) == {
        "request": {**asked, "api": "v2"},
        "body": "Queue kitkat created.",
        "headers": {"status": 201},
    }


def test_members_that_are_missing_are_repeated_as_empty(socket: Socket) -> None:
    reply = socket.send(written(request("queue_list", ABSENT, HEADERS), socket.encoding))
    bare = socket.send(written(request("queue_list"), socket.encoding))

    assert reply["request"] == {"action": "queue_list", "body": {}, "headers": HEADERS, "api": "v2"}
    assert bare["request"] == {"action": "queue_list", "body": {}, "headers": {}, "api": "v2"}


def test_unknown_members_are_allowed_and_not_repeated(socket: Socket) -> None:
    asked = request("queue_list", {"colour": "red"}, {**HEADERS, "X-Colour": "red"})
    reply = socket.send(written({**asked, "id": 7}, socket.encoding))

    assert reply["request"] == {**asked, "api": "v2"}
    assert check_reply(reply) == (200, {"queues": []})


def test_g7_a_body_is_repeated_to_the_letter(text: Socket) -> None:
    """Not as it was understood: numbers, escapes and order stay."""
    body = '{ "queue_name": "q1", "messages": [ {"ttl":60, "body": 1.50e+3}, {"body":"\\u00e9"} ] }'
    asked = f'{{"action": "message_post", "headers": {json.dumps(HEADERS)}, "body": {body}}}'

    assert body in str(text.raw(asked))


def test_a12_a_token_is_not_repeated(open_socket) -> None:
    """Everything else that stands in the headers is."""
    socket = open_socket()
    reply = socket.send(
        written(
            request("queue_list", {}, {**HEADERS, "X-Auth-Token": "secret", "Accept": "all"}), socket.encoding
        )
    )

    assert reply["request"]["headers"] == {**HEADERS, "X-Auth-Token": "hidden", "Accept": "all"}
    assert "secret" not in json.dumps(reply)


def test_answers_have_a_body_even_with_204(socket: Socket) -> None:
    assert socket.do("queue_purge", queue_name="q1") == (204, {})
    assert socket.do("queue_delete", queue_name="q1") == (204, "Queue q1 removed.")


# --- section 1: encodings


def test_a_reply_has_the_encoding_of_its_request_whatever_was_spoken_before(text: Socket) -> None:
    one, other = request("queue_create", {"queue_name": "q1"}, HEADERS), request("queue_list", {}, HEADERS)
    for _ in range(2):
        assert type(text.raw(json.dumps(one))) is str
        assert type(text.raw(packed(other))) is bytes
        assert type(text.raw(json.dumps(other))) is str
        assert type(text.raw(packed(one))) is bytes
        assert type(text.raw(b"nonsense")) is bytes
        assert type(text.raw("nonsense")) is str


def test_old_clients_pack_text_as_raw_bytes(text: Socket) -> None:
    """With use_bin_type off there is one type for both; replies use text."""
    asked = request(
        "message_post", {"queue_name": "q1", "messages": [{"body": {"é": ["ü", "☃"]}, "ttl": 60}]}, HEADERS
    )
    reply = text.send(msgpack.packb(asked, use_bin_type=False))

    assert check_reply(reply, asked).status == 201
    assert text.listed() == [{"é": ["ü", "☃"]}]


@pytest.mark.parametrize("use_bin_type", [True, False])
def test_bytes_in_messagepack_are_text(text: Socket, use_bin_type: bool) -> None:
    asked = {
        b"action": b"message_post",
        b"headers": {b"Client-ID": CLIENT.encode(), "X-Project-ID": PROJECT.encode()},
        b"body": {b"queue_name": b"q1", b"messages": [{b"body": "é".encode()}]},
    }
    reply = text.send(msgpack.packb(asked, use_bin_type=use_bin_type))

    assert reply["request"]["body"] == {"queue_name": "q1", "messages": [{"body": "é"}]}
    assert text.listed() == ["é"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        0.1,
        -0.0,
        1.7976931348623157e308,
        5e-324,
        "",
        "\x00",
        "\U0001f600",
        [],
        {},
        {"": {"": [[], {}]}},
        "x" * 70_000,
        list(range(300)),
        {str(number): None for number in range(70_000 // 7)},
    ],
)
def test_a_body_is_the_same_in_both_encodings(text: Socket, body: Any) -> None:
    for encode in (json.dumps, packed):
        asked = request("message_post", {"queue_name": "q1", "messages": [{"body": body}]}, HEADERS)
        (id_,) = check_reply(text.send(encode(asked)), asked).body["message_ids"]
        for read in (json.dumps, packed):
            asked = request("message_get", {"queue_name": "q1", "message_id": id_}, HEADERS)
            found = check_reply(text.send(read(asked))).body["messages"]["body"]
            assert (found, type(found)) == (body, type(body))


def test_f2_a_number_beyond_all_floats_is_told_in_messagepack_too(text: Socket) -> None:
    """It is JSON, and MessagePack has no other number for it; whoever reads it must not be cut off."""
    body = '{"queue_name": "q1", "messages": [{"body": 1e400}, {"body": "behind"}]}'
    asked = f'{{"action": "message_post", "headers": {json.dumps(HEADERS)}, "body": {body}}}'

    assert text.send(asked)["headers"] == {"status": 201}
    read = request("message_list", {"queue_name": "q1", "echo": True}, HEADERS)
    assert '"body":1e400' in str(text.raw(json.dumps(read)))
    found = text.send(packed(read))["body"]["messages"]
    assert [message["body"] for message in found] == [float("inf"), "behind"]


# --- section 3: what cannot be understood

UNREADABLE_TEXT = [
    "",
    " ",
    "{",
    "}",
    "{]",
    "nonsense",
    '{"action": "queue_list"',
    '{"action": "queue_list"}}',
    '{"action": "queue_list"} {}',
    "{'action': 'queue_list'}",
    '{"action": queue_list}',
    '{"action": "queue_list",}',
    '{"action": NaN}',
    '{"body": {"a": Infinity}}',
    '{"action": "\\ud800"}',
    '{"body": {"messages": [{"body": "\\udc00"}]}}',
    '{"body": {"a": "\x00"}}',
    '{"body": 9223372036854775808}',
    '{"body": {"limit": -9223372036854775809}}',
    '{"headers": {"a": 1e400}}',
    '{"body": ' + "[" * 101 + "]" * 101 + "}",
    "[" * 100_000,
    '{"a":' * 100_000,
    "\ufeff{}",
]

UNREADABLE_BINARY = [
    b"",
    b"\xc1",
    b"\x81",
    b"\x81\xa1a",
    packed({"action": "queue_list"}) + b"\x00",
    packed({"action": "queue_list"})[:-1],
    packed({1: 2}),
    packed({None: 2}),
    packed({("a",): 2}),
    packed({"body": {2: "a"}}),
    b"\x81\x80\x01",  # a map for a key
    packed({"body": float("nan")}),
    packed({"body": {"limit": float("-inf")}}),
    packed({"body": 2**63}),
    packed({"body": 2**64 - 1}),
    packed({"body": msgpack.ExtType(5, b"x")}),
    packed({"body": {"a": [msgpack.Timestamp(1, 2)]}}),
    packed({"action": b"\xff"}),
    packed({"body": {b"\xff": 1}}),
    b"\x81\xa6action\xa3\xed\xa0\x80",  # half a surrogate pair
    b"\x91" * 200 + b"\xc0",
    b"\x81\xa1a" * 100_000,
    b"\x91" * 300_000,
    b"\xdd\xff\xff\xff\xff",  # more elements than there are bytes in the world
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc7\x04\xff\x00\x00\x00\x00",  # a timestamp of no known length
]


@pytest.mark.parametrize("frame", UNREADABLE_TEXT, ids=range(len(UNREADABLE_TEXT)))
def test_text_that_cannot_be_decoded_is_refused(text: Socket, frame: str) -> None:
    reply = text.send(frame)

    assert reply["request"] == NOBODY_KNOWS
    assert reply["headers"] == {"status": 400}
    assert set(reply["body"]) == {"error"}
    assert reply["body"]["error"].startswith("Can't decode text (JSON) request")


@pytest.mark.parametrize("frame", UNREADABLE_BINARY, ids=range(len(UNREADABLE_BINARY)))
def test_binary_that_cannot_be_decoded_is_refused(text: Socket, frame: bytes) -> None:
    reply = text.send(frame)

    assert reply["request"] == NOBODY_KNOWS
    assert reply["headers"] == {"status": 400}
    assert set(reply["body"]) == {"error"}
    assert reply["body"]["error"].startswith("Can't decode binary (MessagePack) request")


@pytest.mark.parametrize("document", [[], ["queue_list"], "queue_list", 7, 1.5, True, None])
def test_a_frame_is_an_object(socket: Socket, document: Any) -> None:
    reply = socket.send(written(document, socket.encoding))

    assert reply["request"] == NOBODY_KNOWS
    assert reply["headers"] == {"status": 400}
    assert "object" in reply["body"]["error"]


@pytest.mark.parametrize(
    "action", ["", "queue", "QUEUE_LIST", "queue_list ", "\x00", "é", None, 1, 1.5, True]
)
def test_an_action_that_is_none_is_refused(socket: Socket, action: Any) -> None:
    assert socket.call(action, {}) == (400, {"error": f"{action} is not a valid action"})


@pytest.mark.parametrize("action", [[], {}, ["queue_list"], {"queue_list": 1}])
def test_an_action_is_a_text(socket: Socket, action: Any) -> None:
    status, body = socket.call(action, {})

    assert status == 400
    assert body["error"].endswith("is not a valid action")


def test_a_frame_without_an_action_is_refused(socket: Socket) -> None:
    reply = socket.send(written({}, socket.encoding))

    assert check_reply(reply) == (400, {"error": "None is not a valid action"})
    assert reply["request"] == NOBODY_KNOWS


def test_after_any_refusal_the_connection_goes_on(text: Socket) -> None:
    for frame in ("{", b"\xc1", "[]", '{"action": "nonsense"}', '{"action": "queue_list"}'):
        assert text.send(frame)["headers"] == {"status": 400}
    assert text.do("queue_list").status == 200


# --- the order of the checks


def test_the_first_check_that_fails_answers(open_socket) -> None:
    """Decoding, object, action, shape of headers and body, who asks, rules of the service."""
    socket = open_socket(auth_strategy="token")
    good = {"queue_name": "q1", "messages": [{"body": 1}]}
    not_valid = (400, {"error": "Schema validation failed."})

    assert socket.call("nonsense", {"queue_name": 1}) == (400, {"error": "nonsense is not a valid action"})
    assert socket.call("message_post", good, X_Project_ID=ABSENT) == not_valid
    assert socket.call("message_post", {**good, "messages": None}) == not_valid
    assert socket.call("message_post", {**good, "messages": []}) == (403, {"error": "Not authentified."})
    secret = socket.service.tokens.create(PROJECT, Role.READER, expires=None)[1]
    assert socket.call("authenticate", X_Auth_Token=secret).status == 200
    assert socket.call("message_post", {**good, "messages": None}) == not_valid
    assert socket.call("message_post", {**good, "messages": []}).status == 403
    assert socket.call("queue_list", {"limit": 21}).body["error"] is None
