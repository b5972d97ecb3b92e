"""What a project may do and have, and what it is told beyond: the same in every dialect."""

from __future__ import annotations

from typing import Any

import pytest

from queues.service import quotas as quotas_module
from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE

pytestmark = ONE_STORE

EVENT = {"specversion": "1.0", "source": "/shop", "type": "paid"}
SUBSCRIBER = "http://127.0.0.1:{}/"


def post(me: Speaker, count: int, queue: str = "q1") -> int:
    messages = [{"body": number} for number in range(count)]
    return me.status("message_post", queue_name=queue, messages=messages)


def test_who_asks_too_often_is_told_so_and_nobody_else(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(rate={"requests": 0.001, "burst": 3000})
    statuses = [me.status("queue_list") for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert post(me, 1) == 429
    assert me.status("ping_node") == 429
    stranger = me.saying(X_Project_ID="another")
    assert stranger.status("queue_list") == 200


def test_who_posts_too_much_is_told_so_and_may_do_other_things(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(rate={"messages": 0.001, "burst": 5000})
    assert [post(me, 2), post(me, 2), post(me, 2)] == [201, 201, 429]
    assert len(me.listed()) == 4
    events = [{**EVENT, "id": str(number)} for number in range(2)]
    assert me.status("event_post", queue_name="q1", events=events) == 429
    assert me.status("event_post", queue_name="q1", events=events[:1]) in (200, 201)
    assert post(me, 1) == 429


def test_queues_are_bounded_however_they_come_into_being(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(quota={"queues": 2})
    me.create("a")
    assert post(me, 1, "b") == 201
    assert me.status("queue_create", queue_name="c") == 403
    assert post(me, 1, "c") == 403
    subscription = {"queue_name": "c", "subscriber": SUBSCRIBER.format(1), "ttl": 60, "options": {}}
    assert me.status("subscription_create", **subscription) == 403
    assert me.queues() == ["a", "b"]
    assert me.status("queue_create", queue_name="a") == 204
    assert post(me, 1, "b") == 201
    assert me.saying(X_Project_ID="another").status("queue_create", queue_name="c") == 201
    assert me.status("topic_create", queue_name="c") == 201
    assert me.status("queue_delete", queue_name="a") == 204
    assert me.status("queue_create", queue_name="c") == 201


@pytest.mark.parametrize(
    "quota", [{"messages": 5}, {"bytes": 5 * 262144 + 1}, {"messages": 5, "bytes": 10**9}]
)
def test_messages_are_bounded(open_speaker: OpenSpeaker, quota: dict[str, Any]) -> None:
    me = open_speaker(quota=quota)
    assert post(me, 4) == 201
    assert post(me, 2, "q2") == 403
    assert me.status("event_post", queue_name="q1", events=[{**EVENT, "id": n} for n in "12"]) == 403
    assert post(me, 1, "q2") == 201
    assert post(me, 1, "q2") == 403
    assert (len(me.listed()), len(me.listed("q2"))) == (4, 1)


def test_subscriptions_are_bounded(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(quota={"subscriptions": 2})

    def subscribe(number: int, queue: str) -> int:
        wish = {"subscriber": SUBSCRIBER.format(number), "ttl": 60, "options": {}}
        return me.status("subscription_create", queue_name=queue, **wish)

    assert [subscribe(1, "a"), subscribe(1, "b"), subscribe(2, "a")] == [201, 201, 403]


def test_what_was_there_before_is_counted(open_speaker: OpenSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "_AGE", 0.0)
    monkeypatch.setattr(quotas_module, "_SHARE", 0)
    # In place of a thread: what is due is counted before anything is let pass.
    monkeypatch.setattr(quotas_module.QuotaService, "_in_a_thread", lambda _self, work: work())
    before = open_speaker()
    for queue in ("a", "b"):
        assert post(before, 3, queue) == 201
        wish = {"subscriber": SUBSCRIBER.format(1), "ttl": 60, "options": {}}
        before.get("subscription_create", queue_name=queue, **wish)
    me = open_speaker(quota={"messages": 7, "subscriptions": 2})

    assert post(me, 2, "c") == 403
    wish = {"queue_name": "c", "subscriber": SUBSCRIBER.format(1), "ttl": 60, "options": {}}
    assert me.status("subscription_create", **wish) == 403
    assert me.status("queue_purge", queue_name="a", resource_types=["messages"]) == 204
    assert post(me, 4, "c") == 201
    (there,) = me.subscriptions("b")
    me.get("subscription_delete", queue_name="b", subscription_id=there["id"])
    assert me.status("subscription_create", **wish) == 201


def test_dead_letters_are_kept_whatever_the_quota(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(quota={"queues": 1, "messages": 1})
    me.create("q1", _max_claim_count=1, _dead_letter_queue="dead")
    me.post("a")
    me.get("claim_delete", queue_name="q1", claim_id=me.claim().id)
    assert me.get("claim_create", queue_name="q1") is None
    assert me.listed("dead") == ["a"]
    assert sorted(me.queues()) == ["dead", "q1"]
    assert post(me, 1, "dead") == 403
