"""Messages: what is posted is read, listed, popped and deleted as the rules say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.transport.both.conftest import CORE
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import CLIENT
from tests.transport.sockets import ABSENT

pytestmark = CORE

BODIES: list[Any] = [
    None,
    True,
    0,
    -1.5,
    2**63 - 1,
    -(2**63),
    "",
    "\x00\u00e9\u2603\U0001f600",
    [],
    {},
    {"": [{"a": None}], "b": [[], 1]},
    "x" * 10_000,
]


def test_bodies_come_back_as_they_were_and_in_order(me: Speaker) -> None:
    ids = me.post(*BODIES)
    found = me.page()

    assert [each["id"] for each in found] == ids
    assert [(each["body"], type(each["body"])) for each in found] == [(body, type(body)) for body in BODIES]


def test_a_message_shows_these_members(me: Speaker, clock) -> None:
    (id_,) = me.post("a", ttl=100)
    clock.advance(7)
    shown = {"id": id_, "ttl": 100, "age": 7, "body": "a", "claim_id": None}

    assert me.page() == [shown]
    assert me.get("message_get", queue_name="q1", message_id=id_) == shown
    assert me.get("message_get_many", queue_name="q1", message_ids=[id_]) == [shown]
    assert me.get("message_delete_many", queue_name="q1", pop=1) == [{**shown, "claim_count": 0}]


def test_the_first_post_makes_the_queue(me: Speaker) -> None:
    assert me.queues() == []
    me.post("a")
    assert me.queues() == ["q1"]


def test_a_message_lives_as_long_as_it_says_or_else_its_queue_or_else_the_settings(
    open_speaker, clock
) -> None:
    me = open_speaker(limits={"default_message_ttl": 120})
    me.create("q2", _default_message_ttl=90)
    me.post("own", ttl=60)
    me.post("settings")
    me.post("queue", queue="q2")

    assert [each["ttl"] for each in [*me.page(), *me.page("q2")]] == [60, 120, 90]
    clock.advance(60)
    assert me.listed() == ["settings"]
    clock.advance(30)
    assert me.listed("q2") == []
    assert me.counts() == (1, 0)
    clock.advance(30)
    assert me.listed() == []


@pytest.mark.parametrize(
    ("ttl", "good"), [(59, False), (60, True), (1209600, True), (1209601, False), (-1, False)]
)
def test_a_ttl_has_bounds(me: Speaker, ttl: int, good: bool) -> None:
    assert me.status("message_post", queue_name="q1", messages=[{"body": 1, "ttl": ttl}]) == (
        201 if good else 400
    )
    assert me.listed() == ([1] if good else [])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        [{"ttl": 60}],
        [{"body": 1, "ttl": "60"}],
        [{"body": 1, "ttl": None}],
        [{"body": 1, "delay": 1.5}],
        [None],
        [[]],
        ["body"],
        {},
        None,
        "body",
        ABSENT,
    ],
)
def test_a_post_that_is_refused_changes_nothing(me: Speaker, messages: Any) -> None:
    assert me.status("message_post", queue_name="q1", messages=messages) == 400
    assert me.queues() == []


@pytest.mark.parametrize("broken", [{"ttl": 60}, {"body": 1, "ttl": 1}, {"body": 1, "delay": -1}, 5])
def test_a_post_stores_all_its_messages_or_none(me: Speaker, broken: Any) -> None:
    me.post("before")

    assert me.status("message_post", queue_name="q1", messages=[{"body": 1}, broken, {"body": 2}]) == 400
    assert me.listed() == ["before"]


def test_there_is_no_greatest_number_of_messages_in_a_post(me: Speaker) -> None:
    ids = me.post(*range(1000), ttl=60)

    assert len(set(ids)) == 1000
    assert me.counts() == (1000, 0)


def test_a_post_has_a_greatest_size(open_speaker) -> None:
    me = open_speaker(limits={"max_messages_post_size": 1000})

    assert me.status("message_post", queue_name="q1", messages=[{"body": "x" * 900}]) == 201
    assert me.status("message_post", queue_name="q1", messages=[{"body": "x" * 1000}]) == 400
    assert len(me.listed()) == 1


def test_a_queue_may_have_a_smaller_greatest_size(me: Speaker) -> None:
    me.create("q1", _max_messages_post_size=200)

    assert me.status("message_post", queue_name="q1", messages=[{"body": "x" * 100}]) == 201
    assert me.status("message_post", queue_name="q1", messages=[{"body": "x" * 200}]) == 400
    assert me.status("message_post", queue_name="q2", messages=[{"body": "x" * 200}]) == 201


# --- listing


def test_ten_are_listed_unless_asked_otherwise(me: Speaker) -> None:
    me.post(*range(25))

    assert me.listed(limit=ABSENT) == [*range(10)]
    assert me.listed(limit=20) == [*range(20)]
    for limit in (0, -1, 21, 10**6):
        assert me.status("message_list", queue_name="q1", limit=limit) == 400


def test_a_marker_leads_through_all_messages_also_behind_those_that_are_gone(me: Speaker) -> None:
    ids = me.post(*range(10))
    page = me.page(limit=4)
    for message in page:
        me.get("message_delete", queue_name="q1", message_id=message["id"])
    rest = me.page(marker=page[-1]["id"])

    assert [each["id"] for each in [*page, *rest]] == ids
    assert me.page(marker=ids[-1]) == []
    assert me.page(marker="nonsense") == []


def test_nothing_appears_behind_a_marker_that_was_handed_out(me: Speaker, clock) -> None:
    me.post("late", delay=60)
    first = me.post("a")
    held = me.claim(ttl=60)
    marker = me.post("b")[0]
    clock.advance(60)

    assert held.ids == first
    assert me.listed(marker=marker) == []
    assert me.listed() == ["late", "a", "b"]


def test_a_client_does_not_hear_itself_unless_it_wants_to(me: Speaker) -> None:
    me.post("mine")
    me.another().post("theirs")

    assert me.listed(echo=ABSENT) == me.listed(echo=False) == ["theirs"]
    assert me.another().listed(echo=False) == ["mine"]
    assert me.listed(echo=True) == ["mine", "theirs"]
    same = me.saying(Client_ID=CLIENT.replace("-", "").upper())
    assert same.listed(echo=False) == ["theirs"]


def test_claimed_messages_are_listed_only_when_asked_for_and_say_so(me: Speaker, clock) -> None:
    me.post("a", "b")
    held = me.claim(limit=1, ttl=60)

    assert me.listed() == ["b"]
    shown = me.page(include_claimed=True)
    assert [(each["body"], each["claim_id"]) for each in shown] == [("a", held.id), ("b", None)]
    clock.advance(60)
    assert me.listed() == ["a", "b"]


def test_a_page_is_full_if_enough_messages_match(me: Speaker) -> None:
    me.post(*range(15))
    me.claim(limit=15)
    me.another().post(*range(5))
    me.post(*range(10))

    assert me.another(2).listed(echo=False, limit=10) == [*range(5), *range(5)]
    assert me.listed(echo=False, limit=3) == [0, 1, 2]


def test_listing_and_reading_change_nothing(me: Speaker, clock) -> None:
    (id_,) = me.post("a")
    for _ in range(2):
        me.page(include_claimed=True)
        me.get("message_get", queue_name="q1", message_id=id_)
        assert me.counts() == (1, 0)
    assert me.claim().bodies == ["a"]


# --- by id


def test_by_ids_the_order_is_that_of_the_queue_and_the_unknown_are_left_out(me: Speaker, clock) -> None:
    ids = me.post("a", "b", "c")
    me.post("gone", ttl=60)
    me.claim(limit=1)
    clock.advance(60)
    found = me.get("message_get_many", queue_name="q1", message_ids=[ids[2], "nonsense", ids[0], ids[2]])

    assert [each["body"] for each in found] == ["a", "c"]
    assert me.get("message_get_many", queue_name="q1", message_ids=["nonsense"]) == []


@pytest.mark.parametrize("id_", ["1", "f" * 32, "nonsense", "x" * 300, "\x00", "\u00e9"])
def test_a_message_that_is_unknown_is_not_found(me: Speaker, id_: str) -> None:
    me.post("a")

    assert me.status("message_get", queue_name="q1", message_id=id_) == 404
    assert me.status("message_delete", queue_name="q1", message_id=id_) == 204


def test_a_message_is_found_in_its_queue_alone(me: Speaker) -> None:
    (id_,) = me.post("a")
    me.post("b", queue="q2")

    assert me.status("message_get", queue_name="q2", message_id=id_) == 404
    assert me.get("message_get_many", queue_name="q2", message_ids=[id_]) == []
    assert me.status("message_delete", queue_name="q2", message_id=id_) == 204
    assert me.status("message_delete_many", queue_name="q2", message_ids=[id_]) == 204
    assert me.listed() == ["a"]


@pytest.mark.parametrize(("count", "good"), [(20, True), (21, False)])
def test_at_most_twenty_ids(me: Speaker, count: int, good: bool) -> None:
    ids = me.post(*range(count))

    assert me.status("message_get_many", queue_name="q1", message_ids=ids) == (200 if good else 400)
    assert me.status("message_delete_many", queue_name="q1", message_ids=ids) == (204 if good else 400)
    assert me.counts() == (0 if good else count, 0)


# --- deleting


@pytest.mark.parametrize(
    "kind", ["nonsense", "released", "expired", "of another message", "of another queue"]
)
def test_a_free_message_is_not_deleted_with_a_claim(me: Speaker, clock, kind: str) -> None:
    first, second = me.post("a", "b")
    claim_id = kind
    if kind in ("released", "expired"):
        claim_id = me.claim(limit=1, ttl=60).id
        if kind == "expired":
            clock.advance(60)
        else:
            me.get("claim_delete", queue_name="q1", claim_id=claim_id)
    elif kind == "of another message":
        claim_id, first = me.claim(limit=1).id, second
    elif kind == "of another queue":
        me.post("z", queue="q2")
        claim_id = me.claim("q2").id

    assert me.status("message_delete", queue_name="q1", message_id=first, claim_id=claim_id) == 400
    assert me.status("message_get", queue_name="q1", message_id=first) == 200
    assert me.status("message_delete", queue_name="q1", message_id=first) == 204
    assert me.status("message_get", queue_name="q1", message_id=first) == 404


def test_p3_a_claimed_message_is_deleted_by_the_holder_of_the_claim_alone(me: Speaker, clock) -> None:
    (id_,) = me.post("a")
    slow = me.claim(ttl=60)
    assert me.status("message_delete", queue_name="q1", message_id=id_) == 403
    clock.advance(60)
    quick = me.another().claim()

    assert me.status("message_delete", queue_name="q1", message_id=id_, claim_id=slow.id) in (400, 403)
    assert me.counts() == (0, 1)
    assert me.status("message_delete", queue_name="q1", message_id=id_, claim_id=quick.id) == 204
    assert me.counts() == (0, 0)
    assert me.status("message_delete", queue_name="q1", message_id=id_, claim_id=quick.id) == 204


def test_f7_claims_do_not_matter_to_bulk_deletion_by_default(me: Speaker) -> None:
    ids = me.post("a", "b")
    held = me.claim(limit=1)

    for _ in range(2):
        assert me.status("message_delete_many", queue_name="q1", message_ids=[*ids, "nonsense"]) == 204
    assert me.counts() == (0, 0)
    assert me.get("claim_get", queue_name="q1", claim_id=held.id)["messages"] == []


def test_with_the_rule_claims_matter_to_bulk_deletion(open_speaker) -> None:
    me = open_speaker(wire={"message_delete_with_claim_id": True})
    ids = me.post("a", "b", "c")
    held = me.claim(limit=2)

    def delete(*message_ids: str, claims: Any = ABSENT) -> object:
        return me.status("message_delete_many", queue_name="q1", message_ids=[*message_ids], claim_ids=claims)

    assert delete(*ids) == 400
    assert delete(*ids, claims=["nonsense"]) == 403
    assert me.counts() == (1, 2)
    assert delete(ids[0], claims=["nonsense", held.id]) == 204
    assert delete(ids[2], claims=["nonsense"]) == 204, "it is free"
    assert me.counts() == (0, 1)


def test_a_delete_is_by_ids_or_by_number(me: Speaker) -> None:
    ids = me.post("a")

    assert me.status("message_delete_many", queue_name="q1") == 400
    assert me.status("message_delete_many", queue_name="q1", message_ids=ids, pop=1) == 400
    assert me.listed() == ["a"]


# --- pop


def test_messages_are_popped_from_the_front(me: Speaker, clock) -> None:
    me.post("late", delay=60)
    me.post(*range(5))
    me.claim(limit=1)
    me.post("expired", ttl=60)
    clock.advance(59)

    assert [each["body"] for each in me.get("message_delete_many", queue_name="q1", pop=2)] == [1, 2]
    clock.advance(1)
    rest = me.get("message_delete_many", queue_name="q1", pop=20)
    assert [each["body"] for each in rest] == ["late", 3, 4]
    assert me.get("message_delete_many", queue_name="q1", pop=1) == []
    assert me.counts() == (0, 1)


def test_nothing_is_popped_where_nothing_is(me: Speaker) -> None:
    assert me.get("message_delete_many", queue_name="q1", pop=1) == []
    assert me.queues() == []


@pytest.mark.parametrize("number", [0, -1, 21, 1.5, "x"])
def test_the_number_to_pop_has_bounds(me: Speaker, number: Any) -> None:
    me.post("a")

    assert me.status("message_delete_many", queue_name="q1", pop=number) == 400
    assert me.listed() == ["a"]


# --- delay


@pytest.mark.parametrize("of", ["message", "queue", "settings"])
def test_f6_a_delayed_message_cannot_be_had_until_it_is_due(open_speaker, clock, of: str) -> None:
    me = open_speaker(**({"limits": {"default_message_delay": 60}} if of == "settings" else {}))
    if of == "queue":
        me.create("q1", _default_message_delay=60)
    (id_,) = me.post("late", **({"delay": 60} if of == "message" else {}))

    assert me.status("claim_create", queue_name="q1") == 204
    assert me.get("message_delete_many", queue_name="q1", pop=1) == []
    assert me.listed(include_delayed=True) == ["late"]
    assert me.status("message_get", queue_name="q1", message_id=id_) == 200
    assert me.counts() == (1, 0)
    clock.advance(60)
    assert me.listed() == ["late"]
    assert me.claim().bodies == ["late"]


def test_the_delay_of_a_message_comes_before_that_of_its_queue(me: Speaker, clock) -> None:
    me.create("q1", _default_message_delay=60)
    me.post("now", delay=0)
    me.post("late")

    assert me.listed() == ["now"]
    clock.advance(60)
    assert me.listed() == ["now", "late"]


@pytest.mark.parametrize(("delay", "good"), [(-1, False), (0, True), (900, True), (901, False)])
def test_a_delay_has_bounds(me: Speaker, delay: int, good: bool) -> None:
    status = me.status("message_post", queue_name="q1", messages=[{"body": 1, "delay": delay}])

    assert status == (201 if good else 400)


def test_a_delayed_message_lives_from_its_posting(me: Speaker, clock) -> None:
    (id_,) = me.post("late", delay=60, ttl=90)
    clock.advance(89)
    assert me.listed() == ["late"]
    clock.advance(1)

    assert me.status("message_get", queue_name="q1", message_id=id_) == 404
    assert me.counts() == (0, 0)


# --- idempotency


def test_p10_a_post_that_is_repeated_stores_once_and_answers_the_same(me: Speaker, clock) -> None:
    def post(*bodies: Any, key: str = "k") -> Any:
        return me.ask(
            "message_post",
            queue_name="q1",
            messages=[{"body": body} for body in bodies],
            idempotency_key=key,
        )

    first = post("a", "b")
    assert post("a", "b") == first
    assert me.listed() == ["a", "b"]
    assert post("a").status == 409
    assert post("a", "b", key="other").value != first.value
    me.get("queue_purge", queue_name="q1")
    assert post("a", "b") == first
    assert me.listed() == []
    clock.advance(600)
    assert post("a", "b").value != first.value
    assert me.listed() == ["a", "b"]


@pytest.mark.parametrize("key", ["", "a b", "\u00e9", "x" * 256, "\x7f"])
def test_a_malformed_key_is_refused(me: Speaker, key: str) -> None:
    messages = [{"body": 1}]

    assert me.status("message_post", queue_name="q1", messages=messages, idempotency_key=key) == 400
    assert me.queues() == []
