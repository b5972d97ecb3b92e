"""Operations on subscriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from queues.errors import Invalid
from queues.models import Caller, DeliveryCounts, PendingDelivery, Subscription
from queues.service.subscriptions import Made
from transport.dispatch import Operation
from transport.operations.queues import address_of
from transport.schemas.subscriptions import (
    FailedDeliveries,
    SubscriptionConfirm,
    SubscriptionCreate,
    SubscriptionList,
    SubscriptionRef,
    SubscriptionReplay,
    SubscriptionUpdate,
)
from transport.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionPage:
    """Subscriptions, and the time (ms) at which they were seen."""

    subscriptions: Sequence[Subscription]
    now: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionStatus:
    """How it goes with a subscription."""

    subscription: Subscription
    counts: DeliveryCounts
    waits_for_confirmation: bool
    secrets: Sequence[str]  # by which its subscriber can tell that a message is genuine
    public_keys: Sequence[str]  # likewise


def subscription_list(service: Service, caller: Caller, args: SubscriptionList) -> SubscriptionPage:
    """List a queue's subscriptions by id."""
    address = address_of(caller, args.queue_name)
    page, now = service.subscriptions.list(address, marker=args.marker, limit=args.limit)
    return SubscriptionPage(subscriptions=page, now=now)


def subscription_create(service: Service, caller: Caller, args: SubscriptionCreate) -> Made:
    """Subscribe somebody to a queue."""
    address = address_of(caller, args.queue_name)
    terms = service.subscriptions.read(args.wish)
    made = service.subscriptions.create(address, terms, token=caller.keystone_token)
    service.confirmations.ask(made.subscription, confirmed=True)
    return made


def subscription_get(service: Service, caller: Caller, args: SubscriptionRef) -> SubscriptionPage:
    """Return a subscription."""
    found = service.subscriptions.get(address_of(caller, args.queue_name), args.subscription_id)
    return SubscriptionPage(subscriptions=[found], now=service.clock())


def subscription_update(service: Service, caller: Caller, args: SubscriptionUpdate) -> None:
    """Change a subscription."""
    address = address_of(caller, args.queue_name)
    before_terms = service.subscriptions.read(args.wish)
    changed = service.subscriptions.update(
        address, args.subscription_id, before_terms, token=caller.keystone_token
    )
    if before_terms.subscriber is not None and not changed.confirmed:
        service.confirmations.ask(changed, confirmed=True)


def subscription_delete(service: Service, caller: Caller, args: SubscriptionRef) -> None:
    """Remove a subscription."""
    address = address_of(caller, args.queue_name)
    service.subscriptions.delete(address, args.subscription_id)
    service.deliveries.drop(address, args.subscription_id)


def subscription_confirm(service: Service, caller: Caller, args: SubscriptionConfirm) -> None:
    """Note whether a subscriber wants to be told."""
    address = address_of(caller, args.queue_name)
    changed = service.subscriptions.confirm(address, args.subscription_id, confirmed=args.confirmed)
    if not args.confirmed:
        service.confirmations.ask(changed, confirmed=False)


def subscription_status(service: Service, caller: Caller, args: SubscriptionRef) -> SubscriptionStatus:
    """Tell how it goes with a subscription."""
    address = address_of(caller, args.queue_name)
    found = service.subscriptions.get(address, args.subscription_id)
    required, keys = service.settings.notifier.require_confirmation, service.webhook_keys()
    return SubscriptionStatus(
        subscription=found,
        counts=service.deliveries.counts(address, found.id),
        waits_for_confirmation=required and not found.confirmed,
        secrets=keys.secrets(found.id),
        public_keys=keys.public_keys(),
    )


def subscription_failed(
    service: Service, caller: Caller, args: FailedDeliveries
) -> Sequence[tuple[PendingDelivery, int]]:
    """List what was given up of a subscription's deliveries, oldest first."""
    address = address_of(caller, args.queue_name)
    service.subscriptions.get(address, args.subscription_id)
    return service.deliveries.dead(address, args.subscription_id, marker=args.marker, limit=args.limit)


def subscription_replay(service: Service, caller: Caller, args: SubscriptionReplay) -> int:
    """Have what was given up delivered anew; return how many messages that is."""
    address = address_of(caller, args.queue_name)
    service.subscriptions.get(address, args.subscription_id)
    since = None if args.wish.since is None else _moment(args.wish.since)
    return service.deliveries.replay(address, args.subscription_id, ids=args.wish.ids, since=since)


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid("The since must be a date and time as in ISO 8601.") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


OPERATIONS = (
    Operation(
        name="subscription_list",
        rule="subscription:get_all",
        arguments=SubscriptionList,
        run=subscription_list,
    ),
    Operation(
        name="subscription_create",
        rule="subscription:create",
        arguments=SubscriptionCreate,
        run=subscription_create,
    ),
    Operation(
        name="subscription_get", rule="subscription:get", arguments=SubscriptionRef, run=subscription_get
    ),
    Operation(
        name="subscription_update",
        rule="subscription:update",
        arguments=SubscriptionUpdate,
        run=subscription_update,
    ),
    Operation(
        name="subscription_delete",
        rule="subscription:delete",
        arguments=SubscriptionRef,
        run=subscription_delete,
    ),
    Operation(
        name="subscription_confirm",
        rule="subscription:confirm",
        arguments=SubscriptionConfirm,
        run=subscription_confirm,
    ),
    Operation(
        name="subscription_status",
        rule="subscription:update",
        arguments=SubscriptionRef,
        run=subscription_status,
    ),
    Operation(
        name="subscription_failed",
        rule="subscription:get",
        arguments=FailedDeliveries,
        run=subscription_failed,
    ),
    Operation(
        name="subscription_replay",
        rule="subscription:update",
        arguments=SubscriptionReplay,
        run=subscription_replay,
    ),
)
