"""Queues and topics: declared once, changed by patches, counted, purged, removed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE
from tests.transport.sockets import ABSENT

pytestmark = ONE_STORE


def change(key: str, value: Any = ABSENT, op: str = "add") -> dict[str, Any]:
    """Return an operation of a patch."""
    given = {} if value is ABSENT else {"value": value}
    return {"op": op, "path": f"/metadata/{key}", **given}


def test_a_queue_is_created_once_and_keeps_its_metadata(me: Speaker) -> None:
    assert me.status("queue_create", queue_name="q1", metadata={"colour": "red"}) == 201
    assert me.status("queue_create", queue_name="q1", metadata={"colour": "blue"}) == 204
    assert me.get("queue_get", queue_name="q1") == {"colour": "red"}
    assert me.status("queue_exists", queue_name="q1") == 200
    assert me.status("queue_exists", queue_name="q2") == 404


@pytest.mark.parametrize("metadata", [{}, {"a": {"b": [1, None, "\u00e9"]}, "": 0, "x.y/z": True}])
def test_metadata_come_back_as_they_were(me: Speaker, metadata: dict[str, Any]) -> None:
    me.create("q1", **metadata)

    assert me.get("queue_get", queue_name="q1") == metadata
    assert me.get("queue_list", detailed=True) == {"queues": [{"name": "q1", "metadata": metadata}]}


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "red",
        5,
        {"_default_message_ttl": 59},
        {"_default_message_ttl": "60"},
        {"_default_message_delay": 901},
        {"_max_messages_post_size": 0},
        {"_dead_letter_queue": "no/name"},
        {"_max_claim_count": -1},
        {"_retry_policy": "often"},
        {"_enable_encrypt_messages": True},  # without a key
        {"big": "x" * 65536},
    ],
)
def test_metadata_that_break_the_rules_are_refused(me: Speaker, metadata: Any) -> None:
    assert me.status("queue_create", queue_name="q1", metadata=metadata) == 400
    assert me.queues() == []


@pytest.mark.parametrize(
    "name", ["x" * 65, "Nice-Bo@t", "\u00e9t\u00e9", "a b", "n\n", "a,b", "a>pushed", "\x00"]
)
def test_a_name_that_breaks_the_rules_is_refused(me: Speaker, name: str) -> None:
    assert me.status("queue_create", queue_name=name) == 400
    assert me.status("message_post", queue_name=name, messages=[{"body": 1}]) == 400
    assert me.status("subscription_create", queue_name=name, subscriber="http://hook.example.org/") == 400
    assert me.status("claim_create", queue_name=name) == 400
    assert me.queues() == []


@pytest.mark.parametrize("name", ["a", "x" * 64, "Service.test_queue", "A-b_c.9"])
def test_a_name_that_keeps_the_rules_will_do(me: Speaker, name: str) -> None:
    assert me.status("queue_create", queue_name=name) == 201
    assert me.queues() == [name]


def test_queues_are_listed_by_name_in_pages(me: Speaker) -> None:
    names = sorted(f"q{number}" for number in range(25))
    for name in names:
        me.create(name)

    assert me.queues(limit=ABSENT) == names[:10]
    assert me.queues(marker=names[9]) == names[10:]
    assert me.queues(marker="q13x") == names[names.index("q14") :]
    assert me.queues(marker="zzz") == []
    for limit in (0, -1, 21):
        assert me.status("queue_list", limit=limit) == 400


def test_queues_are_found_by_name_and_metadata_and_counted(me: Speaker) -> None:
    for name, colour in (("one", "red"), ("two", "blue"), ("three", "red")):
        me.create(name, colour=colour, size=5)

    assert me.queues(name="o") == ["one", "two"]
    assert me.queues(filters={"colour": "red"}) == ["one", "three"]
    assert me.queues(filters={"colour": "red", "size": "5"}, name="th") == ["three"]
    assert me.queues(filters={"colour": "green"}) == []
    assert me.get("queue_list", with_count=True, name="o")["count"] == 3
    assert "count" not in me.get("queue_list")


def test_metadata_are_patched_all_or_nothing(me: Speaker) -> None:
    me.create("q1", colour="red", size=5)
    patch = [change("colour", "blue", "replace"), change("size", op="remove"), change("new", [1])]

    assert me.get("queue_update", queue_name="q1", changes=patch) == {"colour": "blue", "new": [1]}
    for broken, status in (
        (change("gone", op="remove"), 409),
        (change("gone", 1, "replace"), 409),
        (change("_default_message_ttl", 1), 400),
        ({"op": "move", "path": "/metadata/a"}, 400),
        (change("big", "x" * 65536), 400),
        (5, 400),
    ):
        assert me.status("queue_update", queue_name="q1", changes=[change("colour", "x"), broken]) == status
        assert me.get("queue_get", queue_name="q1") == {"colour": "blue", "new": [1]}
    assert me.status("queue_update", queue_name="q2", changes=patch) == 404
    assert me.status("queue_update", queue_name="q1", changes={"op": "add"}) == 400


def test_a_change_counts_at_once(me: Speaker) -> None:
    me.create()
    me.get("queue_update", queue_name="q1", changes=[change("_default_message_ttl", 100)])
    me.post("a")

    assert [each["ttl"] for each in me.page()] == [100]


def test_a_queue_is_removed_with_all_that_is_in_it(me: Speaker) -> None:
    me.create("q1", colour="red")
    (id_,) = me.post("old")
    held = me.claim()
    for _ in range(2):
        assert me.status("queue_delete", queue_name="q1") == 204
    assert me.queues() == []
    assert me.listed(include_claimed=True) == []
    me.post("new")

    assert me.get("queue_get", queue_name="q1") == {}
    assert me.status("claim_get", queue_name="q1", claim_id=held.id) == 404
    assert me.status("message_get", queue_name="q1", message_id=id_) == 404
    assert me.listed() == ["new"]


def test_f4_a_missing_queue_is_empty(me: Speaker) -> None:
    assert me.get("queue_get", queue_name="q1") == {}
    assert me.get("queue_get_stats", queue_name="q1") == {"free": 0, "claimed": 0, "total": 0}
    assert me.listed() == []
    assert me.status("queue_purge", queue_name="q1") == 204
    assert me.subscriptions() == []
    assert me.queues() == []


# --- statistics


def test_stats_tell_the_numbers_and_both_ends(me: Speaker, clock) -> None:
    first = me.post("a")[0]
    clock.advance(3)
    last = me.post("b", "c")[-1]
    me.claim(limit=1)
    clock.advance(4)

    assert me.get("queue_get_stats", queue_name="q1") == {
        "free": 2,
        "claimed": 1,
        "total": 3,
        "oldest": {"id": first, "age": 7, "created": "2026-11-20T21:59:27Z"},
        "newest": {"id": last, "age": 4, "created": "2026-11-20T21:59:30Z"},
    }


def test_stats_are_exact_at_the_instant(me: Speaker, clock) -> None:
    me.post("held")
    me.post("short", ttl=60)
    me.post("late", delay=60)
    me.claim(limit=1, ttl=60)
    clock.advance(59)
    assert me.counts() == (2, 1)
    clock.advance(1)
    assert me.counts() == (2, 0)
    assert me.listed() == ["held", "late"]


# --- purge


@pytest.mark.parametrize(
    ("types", "left"),
    [
        (ABSENT, (0, 0)),
        (["messages", "subscriptions"], (0, 0)),
        (["messages"], (0, 12)),
        (["subscriptions"], (2, 0)),
        ([], (2, 12)),
    ],
)
def test_f8_a_purge_takes_everything_of_the_kinds_it_names(
    me: Speaker, types: Any, left: tuple[int, int]
) -> None:
    me.create("q1", colour="red")
    me.post("a", "b")
    held = me.claim(limit=1)
    for number in range(12):
        me.subscribe(f"http://hook.example.org/{number}")

    assert me.status("queue_purge", queue_name="q1", resource_types=types) == 204
    assert (sum(me.counts()), len(me.subscriptions(limit=20))) == left
    assert me.status("claim_get", queue_name="q1", claim_id=held.id) == (200 if left[0] else 404)
    assert me.get("queue_get", queue_name="q1") == {"colour": "red"}


@pytest.mark.parametrize("types", [["queues"], [5], "messages", {"messages": True}, ["messages", "x"]])
def test_a_purge_names_known_types(me: Speaker, types: Any) -> None:
    me.post("a")

    assert me.status("queue_purge", queue_name="q1", resource_types=types) == 400
    assert me.listed() == ["a"]


# --- topics


def test_topics_are_declared_like_queues_and_have_nothing_in_common_with_them(me: Speaker) -> None:
    me.create("t1", kind="queue")
    assert me.status("topic_create", queue_name="t1", metadata={"kind": "topic"}) == 201
    assert me.status("topic_create", queue_name="t1") == 204
    assert me.get("topic_list", detailed=True) == {"queues": [{"name": "t1", "metadata": {"kind": "topic"}}]}
    assert me.get("topic_list", filters={"kind": "queue"}) == {"queues": []}
    patch = [change("kind", "another", "replace")]
    assert me.get("topic_update", queue_name="t1", changes=patch) == {"kind": "another"}
    assert me.status("topic_exists", queue_name="t2") == 404
    assert me.get("topic_get_stats", queue_name="t1") == {"free": 0, "claimed": 0, "total": 0}
    assert me.status("topic_purge", queue_name="t1") == 204
    assert me.status("topic_create", queue_name="no/name") in (400, 404)
    assert me.status("topic_delete", queue_name="t1") == 204

    assert me.get("topic_get", queue_name="t1") == {}
    assert me.get("queue_get", queue_name="t1") == {"kind": "queue"}


# --- sharing


def test_a_pre_signed_url_is_made_of_the_same_parts(open_speaker) -> None:
    me = open_speaker(signed_url={"secret_keys": ["a key of the tests"]})
    wish = {"paths": ["messages", "claims"], "methods": ["POST", "GET"], "expires": "2026-11-21T00:00:00"}
    signed = me.get("queue_share", queue_name="q1", **wish)

    assert signed["paths"] == ["/v2/queues/q1/claims", "/v2/queues/q1/messages"]
    assert signed["methods"] == ["GET", "POST"]
    assert (signed["project"], signed["expires"]) == ("blue", "2026-11-21T00:00:00")
    assert len(signed["signature"]) == 64
    assert me.queues() == []


@pytest.mark.parametrize(
    "wish",
    [
        {"paths": ["queues"]},
        {"methods": "GET"},
        {"methods": ["EAT"]},
        {"expires": "yesterday"},
        {"expires": "2020-01-01T00:00:00"},
        {"expires": 5},
        {"colour": "red"},
    ],
)
def test_a_wish_that_breaks_the_rules_is_not_signed(open_speaker, wish: dict[str, Any]) -> None:
    me = open_speaker(signed_url={"secret_keys": ["a key of the tests"]})

    assert me.status("queue_share", queue_name="q1", **wish) == 400


def test_a_service_without_a_key_signs_nothing(me: Speaker) -> None:
    assert me.status("queue_share", queue_name="q1") == 400
