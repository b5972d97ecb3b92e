"""What each action takes and answers. Sections 3 and 5.

The behaviour behind the answers is that of all transports: `test_both_*.py`. Here is what is the
websocket's own: the exact members, the texts and the shapes of errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from queues.errors import Conflict, NoPool
from queues.models import Address
from tests.boxes import take
from tests.transport.conftest import (
    ANOTHER_CLIENT,
    CLIENT,
    ONE_STORE,
    PROJECT,
    BreakableDriver,
)
from tests.transport.sockets import ABSENT, Socket, Told, check_reply

pytestmark = ONE_STORE

NOT_VALID = Told(400, {"error": "Schema validation failed."})

#: Every action of the contract that works, and a body that it accepts.
CONTRACT: Mapping[str, Any] = {
    "authenticate": ABSENT,
    "queue_list": ABSENT,
    "queue_create": {"queue_name": "q1"},
    "queue_get": {"queue_name": "q1"},
    "queue_delete": {"queue_name": "q1"},
    "queue_get_stats": {"queue_name": "q1"},
    "queue_purge": {"queue_name": "q1"},
    "message_post": {"queue_name": "q1", "messages": [{"body": 1}]},
    "message_list": {"queue_name": "q1"},
    "message_get": {"queue_name": "q1", "message_id": "1"},
    "message_get_many": {"queue_name": "q1", "message_ids": ["1"]},
    "message_delete": {"queue_name": "q1", "message_id": "1"},
    "message_delete_many": {"queue_name": "q1", "message_ids": ["1"]},
    "claim_create": {"queue_name": "q1"},
    "claim_get": {"queue_name": "q1", "claim_id": "1"},
    "claim_update": {"queue_name": "q1", "claim_id": "1"},
    "claim_delete": {"queue_name": "q1", "claim_id": "1"},
    "subscription_create": {"queue_name": "q1"},
    "subscription_list": {"queue_name": "q1"},
    "subscription_get": {"queue_name": "q1", "subscription_id": "1"},
    "subscription_delete": {"queue_name": "q1", "subscription_id": "1"},
}

WITH_QUEUE = [action for action, body in CONTRACT.items() if body is not ABSENT]

#: Actions that Zaqar's schema declares and its server does not have.
DECLARED = [
    "get_home_doc",
    "check_node_health",
    "ping_node",
    *(f"pool_{verb}" for verb in ("list", "create", "get", "update", "delete")),
    *(f"flavor_{verb}" for verb in ("list", "create", "get", "update", "delete")),
]

#: The members of bodies by their type in section 5, and by action.
TEXTS = {
    "queue_list": ["marker"],
    "message_list": ["marker"],
    "message_get": ["message_id"],
    "message_delete": ["message_id", "claim_id"],
    "claim_get": ["claim_id"],
    "claim_update": ["claim_id"],
    "claim_delete": ["claim_id"],
    "subscription_create": ["subscriber"],
    "subscription_get": ["subscription_id"],
    "subscription_delete": ["subscription_id"],
}
INTEGERS = {
    "queue_list": ["limit"],
    "message_list": ["limit"],
    "message_delete_many": ["pop"],
    "claim_create": ["limit", "ttl", "grace"],
    "claim_update": ["ttl", "grace"],
    "subscription_create": ["ttl"],
}
BOOLEANS = {"queue_list": ["detailed"], "message_list": ["echo", "include_claimed"]}
ARRAYS = {
    "queue_purge": ["resource_types"],
    "message_post": ["messages"],
    "message_get_many": ["message_ids"],
    "message_delete_many": ["message_ids", "claim_ids"],
}
OBJECTS = {"subscription_create": ["options"]}

VALUES: dict[str, Any] = {
    "text": "5",
    "integer": 5,
    "float": 5.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


WRONG_HEADERS: list[Any] = [ABSENT, None, 5, True, ["a"], {}]
WRONG_BODIES: list[Any] = [ABSENT, None, [], "", "{", "[]", ".", 5, {}, {"queue": "q1"}]


def wrong() -> list[tuple[str, str, str]]:
    """Return every member of every action with every kind of value that it may not have."""
    found = []
    kinds = {"text": TEXTS, "integer": INTEGERS, "boolean": BOOLEANS, "array": ARRAYS, "object": OBJECTS}
    for right, table in kinds.items():
        for action, members in table.items():
            for member in members:
                # F18: in the terms of a claim null stands for the default.
                nullable = action in ("claim_create", "claim_update") and right == "integer"
                found += [
                    (action, member, kind)
                    for kind in VALUES
                    if kind != right and not (kind == "null" and nullable)
                ]
    return found + [
        (action, "queue_name", kind) for action in WITH_QUEUE for kind in VALUES if kind != "text"
    ]


def message(body: Any, claim_id: str | None = None, *, ttl: int = 3600, age: int = 0) -> dict[str, Any]:
    """Return what a message looks like, but for its id."""
    return {"claim_id": claim_id, "ttl": ttl, "age": age, "body": body}


def post_frame(message: str) -> str:
    """Return a request to post a message that is written already."""
    headers = json.dumps({"Client-ID": CLIENT, "X-Project-ID": PROJECT})
    body = f'{{"queue_name": "q1", "messages": [{message}]}}'
    return f'{{"action": "message_post", "headers": {headers}, "body": {body}}}'


def without_id(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != "id"}


# --- section 3: what is checked of all of them


def test_g2_every_action_is_answered(socket: Socket) -> None:
    for action, body in CONTRACT.items():
        status, _ = socket.call(action, body)
        assert status in (200, 201, 204, 404), action


@pytest.mark.parametrize("action", DECLARED)
def test_g2_declared_actions_are_answered_and_the_connection_goes_on(socket: Socket, action: str) -> None:
    for body in (ABSENT, {}, {"queue_name": "q1"}):
        if action == "ping_node":
            assert socket.call(action, body) == (204, {})
        else:
            assert socket.call(action, body) == (400, {"error": f"{action} is not a valid action"})
        assert socket.do("queue_list").status == 200


@pytest.mark.parametrize("admin", [True, False])
@pytest.mark.parametrize("pooling", [True, False])
def test_what_is_for_operators_is_known_where_it_is_served(open_socket, admin, pooling) -> None:
    """As over REST: health with `admin`, pools and flavors with `pooling` beside it."""
    socket = open_socket(admin=admin, pooling=pooling)
    names = ("check_node_health", "pool_list", "flavor_list")
    known = [socket.call(name, {}, X_Roles="admin").status == 200 for name in names]

    assert known == [admin, admin and pooling, admin and pooling]


@pytest.mark.parametrize("header", ["Client-ID", "X-Project-ID"])
def test_headers_name_client_and_project(socket: Socket, header: str) -> None:
    for action, body in CONTRACT.items():
        for value in WRONG_HEADERS:
            socket.headers[header] = value
            if action != "authenticate":
                assert socket.call(action, body) == NOT_VALID, (action, value)


@pytest.mark.parametrize("header", ["client-id", "Client-Id", "CLIENT-ID", "x-project-id", "X-Project-Id"])
def test_the_names_of_headers_are_case_sensitive(socket: Socket, header: str) -> None:
    name = next(each for each in socket.headers if each.lower() == header.lower())
    socket.headers[header] = socket.headers.pop(name)

    assert socket.do("queue_list") == NOT_VALID


@pytest.mark.parametrize("headers", [None, [], "x", 5, [["Client-ID", CLIENT]]])
def test_headers_are_an_object(socket: Socket, headers: Any) -> None:
    assert socket.ask({"action": "queue_list", "headers": headers}) == NOT_VALID


@pytest.mark.parametrize("header", ["User-Agent", "Date", "Accept", "X-Auth-Token"])
@pytest.mark.parametrize("value", [None, 5, []])
def test_known_headers_are_texts(socket: Socket, header: str, value: Any) -> None:
    assert socket.ask({"action": "queue_list", "headers": {**socket.headers, header: value}}) == NOT_VALID


def test_unknown_headers_are_allowed(socket: Socket) -> None:
    status, _ = socket.call("queue_list", {}, X_Whatever=[1, {"a": None}], Date="today")

    assert status == 200


@pytest.mark.parametrize("client_id", ["", "0xdeadbeef", "textid", CLIENT[:-1], "\u00e9" * 32])
@pytest.mark.parametrize("action", ["message_post", "message_list", "queue_get", "subscription_create"])
def test_a_client_id_is_a_uuid(socket: Socket, action: str, client_id: str) -> None:
    status, body = socket.call(action, CONTRACT[action], Client_ID=client_id)

    assert status == 400
    assert body["exception"]
    assert body["error"] is None


def test_a_body_is_needed_and_an_object_and_names_a_queue(socket: Socket) -> None:
    for action in WITH_QUEUE:
        for body in WRONG_BODIES:
            assert socket.call(action, body) == NOT_VALID, (action, body)


@pytest.mark.parametrize("body", [None, [], "{}", 5])
def test_the_body_of_a_list_of_queues_is_an_object_if_there_is_one(socket: Socket, body: Any) -> None:
    assert socket.call("queue_list", body) == NOT_VALID


def test_every_member_has_its_type(socket: Socket) -> None:
    for action, member, kind in wrong():
        body = {} if CONTRACT[action] is ABSENT else CONTRACT[action]
        assert socket.call(action, {**body, member: VALUES[kind]}) == NOT_VALID, (action, member, kind)


def test_every_member_that_is_needed_must_be_there(socket: Socket) -> None:
    for action in WITH_QUEUE:
        for member in CONTRACT[action]:
            if (action, member) != ("message_delete_many", "message_ids"):
                body = {name: value for name, value in CONTRACT[action].items() if name != member}
                assert socket.call(action, body) == NOT_VALID, (action, member)


def test_unknown_members_of_a_body_are_allowed(socket: Socket) -> None:
    for action in WITH_QUEUE:
        status, _ = socket.call(action, {**CONTRACT[action], "colour": ["red", None]})
        assert status in (200, 201, 204, 404), action


@pytest.mark.parametrize("given", [True, "true", "True", "t", "yes", "1", 1, "on", " y "])
def test_a_boolean_that_the_protocol_does_not_type_is_converted(socket: Socket, given: Any) -> None:
    socket.post("late", delay=600)

    assert socket.listed(include_delayed=given) == ["late"]


@pytest.mark.parametrize("given", [False, "false", "F", "no", "n", "0", 0, "off", None, ABSENT])
def test_a_boolean_that_says_no_is_converted_too(socket: Socket, given: Any) -> None:
    socket.post("late", delay=600)
    options = {} if given is ABSENT else {"include_delayed": given}

    assert socket.listed(**options) == []


@pytest.mark.parametrize("given", ["maybe", 2, -1, 0.5, [], [True], {}, "\x00", "x" * 1000])
def test_what_is_no_boolean_is_refused(socket: Socket, given: Any) -> None:
    status, body = socket.do("message_list", queue_name="q1", include_delayed=given)

    assert (status, body["error"]) == (400, None)


@pytest.mark.parametrize(("given", "count"), [(2, 2), ("2", 2), (None, 3), (20, 3)])
def test_an_integer_that_the_protocol_does_not_type_is_converted(socket: Socket, given, count) -> None:
    for number in range(3):
        socket.done("subscription_create", queue_name="q1", subscriber=f"http://hook.example.org/{number}")
    found = socket.done("subscription_list", queue_name="q1", limit=given, marker=None)["subscriptions"]

    assert len(found) == count


@pytest.mark.parametrize("given", ["", "x", "1.5", 1.5, True, [], {}, "9" * 5000])
def test_what_is_no_integer_is_refused(socket: Socket, given: Any) -> None:
    status, body = socket.do("subscription_list", queue_name="q1", limit=given)

    assert (status, body["error"]) == (400, None)


@pytest.mark.parametrize("marker", [5, True, [], {}])
def test_a_marker_of_subscriptions_is_a_text(socket: Socket, marker: Any) -> None:
    assert socket.do("subscription_list", queue_name="q1", marker=marker).status == 400


@pytest.mark.parametrize(
    ("action", "limits"),
    [
        ("queue_list", {0: 400, 1: 200, 20: 200, 21: 400, -1: 400}),
        ("message_list", {0: 400, 1: 200, 20: 200, 21: 400, -1: 400}),
        ("claim_create", {0: 400, 1: 204, 20: 204, 21: 400, -1: 400}),
        ("subscription_list", {0: 400, 1: 200, 20: 200, 21: 400, -1: 400}),
    ],
)
def test_a_limit_has_bounds(socket: Socket, action: str, limits: Mapping[int, int]) -> None:
    for limit, status in limits.items():
        told = socket.do(action, queue_name="q1", limit=limit)
        assert told.status == status, limit
        if status == 400:
            assert told.body["error"] is None
            assert told.body["exception"]


def test_the_project_may_be_empty(socket: Socket) -> None:
    """Unlike over REST; it is a project as any other."""
    socket.post("theirs")
    socket.headers["X-Project-ID"] = ""
    socket.post("mine")

    assert socket.done("queue_list") == {"queues": [{"name": "q1"}]}
    assert socket.listed() == ["mine"]


@pytest.mark.parametrize("action", ["queue_create", "message_post", "subscription_create"])
@pytest.mark.parametrize(("project", "good"), [("x" * 256, True), ("x" * 257, False)])
def test_a_project_has_at_most_256_characters(socket: Socket, action: str, project: str, good: bool) -> None:
    status, body = socket.call(action, CONTRACT[action], X_Project_ID=project)

    assert (status == 201) == good
    assert good or (status, body["error"]) == (400, None)


@pytest.mark.parametrize("action", ["queue_create", "message_post", "subscription_create"])
@pytest.mark.parametrize(
    "name", ["", "x" * 65, "Nice-Bo@t", "\u00e9t\u00e9", "a b", "n\n", "a/b", "a>pushed", "\x00"]
)
def test_the_name_of_a_queue_keeps_the_rules(socket: Socket, action: str, name: str) -> None:
    status, body = socket.call(action, {**CONTRACT[action], "queue_name": name})

    assert (status, body["error"]) == (400, None)
    assert socket.done("queue_list") == {"queues": []}


@pytest.mark.parametrize("name", ["x" * 64, "Service.test_queue", "a-b_c.D9"])
def test_a_name_that_keeps_the_rules_will_do(socket: Socket, name: str) -> None:
    assert socket.post("a", queue=name)


# --- 5.1 queues


def test_queues_are_listed_by_name_alone(socket: Socket) -> None:
    socket.done("queue_create", queue_name="my_queue", metadata={"colour": "red"})

    assert socket.call("queue_list", {}) == (200, {"queues": [{"name": "my_queue"}]})


def test_a_detailed_list_has_the_metadata_as_they_are_stored(socket: Socket) -> None:
    socket.done("queue_create", queue_name="q1", metadata={"colour": "red", "_default_message_ttl": 100})
    socket.done("queue_create", queue_name="q2")

    assert socket.done("queue_list", detailed=True) == {
        "queues": [
            {"name": "q1", "metadata": {"colour": "red", "_default_message_ttl": 100}},
            {"name": "q2", "metadata": {}},
        ]
    }


def test_ten_queues_are_listed_unless_asked_otherwise_and_the_last_is_the_marker(socket: Socket) -> None:
    for number in range(12):
        socket.done("queue_create", queue_name=f"q{number:02}")
    page = socket.done("queue_list")["queues"]
    rest = socket.done("queue_list", marker=page[-1]["name"])

    assert [queue["name"] for queue in page] == [f"q{number:02}" for number in range(10)]
    assert rest == {"queues": [{"name": "q10"}, {"name": "q11"}]}


def test_a_queue_is_created_once(socket: Socket) -> None:
    first = socket.do("queue_create", queue_name="kitkat", metadata={"colour": "red"})
    again = socket.do("queue_create", queue_name="kitkat", metadata={"colour": "blue"})

    assert first == (201, "Queue kitkat created.")
    assert again == (204, "Queue kitkat created.")
    assert socket.do("queue_get", queue_name="kitkat") == (200, {"colour": "red"})


@pytest.mark.parametrize("metadata", [None, {}])
def test_a_queue_may_have_no_metadata(socket: Socket, metadata: Any) -> None:
    assert socket.do("queue_create", queue_name="q1", metadata=metadata).status == 201
    assert socket.do("queue_get", queue_name="q1") == (200, {})


@pytest.mark.parametrize("metadata", ["{", "", "{}", [], [["a", 1]], 5, 1.5, True])
@pytest.mark.parametrize("project", [PROJECT, "x" * 257])
def test_metadata_are_an_object(socket: Socket, metadata: Any, project: str) -> None:
    told = socket.call("queue_create", {"queue_name": "q1", "metadata": metadata}, X_Project_ID=project)

    assert told.status == 400
    assert told.body["error"] is None
    assert socket.done("queue_list") == {"queues": []}


@pytest.mark.parametrize(("excess", "status"), [(0, 201), (1, 400), (1000, 400), (100_000, 400)])
def test_metadata_have_a_greatest_size(socket: Socket, excess: int, status: int) -> None:
    """Written as JSON, whatever stands around them."""
    blanks = 1 if socket.encoding == "json" else 0  # that json.dumps writes behind a colon
    filler = "x" * (65536 - len('{"a":""}') - blanks + excess)
    told = socket.do("queue_create", queue_name="q1", metadata={"a": filler})

    assert told.status == status
    assert status == 201 or told.body["error"] is None


def test_reserved_attributes_are_checked(socket: Socket) -> None:
    told = socket.do("queue_create", queue_name="q1", metadata={"_default_message_ttl": 59})

    assert (told.status, told.body["error"]) == (400, None)
    assert "_default_message_ttl" in told.body["exception"]


def test_a_queue_shows_no_defaults_and_a_missing_one_nothing(socket: Socket) -> None:
    socket.done("queue_create", queue_name="q1")

    assert socket.do("queue_get", queue_name="q1") == (200, {})
    assert socket.do("queue_get", queue_name="missing") == (200, {})


@pytest.mark.parametrize("created", [True, False])
def test_a_queue_is_removed_whether_or_not_it_is_there(socket: Socket, created: bool) -> None:
    if created:
        socket.post("a")

    assert socket.do("queue_delete", queue_name="q1") == (204, "Queue q1 removed.")
    assert socket.do("queue_delete", queue_name="q1") == (204, "Queue q1 removed.")


ZEROS = {"messages": {"free": 0, "claimed": 0, "total": 0}}


def test_g8_stats_of_a_missing_queue_are_zeros_and_not_found(socket: Socket) -> None:
    assert socket.do("queue_get_stats", queue_name="q1") == (404, ZEROS)
    socket.done("queue_create", queue_name="q1")
    assert socket.do("queue_get_stats", queue_name="q1") == (200, ZEROS)
    socket.done("queue_delete", queue_name="q1")
    assert socket.do("queue_get_stats", queue_name="q1") == (404, ZEROS)


def test_stats_name_both_ends_by_id(socket: Socket, clock) -> None:
    first = socket.post("a")
    clock.advance(3)
    last = socket.post("b", "c")
    socket.done("claim_create", queue_name="q1", limit=1)
    clock.advance(4)
    (told,) = socket.done("queue_get_stats", queue_name="q1").values()

    assert {name: told[name] for name in ("free", "claimed", "total")} == {
        "free": 2,
        "claimed": 1,
        "total": 3,
    }
    assert set(told) == {"free", "claimed", "total", "oldest", "newest"}
    assert told["oldest"] == {"id": first[0], "age": 7, "created": "2026-11-20T21:59:27Z"}
    assert told["newest"] == {"id": last[1], "age": 4, "created": "2026-11-20T21:59:30Z"}


def test_a_purge_removes_what_is_asked_for_and_by_default_both(socket: Socket) -> None:
    def fill() -> None:
        socket.post("a")
        socket.do("subscription_create", queue_name="q1", subscriber="http://hook.example.org/")

    def left() -> tuple[int, int]:
        subscriptions = socket.done("subscription_list", queue_name="q1")["subscriptions"]
        return len(socket.listed()), len(subscriptions)

    for scope, expected in (
        ({"resource_types": ["messages"]}, (0, 1)),
        ({"resource_types": ["subscriptions"]}, (1, 0)),
        ({"resource_types": []}, (1, 1)),
        ({}, (0, 0)),
        ({"resource_types": ["messages", "subscriptions"]}, (0, 0)),
    ):
        socket.done("queue_purge", queue_name="q1")
        fill()
        assert socket.do("queue_purge", queue_name="q1", **scope) == (204, {})
        assert left() == expected


@pytest.mark.parametrize("types", [["queues"], ["messages", "claims"], [""]])
def test_a_purge_names_known_types(socket: Socket, types: list[str]) -> None:
    told = socket.do("queue_purge", queue_name="q1", resource_types=types)

    assert (told.status, told.body["error"]) == (400, None)


@pytest.mark.parametrize(
    "action", ["queue_list", "queue_create", "queue_get", "queue_delete", "queue_get_stats"]
)
@pytest.mark.parametrize("error", [None, NoPool()])
def test_a_store_that_fails_is_503_with_an_error(
    socket: Socket, driver: BreakableDriver, action: str, error: Exception | None
) -> None:
    driver.break_(error=error)
    status, body = socket.call(action, CONTRACT[action])

    assert status == 503
    assert body["error"]
    assert body["exception"]


# --- 5.2 messages


def test_posting_answers_the_ids_in_order(socket: Socket) -> None:
    status, body = socket.do(
        "message_post", queue_name="q1", messages=[{"body": 239, "ttl": 100}, {"body": {"a": [None]}}]
    )

    assert status == 201
    assert set(body) == {"message_ids"}
    assert socket.listed() == [239, {"a": [None]}]
    found = socket.done("message_list", queue_name="q1", echo=True)["messages"]
    assert [each["id"] for each in found] == body["message_ids"]
    assert [without_id(each) for each in found] == [message(239, ttl=100), message({"a": [None]})]


def test_posting_makes_the_queue(socket: Socket) -> None:
    socket.post("a", queue="kinder")

    assert socket.done("queue_list") == {"queues": [{"name": "kinder"}]}


@pytest.mark.parametrize("first", [{}, {"ttl": 60}, {"body": 1, "ttl": 60}])
def test_a_message_has_a_body(socket: Socket, first: dict[str, Any]) -> None:
    told = socket.do("message_post", queue_name="q1", messages=[first, {"ttl": 60}, {"body": 1, "ttl": "x"}])

    assert told == (400, {"exception": 'Bad request. Missing "body" field.', "error": None})
    assert socket.done("queue_list") == {"queues": []}


@pytest.mark.parametrize("ttl", ["60", "", None, 60.5, [], {}, True])
@pytest.mark.parametrize("member", ["ttl", "delay"])
def test_a_ttl_of_another_type_is_refused_in_these_words(socket: Socket, member: str, ttl: Any) -> None:
    told = socket.do("message_post", queue_name="q1", messages=[{"body": 1}, {"body": 1, member: ttl}])
    words = f'Bad request. The value of the "{member}" field must be a int.'

    assert told == (400, {"exception": words, "error": None})


@pytest.mark.parametrize("ttl", [-1, 0, 59, 1209601, 2**63 - 1])
def test_a_ttl_has_bounds(socket: Socket, ttl: int) -> None:
    told = socket.do("message_post", queue_name="q1", messages=[{"body": 1, "ttl": ttl}])

    assert (told.status, told.body["error"]) == (400, None)
    assert "ttl" in told.body["exception"]


@pytest.mark.parametrize("element", [None, 5, "body", ["body", 1], True])
def test_a_message_is_an_object(socket: Socket, element: Any) -> None:
    told = socket.do("message_post", queue_name="q1", messages=[{"body": 1}, element])

    assert (told.status, told.body["error"]) == (400, None)


def test_no_messages_are_refused(socket: Socket) -> None:
    told = socket.do("message_post", queue_name="q1", messages=[])

    assert (told.status, told.body["error"]) == (400, None)


def test_a_message_with_a_number_that_no_float_holds_is_explained(socket: Socket) -> None:
    assert check_reply(socket.send(post_frame('{"body": 1e400, "ttl": "x"}'))).status == 400


def test_g4_a_post_has_a_greatest_size(socket: Socket) -> None:
    """The text of the messages is what counts, as JSON, whatever stands around it."""
    small = [{"body": "some body", "ttl": 100}] * 8000
    told = socket.do("message_post", queue_name="q1", messages=small)
    assert (told.status, told.body["error"]) == (400, None)

    filler = "x" * (262144 - len('[{"body":""}]'))
    assert check_reply(socket.send(post_frame(f'{{"body":"{filler}"}}'))).status == 201
    assert check_reply(socket.send(post_frame(f'{{"body":"{filler}x"}}'))).status == 400


def test_a_queue_may_have_a_smaller_greatest_size(socket: Socket) -> None:
    socket.done("queue_create", queue_name="q1", metadata={"_max_messages_post_size": 100})

    assert socket.do("message_post", queue_name="q1", messages=[{"body": "x" * 50}]).status == 201
    assert socket.do("message_post", queue_name="q1", messages=[{"body": "x" * 90}]).status == 400
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "data": "x" * 90}
    assert socket.do("event_post", queue_name="q1", events=event).status == 400
    assert socket.do("event_post", queue_name="q1", events=[{**event, "data": ""}] * 2).status == 400


def test_g4_delay_and_encryption_are_those_of_rest(open_socket, driver, clock) -> None:
    socket = open_socket(encryption={"keys": ["k1:" + "A" * 43 + "="]})
    socket.done("queue_create", queue_name="q1", metadata={"_default_message_delay": 60})
    socket.done("queue_create", queue_name="q2", metadata={"_enable_encrypt_messages": True})
    socket.post("a")
    (sealed,) = socket.post("a", queue="q2")
    socket.post("late", queue="q2", delay=60)
    (stored,) = driver.messages.get(Address(project=PROJECT, queue="q2"), [sealed], now=clock())

    assert socket.listed("q1") == []
    assert socket.do("claim_create", queue_name="q1").status == 204
    assert socket.listed("q2") == ["a"]
    assert stored.sealed
    assert b'"a"' not in stored.body
    clock.advance(60)
    assert socket.listed("q1") == ["a"]
    assert socket.listed("q2") == ["a", "late"]


def test_delayed_messages_are_hidden_on_every_queue(socket: Socket) -> None:
    """Unlike over REST, where they are hidden on queues with a default delay only."""
    socket.post("late", delay=60)
    socket.done("queue_create", queue_name="q2", metadata={"_default_message_delay": 60})
    socket.post("late", queue="q2")

    for queue in ("q1", "q2"):
        assert socket.listed(queue) == []
        assert socket.listed(queue, include_delayed=True) == ["late"]


def test_a_conflict_has_an_error(socket: Socket, driver: BreakableDriver) -> None:
    driver.break_("post", error=Conflict("They do not fit."))
    told = socket.do("message_post", queue_name="q1", messages=[{"body": 1}])

    assert told == (409, {"exception": "They do not fit.", "error": "They do not fit."})


def test_a_missing_queue_lists_nothing(socket: Socket) -> None:
    assert socket.do("message_list", queue_name="missing") == (200, {"messages": []})


def test_g4_a_listing_tells_claims_and_goes_on_behind_a_marker(socket: Socket) -> None:
    ids = socket.post(*range(12))
    claimed = socket.done("claim_create", queue_name="q1", limit=2)
    first = socket.done("message_list", queue_name="q1", echo=True, include_claimed=True)["messages"]
    rest = socket.done("message_list", queue_name="q1", echo=True, marker=first[-1]["id"])["messages"]

    assert [each["id"] for each in [*first, *rest]] == ids
    assert [each["claim_id"] for each in first] == [claimed["claim_id"]] * 2 + [None] * 8
    assert socket.listed(marker="nonsense") == []


def test_a_client_does_not_hear_itself_unless_it_wants_to(socket: Socket) -> None:
    socket.post("mine")
    socket.call(
        "message_post", {"queue_name": "q1", "messages": [{"body": "theirs"}]}, Client_ID=ANOTHER_CLIENT
    )

    assert socket.listed(echo=False) == ["theirs"]
    assert socket.listed() == ["mine", "theirs"]
    found = socket.call("message_list", {"queue_name": "q1"}, Client_ID=CLIENT.replace("-", "").upper())
    assert [each["body"] for each in found.body["messages"]] == ["theirs"]


def test_one_message_stands_under_the_name_of_several(socket: Socket, clock) -> None:
    (id_,) = socket.post({"a": 1}, ttl=100)
    clock.advance(5)

    assert socket.do("message_get", queue_name="q1", message_id=id_) == (
        200,
        {"messages": {"id": id_, **message({"a": 1}, ttl=100, age=5)}},
    )


def test_a_message_that_is_not_there_is_not_found(socket: Socket) -> None:
    (id_,) = socket.post("a")
    (other,) = socket.post("b", queue="q2")
    asked = [("q1", "1"), ("q1", ""), ("q1", "x" * 300), ("q1", "\x00"), ("q1", other), ("missing", id_)]
    answers = [socket.do("message_get", queue_name=queue, message_id=each) for queue, each in asked]
    answers.append(socket.call("message_get", {"queue_name": "q1", "message_id": id_}, X_Project_ID="red"))

    for status, body in answers:
        assert status == 404
        assert set(body) == {"exception", "error"}
        assert body["exception"]
        assert body["error"] is None


def test_several_messages_are_those_that_are_there(socket: Socket) -> None:
    ids = socket.post("a", "b")
    told = socket.do("message_get_many", queue_name="q1", message_ids=[ids[1], "1", ids[0]])

    assert told == (
        200,
        {"messages": [{"id": ids[0], **message("a")}, {"id": ids[1], **message("b")}]},
    )
    assert socket.do("message_get_many", queue_name="q1", message_ids=["1"]) == (200, {"messages": []})
    assert socket.do("message_get_many", queue_name="q2", message_ids=ids) == (200, {"messages": []})


@pytest.mark.parametrize(("count", "good"), [(0, False), (1, True), (20, True), (21, False), (1000, False)])
@pytest.mark.parametrize(("action", "done"), [("message_get_many", 200), ("message_delete_many", 204)])
def test_at_most_twenty_ids(socket: Socket, action: str, done: int, count: int, good: bool) -> None:
    told = socket.do(action, queue_name="q1", message_ids=["1"] * count)

    assert told.status == (done if good else 400)
    assert good or told.body["error"] is None


@pytest.mark.parametrize("ids", [[1], [None], ["1", 2], [[]], [{}]])
@pytest.mark.parametrize("action", ["message_get_many", "message_delete_many"])
def test_ids_are_texts(socket: Socket, action: str, ids: list[Any]) -> None:
    assert socket.do(action, queue_name="q1", message_ids=ids) == NOT_VALID


def test_deleting_heeds_claims(socket: Socket, clock) -> None:
    """The decision table of REST, section 12.6."""
    held, free = socket.post("held", "free")
    claim_id = socket.done("claim_create", queue_name="q1", limit=1, ttl=60, grace=60)["claim_id"]

    def delete(message_id: str, **claim: str) -> Told:
        return socket.do("message_delete", queue_name="q1", message_id=message_id, **claim)

    for refused in (delete(held), delete(held, claim_id="nonsense"), delete(free, claim_id=claim_id)):
        assert refused.status in (400, 403)
        assert refused.body["error"], "the explanation"
    assert delete(held).status == 403
    assert delete(free, claim_id=claim_id).status == 400
    assert delete(free, claim_id="nonsense").status == 400
    clock.advance(60)
    assert delete(held, claim_id=claim_id).status == 400, "it has expired"
    claim_id = socket.done("claim_create", queue_name="q1", limit=1)["claim_id"]
    assert delete(held, claim_id=claim_id) == (204, {})
    assert delete(held, claim_id=claim_id) == (204, {}), "it is gone"
    assert delete(free) == (204, {})
    assert delete("nonsense", claim_id="nonsense") == (204, {})


def test_messages_are_popped_with_these_members(socket: Socket, clock) -> None:
    ids = socket.post("a", "b", ttl=100)
    socket.done(
        "claim_delete", queue_name="q1", claim_id=socket.done("claim_create", queue_name="q1")["claim_id"]
    )
    clock.advance(7)
    told = socket.do("message_delete_many", queue_name="q1", pop=1)

    assert told.status == 200
    (popped,) = told.body["messages"]
    ttl = popped.pop("ttl")
    assert ttl >= 100
    assert popped == {"id": ids[0], "age": 7, "body": "a", "claim_id": None, "claim_count": 1}
    assert socket.do("message_delete_many", queue_name="q1", pop=20).body["messages"][0]["id"] == ids[1]
    assert socket.do("message_delete_many", queue_name="q1", pop=20) == (200, {"messages": []})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"pop": 0},
        {"pop": -1},
        {"pop": 21},
        {"message_ids": ["1"], "pop": 1},
        {"claim_ids": ["1"]},
    ],
)
def test_a_delete_is_by_ids_or_by_number(socket: Socket, members: dict[str, Any]) -> None:
    told = socket.do("message_delete_many", queue_name="q1", **members)

    assert (told.status, told.body["error"]) == (400, None)


def test_deleting_again_is_fine_also_without_the_queue(socket: Socket) -> None:
    ids = socket.post("a", "b")

    for _ in range(2):
        assert socket.do("message_delete_many", queue_name="q1", message_ids=ids) == (204, {})
    socket.done("queue_delete", queue_name="q1")
    assert socket.do("message_delete_many", queue_name="q1", message_ids=ids) == (204, {})


def test_claim_ids_are_needed_where_the_rule_is_on(open_socket) -> None:
    socket = open_socket(wire={"message_delete_with_claim_id": True})
    ids = socket.post("a", "b")
    claim_id = socket.done("claim_create", queue_name="q1", limit=1)["claim_id"]

    def delete(**claims: Any) -> object:
        told = socket.do("message_delete_many", queue_name="q1", message_ids=ids, **claims)
        return told.status

    assert delete() == 400
    assert delete(claim_ids=[]) == 400
    assert delete(claim_ids=["nonsense"]) == 403
    assert delete(claim_ids=[claim_id]) == 204
    assert socket.do("message_delete_many", queue_name="q1", pop=1, claim_ids=[claim_id]).status == 400


# --- 5.3 claims


def test_a_claim_is_answered_with_its_id_in_every_message(socket: Socket) -> None:
    ids = socket.post("a", "b", "c", ttl=300)
    status, body = socket.do("claim_create", queue_name="q1", limit=2, ttl=100, grace=60)
    claim_id = body["claim_id"]

    assert status == 201
    assert isinstance(claim_id, str)
    assert body == {
        "claim_id": claim_id,
        "messages": [
            {"id": ids[0], **message("a", claim_id, ttl=300)},
            {"id": ids[1], **message("b", claim_id, ttl=300)},
        ],
    }
    assert socket.do("claim_get", queue_name="q1", claim_id=claim_id) == (
        200,
        {"age": 0, "ttl": 100, "messages": body["messages"]},
    )


@pytest.mark.parametrize("created", [True, False])
def test_nothing_claimable_is_204_without_an_id(socket: Socket, created: bool) -> None:
    if created:
        socket.done("queue_create", queue_name="q1")

    assert socket.do("claim_create", queue_name="q1") == (204, {"claim_id": None})


def test_ten_messages_are_claimed_unless_asked_otherwise(socket: Socket) -> None:
    socket.post(*range(11))

    assert len(socket.done("claim_create", queue_name="q1")["messages"]) == 10


@pytest.mark.parametrize("value", [-1, 0, 59, 43201, 2**63 - 1])
@pytest.mark.parametrize("term", ["ttl", "grace"])
def test_the_terms_of_a_claim_have_bounds(socket: Socket, term: str, value: int) -> None:
    socket.post("a")
    claim_id = socket.done("claim_create", queue_name="q1")["claim_id"]

    for told in (
        socket.do("claim_create", queue_name="q1", **{term: value}),
        socket.do("claim_update", queue_name="q1", claim_id=claim_id, **{term: value}),
    ):
        assert (told.status, told.body["error"]) == (400, None)
        assert term in told.body["exception"]


def test_f18_null_means_the_default_terms(socket: Socket) -> None:
    socket.post("a")
    claim_id = socket.done("claim_create", queue_name="q1", ttl=None, grace=None, limit=None)["claim_id"]

    assert socket.done("claim_get", queue_name="q1", claim_id=claim_id)["ttl"] == 300
    socket.done("claim_update", queue_name="q1", claim_id=claim_id, ttl=60)
    assert socket.done("claim_get", queue_name="q1", claim_id=claim_id)["ttl"] == 60
    socket.done("claim_update", queue_name="q1", claim_id=claim_id)
    assert socket.done("claim_get", queue_name="q1", claim_id=claim_id)["ttl"] == 300


@pytest.mark.parametrize("claim_id", ["nonsense", "", "\x00", "x" * 300, "\u00e9"])
def test_a_claim_that_is_not_there_is_named(socket: Socket, claim_id: str) -> None:
    for action in ("claim_get", "claim_update"):
        status, body = socket.do(action, queue_name="q1", claim_id=claim_id)
        assert (status, body["error"]) == (404, f"Claim {claim_id} does not exist.")
        assert body["exception"]
    assert socket.do("claim_delete", queue_name="q1", claim_id=claim_id) == (
        204,
        f"Claim {claim_id} deleted.",
    )


def test_a_claim_is_renewed_and_released_with_a_text(socket: Socket, clock) -> None:
    socket.post("a")
    claim_id = socket.done("claim_create", queue_name="q1", ttl=60)["claim_id"]
    clock.advance(59)

    renewed = socket.do("claim_update", queue_name="q1", claim_id=claim_id, ttl=60, grace=60)
    assert renewed == (204, f"Claim {claim_id} updated.")
    clock.advance(59)
    assert socket.done("claim_get", queue_name="q1", claim_id=claim_id)["age"] == 59
    assert socket.do("claim_delete", queue_name="q1", claim_id=claim_id) == (
        204,
        f"Claim {claim_id} deleted.",
    )
    assert socket.listed() == ["a"]
    assert socket.do("claim_get", queue_name="q1", claim_id=claim_id).status == 404


# --- 5.4 subscriptions


def test_a_subscription_is_made_and_shown(socket: Socket, clock) -> None:
    subscriber = "http://trigger.example.org/he"
    status, body = socket.do(
        "subscription_create",
        queue_name="kitkat",
        subscriber=subscriber,
        ttl=600,
        options={"from": "a@example.org"},
    )
    id_ = body["subscription_id"]
    clock.advance(3)

    assert (status, body) == (201, {"subscription_id": id_, "message": "Subscription kitkat created."})
    assert socket.done("queue_list") == {"queues": [{"name": "kitkat"}]}
    shown = {
        "id": id_,
        "source": "kitkat",
        "subscriber": subscriber,
        "ttl": 600,
        "age": 3,
        "options": {"from": "a@example.org"},
        "confirmed": False,
    }
    assert socket.do("subscription_list", queue_name="kitkat") == (200, {"subscriptions": [shown]})
    assert socket.do("subscription_get", queue_name="kitkat", subscription_id=id_) == (200, shown)


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_duplicate_is_a_conflict_whether_or_not_it_is_confirmed(socket: Socket, confirmed: bool) -> None:
    body = {"queue_name": "kitkat", "subscriber": "http://hook.example.org/"}
    id_ = socket.done("subscription_create", **body)["subscription_id"]
    if confirmed:
        socket.done("subscription_confirm", queue_name="kitkat", subscription_id=id_, confirmed=True)

    assert socket.do("subscription_create", **body) == (409, "Subscription kitkat not created.")


@pytest.mark.parametrize(
    "wish",
    [
        {"subscriber": "fake://hook.example.org/"},
        {"subscriber": "hook.example.org"},
        {"subscriber": "http://"},
        {"subscriber": "trust+http://hook.example.org/"},
        {"ttl": 59},
        {"ttl": -1},
        {"ttl": 2**63 - 1},
        {"options": {"trust_id": "somebody's"}},
        {"options": {"filter": "no filter"}},
    ],
)
@pytest.mark.parametrize("connection", [True, False])
def test_a_wish_that_breaks_the_rules_is_refused(
    socket: Socket, wish: dict[str, Any], connection: bool
) -> None:
    whole = wish if connection else {"subscriber": "http://hook.example.org/", **wish}
    told = socket.do("subscription_create", queue_name="q1", **whole)

    assert (told.status, told.body["error"]) == (400, None)
    assert socket.done("queue_list") == {"queues": []}


@pytest.mark.parametrize("subscriber", [{}, {"subscriber": ""}])
def test_without_a_subscriber_the_connection_is_meant(socket: Socket, subscriber: dict[str, str]) -> None:
    status, body = socket.do("subscription_create", queue_name="kitkat", **subscriber)
    id_ = body["subscription_id"]

    assert (status, body) == (201, {"subscription_id": id_, "message": "Subscription kitkat created."})
    assert socket.do("subscription_get", queue_name="kitkat", subscription_id=id_) == (
        200,
        {
            "id": id_,
            "source": "kitkat",
            "subscriber": socket.link.uri,
            "ttl": 3600,
            "age": 0,
            "options": {},
            "confirmed": True,
        },
    )
    assert [*socket.link.followed] == [id_]
    again = socket.do("subscription_create", queue_name="kitkat", **subscriber)
    assert again == (409, "Subscription kitkat not created.")
    assert socket.do("subscription_create", queue_name="snickers", **subscriber).status == 201


def test_what_is_pushed_has_the_encoding_of_the_last_subscription(socket: Socket) -> None:
    socket.done("subscription_create", queue_name="q1")
    ((_, _, binary),) = socket.link.followed.values()

    assert binary == (socket.encoding == "msgpack")


def test_a_connection_has_at_most_so_many_subscriptions(socket: Socket) -> None:
    socket.link.room = 0
    told = socket.do("subscription_create", queue_name="q1")

    assert (told.status, told.body["error"]) == (400, None)


def test_a_subscriber_is_asked_to_confirm_over_either_transport(open_socket) -> None:
    settings = {
        "notifier": {"require_confirmation": True},
        "signed_url": {"secret_keys": ["a key of the tests"]},
    }
    socket = open_socket(**settings)
    socket.done("subscription_create", queue_name="q1", subscriber="http://hook.example.org/")
    socket.done("subscription_create", queue_name="q1")
    shown = socket.done("subscription_list", queue_name="q1")["subscriptions"]

    assert sorted(each["confirmed"] for each in shown) == [False, True], (
        "a connection has confirmed by being one"
    )
    ((asked,),) = (batch.pending for batch in take(socket.service.deliveries))
    assert asked.payload, "what it is sent to confirm"


def test_subscriptions_come_page_by_page_without_links(socket: Socket) -> None:
    for number in range(12):
        socket.done("subscription_create", queue_name="q1", subscriber=f"http://hook.example.org/{number}")
    page = socket.done("subscription_list", queue_name="q1")
    rest = socket.done("subscription_list", queue_name="q1", marker=page["subscriptions"][-1]["id"])

    assert set(page) == {"subscriptions"}
    assert (len(page["subscriptions"]), len(rest["subscriptions"])) == (10, 2)


@pytest.mark.parametrize("error", [None, NoPool()])
def test_a_store_that_fails_lists_no_subscriptions(
    socket: Socket, driver: BreakableDriver, error: Exception | None
) -> None:
    driver.break_(error=error)
    status, body = socket.do("subscription_list", queue_name="q1")

    assert status == 503
    assert body["error"]


@pytest.mark.parametrize("id_", ["nonsense", "", "\x00", "x" * 300])
def test_a_subscription_that_is_not_there(socket: Socket, id_: str) -> None:
    status, body = socket.do("subscription_get", queue_name="q1", subscription_id=id_)

    assert status == 404
    assert body["error"]
    assert socket.do("subscription_delete", queue_name="q1", subscription_id=id_) == (
        204,
        f"Subscription {id_} removed.",
    )


def test_a_subscription_is_deleted_with_a_text_and_its_connection_hears_of_it(socket: Socket) -> None:
    id_ = socket.done("subscription_create", queue_name="q1")["subscription_id"]

    assert socket.do("subscription_delete", queue_name="q1", subscription_id=id_) == (
        204,
        f"Subscription {id_} removed.",
    )
    assert socket.link.forgotten == [id_]
    assert socket.done("subscription_list", queue_name="q1") == {"subscriptions": []}


# --- bodies as such


def test_a_body_of_any_action_has_a_greatest_size(socket: Socket) -> None:
    """Whatever is in the member that is too long."""
    for action, body in CONTRACT.items():
        if action not in ("authenticate", "message_post"):
            whole = {} if body is ABSENT else body
            told = socket.call(action, {**whole, "metadata": {"a": "x" * 100_000}})
            assert (told.status, told.body["error"]) == (400, None), action
