"""Arguments of the operations on subscriptions."""

from __future__ import annotations

from typing import Any

import msgspec

from transport.schemas.queues import QueueRef


class SubscriptionList(QueueRef, kw_only=True, frozen=True):
    """A page of a queue's subscriptions."""

    marker: str | None = None
    limit: int | None = None


class SubscriptionRef(QueueRef, kw_only=True, frozen=True):
    """Names a subscription."""

    subscription_id: str


class SubscriptionCreate(QueueRef, kw_only=True, frozen=True):
    """The wish for a subscription; the service checks it."""

    wish: Any


class SubscriptionUpdate(SubscriptionRef, kw_only=True, frozen=True):
    """What is to be different about a subscription; the service checks it."""

    wish: Any


class SubscriptionConfirm(SubscriptionRef, kw_only=True, frozen=True):
    """What a subscriber says."""

    confirmed: bool


class FailedDeliveries(SubscriptionRef, kw_only=True, frozen=True):
    """A page of what was given up."""

    marker: str | None = None
    limit: int | None = None


class ReplayWish(msgspec.Struct, kw_only=True, frozen=True):
    """What to send again: some of it, or all since a time (ISO 8601)."""

    ids: list[str] | None = None
    since: str | None = None


class SubscriptionReplay(SubscriptionRef, kw_only=True, frozen=True):
    """What to send again."""

    wish: ReplayWish
