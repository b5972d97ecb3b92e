"""Posting messages and reading them back. Sections 12.1, 12.2, 12.4 and 12.5; checklist 9 and 10."""

import hashlib
import json
import re
from typing import Any

import pytest

from tests.transport.conftest import ONE_STORE, Client, assert_problem, bodies_of, ids_of

MESSAGES = "/v2/queues/q1/messages"
MEMBERS = {"id", "href", "ttl", "age", "body"}

#: Bodies that must come back as they were, section 5.
BODIES = [
    None,
    "",
    0,
    False,
    [],
    {},
    239,
    -1.5,
    1e100,
    2**63 - 1,
    -(2**63),
    "text",
    "\u00e9 \U0001f426 \u0000 \u2028 \x7f",
    "x" * 50_000,
    [None, True, [1, [2, {"deep": [{}]}]]],
    {"z": 1, "a": {"b.c": 1, "$d": 2, "": 3}, "m": ["\\", '"', "/"]},
]


def md5(text: str) -> str:
    return "MD5:" + hashlib.md5(text.encode("ascii")).hexdigest()


def read(api: Client, id_: str) -> dict[str, Any]:
    answer = api.get(f"{MESSAGES}/{id_}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


# --- post, section 12.2


def test_a_post_answers_where_its_messages_are(api):
    """Checklist 9: in posting order, twice."""
    answer = api.post(MESSAGES, {"messages": [{"body": number} for number in range(3)]})

    ids = ids_of(answer)
    assert answer.status_code == 201
    assert answer.json == {"resources": [f"{MESSAGES}/{id_}" for id_ in ids]}
    assert answer.headers["location"] == f"{MESSAGES}?ids={','.join(ids)}"
    assert [read(api, id_)["body"] for id_ in ids] == [0, 1, 2]


def test_an_id_can_stand_in_a_path_and_in_a_query(api):
    ids = api.post_bodies(*range(20))

    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"[0-9A-Za-z_-]+", id_) for id_ in ids)
    assert ids == sorted(ids)


def test_f14_there_is_no_greatest_number_of_messages_in_a_post(api):
    ids = api.post_bodies(*range(500))

    assert len(set(ids)) == 500
    assert api.stats() == (500, 0)


def test_f3_the_first_post_makes_the_queue(api):
    api.post_bodies("hello", queue="new")

    assert api.queue_names() == ["new"]
    assert api.metadata("new") == {}


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [{"body": 1, "ttl": 0}]},
        {"messages": [{"body": 1}, {"ttl": 60}]},
        {"messages": []},
        {},
        [],
    ],
)
def test_f3_a_post_that_is_refused_makes_no_queue(api, document):
    assert api.post("/v2/queues/new/messages", document).status_code == 400

    assert api.queue_names() == []
    assert api.head("/v2/queues/new").status_code == 404


def test_a_post_stores_all_its_messages_or_none(api):
    api.create_queue("q1")

    answer = api.post(MESSAGES, {"messages": [{"body": 1}, {"body": 2}, {"body": 3, "ttl": 1}]})

    assert answer.status_code == 400
    assert api.stats() == (0, 0)


@ONE_STORE
@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        [{"body": 1}],
        {"messages": None},
        {"messages": {}},
        {"messages": {"body": 1}},
        {"messages": "x"},
        {"messages": [{}]},
        {"messages": [{"ttl": 60}]},
        {"messages": [{"body": 1}, {"ttl": 60}]},
        {"Messages": [{"body": 1}]},
    ],
)
def test_a_post_of_another_shape_is_refused(api, document):
    assert_problem(api.post(MESSAGES, document), 400, "Invalid request body")


def test_a_post_without_messages_is_refused(api):
    assert_problem(api.post(MESSAGES, {"messages": []}), 400, "Invalid API request")


@ONE_STORE
@pytest.mark.parametrize("element", [None, 5, "x", [], [{"body": 1}], True])
def test_f1_a_message_that_is_no_object_is_refused(api, element):
    assert_problem(api.post(MESSAGES, {"messages": [{"body": 1}, element]}), 400, "Invalid request body")
    assert api.queue_names() == []


@ONE_STORE
@pytest.mark.parametrize("ttl", [None, "60", "", 60.0, 60.5, [], {}, True])
def test_a_ttl_of_another_type_is_refused(api, ttl):
    answer = api.post(MESSAGES, {"messages": [{"body": 1, "ttl": ttl}]})

    assert_problem(answer, 400, "Invalid request body")


@ONE_STORE
@pytest.mark.parametrize(
    ("ttl", "status"), [(-1, 400), (0, 400), (59, 400), (60, 201), (1209600, 201), (1209601, 400)]
)
def test_a_ttl_has_bounds(api, ttl, status):
    answer = api.post(MESSAGES, {"messages": [{"body": 1, "ttl": ttl}]})

    assert answer.status_code == status
    if status == 400:
        assert_problem(answer, 400, "Invalid API request")


def test_the_greatest_ttl_can_be_set(open_api):
    api = open_api(limits={"max_message_ttl": 4000})

    assert api.post(MESSAGES, {"messages": [{"body": 1, "ttl": 4000}]}).status_code == 201
    assert api.post(MESSAGES, {"messages": [{"body": 1, "ttl": 4001}]}).status_code == 400


def test_a_message_lives_as_long_as_it_says_or_else_its_queue_or_else_the_settings(open_api):
    api = open_api(limits={"default_message_ttl": 111})
    api.create_queue("q2", {"_default_message_ttl": 222})

    def ttl_of(queue: str, **members: int) -> Any:
        [id_] = api.post_bodies(1, queue=queue, **members)
        return api.get(f"/v2/queues/{queue}/messages/{id_}").json["ttl"]

    assert ttl_of("q1") == 111
    assert ttl_of("q2") == 222
    assert ttl_of("q2", ttl=333) == 333


def test_members_that_are_not_known_are_dropped(api):
    [id_] = api.post_messages("q1", {"body": 1, "priority": 5, "id": "x", "claim_id": "y", "age": -1})

    assert read(api, id_) == {"id": id_, "href": f"{MESSAGES}/{id_}", "ttl": 3600, "age": 0, "body": 1}


@ONE_STORE
@pytest.mark.parametrize(("excess", "status"), [(0, 201), (1, 400)])
@pytest.mark.parametrize("filler", ["x", " "])
@pytest.mark.parametrize("limited_by", ["settings", "queue"])
def test_a_post_has_a_greatest_size(open_api, limited_by, filler, excess, status):
    """Of the whole request, blanks included, of the settings or the queue, whichever is less."""
    api = open_api(limits={"max_messages_post_size": 1000 if limited_by == "settings" else 5000})
    api.create_queue("q1", {"_max_messages_post_size": 1000})
    frame = b'{"messages": [{"body": "%s"}]}' if filler == "x" else b'{"messages": [{"body": 1%s}]}'

    answer = api.post(MESSAGES, body=frame % (filler.encode() * (1000 + excess - len(frame % b""))))

    assert answer.status_code == status
    assert api.stats() == (1 - excess, 0)


def test_the_size_of_a_post_is_checked_before_its_syntax(api):
    too_much = b"x" * 262145

    assert_problem(api.post(MESSAGES, body=too_much), 400, "Invalid API request")
    assert_problem(api.post(MESSAGES, body=too_much[:-1]), 400, "Invalid request body")


# --- read, section 12.5


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:30])
def test_a_body_comes_back_as_it_was(api, body):
    [id_] = api.post_bodies(body)

    shown = [
        read(api, id_),
        api.get(f"{MESSAGES}?ids={id_}").json["messages"][0],
        api.get(f"{MESSAGES}?echo=true").json["messages"][0],
        api.claim().messages[0],
    ]

    written = json.dumps(body)
    assert [json.dumps(message["body"]) for message in shown] == [written] * 4


def test_a_message_shows_these_members_and_no_others(api, clock):
    [id_] = api.post_bodies({"any": "json"}, ttl=300)
    clock.advance(42.9)

    expected = {"id": id_, "href": f"{MESSAGES}/{id_}", "ttl": 300, "age": 42, "body": {"any": "json"}}
    assert read(api, id_) == expected
    assert api.get(f"{MESSAGES}?ids={id_}").json == {"messages": [expected]}
    assert api.get(f"{MESSAGES}?echo=true").json["messages"] == [expected]


def test_the_age_is_never_negative(api, clock):
    [id_] = api.post_bodies("hello")
    clock.advance(-10)

    assert read(api, id_)["age"] == 0


def test_a_message_is_gone_when_its_ttl_is_over(api, clock):
    [id_] = api.post_bodies("hello", ttl=60)

    clock.advance(59.9)
    assert read(api, id_)["age"] == 59
    clock.advance(0.1)

    assert_problem(api.get(f"{MESSAGES}/{id_}"), 404, "Not found")
    assert api.get(f"{MESSAGES}?ids={id_}").status_code == 404
    assert api.listed() == []
    assert api.post("/v2/queues/q1/claims").status_code == 204
    assert api.delete(f"{MESSAGES}?pop=1").json == {"messages": []}
    assert api.stats() == (0, 0)


def test_a_message_is_read_by_the_href_it_shows(api):
    """Checklist 9; the href of a claimed message names the claim."""
    [id_] = api.post_bodies("hello")
    plain = read(api, id_)
    assert api.get(plain["href"]).json == plain

    claim = api.claim()

    assert read(api, id_)["href"] == f"{MESSAGES}/{id_}?claim_id={claim.id}"
    assert api.get(read(api, id_)["href"]).json == read(api, id_)
    assert api.get(f"{MESSAGES}/{id_}?claim_id=other&limit=0").status_code == 200


@pytest.mark.parametrize(
    "id_", ["1", "f" * 32, "0" * 32, "x" * 500, "..", "%00", "%E2%82%AC", "51db6f78c508f17ddc924357"]
)
def test_a_message_that_is_unknown_is_not_found(api, id_):
    api.post_bodies("hello")

    assert_problem(api.get(f"{MESSAGES}/{id_}"), 404, "Not found")
    assert_problem(api.get(f"{MESSAGES}?ids={id_}"), 404, "Not found")
    assert_problem(api.get(f"/v2/queues/nowhere/messages/{id_}"), 404, "Not found")


def test_a_message_is_not_found_in_another_queue(api):
    [id_] = api.post_bodies("hello")
    api.post_bodies("other", queue="q2")

    assert api.get(f"/v2/queues/q2/messages/{id_}").status_code == 404
    assert api.get(f"/v2/queues/q2/messages?ids={id_}").status_code == 404
    assert api.delete(f"/v2/queues/q2/messages/{id_}").status_code == 204
    assert api.listed() == ["hello"]


def test_a3_a_message_is_not_found_by_another_project(api):
    """Checklist 9."""
    [id_] = api.post_bodies("blue")
    claim = api.claim()
    red = api.of("red")
    red.post_bodies("red")

    assert red.get(f"{MESSAGES}/{id_}").status_code == 404
    assert red.get(f"{MESSAGES}?ids={id_}").status_code == 404
    assert red.get(claim.path).status_code == 404
    assert red.patch(claim.path, {}).status_code == 404
    for path in (f"{MESSAGES}/{id_}", f"{MESSAGES}?ids={id_}", claim.path):
        assert red.delete(path).status_code == 204
    assert red.delete(claim.delete_path()).status_code == 204
    assert red.listed(query=f"echo=true&marker={id_}") == []
    assert api.get(claim.path).status_code == 200
    assert read(api, id_)["body"] == "blue"


# --- read by ids, section 12.4


@pytest.mark.parametrize("form", ["{},{},{}", "{}&ids={}&ids={}", "{},{}&ids={}", "{},,{},{},", ",{},{},{}"])
def test_messages_can_be_read_by_their_ids(api, form):
    """Commas, the parameter repeated, or both; empty elements do not count."""
    ids = api.post_bodies("a", "b", "c")

    answer = api.get(f"{MESSAGES}?ids={form.format(*ids)}")

    assert answer.status_code == 200
    assert set(answer.json) == {"messages"}
    assert [(message["id"], message["body"]) for message in answer.json["messages"]] == list(
        zip(ids, ["a", "b", "c"], strict=True)
    )


def test_by_ids_the_order_is_that_of_the_queue(api):
    ids = api.post_bodies("a", "b", "c")

    assert bodies_of(api.get(f"{MESSAGES}?ids={ids[2]},{ids[0]},{ids[1]},{ids[0]}")) == ["a", "b", "c"]


def test_by_ids_those_that_are_unknown_are_left_out(api, clock):
    [gone] = api.post_bodies("gone", ttl=60)
    clock.advance(60)
    [here] = api.post_bodies("here")

    assert bodies_of(api.get(f"{MESSAGES}?ids={gone},nonsense,{here},{'f' * 32}")) == ["here"]
    assert api.get(f"{MESSAGES}?ids={gone},nonsense").status_code == 404


def test_by_ids_claimed_and_own_messages_are_shown(api):
    ids = api.post_bodies("a", "b")
    claim = api.claim(limit=1)

    first, second = api.get(f"{MESSAGES}?ids={','.join(ids)}").json["messages"]

    assert first["href"] == f"{MESSAGES}/{ids[0]}?claim_id={claim.id}"
    assert second["href"] == f"{MESSAGES}/{ids[1]}"


def test_by_ids_other_parameters_do_not_count(api):
    ids = api.post_bodies("a", "b")

    answer = api.get(f"{MESSAGES}?ids={ids[0]}&limit=99&marker={ids[1]}&echo=maybe&pop=1")

    assert bodies_of(answer) == ["a"]


def test_without_ids_it_is_an_ordinary_list(api):
    api.post_bodies("a", "b")

    answer = api.get(f"{MESSAGES}?ids=&echo=true")

    assert bodies_of(answer) == ["a", "b"]
    assert "links" in answer.json


@ONE_STORE
@pytest.mark.parametrize("count", [20, 21])
@pytest.mark.parametrize("separator", [",", "&ids="])
def test_at_most_twenty_messages_are_read_by_ids(api, separator, count):
    """Checklist 10; a repeated id counts each time."""
    [id_] = api.post_bodies("hello")

    answer = api.get(f"{MESSAGES}?ids={separator.join([id_] * count)}")

    if count == 20:
        assert bodies_of(answer) == ["hello"]
    else:
        assert_problem(answer, 400, "Invalid API request")


# --- checksums, section 12.1


@ONE_STORE
@pytest.mark.parametrize(
    ("body", "checksum"),
    [
        (0, "MD5:cfcd208495d565ef66e7dff9f98764da"),
        ({"x": "é"}, "MD5:d4203f105fc1d910394232ede7a41c68"),
        ({"event": "BackupStarted"}, md5('{"event": "BackupStarted"}')),
        ("", md5('""')),
        (False, md5("false")),
        ([], md5("[]")),
        ({"b": [1, 2.5, None], "a": "\U0001f426\n"}, md5('{"b": [1, 2.5, null], "a": "\\ud83d\\udc26\\n"}')),
    ],
)
def test_a_checksum_is_of_the_body_as_python_writes_it(open_api, body, checksum):
    api = open_api(wire={"enable_checksum": True})

    [id_] = ids_of(
        api.post(MESSAGES, body=json.dumps({"messages": [{"body": body}]}, separators=(",", ":")).encode())
    )

    assert read(api, id_)["checksum"] == checksum
    assert set(read(api, id_)) == MEMBERS | {"checksum"}


def test_a_checksum_is_shown_wherever_the_message_is(open_api):
    api = open_api(wire={"enable_checksum": True})
    [id_] = api.post_bodies("hello")
    path = f"{MESSAGES}?ids={id_}"

    shown = [
        read(api, id_),
        *api.get(path).json["messages"],
        *api.get(f"{MESSAGES}?echo=true").json["messages"],
    ]
    claim = api.claim()
    shown += [*claim.messages, *api.get(claim.path).json["messages"]]
    api.delete(claim.path)
    shown += api.delete(f"{MESSAGES}?pop=1").json["messages"]

    assert [message.get("checksum") for message in shown] == [md5('"hello"')] * 6


def test_null_has_no_checksum(open_api):
    api = open_api(wire={"enable_checksum": True})
    [id_] = api.post_bodies(None)

    assert "checksum" not in read(api, id_)


def test_there_are_no_checksums_unless_asked_for(api):
    [id_] = api.post_bodies("hello")

    assert set(read(api, id_)) == MEMBERS
