"""Subscribers that want a token of Keystone's: the trusts that are made for them, and ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queues.models import Address
from queues.service.subscriptions import Terms
from tests.keystone import Keystone
from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE, PROJECT, START

pytestmark = ONE_STORE

HOOK = "trust+http://hook.example.org/one"
ANOTHER = "trust+https://hook.example.org/two"
PLAIN = "http://hook.example.org/plain"
ADDRESS = Address(project=PROJECT, queue="q1")


@pytest.fixture
def keystone(clock: Callable[[], int]) -> Iterator[Keystone]:
    with Keystone(clock=lambda: clock() / 1000).serving() as serving:
        yield serving


@pytest.fixture
def nobody(open_speaker: OpenSpeaker, keystone: Keystone) -> Speaker:
    """A client without a token of Keystone's."""
    return open_speaker(keystone=keystone.settings())


@pytest.fixture
def me(nobody: Speaker, keystone: Keystone) -> Speaker:
    """A client with one."""
    return nobody.saying(X_Auth_Token=keystone.login("alice"))


def shown(me: Speaker, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = me.get("subscription_get", queue_name="q1", subscription_id=id_)
    return found


def trust_of(me: Speaker, id_: str) -> str:
    return str(shown(me, id_)["options"]["trust_id"])


def change(me: Speaker, id_: str, **wish: Any) -> int:
    return me.status("subscription_update", queue_name="q1", subscription_id=id_, **wish)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is done without anybody's waiting for it."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.005)


@pytest.mark.parametrize("subscriber", [ANOTHER, "Trust+HTTP://hook.example.org/"])
def test_a_trust_is_made_from_the_callers_token(me: Speaker, keystone: Keystone, subscriber: str) -> None:
    id_ = me.subscribe(subscriber, ttl=600, options={"post_headers": {"a": "b"}})

    options = shown(me, id_)["options"]
    assert options == {"post_headers": {"a": "b"}, "trust_id": options["trust_id"]}
    trust = keystone.trusts[options["trust_id"]]
    assert (trust.trustor, trust.project, trust.roles) == ("id of alice", "p-blue", ["member"])
    assert trust.expires == START / 1000 + 600, "it ends with the subscription"


def test_others_need_no_trust(me: Speaker, keystone: Keystone) -> None:
    me.subscribe(PLAIN)
    me.subscribe("mailto:somebody@example.org")

    assert keystone.asked == []


def test_without_keystone_it_is_refused(open_speaker: OpenSpeaker) -> None:
    me = open_speaker().saying(X_Auth_Token="a token")
    plain = me.subscribe(PLAIN, queue="q2")

    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 400
    assert me.status("subscription_update", queue_name="q2", subscription_id=plain, subscriber=HOOK) == 400
    assert me.queues() == ["q2"]


def test_without_a_token_it_is_refused(nobody: Speaker, keystone: Keystone) -> None:
    assert nobody.status("subscription_create", queue_name="q1", subscriber=HOOK) == 400
    assert (nobody.queues(), keystone.asked) == ([], [])


def test_a_token_that_keystone_does_not_know_is_refused(nobody: Speaker) -> None:
    me = nobody.saying(X_Auth_Token="notused")

    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 401
    assert me.queues() == []


def test_a_token_that_can_make_no_trust_is_refused(nobody: Speaker, keystone: Keystone) -> None:
    me = nobody.saying(X_Auth_Token=keystone.login(project=None))

    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 403
    assert me.queues() == []


def test_p12_a_keystone_that_is_down(me: Speaker, keystone: Keystone) -> None:
    keystone.failing = 500
    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 503
    assert me.queues() == []
    keystone.failing = None

    assert me.subscribe(HOOK)


def test_p12_a_keystone_that_hangs(open_speaker: OpenSpeaker, keystone: Keystone) -> None:
    me = open_speaker(keystone=keystone.settings(timeout=0.1)).saying(X_Auth_Token=keystone.login())
    keystone.hanging = threading.Event()
    begun = time.monotonic()

    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 503
    assert time.monotonic() - begun < 2
    keystone.hanging.set()


def test_a_wrong_password_is_not_the_callers_fault(open_speaker: OpenSpeaker, keystone: Keystone) -> None:
    me = open_speaker(keystone=keystone.settings(password="wrong")).saying(X_Auth_Token=keystone.login())

    assert me.status("subscription_create", queue_name="q1", subscriber=HOOK) == 503


def test_who_has_a_subscription_keeps_its_trust(me: Speaker, nobody: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(HOOK)
    asked = len(keystone.asked)
    for each in (me, nobody):  # over a websocket it is told as a conflict, confirmed or not
        assert each.status("subscription_create", queue_name="q1", subscriber=HOOK) in (201, 409)
    assert change(me, me.subscribe(PLAIN), subscriber=HOOK) == 409

    assert trust_of(me, id_) in keystone.trusts
    assert len(keystone.asked) == asked


def test_two_who_subscribe_the_same_at_once_have_one_trust(me: Speaker, keystone: Keystone) -> None:
    def meanwhile() -> None:
        keystone.meanwhile = lambda: None
        me.service.subscriptions.create(ADDRESS, Terms(subscriber=HOOK), token=keystone.login("bob"))

    keystone.meanwhile = meanwhile
    me.ask("subscription_create", queue_name="q1", subscriber=HOOK)

    [found] = me.subscriptions()
    until(lambda: list(keystone.trusts) == [found["options"]["trust_id"]])
    assert keystone.trusts[found["options"]["trust_id"]].trustor == "id of bob"


# --- changes


def test_another_subscriber_gets_a_trust(me: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(PLAIN, ttl=600, options={"a": 1})
    assert change(me, id_, subscriber=HOOK) == 204

    trust_id = trust_of(me, id_)
    assert shown(me, id_)["options"] == {"a": 1, "trust_id": trust_id}
    assert keystone.trusts[trust_id].expires == START / 1000 + 600


@pytest.mark.parametrize("wish", [{"subscriber": ANOTHER}, {"ttl": 6000}, {"options": {"b": 2}}])
def test_a_changed_subscription_acts_for_whoever_changed_it(
    me: Speaker, nobody: Speaker, keystone: Keystone, wish: dict[str, Any]
) -> None:
    """Or else anybody of a project could have the tokens of another one sent to any place, with any request."""
    id_ = me.subscribe(HOOK, ttl=600, options={"a": 1})
    before = trust_of(me, id_)
    assert change(nobody, id_, **wish) == 400
    assert trust_of(me, id_) == before
    assert change(nobody.saying(X_Auth_Token=keystone.login("bob")), id_, **wish) == 204

    after = trust_of(me, id_)
    assert keystone.trusts[after].trustor == "id of bob"
    assert keystone.trusts[after].expires == START / 1000 + wish.get("ttl", 600)
    assert shown(me, id_)["options"] == {**wish.get("options", {"a": 1}), "trust_id": after}
    until(lambda: keystone.ended == [before])


def test_who_wants_no_tokens_any_more_has_no_trust(nobody: Speaker, me: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(HOOK, options={"a": 1})
    assert change(nobody, id_, subscriber=PLAIN) == 204

    assert shown(me, id_)["options"] == {"a": 1}
    until(lambda: keystone.trusts == {})


def test_a5_a_trust_cannot_be_named_even_if_it_is_the_own_one(me: Speaker) -> None:
    id_ = me.subscribe(HOOK)
    trust_id = trust_of(me, id_)

    assert change(me, id_, options={"trust_id": trust_id}) == 400
    other = {"subscriber": ANOTHER, "options": {"trust_id": trust_id}}
    assert me.status("subscription_create", queue_name="q1", **other) == 400
    assert trust_of(me, id_) == trust_id


def test_p12_a_change_while_keystone_is_down_changes_nothing(me: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(HOOK)
    before, keystone.failing = shown(me, id_), 503
    assert change(me, id_, subscriber=ANOTHER) == 503
    assert shown(me, id_) == before
    keystone.failing = None

    assert change(me, id_, subscriber=ANOTHER) == 204


def test_a_token_is_lent_to_what_was_there_when_it_was(me: Speaker, keystone: Keystone) -> None:
    """Who changes the ttl does not lend a token to a subscriber that somebody else sets at that moment."""
    id_ = me.subscribe(HOOK)

    def meanwhile() -> None:
        keystone.meanwhile = lambda: None
        me.service.subscriptions.update(ADDRESS, id_, Terms(subscriber=ANOTHER), token=keystone.login("bob"))

    keystone.meanwhile = meanwhile
    assert change(me, id_, ttl=6000) == 409

    found = shown(me, id_)
    assert (found["subscriber"], found["ttl"]) == (ANOTHER, 3600)
    until(lambda: list(keystone.trusts) == [found["options"]["trust_id"]])
    assert keystone.trusts[found["options"]["trust_id"]].trustor == "id of bob"


def test_a_change_of_what_is_deleted_meanwhile_leaves_no_trust(me: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(HOOK)
    keystone.meanwhile = lambda: me.service.subscriptions.delete(ADDRESS, id_)

    assert change(me, id_, ttl=6000) == 404
    until(lambda: keystone.trusts == {})


# --- the end


def test_the_trust_ends_with_the_subscription(me: Speaker, nobody: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(HOOK)
    trust_id = trust_of(me, id_)
    assert nobody.status("subscription_delete", queue_name="q1", subscription_id=id_) == 204

    until(lambda: keystone.ended == [trust_id])


def test_a_subscription_is_deleted_while_keystone_is_down(me: Speaker, keystone: Keystone) -> None:
    id_ = me.subscribe(HOOK)
    keystone.hanging = threading.Event()

    assert me.status("subscription_delete", queue_name="q1", subscription_id=id_) == 204
    assert me.subscriptions() == []
    keystone.hanging.set()
    until(lambda: keystone.trusts == {})


def test_of_an_expired_subscription_the_trust_has_ended_too(me: Speaker, keystone: Keystone, clock) -> None:
    id_ = me.subscribe(HOOK, ttl=60)
    asked, trust_id = len(keystone.asked), trust_of(me, id_)
    clock.advance(60)
    assert me.subscriptions() == []

    assert keystone.trusts[trust_id].expires <= keystone.clock()
    assert len(keystone.asked) == asked
