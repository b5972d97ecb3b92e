"""Changing a queue's metadata, and the rules for reserved attributes. Sections 10.4 and 10.6; checklist 7."""

import json
from typing import Any

import pytest

from tests.transport.conftest import DEFAULTS, ONE_STORE, PATCH_TYPE, WITHOUT_POOLS, assert_problem

Q1 = "/v2/queues/q1"
TYPED = {"Content-Type": PATCH_TYPE}


def add(key: str, value: Any, path: str = "/metadata/{}") -> dict[str, Any]:
    return {"op": "add", "path": path.format(key), "value": value}


def replace(key: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": f"/metadata/{key}", "value": value}


def remove(key: str, path: str = "/metadata/{}") -> dict[str, Any]:
    return {"op": "remove", "path": path.format(key)}


@pytest.fixture
def red(api):
    """A client of a project with the queue q1, whose colour is red."""
    api.create_queue("q1", {"colour": "red"})
    return api


# --- operations


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([], {"colour": "red"}),
        ([add("size", 5)], {"colour": "red", "size": 5}),
        ([add("colour", "blue")], {"colour": "blue"}),
        ([add("colour", None)], {"colour": None}),
        ([add("size", {"a": [1, {"b": None}]})], {"colour": "red", "size": {"a": [1, {"b": None}]}}),
        ([replace("colour", "blue")], {"colour": "blue"}),
        ([replace("colour", None)], {"colour": None}),
        ([replace("_default_message_ttl", 100)], {"colour": "red", "_default_message_ttl": 100}),
        ([remove("colour")], {}),
        ([remove("colour"), add("colour", 1)], {"colour": 1}),
        ([add("size", 5), replace("size", 6), remove("size")], {"colour": "red"}),
        ([add("_default_message_ttl", 100), remove("_default_message_ttl")], {"colour": "red"}),
        ([{**remove("colour"), "value": "ignored"}], {}),
        ([{**add("size", 5), "comment": "ignored"}], {"colour": "red", "size": 5}),
    ],
)
def test_operations_apply_in_their_order(red, operations, expected):
    answer = red.change("q1", *operations)

    assert (answer.status_code, answer.json) == (200, {**DEFAULTS, **expected})
    assert red.get(Q1).json == answer.json
    assert "location" not in answer.headers


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_reserved_attribute_that_is_not_stored_can_be_removed_and_replaced(red, key):
    assert red.change("q1", remove(key)).json == {**DEFAULTS, "colour": "red"}
    assert red.change("q1", replace(key, None)).json == {**DEFAULTS, "colour": "red"}


@pytest.mark.parametrize("operation", [replace("size", 5), remove("size"), replace("Colour", 1)])
def test_a_key_that_is_missing_conflicts(red, operation):
    assert_problem(red.change("q1", operation), 409, "Resource conflict")


@WITHOUT_POOLS
@pytest.mark.parametrize(("key", "value"), [("_flavor", "gold"), ("_retry_policy", {})])
def test_f11_flavor_and_retry_policy_can_be_replaced_only_where_they_are(red, key, value):
    assert_problem(red.change("q1", replace(key, value)), 409, "Resource conflict")
    assert red.change("q1", add(key, value), replace(key, value)).status_code == 200


@pytest.mark.parametrize("operation", [add("colour", 1), replace("colour", 1), remove("colour")])
def test_a_queue_that_does_not_exist_cannot_be_changed(api, operation):
    assert_problem(api.change("nowhere", operation), 404, "Not found")
    assert api.queue_names() == []


def test_all_operations_apply_or_none(red):
    assert red.change("q1", add("size", 5), remove("nothing")).status_code == 409
    assert red.change("q1", add("size", 5), add("_default_message_ttl", 0)).status_code == 400
    assert red.change("q1", add("size", 5), {"op": "a"}).status_code == 400

    assert red.metadata("q1") == {"colour": "red"}


def test_the_result_is_what_has_to_keep_the_rules(red):
    passing = [add("_default_message_ttl", 0), replace("_default_message_ttl", 60)]

    assert red.change("q1", *passing).status_code == 200


def test_python_zaqarclient_can_replace_all_metadata(red):
    """It removes every key that it was shown and does not want, the reserved defaults included."""
    unwanted = [remove(key) for key in red.get(Q1).json if key != "colour"]

    answer = red.change("q1", replace("colour", "blue"), add("size", 5), *unwanted)

    assert answer.json == {**DEFAULTS, "colour": "blue", "size": 5}


def test_what_is_changed_counts_at_once(red):
    red.post_bodies("before")
    red.change("q1", add("_default_message_ttl", 100))

    red.post_bodies("after")

    messages = red.get(f"{Q1}/messages?echo=true").json["messages"]
    assert [(message["body"], message["ttl"]) for message in messages] == [("before", 3600), ("after", 100)]


# --- what is no operation


@ONE_STORE
@pytest.mark.parametrize(
    "operation",
    [
        {},
        {"op": "a", "path": "/metadata/b", "value": 1},
        {"op": "test", "path": "/metadata/b", "value": 1},
        {"op": "Add", "path": "/metadata/b", "value": 1},
        {"op": None, "path": "/metadata/b", "value": 1},
        {"op": ["add"], "path": "/metadata/b", "value": 1},
        {"path": "/metadata/b", "value": 1},
        {"op": "add", "value": 1},
        {"op": "add", "path": "/metadata/b"},
        {"op": "replace", "path": "/metadata/colour"},
        "add",
        None,
        5,
        [],
    ],
)
def test_f1_what_is_no_operation_is_refused(red, operation):
    assert_problem(red.change("q1", operation), 400, "Invalid request body")
    assert red.metadata("q1") == {"colour": "red"}


@ONE_STORE
@pytest.mark.parametrize("document", [{}, {"op": "remove", "path": "/metadata/colour"}, "x", 5, None, True])
def test_f1_what_is_no_list_of_operations_is_refused(red, document):
    assert_problem(red.patch(Q1, document, headers=TYPED), 400, "Invalid request body")


BAD_PATHS = [
    "",
    "/",
    "metadata/colour",
    "/a",
    "/metadata",
    "/metadata/",
    "/metadata//",
    "/metadata//colour",
    "/metadata/ ",
    "/metadata/colour/",
    "/metadata/colour/shade",
    "/ /colour",
    "/other/colour",
    "/metadata/colour~",
    "/metadata/~2",
    "/meta~data/colour",
    5,
    None,
    ["metadata", "colour"],
    {},
    True,
]


@ONE_STORE
@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("op", ["add", "replace", "remove"])
def test_f1_f11_a_path_is_metadata_and_a_key(red, op, path):
    answer = red.change("q1", {"op": op, "path": path, "value": 1})

    assert_problem(answer, 400, "Invalid request body")


@ONE_STORE
@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/metadata/a~1b", "a/b"),
        ("/metadata/a~0b", "a~b"),
        ("/metadata/~01", "~1"),
        ("/metadata/a.b", "a.b"),
        ("/metadata/$a", "$a"),
        ("/METAdata/a", "a"),
        ("/metadata/ a ", "a"),
        ("/ metadata /a b", "a b"),
        ("/metadata/é", "é"),
    ],
)
def test_a_path_can_name_any_key(api, path, key):
    api.create_queue("q1")

    assert api.change("q1", add("", 1, path=path)).status_code == 200
    assert api.metadata("q1") == {key: 1}
    assert api.change("q1", remove("", path=path)).status_code == 200
    assert api.metadata("q1") == {}


# --- content type, size and order of the checks


@ONE_STORE
@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/json-patch+json", f"{PATCH_TYPE}+x", "text/plain"]
)
def test_a_change_must_say_its_type(red, content_type):
    answer = red.patch(Q1, [], headers={"Content-Type": content_type})

    assert_problem(answer, 415, "415 Unsupported Media Type")


@ONE_STORE
@pytest.mark.parametrize(
    "content_type", [PATCH_TYPE, f"{PATCH_TYPE}; charset=utf-8", f"{PATCH_TYPE};charset=UTF-8"]
)
def test_parameters_of_the_type_are_tolerated(red, content_type):
    assert red.patch(Q1, [], headers={"Content-Type": content_type}).status_code == 200


def test_a_change_has_a_greatest_size(red):
    exact = b"[" + b" " * 65534 + b"]"

    assert red.patch(Q1, body=exact, headers=TYPED).status_code == 200
    assert_problem(red.patch(Q1, body=exact + b" ", headers=TYPED), 400, "Invalid request body")


def test_the_first_check_of_a_change_that_fails_answers(api):
    """Size, type, presence, syntax, operations, existence, conflict, result."""
    api.create_queue("q1")
    great, typed = b"x" * 65537, TYPED

    assert_problem(api.patch("/v2/queues/q2", body=great), 400, "Invalid request body")
    assert_problem(api.patch("/v2/queues/q2"), 415, "415 Unsupported Media Type")
    assert_problem(api.patch("/v2/queues/q2", headers=typed), 400, "Invalid request body")
    assert_problem(api.patch("/v2/queues/q2", body=b"[", headers=typed), 400, "Invalid request body")
    assert_problem(api.change("q2", remove("nothing"), {"op": "a"}), 400, "Invalid request body")
    assert_problem(api.change("q2", remove("nothing")), 404, "Not found")
    bad_result = add("_max_claim_count", "x")
    assert_problem(api.change("q1", bad_result, remove("nothing")), 409, "Resource conflict")
    assert_problem(api.change("q1", bad_result), 400, "Invalid request body")


# --- reserved attributes, by PUT and by PATCH

RETRY_INTEGERS = [
    "retries_with_no_delay",
    "minimum_delay_retries",
    "minimum_delay",
    "maximum_delay",
    "maximum_delay_retries",
]
BOUNDS = {
    "_default_message_ttl": (60, 1209600),
    "_max_messages_post_size": (1, 262144),
    "_default_message_delay": (0, 900),
    "_dead_letter_queue_messages_ttl": (60, 1209600),
}
NO_INTEGERS: list[Any] = ["", "60", "x", [], [60], {}, 60.0, 60.5, True, False]
BAD_VALUES: dict[str, list[Any]] = {
    **{key: [*NO_INTEGERS, low - 1, high + 1] for key, (low, high) in BOUNDS.items()},
    "_max_claim_count": [*NO_INTEGERS, 0, -1],
    "_dead_letter_queue": ["", "b@d", "x" * 65, "q2\n", 5, [], {}, False],
    "_enable_encrypt_messages": ["", "yes", "true", 0, 1, [], {}],
    "_flavor": [[], {}, 0, False],
    "_retry_policy": [
        *["", "x", [], 0, 5, False],
        *({name: value} for name in RETRY_INTEGERS for value in ("3", 5.5, [1], "", True)),
        *({"retry_backoff_function": value} for value in ("cubic", "", 5)),
        *({"ignore_subscription_override": value} for value in ("no", 0)),
        {"minimum_delay": 20, "maximum_delay": 10},
        {"minimum_delay": 20, "maximum_delay": 29},
        {"minimum_delay": 21},
        {"maximum_delay": 14},
    ],
}
GOOD_VALUES: dict[str, list[Any]] = {
    **{key: [None, *bounds] for key, bounds in BOUNDS.items()},
    "_max_claim_count": [None, 1, 2, 1_000_000],
    "_dead_letter_queue": [None, "q2", "Service.dead_2", "x" * 64],
    "_enable_encrypt_messages": [None, False],
    "_flavor": [None, "gold"],
    "_retry_policy": [
        None,
        {},
        {"minimum_delay": 20},
        {"maximum_delay": 15},
        {"minimum_delay": 20, "maximum_delay": 30, "unknown": ["ignored"]},
        {**dict.fromkeys(RETRY_INTEGERS, 1), "maximum_delay": 100, "ignore_subscription_override": True},
        *({"retry_backoff_function": name} for name in ("linear", "arithmetic", "geometric", "exponential")),
    ],
}


def pairs(values: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(key, value) for key, each in values.items() for value in each]


@ONE_STORE
@pytest.mark.parametrize(("key", "value"), pairs(BAD_VALUES))
def test_f1_a_reserved_attribute_that_breaks_the_rules_is_refused(red, key, value):
    assert_problem(red.put("/v2/queues/q2", {"size": 5, key: value}), 400, "Invalid API request")
    assert_problem(red.change("q1", add("size", 5), add(key, value)), 400, "Invalid request body")

    assert red.queue_names() == ["q1"]
    assert red.metadata("q1") == {"colour": "red"}


@ONE_STORE
@pytest.mark.parametrize(("key", "value"), pairs(GOOD_VALUES))
def test_a_reserved_attribute_that_keeps_the_rules_is_stored(red, key, value):
    red.create_queue("q2", {key: value})
    changed = red.change("q1", add(key, value))

    expected = {**DEFAULTS, key: value or DEFAULTS.get(key, value)}
    assert red.get("/v2/queues/q2").json == expected
    assert changed.json == {**expected, "colour": "red"}


def test_a_retry_policy_may_have_nulls(red):
    """They mean the defaults."""
    policy = dict.fromkeys(
        ("minimum_delay", "maximum_delay", "retry_backoff_function", "ignore_subscription_override")
    )

    assert red.put("/v2/queues/q2", {"_retry_policy": policy}).status_code == 201


def test_the_bounds_of_reserved_attributes_are_those_of_the_settings(open_api):
    limits = {"max_message_ttl": 4000, "max_message_delay": 10, "max_messages_post_size": 500}
    api = open_api(limits=limits)
    bounds = {
        "_default_message_ttl": 4000,
        "_dead_letter_queue_messages_ttl": 4000,
        "_default_message_delay": 10,
        "_max_messages_post_size": 500,
    }

    for key, most in bounds.items():
        assert_problem(api.put(Q1, {key: most + 1}), 400, "Invalid API request")
    assert api.put(Q1, bounds).status_code == 201


def test_f12_a_description_names_what_is_wrong(red):
    answer = red.put("/v2/queues/q2", {"_default_message_ttl": "soon"})

    assert "_default_message_ttl" in answer.json["description"]
    assert json.dumps("soon") not in answer.json["description"]
