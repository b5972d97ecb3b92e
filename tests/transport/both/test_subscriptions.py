"""Subscriptions of others than the connection itself: made, shown, changed, confirmed, ended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.boxes import take
from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE
from tests.transport.sockets import ABSENT

pytestmark = ONE_STORE

HOOK = "http://hook.example.org/one"
ANOTHER = "https://hook.example.org/two"


def shown(me: Speaker, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = me.get("subscription_get", queue_name="q1", subscription_id=id_)
    return found


def test_a_subscription_is_made_and_shown(me: Speaker, clock) -> None:
    id_ = me.subscribe(HOOK, ttl=600, options={"post_data": "{}", "own": [1]})
    clock.advance(5)
    expected = {
        "id": id_,
        "source": "q1",
        "subscriber": HOOK,
        "ttl": 600,
        "age": 5,
        "options": {"post_data": "{}", "own": [1]},
        "confirmed": False,
    }

    assert shown(me, id_) == expected
    assert me.subscriptions() == [expected]
    assert me.queues() == ["q1"]


@pytest.mark.parametrize(
    "wish",
    [
        {"subscriber": "fake://hook.example.org/"},
        {"subscriber": "hook.example.org"},
        {"subscriber": "http://user:password@hook.example.org/"},
        {"subscriber": 5},
        {"ttl": 59},
        {"ttl": "600"},
        {"ttl": None},
        {"ttl": 2**63 - 1},
        {"options": []},
        {"options": None},
        {"options": {"trust_id": "somebody's"}},
        {"options": {"post_headers": {"a": 1}}},
        {"options": {"filter": {"exact": []}}},
        {"options": {"_retry_policy": {"retries_with_no_delay": "x"}}},
    ],
)
def test_f3_a_wish_that_breaks_the_rules_is_refused_and_makes_no_queue(
    me: Speaker, wish: dict[str, Any]
) -> None:
    assert me.status("subscription_create", queue_name="q1", **{"subscriber": HOOK, **wish}) == 400
    assert me.queues() == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_scheme_of_the_protocol_can_be_subscribed(me: Speaker, scheme: str) -> None:
    assert me.subscribe(f"{scheme}://hook.example.org/")
    assert me.subscribe("mailto:somebody@example.org")


def test_who_is_confirmed_is_a_conflict(me: Speaker) -> None:
    id_ = me.subscribe(HOOK)
    assert me.status("subscription_confirm", queue_name="q1", subscription_id=id_, confirmed=True) == 204

    assert shown(me, id_)["confirmed"] is True
    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 409
    assert me.subscribe(HOOK, queue="q2") != id_
    assert me.status("subscription_confirm", queue_name="q1", subscription_id=id_, confirmed=False) == 204
    assert shown(me, id_)["confirmed"] is False


@pytest.mark.parametrize("confirmed", ["yes", 1, None, ABSENT])
def test_a_confirmation_is_true_or_false(me: Speaker, confirmed: Any) -> None:
    id_ = me.subscribe(HOOK)

    assert me.status("subscription_confirm", queue_name="q1", subscription_id=id_, confirmed=confirmed) == 400
    assert shown(me, id_)["confirmed"] is False


def test_a_subscription_ends_at_the_instant(me: Speaker, clock) -> None:
    id_ = me.subscribe(HOOK, ttl=60)
    clock.advance(59)
    assert shown(me, id_)["age"] == 59
    clock.advance(1)

    assert me.status("subscription_get", queue_name="q1", subscription_id=id_) == 404
    assert me.subscriptions() == []
    assert me.subscribe(HOOK)


def test_a_subscription_is_changed(me: Speaker, clock) -> None:
    id_ = me.subscribe(HOOK, ttl=60, options={"a": 1})
    me.get("subscription_confirm", queue_name="q1", subscription_id=id_, confirmed=True)
    clock.advance(30)
    assert me.status("subscription_update", queue_name="q1", subscription_id=id_, ttl=600) == 204
    assert (shown(me, id_)["ttl"], shown(me, id_)["age"], shown(me, id_)["confirmed"]) == (600, 0, True)
    wish = {"subscriber": ANOTHER, "options": {"b": 2}}
    assert me.status("subscription_update", queue_name="q1", subscription_id=id_, **wish) == 204

    changed = shown(me, id_)
    assert (changed["subscriber"], changed["options"], changed["ttl"]) == (ANOTHER, {"b": 2}, 600)
    assert changed["confirmed"] is False, "E10: another subscriber has to confirm again"
    assert me.subscribe(HOOK)
    assert me.status("subscription_update", queue_name="q1", subscription_id=id_, subscriber=HOOK) == 409
    assert me.status("subscription_update", queue_name="q1", subscription_id="1", ttl=60) == 404


@pytest.mark.parametrize("wish", [{}, {"ttl": 59}, {"ttl": "x"}, {"subscriber": "x"}, {"options": 5}])
def test_a_change_that_breaks_the_rules_is_refused(me: Speaker, wish: dict[str, Any]) -> None:
    id_ = me.subscribe(HOOK, ttl=60)
    before = shown(me, id_)

    assert me.status("subscription_update", queue_name="q1", subscription_id=id_, **wish) == 400
    assert shown(me, id_) == before


def test_subscriptions_are_listed_in_pages(me: Speaker) -> None:
    ids = sorted(me.subscribe(f"http://hook.example.org/{number}") for number in range(15))

    assert [each["id"] for each in me.subscriptions()] == ids[:10]
    assert [each["id"] for each in me.subscriptions(limit=20)] == ids
    assert [each["id"] for each in me.subscriptions(marker=ids[9])] == ids[10:]
    for limit in (0, 21, "x"):
        assert me.status("subscription_list", queue_name="q1", limit=limit) == 400


@pytest.mark.parametrize("id_", ["1", "f" * 24, "x" * 300, "\x00"])
def test_a_subscription_that_is_unknown(me: Speaker, id_: str) -> None:
    me.subscribe(HOOK)
    named = {"queue_name": "q1", "subscription_id": id_}

    assert me.status("subscription_get", **named) == 404
    assert me.status("subscription_confirm", **named, confirmed=True) == 404
    assert me.status("subscription_status", **named) == 404
    assert me.status("subscription_failed", **named) == 404
    assert me.status("subscription_replay", **named, ids=["1"]) == 404
    assert me.status("subscription_delete", **named) == 204
    assert len(me.subscriptions()) == 1


def test_a_subscription_is_deleted_and_belongs_to_its_queue(me: Speaker) -> None:
    id_ = me.subscribe(HOOK)
    assert me.status("subscription_get", queue_name="q2", subscription_id=id_) == 404
    assert me.status("subscription_delete", queue_name="q2", subscription_id=id_) == 204
    assert me.status("queue_delete", queue_name="q1") == 204
    assert len(me.subscriptions()) == 1, "it outlives its queue"
    for _ in range(2):
        assert me.status("subscription_delete", queue_name="q1", subscription_id=id_) == 204

    assert me.subscriptions() == []


def test_p9_who_has_subscribed_is_told_of_what_is_posted(me: Speaker) -> None:
    me.post("before")
    me.subscribe(HOOK)
    me.post("a", "b")
    tickets = [ticket for batch in take(me.service.deliveries) for ticket in batch.tickets]

    assert [notice.body for ticket in tickets for notice in ticket.notices] == [b'"a"', b'"b"']


def test_who_has_to_confirm_is_asked(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(
        notifier={"require_confirmation": True}, signed_url={"secret_keys": ["a key of the tests"]}
    )
    id_ = me.subscribe(HOOK)
    pending = [each for batch in take(me.service.deliveries) for each in batch.pending]

    assert [each.subscription_id for each in pending] == [id_]
    assert me.get("subscription_status", queue_name="q1", subscription_id=id_)["state"] == "unconfirmed"


def test_a_status_tells_how_it_goes_and_nothing_was_given_up(me: Speaker) -> None:
    named = {"queue_name": "q1", "subscription_id": me.subscribe(HOOK)}
    status = me.get("subscription_status", **named)

    assert (status["state"], status["delivered"], status["dead_lettered"]) == ("active", 0, 0)
    assert me.get("subscription_failed", **named) == []
    assert me.get("subscription_replay", **named, ids=["1"]) == 0
    assert me.get("subscription_replay", **named, since="2026-11-20T00:00:00Z") == 0
    for wish in ({}, {"since": "yesterday"}, {"ids": "1"}, {"since": 5}):
        assert me.status("subscription_replay", **named, **wish) == 400
