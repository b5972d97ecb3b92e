"""P13: on websockets and to webhooks the current tree says what released versions said, and perhaps more."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from notifiers.signatures import WebhookSigner, verify
from queues.webhook_keys import read_private_key
from tests.releases.alike import comparable, differences
from tests.releases.frames import STORY, TOLD
from tests.releases.wire import ENVIRON, SIGNING_KEY, Recording, record_wire

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/websocket.json"))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Recording]:
    """What the current tree says, on websockets and to webhooks."""
    return record_wire(tmp_path_factory.mktemp("wire"), {})


def recorded(release: Path, name: str) -> Recording:
    """What a release said."""
    found: Recording = json.loads((release / name).read_text())
    return found


over_releases = pytest.mark.parametrize("release", VERSIONS, ids=lambda path: path.name)


def test_there_is_a_recorded_release() -> None:
    assert VERSIONS


@over_releases
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_replies_and_pushed_frames_say_what_they_said(
    said: tuple[Recording, Recording], release: Path, encoding: str
) -> None:
    new, old = said[0][encoding], recorded(release, "websocket.json")[encoding]
    assert [list(differences(*pair)) for pair in zip(comparable(new), comparable(old), strict=True)] == [
        [] for _ in STORY
    ]


@over_releases
@pytest.mark.parametrize("hook", TOLD, ids=lambda hook: hook.name)
def test_webhooks_are_sent_what_they_were_sent(
    said: tuple[Recording, Recording], release: Path, hook: Any
) -> None:
    new, old = said[1][hook.name], recorded(release, "webhooks.json")[hook.name]
    assert list(differences(comparable(new), comparable(old))) == []


@over_releases
def test_what_a_release_signed_is_verified_by_the_keys_that_subscribers_have_now(release: Path) -> None:
    """So a subscriber need not fetch its key again after an upgrade, or on the way back."""
    private = read_private_key(ENVIRON["HERMOD_NOTIFIER_PRIVATE_KEYS"])
    signer = WebhookSigner([SIGNING_KEY.encode()], [private])
    for told in recorded(release, "webhooks.json").values():
        for request in told["requests"]:
            headers, body = request["headers"], request["body"].encode()
            assert headers["webhook-signature"].count(" ") == 1, "one of each kind"
            for keys in (signer.secrets(told["subscription_id"]), signer.public_keys()):
                verify(headers, body, keys, now=int(headers["webhook-timestamp"]))


@over_releases
def test_the_recording_has_what_can_be_said(release: Path) -> None:
    """Otherwise little would be shown by its being the same."""
    for exchanges in recorded(release, "websocket.json").values():
        statuses = {each["reply"]["headers"]["status"] for each in exchanges}
        assert statuses >= {200, 201, 204, 400, 401, 403, 404, 409}
        asked = {each["sent"]["action"] for each in exchanges if isinstance(each["sent"], dict)}
        assert asked >= {"authenticate", "message_list", "claim_delete", "subscription_resume"}
        pushed = {frame["Message_Type"] for each in exchanges for frame in each["pushed"]}
        assert pushed == {"Notification", "Heartbeat", "Claim"}
    hooks = recorded(release, "webhooks.json")
    assert hooks.keys() == {hook.name for hook in TOLD}
    headers = [request["headers"] for told in hooks.values() for request in told["requests"]]
    assert all(each.keys() >= {"webhook-id", "webhook-timestamp", "webhook-signature"} for each in headers)
    assert any("ce-specversion" in each for each in headers)


def test_what_is_new_makes_no_difference() -> None:
    old = {"a": 1, "b": [{"c": None}]}
    assert list(differences({"a": 1, "b": [{"c": None, "new": 2}], "new": 1}, old)) == []


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ({"b": [{"c": None}]}, ["/a is missing, which was 1"]),
        ({"a": True, "b": [{"c": None}]}, ["/a is True, and was 1"]),
        ({"a": 1, "b": [{}]}, ["/b/0/c is missing, which was None"]),
        ({"a": 1, "b": []}, ["/b is [], and was [{'c': None}]"]),
        ({"a": 1, "b": {}}, ["/b is {}, and was [{'c': None}]"]),
    ],
    ids=["missing", "type", "deep", "fewer", "shape"],
)
def test_what_was_there_has_to_stay(new: Any, told: list[str]) -> None:
    assert list(differences(new, {"a": 1, "b": [{"c": None}]})) == told


def test_ids_moments_and_keys_are_not_compared_but_which_id_is_which() -> None:
    one, two = "0" * 32, "1" * 32
    made = {"id": one, "body": json.dumps({"id": one, "at": "2026-11-21T20:58:23Z", "age": 7}), "other": two}
    assert comparable(made) == {
        "id": "#0",
        "body": {"id": "#0", "at": "<moment>", "age": "<seconds>"},
        "other": "#1",
    }
    signature = base64.b64encode(b"\0" * 32).decode()
    assert comparable(f"v1,{signature} v1a,{signature}") == "v1,<signature> v1a,<signature>"
