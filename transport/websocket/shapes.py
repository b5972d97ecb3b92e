"""What bodies, replies and pushed frames look like, where no operation says it.

Nothing is parsed or written with these types: the AsyncAPI document is made of them, and the tests
hold real frames against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from transport.schemas.queues import QueueRef
from transport.schemas.subscriptions import SubscriptionRef
from transport.websocket.request import Headers

Text: TypeAlias = str
Document: TypeAlias = dict[str, Any]


# --- Requests


class RequestHeaders(
    Headers,
    kw_only=True,
    rename={
        "roles": "X-Roles",
        "signature": "URL-Signature",
        "expires": "URL-Expires",
        "methods": "URL-Methods",
        "paths": "URL-Paths",
    },
):
    """Who asks. The last four are those of a pre-signed URL."""

    roles: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    expires: str | UnsetType = UNSET
    methods: list[str] | UnsetType = UNSET
    paths: list[str] | UnsetType = UNSET


class Credentials(
    msgspec.Struct,
    kw_only=True,
    rename={"client_id": "Client-ID", "project": "X-Project-ID", "token": "X-Auth-Token"},
):
    """Who speaks from now on; a token is required where there are tokens."""

    client_id: str | UnsetType = UNSET
    project: str | UnsetType = UNSET
    token: str | UnsetType = UNSET


class ShareBody(QueueRef, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The wish for a pre-signed URL."""

    paths: list[Literal["messages", "claims", "subscriptions"]] | UnsetType | None = UNSET
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]] | UnsetType | None = UNSET
    expires: str | UnsetType | None = UNSET


class EventBody(QueueRef, kw_only=True, frozen=True):
    """One CloudEvent, or several."""

    events: Document | list[Document]


class SubscriptionOptions(msgspec.Struct, kw_only=True):
    """Options of a subscription; those of the first group are for connections only."""

    sequence: bool | UnsetType = UNSET
    mode: Literal["push", "claim"] | UnsetType = UNSET
    credit: int | UnsetType = UNSET
    claim_ttl: int | UnsetType | None = UNSET
    claim_grace: int | UnsetType | None = UNSET

    filter: Document | list[Document] | UnsetType | None = UNSET
    format: Literal["zaqar", "cloudevents-structured", "cloudevents-binary"] | UnsetType | None = UNSET
    post_headers: dict[str, str] | UnsetType | None = UNSET
    post_data: str | UnsetType | None = UNSET
    retry_policy: Document | UnsetType | None = msgspec.field(default=UNSET, name="_retry_policy")
    sender: str | UnsetType | None = msgspec.field(default=UNSET, name="from")
    subject: str | UnsetType | None = UNSET


class SubscribeBody(QueueRef, kw_only=True, frozen=True):
    """The wish for a subscription; without a subscriber it is one of this connection."""

    subscriber: str | UnsetType = UNSET
    ttl: int | UnsetType = UNSET
    options: SubscriptionOptions | UnsetType = UNSET


class ResubscribeBody(SubscriptionRef, kw_only=True, frozen=True):
    """What is to be different about a subscription."""

    subscriber: str | UnsetType = UNSET
    ttl: int | UnsetType = UNSET
    options: SubscriptionOptions | UnsetType = UNSET


class ResumeBody(SubscriptionRef, kw_only=True, frozen=True):
    """A subscription to go on with, and the sequence number that was seen last; 0 for none."""

    sequence: int


# --- Replies


class Empty(msgspec.Struct, kw_only=True):
    """Nothing more to say."""


class Said(msgspec.Struct, kw_only=True):
    """A text for people."""

    message: str


class QueueEntry(msgspec.Struct, kw_only=True):
    """A queue, or topic, of a listing."""

    name: str
    metadata: Document | UnsetType = UNSET


class QueuesFound(msgspec.Struct, kw_only=True):
    """A page of queues."""

    queues: list[QueueEntry]
    count: int | UnsetType = UNSET


class TopicsFound(msgspec.Struct, kw_only=True):
    """A page of topics."""

    topics: list[QueueEntry]
    count: int | UnsetType = UNSET


class Landmark(msgspec.Struct, kw_only=True):
    """The oldest or the newest message."""

    id: str
    age: int
    created: str


class Counts(msgspec.Struct, kw_only=True):
    """How many messages there are."""

    free: int
    claimed: int
    total: int
    oldest: Landmark | UnsetType = UNSET
    newest: Landmark | UnsetType = UNSET


class StatsFound(msgspec.Struct, kw_only=True):
    """The statistics of a queue."""

    messages: Counts


class SignedUrlMade(msgspec.Struct, kw_only=True):
    """A pre-signed URL."""

    project: str
    paths: list[str]
    methods: list[str]
    expires: str
    signature: str


class MessagesPosted(msgspec.Struct, kw_only=True):
    """The ids of messages, in their order."""

    message_ids: list[str]


class MessageShown(msgspec.Struct, kw_only=True):
    """A message."""

    id: str
    claim_id: str | None
    ttl: int
    age: int
    body: Any


class MessagesFound(msgspec.Struct, kw_only=True):
    """Messages."""

    messages: list[MessageShown]


class MessageFound(msgspec.Struct, kw_only=True):
    """One message, under the name that several have."""

    messages: MessageShown


class MessagePopped(MessageShown, kw_only=True):
    """A message that was removed, and how often it had been handed out."""

    claim_count: int


class MessagesPopped(msgspec.Struct, kw_only=True):
    """Messages that were removed."""

    messages: list[MessagePopped]


class Claimed(msgspec.Struct, kw_only=True):
    """A new claim."""

    claim_id: str
    messages: list[MessageShown]


class NothingClaimed(msgspec.Struct, kw_only=True):
    """There was nothing to claim."""

    claim_id: None


class ClaimFound(msgspec.Struct, kw_only=True):
    """A live claim."""

    age: int
    ttl: int
    messages: list[MessageShown]


class Subscribed(msgspec.Struct, kw_only=True):
    """A new subscription."""

    subscription_id: str
    message: str


class Gap(msgspec.Struct, kw_only=True, rename={"first": "from", "last": "to"}):
    """Numbers of messages that are no longer kept, both ends included."""

    first: int
    last: int


class Resumed(msgspec.Struct, kw_only=True):
    """A subscription that goes on behind a sequence number."""

    subscription_id: str
    sequence: int
    gap: Gap | None


class SubscriptionShown(msgspec.Struct, kw_only=True):
    """A subscription."""

    id: str
    source: str
    subscriber: str
    ttl: int
    age: int
    options: Document
    confirmed: bool


class SubscriptionsFound(msgspec.Struct, kw_only=True):
    """A page of subscriptions."""

    subscriptions: list[SubscriptionShown]


class Attempt(msgspec.Struct, kw_only=True):
    """An attempt to deliver a message."""

    id: str
    at: str
    attempt: int
    outcome: str
    status: int | None
    detail: str
    seconds: float


class StatusFound(msgspec.Struct, kw_only=True):
    """How it goes with a subscription."""

    id: str
    state: Literal["active", "unconfirmed", "disabled"]
    reason: str | None
    delivered: int
    failed_attempts: int
    dead_lettered: int
    filtered: int
    last_error: str | None
    attempts: list[Attempt]
    signing_secrets: list[str]
    public_keys: list[str]


class DeliveryFailed(msgspec.Struct, kw_only=True):
    """A delivery that was given up."""

    id: str
    webhook_id: str
    failed_at: str
    posted_at: str
    attempts: int
    body: Any


class DeliveriesFailed(msgspec.Struct, kw_only=True):
    """A page of deliveries that were given up."""

    deliveries: list[DeliveryFailed]


class Replayed(msgspec.Struct, kw_only=True):
    """How many deliveries are made anew."""

    replayed: int


class PoolShown(msgspec.Struct, kw_only=True):
    """A pool."""

    href: str
    name: str
    uri: str
    weight: int
    flavor: str | None
    options: Document | UnsetType = UNSET


class PoolsFound(msgspec.Struct, kw_only=True):
    """A page of pools."""

    pools: list[PoolShown]


class DrainShown(msgspec.Struct, kw_only=True):
    """How far the drain of a pool has come."""

    pool: str
    active: bool
    queues_left: int
    queues_moved: int
    messages_moved: int
    messages_per_second: float
    problem: str | None


class FlavorShown(msgspec.Struct, kw_only=True):
    """A flavor."""

    name: str
    href: str
    pool_list: list[str] | UnsetType = UNSET
    capabilities: list[str] | UnsetType = UNSET


class FlavorsFound(msgspec.Struct, kw_only=True):
    """A page of flavors."""

    flavors: list[FlavorShown]


class Refused(msgspec.Struct, kw_only=True):
    """The frame was not understood, or is not allowed."""

    error: str


class Failed(msgspec.Struct, kw_only=True):
    """What was asked for could not be done."""

    exception: str
    error: str | None


# --- Pushed frames


class Notification(msgspec.Struct, kw_only=True, rename={"kind": "Message_Type"}):
    """A message of a queue that the connection has subscribed to."""

    kind: Literal["Notification"]
    queue_name: str
    ttl: int
    body: Any
    delay: int | UnsetType = UNSET


class NumberedNotification(Notification, kw_only=True):
    """A message for a subscription with the option `sequence`."""

    subscription_id: str
    sequence: int
    previous: int


class Heartbeat(msgspec.Struct, kw_only=True, rename={"kind": "Message_Type"}):
    """How far a subscription with the option `sequence` has come."""

    kind: Literal["Heartbeat"]
    queue_name: str
    subscription_id: str
    sequence: int
    previous: int


class MessageLeased(msgspec.Struct, kw_only=True):
    """A message that is leased."""

    id: str
    ttl: int
    age: int
    claim_count: int
    body: Any


class Lease(msgspec.Struct, kw_only=True, rename={"kind": "Message_Type"}):
    """A message that is leased to the connection, for a subscription with the option `mode: claim`."""

    kind: Literal["Claim"]
    queue_name: str
    subscription_id: str
    claim_id: str
    claim_ttl: int
    message: MessageLeased


# --- Tables


#: Bodies of requests that are not the arguments of the operation, by action.
BODIES: Mapping[str, type[msgspec.Struct]] = {
    "authenticate": Empty,
    "queue_share": ShareBody,
    "event_post": EventBody,
    "subscription_create": SubscribeBody,
    "subscription_update": ResubscribeBody,
    "subscription_resume": ResumeBody,
}

_SAID: Mapping[int, Any] = {204: Text}
_DONE: Mapping[int, Any] = {204: Empty}
_DECLARED: Mapping[int, Any] = {201: Text, 204: Text}
_FOUND: Mapping[int, Any] = {200: Document}

#: What an action that was done is answered, by status. Statistics of a queue that does not exist are zeros, and
#: 404; somebody who is subscribed already is told so by 409.
ANSWERS: Mapping[str, Mapping[int, Any]] = {
    "authenticate": {200: Said},
    "queue_list": {200: QueuesFound},
    "queue_create": _DECLARED,
    "queue_get": _FOUND,
    "queue_exists": {200: Empty},
    "queue_update": _FOUND,
    "queue_delete": _SAID,
    "queue_get_stats": {200: StatsFound, 404: StatsFound},
    "queue_purge": _DONE,
    "queue_share": {200: SignedUrlMade},
    "topic_list": {200: TopicsFound},
    "topic_create": _DECLARED,
    "topic_get": _FOUND,
    "topic_exists": {200: Empty},
    "topic_update": _FOUND,
    "topic_delete": _SAID,
    "topic_get_stats": {200: StatsFound, 404: StatsFound},
    "topic_purge": _DONE,
    "message_post": {201: MessagesPosted},
    "message_list": {200: MessagesFound},
    "message_get": {200: MessageFound},
    "message_get_many": {200: MessagesFound},
    "message_delete": _DONE,
    "message_delete_many": {200: MessagesPopped, 204: Empty},
    "event_post": {201: MessagesPosted},
    "claim_create": {201: Claimed, 204: NothingClaimed},
    "claim_get": {200: ClaimFound},
    "claim_update": _SAID,
    "claim_delete": _SAID,
    "subscription_list": {200: SubscriptionsFound},
    "subscription_create": {201: Subscribed, 409: Text},
    "subscription_get": {200: SubscriptionShown},
    "subscription_update": {204: Text, 409: Text},
    "subscription_delete": _SAID,
    "subscription_confirm": _SAID,
    "subscription_resume": {200: Resumed},
    "subscription_status": {200: StatusFound},
    "subscription_failed": {200: DeliveriesFailed},
    "subscription_replay": {202: Replayed},
    "ping_node": _DONE,
    "check_node_health": _FOUND,
    "pool_list": {200: PoolsFound},
    "pool_get": {200: PoolShown},
    "pool_create": {201: Empty},
    "pool_update": {200: PoolShown},
    "pool_delete": _DONE,
    "pool_drain": {202: DrainShown},
    "pool_drain_get": {200: DrainShown},
    "pool_drain_stop": _DONE,
    "flavor_list": {200: FlavorsFound},
    "flavor_get": {200: FlavorShown},
    "flavor_create": {201: Empty},
    "flavor_update": {200: FlavorShown},
    "flavor_delete": _DONE,
}

#: Statuses of refusals.
REFUSALS = (400, 401, 403, 404, 409, 500, 503)

#: What is pushed, by the name of the operation.
PUSHED: Mapping[str, type[msgspec.Struct]] = {
    "notification": Notification,
    "numbered_notification": NumberedNotification,
    "heartbeat": Heartbeat,
    "lease": Lease,
}
