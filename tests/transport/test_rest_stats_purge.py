"""How full a queue is, and how to empty it. Sections 10.7 and 10.8; checklist 3 and 20."""

import pytest

from tests.transport.conftest import NO_BODY, ONE_STORE, assert_problem

Q1 = "/v2/queues/q1"
NOTHING = {"messages": {"free": 0, "claimed": 0, "total": 0}}


# --- stats


@pytest.mark.parametrize("state", ["missing", "empty", "removed", "emptied", "expired"])
def test_a_queue_without_messages_has_zeros(api, clock, state):
    """Checklist 3."""
    if state == "empty":
        api.create_queue("q1")
    elif state != "missing":
        [id_] = api.post_bodies("a", ttl=60)
        _ = {
            "removed": lambda: api.delete(Q1),
            "emptied": lambda: api.delete(f"{Q1}/messages/{id_}"),
            "expired": lambda: clock.advance(60),
        }[state]()

    answer = api.get(f"{Q1}/stats")

    assert (answer.status_code, answer.json) == (200, NOTHING)
    assert api.queue_names() == ([] if state in ("missing", "removed") else ["q1"])


def test_stats_tell_the_numbers_and_both_ends(api, clock):
    first, second, *_ = api.post_bodies("a", "b")
    api.claim(limit=1)
    clock.advance(51)
    *_, last = api.post_bodies("c", "d", delay=100)
    clock.advance(12.5)

    assert api.get(f"{Q1}/stats").json == {
        "messages": {
            "free": 3,
            "claimed": 1,
            "total": 4,
            "oldest": {"href": f"{Q1}/messages/{first}", "age": 63, "created": "2026-11-20T21:59:27Z"},
            "newest": {"href": f"{Q1}/messages/{last}", "age": 12, "created": "2026-11-20T22:00:18Z"},
        }
    }
    assert api.get(f"{Q1}/messages/{second}").status_code == 200


def test_the_ends_of_a_queue_can_be_read(api):
    api.post_bodies("a", "b", "c")

    ends = api.get(f"{Q1}/stats").json["messages"]

    assert api.get(ends["oldest"]["href"]).json["body"] == "a"
    assert api.get(ends["newest"]["href"]).json["body"] == "c"


def test_expired_messages_do_not_count_at_either_end(api, clock):
    api.post_bodies("first", ttl=60)
    [middle] = api.post_bodies("middle", ttl=300)
    api.post_bodies("last", ttl=60)
    clock.advance(60)

    messages = api.get(f"{Q1}/stats").json["messages"]

    assert (messages["free"], messages["claimed"], messages["total"]) == (1, 0, 1)
    assert messages["oldest"]["href"] == messages["newest"]["href"] == f"{Q1}/messages/{middle}"


@pytest.mark.parametrize("end", ["expiry", "release"])
def test_messages_of_a_claim_that_has_ended_are_free(api, clock, end):
    api.post_bodies("a", "b", "c")
    claim = api.claim(limit=2, ttl=60)
    assert api.stats() == (1, 2)

    if end == "expiry":
        clock.advance(60)
    else:
        api.delete(claim.path)

    assert api.stats() == (3, 0)


# --- purge


@pytest.mark.parametrize(
    "document",
    [
        NO_BODY,
        {"resource_types": ["messages"]},
        {"resource_types": ["messages", "subscriptions"], "other": 1},
    ],
)
def test_f8_a_purge_removes_all_messages_and_claims(api, clock, document):
    api.create_queue("q1", {"colour": "red"})
    api.post_bodies(*range(50))
    claim = api.claim()
    api.post_bodies("delayed", delay=20)

    assert api.post(f"{Q1}/purge", document).status_code == 204

    assert api.get(f"{Q1}/stats").json == NOTHING
    assert api.get(claim.path).status_code == 404
    clock.advance(1000)
    assert api.listed(query="echo=true&include_delayed=true&include_claimed=true") == []
    assert api.metadata("q1") == {"colour": "red"}
    api.post_bodies("new")
    assert api.listed() == ["new"]


@pytest.mark.parametrize("types", [[], ["subscriptions"]])
def test_a_purge_removes_no_messages_unless_they_are_named(api, types):
    api.post_bodies("a")

    assert api.post(f"{Q1}/purge", {"resource_types": types}).status_code == 204
    assert api.listed() == ["a"]


def test_a_queue_that_does_not_exist_can_be_purged(api):
    assert api.post(f"{Q1}/purge").status_code == 204
    assert api.post(f"{Q1}/purge", headers={"Content-Length": "0"}).status_code == 204
    assert api.queue_names() == []


def test_a_purge_touches_no_other_queue(api):
    api.post_bodies("a")
    api.post_bodies("b", queue="q2")
    api.of("red").post_bodies("c")

    api.post(f"{Q1}/purge")

    assert (api.listed("q1"), api.listed("q2"), api.of("red").listed("q1")) == ([], ["b"], ["c"])


@ONE_STORE
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"resources": ["messages"]},
        {"resource_types": None},
        {"resource_types": "messages"},
        {"resource_types": {"messages": True}},
        {"resource_types": 5},
        {"resource_types": ["messages", "unknown"]},
        {"resource_types": ["Messages"]},
        {"resource_types": [5]},
        {"resource_types": [None]},
        {"resource_types": [["messages"]]},
        [],
        ["messages"],
        "messages",
    ],
)
def test_f1_a_purge_names_known_types(api, document):
    """Checklist 20."""
    api.post_bodies("a")

    assert api.post(f"{Q1}/purge", document).status_code == 400
    assert api.listed() == ["a"]


def test_an_unknown_type_is_told_from_a_malformed_body(api):
    assert_problem(api.post(f"{Q1}/purge", []), 400, "Invalid request body")
    assert_problem(api.post(f"{Q1}/purge", {"resource_types": 5}), 400, "Invalid request body")
