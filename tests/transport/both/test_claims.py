"""Claims, and dead letters: one live lease, renewed or released, and an end for what nobody can digest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.transport.both.conftest import CORE
from tests.transport.both.dialects import Speaker

pytestmark = CORE


def test_a_claim_hands_out_the_oldest_free_messages(me: Speaker) -> None:
    ids = me.post("a", "b", "c")
    first = me.claim(limit=2)
    second = me.claim()

    assert (first.ids, first.bodies) == (ids[:2], ["a", "b"])
    assert second.bodies == ["c"]
    assert {each["claim_id"] for each in first.messages} == {first.id}
    assert first.id != second.id
    assert me.counts() == (0, 3)
    assert me.ask("claim_create", queue_name="q1") == (204, None)


@pytest.mark.parametrize("why", ["missing", "empty", "claimed", "delayed", "expired"])
def test_where_nothing_is_free_there_is_no_claim(me: Speaker, clock, why: str) -> None:
    if why != "missing":
        me.create()
    if why not in ("missing", "empty"):
        me.post("a", ttl=60, delay=30 if why == "delayed" else 0)
    if why == "claimed":
        me.claim()
    if why == "expired":
        clock.advance(60)

    assert me.ask("claim_create", queue_name="q1") == (204, None)


def test_who_posted_a_message_and_everybody_else_of_the_project_can_claim_it(me: Speaker) -> None:
    me.post("a", "b")
    held = me.claim(limit=1)
    other = me.another()

    assert other.claim().bodies == ["b"]
    assert other.get("claim_get", queue_name="q1", claim_id=held.id)["messages"] == held.messages
    assert other.status("message_delete", queue_name="q1", message_id=held.ids[0], claim_id=held.id) == 204


def test_a_claim_shows_its_terms_and_what_is_left_of_its_messages(me: Speaker, clock) -> None:
    me.post("a", "b")
    held = me.claim(ttl=100, grace=60)
    clock.advance(7)
    me.get("message_delete", queue_name="q1", message_id=held.ids[0], claim_id=held.id)
    shown = me.get("claim_get", queue_name="q1", claim_id=held.id)

    assert (shown["age"], shown["ttl"]) == (7, 100)
    assert [each["body"] for each in shown["messages"]] == ["b"]
    assert {each["claim_id"] for each in shown["messages"]} == {held.id}
    assert set(shown) >= {"age", "ttl", "messages"}


def test_the_terms_have_defaults(open_speaker, clock) -> None:
    me = open_speaker(limits={"default_claim_ttl": 90, "default_claim_grace": 120})
    (id_,) = me.post("a", ttl=60)
    held = me.claim()

    assert me.get("claim_get", queue_name="q1", claim_id=held.id)["ttl"] == 90
    clock.advance(90 + 119)
    assert me.status("message_get", queue_name="q1", message_id=id_) == 200
    clock.advance(1)
    assert me.status("message_get", queue_name="q1", message_id=id_) == 404


@pytest.mark.parametrize("terms", [{}, {"ttl": None, "grace": None}])
def test_f18_a_claim_may_leave_its_terms_open(me: Speaker, terms: dict[str, Any]) -> None:
    me.post("a")
    held = me.claim(**terms)

    assert me.get("claim_get", queue_name="q1", claim_id=held.id)["ttl"] == 300
    assert me.status("claim_update", queue_name="q1", claim_id=held.id, **terms) == 204


@pytest.mark.parametrize("term", ["ttl", "grace"])
@pytest.mark.parametrize(
    ("value", "good"), [(59, False), (60, True), (43200, True), (43201, False), (-1, False)]
)
def test_f13_the_terms_have_bounds_for_a_claim_and_its_renewal(
    me: Speaker, term: str, value: int, good: bool
) -> None:
    me.post("a", "b")
    held = me.claim(limit=1)

    assert me.status("claim_create", queue_name="q1", **{term: value}) == (201 if good else 400)
    renewed = me.status("claim_update", queue_name="q1", claim_id=held.id, **{term: value})
    assert renewed == (204 if good else 400)


@pytest.mark.parametrize("term", ["ttl", "grace", "limit"])
@pytest.mark.parametrize("value", ["sixty", 60.5, {"a": 1}, True])
def test_the_terms_are_integers(me: Speaker, term: str, value: Any) -> None:
    me.post("a")

    assert me.status("claim_create", queue_name="q1", **{term: value}) == 400
    assert me.counts() == (1, 0)


def test_the_number_of_messages_has_bounds(me: Speaker) -> None:
    me.post(*range(45))

    for limit in (0, -1, 21):
        assert me.status("claim_create", queue_name="q1", limit=limit) == 400
    assert len(me.claim().messages) == 10
    assert len(me.claim(limit=20).messages) == 20
    assert len(me.claim(limit=20).messages) == 15


# --- how claims end


def test_p3_no_message_is_in_two_live_claims(me: Speaker, clock) -> None:
    me.post(*range(6))
    first = me.claim(limit=2, ttl=60)
    second = me.claim(limit=2, ttl=120)
    clock.advance(60)
    third = me.claim(limit=20, ttl=60)

    assert (first.bodies, second.bodies) == ([0, 1], [2, 3])
    assert third.bodies == [0, 1, 4, 5], "those of the first are free again, in their places"
    me.get("claim_delete", queue_name="q1", claim_id=second.id)
    assert me.claim().bodies == [2, 3]


@pytest.mark.parametrize("end", ["expiry", "release"])
def test_a_claim_that_has_ended_is_not_found_and_its_messages_are_free(me: Speaker, clock, end: str) -> None:
    me.post("a")
    held = me.claim(ttl=60)
    if end == "expiry":
        clock.advance(60)
    else:
        me.get("claim_delete", queue_name="q1", claim_id=held.id)

    assert me.status("claim_get", queue_name="q1", claim_id=held.id) == 404
    assert me.status("claim_update", queue_name="q1", claim_id=held.id, ttl=60) == 404
    assert me.status("claim_delete", queue_name="q1", claim_id=held.id) == 204
    assert me.counts() == (1, 0)
    assert me.listed() == ["a"]


def test_renewing_lets_a_claim_begin_anew(me: Speaker, clock) -> None:
    (id_,) = me.post("a", ttl=60)
    held = me.claim(ttl=60, grace=60)
    clock.advance(59)
    assert me.status("claim_update", queue_name="q1", claim_id=held.id, ttl=100, grace=200) == 204

    shown = me.get("claim_get", queue_name="q1", claim_id=held.id)
    assert (shown["age"], shown["ttl"]) == (0, 100)
    clock.advance(99)
    assert me.status("claim_create", queue_name="q1") == 204
    clock.advance(1)
    assert me.counts() == (1, 0)
    clock.advance(199)
    assert me.status("message_get", queue_name="q1", message_id=id_) == 200
    clock.advance(1)
    assert me.status("message_get", queue_name="q1", message_id=id_) == 404


def test_a_late_release_or_renewal_does_not_touch_the_next_claim(me: Speaker, clock) -> None:
    me.post("a")
    slow = me.claim(ttl=60)
    clock.advance(60)
    quick = me.claim(ttl=60)

    assert me.status("claim_delete", queue_name="q1", claim_id=slow.id) == 204
    assert me.status("claim_update", queue_name="q1", claim_id=slow.id, ttl=600) == 404
    assert me.counts() == (0, 1)
    clock.advance(60)
    assert me.status("claim_get", queue_name="q1", claim_id=quick.id) == 404


@pytest.mark.parametrize("claim_id", ["nonsense", "f" * 32, "x" * 300, "\x00", "\u00e9"])
def test_a_claim_that_is_unknown_is_not_found(me: Speaker, claim_id: str) -> None:
    me.post("a")
    me.claim()

    assert me.status("claim_get", queue_name="q1", claim_id=claim_id) == 404
    assert me.status("claim_update", queue_name="q1", claim_id=claim_id) == 404
    assert me.status("claim_delete", queue_name="q1", claim_id=claim_id) == 204
    assert me.counts() == (0, 1)


def test_a_claim_is_of_one_queue(me: Speaker) -> None:
    me.post("a")
    me.post("b", queue="q2")
    held = me.claim()

    assert me.status("claim_get", queue_name="q2", claim_id=held.id) == 404
    assert me.status("claim_delete", queue_name="q2", claim_id=held.id) == 204
    assert me.counts() == (0, 1)


# --- dead letters


def test_a_message_that_was_claimed_too_often_moves_to_the_dead_letter_queue(me: Speaker, clock) -> None:
    me.create("q1", _max_claim_count=2, _dead_letter_queue="dead", _dead_letter_queue_messages_ttl=90)
    me.post("poison", "fine")
    for end in ("expiry", "release"):
        held = me.claim(limit=1, ttl=60)
        assert held.bodies == ["poison"]
        if end == "expiry":
            clock.advance(60)
        else:
            me.get("claim_delete", queue_name="q1", claim_id=held.id)

    assert me.claim().bodies == ["fine"]
    assert me.queues() == ["dead", "q1"]
    (letter,) = me.page("dead")
    assert (letter["body"], letter["ttl"], letter["age"]) == ("poison", 90, 0)
    assert me.counts() == (0, 1)
    assert me.claim("dead").bodies == ["poison"]


def test_dead_letters_keep_their_order(me: Speaker, clock) -> None:
    me.create("q1", _max_claim_count=1, _dead_letter_queue="dead")
    me.post(*range(5))
    me.claim(ttl=60)
    clock.advance(60)

    assert me.status("claim_create", queue_name="q1") == 204
    assert me.listed("dead") == [*range(5)]
    assert me.counts() == (0, 0)


@pytest.mark.parametrize("metadata", [{"_max_claim_count": 1}, {"_dead_letter_queue": "dead"}])
def test_both_attributes_are_needed(me: Speaker, metadata: dict[str, Any]) -> None:
    me.create("q1", **metadata)
    me.post("a")
    for _ in range(3):
        me.get("claim_delete", queue_name="q1", claim_id=me.claim().id)

    assert me.listed() == ["a"]
    assert me.queues() == ["q1"]


def test_a_pop_counts_as_no_claim(me: Speaker) -> None:
    me.create("q1", _max_claim_count=1, _dead_letter_queue="dead")
    me.post("a", "b")

    assert [each["body"] for each in me.get("message_delete_many", queue_name="q1", pop=20)] == ["a", "b"]
    assert me.queues() == ["q1"]
