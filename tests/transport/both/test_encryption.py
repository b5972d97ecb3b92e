"""Encrypted queues: clients see plain bodies everywhere, and the store sees none."""

from __future__ import annotations

from typing import Any

import pytest

from queues.models import Address
from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE, PROJECT, BreakableDriver

pytestmark = ONE_STORE

KEY = "k1:" + "A" * 43 + "="


@pytest.fixture
def me(open_speaker: OpenSpeaker) -> Speaker:
    """A client whose queue q1 is encrypted."""
    found: Speaker = open_speaker(encryption={"keys": [KEY]})
    found.create("q1", _enable_encrypt_messages=True, _max_claim_count=2, _dead_letter_queue="dead")
    return found


@pytest.mark.parametrize("body", ["secret", {"a": ["secret", None]}, None, 5])
def test_h1_bodies_are_plain_wherever_they_are_shown(me: Speaker, body: Any) -> None:
    ids = me.post(body, body, body, body)
    assert me.listed() == [body] * 4
    assert me.get("message_get", queue_name="q1", message_id=ids[0])["body"] == body
    assert [each["body"] for each in me.get("message_get_many", queue_name="q1", message_ids=ids)] == [
        body
    ] * 4
    assert [each["body"] for each in me.get("message_delete_many", queue_name="q1", pop=1)] == [body]
    for _ in range(2):
        held = me.claim(limit=1)
        assert held.bodies == [body]
        assert me.get("claim_get", queue_name="q1", claim_id=held.id)["messages"][0]["body"] == body
        me.get("claim_delete", queue_name="q1", claim_id=held.id)
    me.claim()
    assert me.listed("dead") == [body]


def test_the_store_is_given_nothing_to_read(me: Speaker, driver: BreakableDriver, clock) -> None:
    me.post("what nobody may know")
    me.subscribe()
    (id_,) = me.post("what nobody may know")
    address = Address(project=PROJECT, queue="q1")

    (stored,) = driver.messages.get(address, [id_], now=clock())
    assert stored.sealed
    assert b"nobody" not in stored.body


def test_a_repeat_is_recognised_though_it_is_encrypted_anew(me: Speaker) -> None:
    post = {"queue_name": "q1", "messages": [{"body": "a"}], "idempotency_key": "k"}

    assert me.ask("message_post", **post) == me.ask("message_post", **post)
    assert me.listed() == ["a"]


def test_p2_a_message_that_cannot_be_opened_is_not_lost(me: Speaker, open_speaker: OpenSpeaker) -> None:
    me.create("q2", _enable_encrypt_messages=True)
    (id_,) = me.post("a", queue="q2")
    keyless = open_speaker()

    for operation, arguments in (
        ("message_list", {"echo": True}),
        ("message_get", {"message_id": id_}),
        ("message_get_many", {"message_ids": [id_]}),
        ("message_delete_many", {"pop": 1}),
        ("claim_create", {}),
        ("message_post", {"messages": [{"body": 1}]}),
    ):
        assert keyless.status(operation, queue_name="q2", **arguments) == 503, operation
    assert me.listed("q2") == ["a"]
    assert me.claim("q2").bodies == ["a"]
