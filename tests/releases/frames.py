"""What is said on a websocket when a release is recorded, and which webhooks are told of what.

Names in braces stand for what was answered before, `{queue}` for a name that each encoding has for itself and `{token}` for
a token. Nothing is said twice at a time, so what is pushed comes where a step waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.processes import CLIENT, PROJECT

Document = dict[str, Any]

IDENTITY = {"Client-ID": CLIENT, "X-Project-ID": PROJECT}


@dataclass(frozen=True, kw_only=True)
class Say:
    """A frame."""

    document: object
    keep: dict[str, str] = field(default_factory=dict)  # name: where the reply has what it stands for
    pushed: int = 0  # frames that come behind the reply
    beat: bool = False  # whether a heartbeat is waited for


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A webhook, and a message that it is told of."""

    name: str
    message: Document
    options: Document = field(default_factory=dict)


def _do(action: str, *, pushed: int = 0, beat: bool = False, **body: object) -> Say:
    document = {"action": action, "headers": IDENTITY, "body": body}
    return Say(document=document, pushed=pushed, beat=beat)


def _keeping(step: Say, **keep: str) -> Say:
    return Say(document=step.document, keep=keep, pushed=step.pushed, beat=step.beat)


def _authenticate(token: str) -> Say:
    headers = {**IDENTITY, "X-Auth-Token": token}
    return Say(document={"action": "authenticate", "headers": headers})


_Q: Document = {"queue_name": "{queue}"}
_PLAIN: Document = {"queue_name": "{queue}-plain"}
_LEASED: Document = {"queue_name": "{queue}-leased"}

STORY: list[Say] = [
    # Who speaks.
    _do("queue_list"),
    _authenticate("hmd_nonsense"),
    _authenticate("{token}"),
    # What cannot be done.
    _do("bogus"),
    Say(document=[1]),
    Say(document={"action": "queue_list", "headers": {"X-Project-ID": PROJECT}}),
    Say(document={"action": "queue_list", "headers": {**IDENTITY, "X-Project-ID": "another"}}),
    _do("queue_create", queue_name=1),
    _do("queue_create", queue_name="no name"),
    _do("message_post", **_Q, messages=[{"body": 1, "ttl": 1}]),
    _do("message_get", **_Q, message_id="0" * 32),
    _do("claim_get", **_Q, claim_id="0" * 32),
    _do("subscription_get", **_Q, subscription_id="0" * 24),
    _do("queue_get_stats", **_Q),
    # Queues, messages and claims.
    _do("queue_create", **_Q, metadata={"colour": "blue", "_default_message_ttl": 600}),
    _do("queue_create", **_Q),
    _do("queue_get", **_Q),
    _keeping(
        _do(
            "message_post",
            **_Q,
            messages=[{"body": {"a": [1, None, True, 1.5, "\u00fc"]}, "ttl": 300}, {"body": "b"}],
            idempotency_key="key",
        ),
        first="body.message_ids.0",
    ),
    _do("message_post", **_Q, messages=[{"body": "something else"}], idempotency_key="key"),
    _do("message_list", **_Q, echo=True),
    _do("message_list", **_Q),
    _do("message_get", **_Q, message_id="{first}"),
    _do("message_get_many", **_Q, message_ids=["{first}"]),
    _do("queue_get_stats", **_Q),
    _keeping(_do("claim_create", **_Q, limit=1, ttl=300, grace=60), claim="body.claim_id"),
    _do("claim_get", **_Q, claim_id="{claim}"),
    _do("claim_update", **_Q, claim_id="{claim}", ttl=600, grace=60),
    _do("message_delete", **_Q, message_id="{first}"),
    _do("message_delete", **_Q, message_id="{first}", claim_id="{claim}"),
    _do("claim_delete", **_Q, claim_id="{claim}"),
    _do("message_delete_many", **_Q, pop=1),
    _do("claim_create", **_Q),
    # A subscription with numbers, and the same one resumed.
    _keeping(
        _do("subscription_create", **_Q, ttl=3600, options={"sequence": True}),
        numbered="body.subscription_id",
    ),
    _do("subscription_create", **_Q),
    _do("message_post", **_Q, messages=[{"body": {"one": 1}, "ttl": 300}, {"body": 2}], pushed=2),
    _do("ping_node", beat=True),
    _do("subscription_get", **_Q, subscription_id="{numbered}"),
    _do("subscription_list", **_Q),
    _do("subscription_resume", **_Q, subscription_id="{numbered}", sequence=1, pushed=1),
    _do("subscription_resume", **_Q, subscription_id="{numbered}", sequence=7),
    _do("subscription_delete", **_Q, subscription_id="{numbered}"),
    # One without, with a filter.
    _keeping(
        _do("subscription_create", **_PLAIN, options={"filter": {"exact": {"wanted": True}}}),
        plain="body.subscription_id",
    ),
    _do(
        "message_post", **_PLAIN, messages=[{"body": {"wanted": False}}, {"body": {"wanted": True}}], pushed=1
    ),
    _do("subscription_status", **_PLAIN, subscription_id="{plain}"),
    _do("subscription_delete", **_PLAIN, subscription_id="{plain}"),
    # One to which messages are leased.
    _keeping(
        _do("subscription_create", **_LEASED, options={"mode": "claim", "credit": 1, "claim_ttl": 300}),
        leased="body.subscription_id",
    ),
    _do("message_post", **_LEASED, messages=[{"body": "for one"}], pushed=1),
    _do("subscription_delete", **_LEASED, subscription_id="{leased}"),
    # The end.
    _do("queue_list", name="{queue}"),
    _do("queue_delete", **_PLAIN),
    _do("queue_exists", **_PLAIN),
]

_EVENT = {"specversion": "1.0", "id": "7", "source": "/a", "type": "b", "data": {"n": 1}, "extra": "x y"}

TOLD: list[Hook] = [
    Hook(name="plain", message={"body": {"a": [1, None, True, 1.5, "\u00fc"]}, "ttl": 300}),
    Hook(
        name="adorned",
        message={"body": "a text"},
        options={
            "post_headers": {"X-Mine": "1", "Host": "elsewhere", "webhook-id": "mine"},
            "post_data": '{"wrapped": "$zaqar_message$"}',
        },
    ),
    Hook(name="structured", message={"body": 1}, options={"format": "cloudevents-structured"}),
    Hook(name="binary", message={"body": {"b": 2}}, options={"format": "cloudevents-binary"}),
    Hook(name="event", message={"body": _EVENT}, options={"format": "cloudevents-binary"}),
]
