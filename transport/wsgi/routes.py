"""The route table: path and method to operation, reader and answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import falcon

from transport.dispatch import Operation
from transport.operations import OPERATIONS
from transport.wsgi import answers, reads
from transport.wsgi.request import RestRequest


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How REST speaks of one operation."""

    operation: Operation[Any, Any]
    read: Callable[[RestRequest], Any]
    answer: Callable[[RestRequest, falcon.Response, Any], None]


def _endpoint(
    operation: str,
    read: Callable[[RestRequest], Any],
    answer: Callable[[RestRequest, falcon.Response, Any], None],
) -> Endpoint:
    return Endpoint(OPERATIONS[operation], read, answer)


@dataclass(frozen=True, slots=True)
class ByIds:
    """Two operations on one path: which of them, the presence of ids tells."""

    with_ids: Endpoint
    without: Endpoint


Choice: TypeAlias = Endpoint | ByIds


def _declared(noun: str) -> Mapping[str, Mapping[str, Choice]]:
    """Return the routes that queues and topics have in common."""
    item = f"/v2/{noun}s/{{{noun}_name}}"
    return {
        f"/v2/{noun}s": {"GET": _endpoint(f"{noun}_list", reads.queue_list, answers.queue_page)},
        item: {
            "GET": _endpoint(f"{noun}_get", reads.queue_ref, answers.metadata),
            "HEAD": _endpoint(f"{noun}_exists", reads.queue_ref, answers.found),
            "PUT": _endpoint(f"{noun}_create", reads.queue_create, answers.queue_created),
            "PATCH": _endpoint(f"{noun}_update", reads.queue_update, answers.metadata),
            "DELETE": _endpoint(f"{noun}_delete", reads.queue_ref, answers.no_content),
        },
        f"{item}/stats": {"GET": _endpoint(f"{noun}_get_stats", reads.queue_ref, answers.stats)},
        f"{item}/purge": {"POST": _endpoint(f"{noun}_purge", reads.queue_purge, answers.no_content)},
    }


_PING = _endpoint("ping_node", reads.nothing, answers.no_content)

ROUTES: Mapping[str, Mapping[str, Choice]] = {
    "/v2/ping": {"GET": _PING, "HEAD": _PING},
    **_declared("queue"),
    **_declared("topic"),
    "/v2/queues/{queue_name}/share": {
        "POST": _endpoint("queue_share", reads.queue_share, answers.shared),
    },
    "/v2/queues/{queue_name}/messages": {
        "GET": ByIds(
            with_ids=_endpoint("message_get_many", reads.message_get_many, answers.messages_by_id),
            without=_endpoint("message_list", reads.message_list, answers.message_page),
        ),
        "POST": _endpoint("message_post", reads.message_post, answers.posted),
        "DELETE": _endpoint("message_delete_many", reads.message_delete_many, answers.deleted_or_popped),
    },
    "/v2/queues/{queue_name}/messages/{message_id}": {
        "GET": _endpoint("message_get", reads.message_get, answers.message),
        "DELETE": _endpoint("message_delete", reads.message_delete, answers.no_content),
    },
    "/v2/queues/{queue_name}/claims": {
        "POST": _endpoint("claim_create", reads.claim_create, answers.claimed),
    },
    "/v2/queues/{queue_name}/claims/{claim_id}": {
        "GET": _endpoint("claim_get", reads.claim_ref, answers.claim),
        "PATCH": _endpoint("claim_update", reads.claim_update, answers.no_content),
        "DELETE": _endpoint("claim_delete", reads.claim_ref, answers.no_content),
    },
}

EVENT_ROUTES: Mapping[str, Mapping[str, Choice]] = {
    "/v2/queues/{queue_name}/events": {
        "POST": _endpoint("event_post", reads.events_post, answers.posted_events),
    },
}

_SUBSCRIPTIONS = "/v2/queues/{queue_name}/subscriptions"
_SUBSCRIPTION = f"{_SUBSCRIPTIONS}/{{subscription_id}}"

SUBSCRIPTION_ROUTES: Mapping[str, Mapping[str, Choice]] = {
    _SUBSCRIPTIONS: {
        "GET": _endpoint("subscription_list", reads.subscription_list, answers.subscription_page),
        "POST": _endpoint("subscription_create", reads.subscription_create, answers.subscribed),
    },
    _SUBSCRIPTION: {
        "GET": _endpoint("subscription_get", reads.subscription_ref, answers.subscription),
        "PATCH": _endpoint("subscription_update", reads.subscription_update, answers.changed),
        "DELETE": _endpoint("subscription_delete", reads.subscription_ref, answers.no_content),
    },
    f"{_SUBSCRIPTION}/confirm": {
        "PUT": _endpoint("subscription_confirm", reads.subscription_confirm, answers.changed),
    },
    f"{_SUBSCRIPTION}/status": {
        "GET": _endpoint("subscription_status", reads.subscription_ref, answers.subscription_status),
    },
    f"{_SUBSCRIPTION}/failed": {
        "GET": _endpoint("subscription_failed", reads.failed_deliveries, answers.failed_deliveries),
    },
    f"{_SUBSCRIPTION}/replay": {
        "POST": _endpoint("subscription_replay", reads.subscription_replay, answers.replayed),
    },
}

#: Served only where the setting `admin` is on.
ADMIN_ROUTES: Mapping[str, Mapping[str, Choice]] = {
    "/v2/health": {"GET": _endpoint("check_node_health", reads.nothing, answers.health)},
}

_POOL = "/v2/pools/{pool_name}"
_FLAVOR = "/v2/flavors/{flavor_name}"

#: Served only where the settings `admin` and `pooling` are on.
POOL_ROUTES: Mapping[str, Mapping[str, Choice]] = {
    "/v2/pools": {"GET": _endpoint("pool_list", reads.listing, answers.pool_page)},
    _POOL: {
        "GET": _endpoint("pool_get", reads.pool_get, answers.pool),
        "PUT": _endpoint("pool_create", reads.pool_create, answers.created),
        "PATCH": _endpoint("pool_update", reads.pool_update, answers.pool),
        "DELETE": _endpoint("pool_delete", reads.pool_ref, answers.no_content),
    },
    f"{_POOL}/drain": {
        "GET": _endpoint("pool_drain_get", reads.pool_ref, answers.drain),
        "POST": _endpoint("pool_drain", reads.pool_ref, answers.drain_begun),
        "DELETE": _endpoint("pool_drain_stop", reads.pool_ref, answers.no_content),
    },
    "/v2/flavors": {"GET": _endpoint("flavor_list", reads.listing, answers.flavor_page)},
    _FLAVOR: {
        "GET": _endpoint("flavor_get", reads.flavor_ref, answers.flavor),
        "PUT": _endpoint("flavor_create", reads.flavor_create, answers.created),
        "PATCH": _endpoint("flavor_update", reads.flavor_update, answers.flavor),
        "DELETE": _endpoint("flavor_delete", reads.flavor_ref, answers.no_content),
    },
}


def routes(*, admin: bool, pooling: bool) -> Mapping[str, Mapping[str, Choice]]:
    """Return the routes that a service with these settings serves."""
    return {
        **ROUTES,
        **EVENT_ROUTES,
        **SUBSCRIPTION_ROUTES,
        **(ADMIN_ROUTES if admin else {}),
        **(POOL_ROUTES if admin and pooling else {}),
    }
