"""What goes wrong goes wrong in the same way: the same status, nothing changed, and all well afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from queues.errors import Conflict, HermodError, NoPool, StoreDamaged, StoreUnavailable, Unsealable
from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.both.test_access import arguments
from tests.transport.conftest import ONE_STORE, BreakableDriver
from transport.operations import OPERATIONS

pytestmark = ONE_STORE


@pytest.mark.parametrize("error", [StoreUnavailable, StoreDamaged, NoPool])
def test_p12_whatever_is_asked_of_a_store_that_fails_is_503(
    open_speaker: OpenSpeaker, driver: BreakableDriver, error: type[HermodError]
) -> None:
    me = open_speaker(admin=True, signed_url={"secret_keys": ["a key of the tests"]}).saying(X_Roles="admin")
    driver.break_(error=error())
    for name in OPERATIONS:
        if not name.startswith(("pool", "flavor")) and name not in ("queue_share", "check_node_health"):
            assert me.status(name, **arguments(name)) == 503, name
    driver.mend()

    assert me.queues() == []
    me.post("a")
    assert me.listed() == ["a"]


@pytest.mark.parametrize(("error", "status"), [(Conflict("It does not fit."), 409), (Unsealable(), 503)])
def test_an_error_of_the_domain_has_one_status(
    me: Speaker, driver: BreakableDriver, error: HermodError, status: int
) -> None:
    me.create()
    driver.break_("post", error=error)

    assert me.status("message_post", queue_name="q1", messages=[{"body": 1}]) == status


def test_a_post_that_failed_half_way_is_repeated_with_its_key(me: Speaker, driver: BreakableDriver) -> None:
    post: dict[str, Any] = {"queue_name": "q1", "messages": [{"body": "a"}], "idempotency_key": "k"}
    driver.break_("post")
    assert me.status("message_post", **post) == 503
    driver.mend()

    assert me.ask("message_post", **post) == me.ask("message_post", **post)
    assert me.listed() == ["a"]


def test_an_operator_is_told_how_the_stores_are(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(admin=True)

    assert me.status("ping_node") == 204
    assert me.status("check_node_health") == 403
    report = me.saying(X_Roles="admin").get("check_node_health")
    assert report["storage_reachable"] is True


def test_events_are_messages(me: Speaker) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "paid", "data": {"a": 1}}
    ids = me.get("event_post", queue_name="q1", events=event)

    assert me.get("event_post", queue_name="q1", events=event) == ids
    more = me.get("event_post", queue_name="q1", events=[{**event, "id": "2"}, {**event, "id": "3"}])
    assert [each["id"] for each in me.page()] == [*ids, *more]
    assert [each["id"] for each in me.listed()] == ["1", "2", "3"]
    for broken in ({"id": "1"}, {**event, "specversion": "9"}, [event, 5], {**event, "id": 5}):
        assert me.status("event_post", queue_name="q1", events=broken) == 400
    assert me.counts() == (3, 0)
