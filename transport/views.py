"""What things look like to clients, whatever the transport: one JSON object each."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from queues.models import JsonObject, PendingDelivery, Pool, Subscription
from queues.redaction import hide_password
from queues.service.flavors import Flavor
from queues.service.health import StoreHealth
from queues.service.moving import Drain
from queues.signing import SignedUrl
from transport.operations.subscriptions import SubscriptionStatus


def moment(instant: int) -> str:
    """Return an instant (ms) as clients read it."""
    return datetime.fromtimestamp(instant / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def subscription(found: Subscription, now: int) -> JsonObject:
    """Return the seven members that clients take as keyword arguments: no others."""
    return {
        "id": found.id,
        "source": found.address.queue,
        "subscriber": found.subscriber,
        "ttl": found.ttl,
        "age": found.age(now),
        "options": found.options,
        "confirmed": found.confirmed,
    }


def subscription_status(status: SubscriptionStatus) -> JsonObject:
    """Return how it goes with a subscription."""
    counts, state = status.counts, "active"
    if status.subscription.disabled is not None:
        state = "disabled"
    elif status.waits_for_confirmation:
        state = "unconfirmed"
    return {
        "id": status.subscription.id,
        "state": state,
        "reason": status.subscription.disabled,
        "delivered": counts.delivered,
        "failed_attempts": counts.failed,
        "dead_lettered": counts.dead,
        "filtered": counts.filtered,
        "last_error": counts.last_error,
        "attempts": [{**asdict(attempt), "at": moment(attempt.at)} for attempt in counts.attempts],
        "signing_secrets": status.secrets,
        "public_keys": status.public_keys,
    }


def failed_delivery(pending: PendingDelivery, given_up: int) -> JsonObject:
    """Return a delivery that was given up, and when (ms)."""
    return {
        "id": pending.id,
        "webhook_id": pending.notice.id,
        "failed_at": moment(given_up),
        "posted_at": moment(pending.posted),
        "attempts": pending.attempt,
        "body": msgspec.Raw(pending.notice.body),
    }


def signed_url(signed: SignedUrl) -> JsonObject:
    """Return a pre-signed URL."""
    return {
        "project": signed.project,
        "paths": signed.paths,
        "methods": signed.methods,
        "expires": signed.expires,
        "signature": signed.signature,
    }


def pool(found: Pool, *, detailed: bool) -> JsonObject:
    """Return a pool without its password."""
    shown: JsonObject = {
        "href": f"/v2/pools/{found.name}",
        "name": found.name,
        "uri": hide_password(found.uri),
        "weight": found.weight,
        "flavor": found.flavor,
    }
    if detailed:
        shown["options"] = found.options
    return shown


def drain(found: Drain) -> JsonObject:
    """Return how far the drain of a pool has come."""
    return {
        "pool": found.pool,
        "active": found.active,
        "queues_left": found.left,
        "queues_moved": found.queues,
        "messages_moved": found.messages,
        "messages_per_second": round(found.rate, 1),
        "problem": found.problem,
    }


def flavor(found: Flavor) -> JsonObject:
    """Return a flavor."""
    shown: JsonObject = {"name": found.name, "href": f"/v2/flavors/{found.name}"}
    if found.pools:
        shown["pool_list"] = found.pools
    if found.capabilities is not None:
        shown["capabilities"] = found.capabilities
    return shown


def health(report: dict[str, StoreHealth], *, pooling: bool) -> JsonObject:
    """Return how the stores are: by pool, where there are pools."""
    documents = {name: _store(store) for name, store in report.items()}
    if "" in documents and not pooling:
        return documents[""]
    named = {name or "(default)": value for name, value in documents.items()}
    return {"catalog_reachable": True, **named}


def _store(store: StoreHealth) -> JsonObject:
    return {
        "storage_reachable": store.reachable,
        "operation_status": {
            name: {"succeeded": trial.succeeded, "seconds": trial.seconds, "ref": trial.ref}
            for name, trial in store.trials.items()
        },
        "message_volume": {
            "free": store.volume.free,
            "claimed": store.volume.claimed,
            "total": store.volume.total,
        },
    }
