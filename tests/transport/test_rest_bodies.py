"""Every kind of malformed body, at every endpoint that reads one. Sections 5 and 3.2; quirk F2."""

import json

import pytest

from tests.transport.conftest import ONE_STORE, PATCH_TYPE, Answer, Client, assert_problem

pytestmark = ONE_STORE

# Where a body is read: method, path, and a good body with a place for any value.
ENDPOINTS = {
    "create queue": ("PUT", "/v2/queues/q2", '{"any": %s}'),
    "change queue": ("PATCH", "/v2/queues/q1", '[{"op": "add", "path": "/metadata/any", "value": %s}]'),
    "purge": ("POST", "/v2/queues/q1/purge", '{"resource_types": ["messages"], "any": %s}'),
    "share": ("POST", "/v2/queues/q1/share", '{"methods": [%s]}'),
    "post messages": ("POST", "/v2/queues/q1/messages", '{"messages": [{"body": %s}]}'),
    "claim": ("POST", "/v2/queues/q1/claims", '{"ttl": 60, "any": %s}'),
    "renew claim": ("PATCH", "{claim}", '{"ttl": 60, "any": %s}'),
}
OPTIONAL = {"create queue", "purge", "claim"}
REQUIRED = set(ENDPOINTS) - OPTIONAL

MALFORMED = {
    "blanks": b"   ",
    "open object": b"{",
    "open array": b"[",
    "full stop": b".",
    "text": b"fail",
    "half a member": b'{"a":',
    "open text": b'{"a": "b}',
    "two documents": b"{} {}",
    "something behind": b"{}x",
    "comma at the end": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "no quotes": b"{a: 1}",
    "comment": b"{} // none",
    "control character": b'{"a": "\n"}',
    "bad escape": b'{"a": "\\x41"}',
    "bad number": b'{"a": 01}',
    "XML": b"<a/>",
    "form": b"a=1&b=2",
    "byte-order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32-le"),
    "zeros": b"\x00\x00\x00\x00",
    "not UTF-8": b'{"a": "\xff"}',
    "half a character": b'{"a": "\xc3"}',
    "overlong character": b'{"a": "\xc0\xaf"}',
    "encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "null": b"null",
    "true": b"true",
    "number": b"123",
    "JSON text": b'"fail"',
}

BAD_VALUES = {
    "NaN": "NaN",
    "infinity": "Infinity",
    "minus infinity": "-Infinity",
    "nan deep inside": '{"a": [1, {"b": NaN}]}',
    "high surrogate": '"\\ud800"',
    "low surrogate": '"\\udc00"',
    "surrogates in the wrong order": '"\\udc00\\ud800"',
    "surrogate as a key": '{"\\ud800": 1}',
    "too great an integer": "9223372036854775808",
    "too small an integer": "-9223372036854775809",
    "far too great an integer": "1" + "0" * 5000,
    "too great in a list": "[1,9223372036854775808]",
    "too great on a line of its own": '{"a":\n9223372036854775808}',
    "too great deep inside": '[[{"a": 9223372036854775808}]]',
    "too deep": "[" * 101 + "]" * 101,
    "too deep objects": '{"a":' * 101 + "1" + "}" * 101,
    "far too deep": "[" * 30_000 + "]" * 30_000,
    "far too deep and open": "[" * 60_000,
}


@pytest.fixture
def api(full_api):
    """A client of a project with a queue, a claimed and a free message."""
    full_api.create_queue("q1", {"colour": "red"})
    full_api.post_bodies("claimed", "free")
    return full_api


@pytest.fixture
def claim(api):
    return api.claim(limit=1, ttl=100)


def send(api: Client, endpoint: str, claim: object, body: bytes, **headers: str) -> Answer:
    method, path, _ = ENDPOINTS[endpoint]
    path = path.format(claim=getattr(claim, "path", ""))
    content_type = PATCH_TYPE if endpoint == "change queue" else "application/json"
    return api.request(method, path, body=body, headers={"Content-Type": content_type, **headers})


def assert_unchanged(api: Client, claim: object) -> None:
    assert api.queue_names() == ["q1"]
    assert api.metadata("q1") == {"colour": "red"}
    assert api.listed(query="echo=true&include_claimed=true") == ["claimed", "free"]
    assert api.get(getattr(claim, "path", "")).json["ttl"] == 100
    assert api.stats() == (1, 1)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_refused_and_changes_nothing(api, claim, endpoint, body):
    answer = send(api, endpoint, claim, body)

    assert_problem(answer, 400, "Invalid request body")
    assert_unchanged(api, claim)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_f2_a_value_that_cannot_be_kept_is_refused_and_changes_nothing(api, claim, endpoint, value):
    good = ENDPOINTS[endpoint][2] % '"GET"'
    bad = ENDPOINTS[endpoint][2] % value

    answer = send(api, endpoint, claim, bad.encode())

    assert_problem(answer, 400, "Invalid request body")
    assert_unchanged(api, claim)
    assert send(api, endpoint, claim, good.encode()).status_code < 300


@pytest.mark.parametrize("endpoint", sorted(set(ENDPOINTS) - {"change queue"}))
@pytest.mark.parametrize("body", [b"[]", b"[{}]", b'[["resource_types", []]]'])
def test_an_array_in_place_of_an_object_is_refused(api, claim, endpoint, body):
    assert_problem(send(api, endpoint, claim, body), 400, "Invalid request body")
    assert_unchanged(api, claim)


@pytest.mark.parametrize("endpoint", sorted(REQUIRED))
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}])
def test_a_body_that_is_needed_must_be_there(api, claim, endpoint, headers):
    assert_problem(send(api, endpoint, claim, b"", **headers), 400, "Invalid request body")
    assert_unchanged(api, claim)


@pytest.mark.parametrize("endpoint", sorted(OPTIONAL))
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}])
def test_a_body_that_is_not_needed_may_be_left_out(api, endpoint, headers):
    assert send(api, endpoint, None, b"", **headers).status_code < 300


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_body_that_is_too_large_is_refused_and_changes_nothing(api, claim, endpoint):
    good = (ENDPOINTS[endpoint][2] % '"GET"').encode()

    answer = send(api, endpoint, claim, good.ljust(262145))

    assert answer.status_code == 400
    assert_unchanged(api, claim)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_body_that_ends_early_is_refused_and_changes_nothing(api, claim, endpoint):
    good = (ENDPOINTS[endpoint][2] % '"GET"').encode()

    answer = send(api, endpoint, claim, good, **{"Content-Length": str(len(good) + 1)})

    assert_problem(answer, 400, "Invalid request body")
    assert_unchanged(api, claim)


@pytest.mark.parametrize(
    "value",
    [
        "9223372036854775807",
        "-9223372036854775808",
        "1e308",
        "-0.0",
        '"\\ud83d\\udc26"',
        '"\\u0000"',
        '{"$a.b": {"": []}}',
        '"\\u2028 \\u00e9"',
        "[" * 90 + "]" * 90,
    ],
)
def test_f2_what_is_unusual_but_right_comes_back(api, value):
    body = ENDPOINTS["post messages"][2] % value

    answer = api.post("/v2/queues/q1/messages", body=body.encode())

    shown = api.get(answer.json["resources"][0])
    assert shown.json["body"] == json.loads(value)
    json.loads(shown.text, parse_constant=pytest.fail)


@pytest.mark.parametrize(("levels", "status"), [(97, 201), (98, 400)])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":[', "]}")])
def test_a_document_may_have_a_hundred_levels(api, opening, closing, levels, status):
    """Three of them are the document's own: the object, the list and the message."""
    depth = levels // len(closing)
    rest = "[" * (levels % len(closing)), "]" * (levels % len(closing))
    value = opening * depth + rest[0] + rest[1] + closing * depth

    answer = api.post("/v2/queues/q1/messages", body=(ENDPOINTS["post messages"][2] % value).encode())

    assert answer.status_code == status


def test_brackets_in_a_text_are_no_levels(api):
    value = json.dumps("[" * 5000 + '\\"{' * 500)

    assert (
        api.post("/v2/queues/q1/messages", body=(ENDPOINTS["post messages"][2] % value).encode()).status_code
        == 201
    )


def test_the_last_of_equal_members_wins(api):
    api.post(
        "/v2/queues/q1/messages", body=b'{"messages": [{"body": 0}], "messages": [{"body": 1, "body": 2}]}'
    )

    assert api.listed() == ["claimed", "free", 2]
    assert_problem(
        api.post("/v2/queues/q1/claims", body=b'{"ttl": 60, "ttl": 5}'), 400, "Invalid API request"
    )


def test_f2_a_number_too_great_for_most_readers_never_becomes_infinity(api):
    """1e400 is JSON, Infinity is not: a body is kept as it was written, metadata are refused."""
    answer = api.post("/v2/queues/q1/messages", body=b'{"messages": [{"body": 1e400}]}')

    assert '"body":1e400' in api.get(answer.json["resources"][0]).text
    assert_problem(api.put("/v2/queues/q2", body=b'{"any": 1e400}'), 400, "Invalid request body")
