"""From requests to the arguments of operations."""

from __future__ import annotations

from typing import Any

import msgspec

from queues.errors import Invalid, InvalidChange
from queues.models import Address, Json
from transport.documents import decode
from transport.operations.system import Nothing
from transport.problems import InvalidParameter, MalformedBody, UnsupportedMediaType
from transport.schemas.claims import ClaimCreate, ClaimRef, ClaimTerms, ClaimUpdate, ClaimWish
from transport.schemas.events import EventsPost
from transport.schemas.messages import (
    DraftMessages,
    MessageDelete,
    MessageDeleteMany,
    MessageGetMany,
    MessageList,
    MessagePost,
    MessageRef,
)
from transport.schemas.pools import (
    FlavorCreate,
    FlavorPools,
    FlavorRef,
    FlavorTerms,
    FlavorUpdate,
    Listing,
    PoolChange,
    PoolCreate,
    PoolGet,
    PoolRef,
    PoolTerms,
    PoolUpdate,
)
from transport.schemas.queues import (
    PurgeScope,
    QueueCreate,
    QueueList,
    QueuePurge,
    QueueRef,
    QueueShare,
    QueueUpdate,
)
from transport.schemas.subscriptions import (
    FailedDeliveries,
    ReplayWish,
    SubscriptionConfirm,
    SubscriptionCreate,
    SubscriptionList,
    SubscriptionRef,
    SubscriptionReplay,
    SubscriptionUpdate,
)
from transport.wsgi.request import RestRequest

PATCH_TYPE = "application/openstack-messaging-v2.0-json-patch"

_OBJECT = msgspec.json.Decoder(dict[str, Any])
_ANY = msgspec.json.Decoder(Any)
_PURGE = msgspec.json.Decoder(PurgeScope)
_MESSAGES = msgspec.json.Decoder(DraftMessages)
_WISH = msgspec.json.Decoder(ClaimWish)
_POOL = msgspec.json.Decoder(PoolTerms)
_POOL_CHANGE = msgspec.json.Decoder(PoolChange)
_FLAVOR = msgspec.json.Decoder(FlavorTerms)
_FLAVOR_POOLS = msgspec.json.Decoder(FlavorPools)
_REPLAY = msgspec.json.Decoder(ReplayWish)
_TERMS = msgspec.json.Decoder(ClaimTerms)

_NOT_FILTERS = {"marker", "limit", "detailed", "with_count", "name"}


def nothing(_request: RestRequest) -> Nothing:
    """Read no arguments."""
    return Nothing()


def queue_ref(request: RestRequest) -> QueueRef:
    """Read which queue."""
    return QueueRef(queue_name=request.queue_name)


def queue_list(request: RestRequest) -> QueueList:
    """Read a listing; parameters without a meaning of their own filter by metadata."""
    filters: dict[str, str] = {}
    countable = request.collection == "queues"
    for name, value in request.http.params.items():
        if (name in _NOT_FILTERS and (countable or name != "with_count")) or not value:
            continue
        if isinstance(value, list):
            raise InvalidParameter(f"The parameter {name} can be given once only.")
        filters[name] = value
    return QueueList(
        marker=request.text("marker"),
        limit=request.integer("limit"),
        detailed=request.boolean("detailed"),
        with_count=countable and request.boolean("with_count"),
        name=request.text("name"),
        filters=filters or None,
    )


def queue_create(request: RestRequest) -> QueueCreate:
    """Read a queue's initial metadata."""
    metadata = request.optional_document(_OBJECT, {})
    return QueueCreate(queue_name=request.queue_name, metadata=metadata)


def queue_update(request: RestRequest) -> QueueUpdate:
    """Read a JSON patch."""
    raw = request.body(request.service.settings.limits.max_queue_metadata, refusal=InvalidChange)
    media_type = (request.http.content_type or "").partition(";")[0].strip().lower()
    if media_type != PATCH_TYPE:
        raise UnsupportedMediaType
    if not raw:
        raise MalformedBody("The request body could not be parsed: there is none.")
    return QueueUpdate(queue_name=request.queue_name, changes=decode(raw, _ANY))


def queue_purge(request: RestRequest) -> QueuePurge:
    """Read what to purge; without a body, everything."""
    everything = QueuePurge(queue_name=request.queue_name)
    scope = request.optional_document(_PURGE, PurgeScope(resource_types=everything.resource_types))
    return QueuePurge(queue_name=request.queue_name, resource_types=scope.resource_types)


def queue_share(request: RestRequest) -> QueueShare:
    """Read the wish for a pre-signed URL."""
    return QueueShare(queue_name=request.queue_name, wish=request.document(_OBJECT))


def message_post(request: RestRequest) -> MessagePost:
    """Read messages; their number of bytes is bounded by service and queue."""
    address = Address(project=request.caller.project, queue=request.queue_name)
    raw = request.body(request.service.messages.max_post_size(address))
    messages = decode(raw, _MESSAGES).messages
    return MessagePost(
        queue_name=request.queue_name,
        messages=messages,
        idempotency_key=request.http.get_header("Idempotency-Key"),
    )


def message_list(request: RestRequest) -> MessageList:
    """Read a listing."""
    return MessageList(
        queue_name=request.queue_name,
        marker=request.text("marker"),
        limit=request.integer("limit"),
        echo=request.boolean("echo"),
        include_claimed=request.boolean("include_claimed"),
        include_delayed=request.boolean("include_delayed") or None,
        wait=request.integer("wait"),
    )


def message_get_many(request: RestRequest) -> MessageGetMany:
    """Read ids."""
    return MessageGetMany(queue_name=request.queue_name, message_ids=request.texts("ids") or [])


def message_get(request: RestRequest) -> MessageRef:
    """Read which message."""
    return MessageRef(queue_name=request.queue_name, message_id=request.path["message_id"])


def message_delete(request: RestRequest) -> MessageDelete:
    """Read which message, and under which claim."""
    return MessageDelete(
        queue_name=request.queue_name,
        message_id=request.path["message_id"],
        claim_id=request.text("claim_id"),
    )


def message_delete_many(request: RestRequest) -> MessageDeleteMany:
    """Read ids, or how many to pop."""
    return MessageDeleteMany(
        queue_name=request.queue_name,
        message_ids=request.texts("ids"),
        pop=request.integer("pop"),
        claim_ids=request.texts("claim_ids"),
    )


def claim_create(request: RestRequest) -> ClaimCreate:
    """Read the terms of a claim; the limit of the query goes before that of the body."""
    limit = request.integer("limit")
    wish = request.optional_document(_WISH, ClaimWish())
    return ClaimCreate(
        queue_name=request.queue_name,
        ttl=wish.ttl,
        grace=wish.grace,
        limit=wish.limit if limit is None else limit,
        wait=request.integer("wait"),
    )


def claim_ref(request: RestRequest) -> ClaimRef:
    """Read which claim."""
    return ClaimRef(queue_name=request.queue_name, claim_id=request.path["claim_id"])


def claim_update(request: RestRequest) -> ClaimUpdate:
    """Read the new terms of a claim."""
    terms = request.document(_TERMS)
    return ClaimUpdate(
        queue_name=request.queue_name,
        claim_id=request.path["claim_id"],
        ttl=terms.ttl,
        grace=terms.grace,
    )


def listing(request: RestRequest) -> Listing:
    """Read a listing of pools or flavors."""
    return Listing(
        marker=request.text("marker"),
        limit=request.integer("limit"),
        detailed=request.boolean("detailed"),
    )


def pool_ref(request: RestRequest) -> PoolRef:
    """Read which pool."""
    return PoolRef(pool_name=request.path["pool_name"])


def pool_get(request: RestRequest) -> PoolGet:
    """Read which pool, and how much of it."""
    return PoolGet(pool_name=request.path["pool_name"], detailed=request.boolean("detailed"))


def pool_create(request: RestRequest) -> PoolCreate:
    """Read a pool."""
    return PoolCreate(pool_name=request.path["pool_name"], terms=request.document(_POOL))


def pool_update(request: RestRequest) -> PoolUpdate:
    """Read a change of a pool."""
    return PoolUpdate(pool_name=request.path["pool_name"], change=request.document(_POOL_CHANGE))


def flavor_ref(request: RestRequest) -> FlavorRef:
    """Read which flavor."""
    return FlavorRef(flavor_name=request.path["flavor_name"])


def flavor_create(request: RestRequest) -> FlavorCreate:
    """Read a flavor."""
    return FlavorCreate(flavor_name=request.path["flavor_name"], terms=request.document(_FLAVOR))


def flavor_update(request: RestRequest) -> FlavorUpdate:
    """Read a change of a flavor."""
    return FlavorUpdate(flavor_name=request.path["flavor_name"], pools=request.document(_FLAVOR_POOLS))


def subscription_list(request: RestRequest) -> SubscriptionList:
    """Read a listing."""
    return SubscriptionList(
        queue_name=request.queue_name, marker=request.text("marker"), limit=request.integer("limit")
    )


def subscription_ref(request: RestRequest) -> SubscriptionRef:
    """Read which subscription."""
    return SubscriptionRef(queue_name=request.queue_name, subscription_id=request.path["subscription_id"])


def subscription_create(request: RestRequest) -> SubscriptionCreate:
    """Read the wish for a subscription; no body says nothing."""
    return SubscriptionCreate(queue_name=request.queue_name, wish=_anything(request))


def subscription_update(request: RestRequest) -> SubscriptionUpdate:
    """Read a change of a subscription."""
    return SubscriptionUpdate(
        queue_name=request.queue_name,
        subscription_id=request.path["subscription_id"],
        wish=_anything(request),
    )


def subscription_confirm(request: RestRequest) -> SubscriptionConfirm:
    """Read what a subscriber says."""
    document = _anything(request)
    confirmed = document.get("confirmed") if isinstance(document, dict) else None
    if not isinstance(confirmed, bool):
        raise Invalid("The 'confirmed' should be boolean.")
    return SubscriptionConfirm(
        queue_name=request.queue_name,
        subscription_id=request.path["subscription_id"],
        confirmed=confirmed,
    )


def failed_deliveries(request: RestRequest) -> FailedDeliveries:
    """Read a listing of what was given up."""
    return FailedDeliveries(
        queue_name=request.queue_name,
        subscription_id=request.path["subscription_id"],
        marker=request.text("marker"),
        limit=request.integer("limit"),
    )


def subscription_replay(request: RestRequest) -> SubscriptionReplay:
    """Read what to send again."""
    return SubscriptionReplay(
        queue_name=request.queue_name,
        subscription_id=request.path["subscription_id"],
        wish=request.document(_REPLAY),
    )


def events_post(request: RestRequest) -> EventsPost:
    """Read events as they come: what they are follows from the content type and the headers."""
    address = Address(project=request.caller.project, queue=request.queue_name)
    # One character for each byte, as WSGI has them.
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower(), value)
        for name, value in request.http.env.items()
        if name.startswith("HTTP_")
    ]
    return EventsPost(
        queue_name=request.queue_name,
        content_type=request.http.content_type or "",
        headers=headers,
        body=request.body(request.service.messages.max_post_size(address)),
    )


def _anything(request: RestRequest) -> Json:
    """Return the body as JSON of any kind; an empty object where there is none."""
    raw = request.body(request.service.settings.limits.max_queue_metadata)
    return decode(raw, _ANY) if raw else {}
