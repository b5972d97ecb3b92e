"""The values of the domain.

All are frozen and keyword-only: a change is a copy (`dataclasses.replace`, `msgspec.structs.replace`).
Points in time are integers, milliseconds since the Unix epoch, always read
from the clock of the store that holds the data (`MessageStore.clock`).
Durations that a client chooses are integers, in seconds, as on the wire.
A message body is the UTF-8 bytes of one JSON value, exactly as it arrived.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from queues.identity import message_id

#: One JSON value, parsed.
Json: TypeAlias = Any

#: One JSON object, parsed.
JsonObject: TypeAlias = dict[str, Any]


class Role(enum.IntEnum):
    """What a caller may do; each role includes the ones below it."""

    READER = 1  # reads only
    MEMBER = 2  # everything within the project
    ADMIN = 3  # the operator's resources too


class PoolState(enum.StrEnum):
    """What is to become of a pool."""

    OPEN = "open"  # it takes new queues
    DRAINING = "draining"  # its queues are moved to other pools
    LEAVING = "leaving"  # it is about to be removed


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks, as established by the transport's authentication."""

    project: str  # the tenant; every resource but the operator's belongs to one
    client_id: str  # normalised Client-ID, hides a producer's own messages from it
    role: Role = Role.MEMBER  # see Role
    keystone_token: str | None = field(default=None, repr=False)  # the caller's own, as it came; for trusts


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a queue is: two projects never share one."""

    project: str  # up to 256 characters, any
    queue: str  # 1 to 64 of A-Z a-z 0-9 _ - .


#: Where tickets wait, in a store that needs one place for them only. No project is called "".
OUTBOX = Address(project="", queue="outbox>0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A queue as its owner declared it, and where it lives."""

    address: Address  # what it is called
    metadata: JsonObject  # as stored, without the reserved defaults
    pool: str = ""  # holds its messages; "" is the default store
    move: Move | None = None  # while it is on its way to another pool
    revision: int = 0  # grows with each change; guards a change against another


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """The passage of a queue from the pool it lives in to another."""

    id: str  # 32 hexadecimal digits, random, never used again
    to: str  # the pool it moves to


@dataclass(frozen=True, kw_only=True, slots=True)
class Life:
    """When a message is there."""

    created: int  # ms; when it was posted
    expires: int  # ms; when it is gone


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way into a store; one of many, so it is of a kind that is made in a fraction of the time."""

    body: bytes  # JSON text, or the sealed form of it
    ttl: int  # seconds from posting to expiry
    delay: int = 0  # seconds from posting until it can be claimed
    client_id: str = ""  # who posted it
    sealed: bool = False  # whether `body` is encrypted
    life: Life | None = None  # goes before `ttl`, where the message comes from another queue

    def life_from(self, now: int) -> Life:
        """Return when the message is there if it is posted at that time (ms)."""
        return self.life or Life(created=now, expires=now + self.ttl * 1000)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message, as seen at the time that was asked about; of the same kind."""

    id: str  # also its marker: ids of one queue sort in queue order
    body: bytes  # JSON text, or the sealed form of it
    created: int  # ms; when it was posted
    expires: int  # ms; when it is gone
    client_id: str = ""  # who posted it
    sealed: bool = False  # whether `body` is encrypted
    claim_id: str | None = None  # the live claim that holds it
    claim_count: int = 0  # how often it was handed out

    @property
    def ttl(self) -> int:
        """Whole seconds of life, counted from `created`."""
        return (self.expires - self.created) // 1000

    def age(self, now: int) -> int:
        """Whole seconds since posting, never negative."""
        return max(0, now - self.created) // 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Once:
    """The promise a client asks for by repeating a post with one key."""

    key: str  # the client's idempotency key, 1 to 255 characters
    fingerprint: bytes  # digest of what is posted
    window: int  # seconds during which a repeat is recognised


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """The answer to a post."""

    ids: Sequence[str]  # in posting order
    repeated: bool = False  # whether an earlier post with the same key is answered again


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which messages a listing shows, oldest first."""

    marker: str | None = None  # id after which to begin; a foreign one selects nothing
    limit: int = 10  # at most so many
    hide_client: str | None = None  # leave out what this client posted
    include_claimed: bool = False  # show those under a live claim
    include_delayed: bool = False  # show those that cannot be claimed yet


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """Where messages go that were handed out too often."""

    address: Address  # the dead-letter queue, in the same project
    max_claims: int  # a message handed out so often is moved, not claimed
    ttl: int | None = None  # seconds from the move to expiry; None keeps the message's own


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The terms on which messages are claimed."""

    ttl: int  # seconds until the claim expires
    grace: int  # seconds that a claimed message outlives its claim at least, if it must be extended
    limit: int = 10  # at most so many messages
    dead_letter: DeadLetter | None = None  # what to do with messages claimed too often


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A live lease on messages of one queue."""

    id: str  # 32 hexadecimal digits, random
    ttl: int  # seconds, as claimed or renewed last
    renewed: int  # ms; when it was created or renewed last
    expires: int  # ms; when its messages are free again
    messages: Sequence[Message] = ()  # in queue order

    def age(self, now: int) -> int:
        """Whole seconds since it was created or renewed, never negative."""
        return max(0, now - self.renewed) // 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """The answer to a claim."""

    claim: Claim | None  # None where nothing could be claimed
    dead_lettered: int = 0  # how many messages were moved to the dead-letter queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Popped:
    """The answer to a pop."""

    messages: Sequence[Message]  # in queue order, gone from the store
    sealed_next: bool = False  # whether it ended early, in front of an encrypted message


@dataclass(frozen=True, kw_only=True, slots=True)
class Landmark:
    """One end of a queue."""

    id: str  # of the message there
    created: int  # ms; when it was posted

    def age(self, now: int) -> int:
        """Whole seconds since posting, never negative."""
        return max(0, now - self.created) // 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """How full a queue is; expired messages do not count."""

    free: int = 0  # not under a live claim; delayed ones included
    claimed: int = 0  # under a live claim
    oldest: Landmark | None = None  # None where there is no message
    newest: Landmark | None = None  # None where there is no message

    @property
    def total(self) -> int:
        """All messages of the queue."""
        return self.free + self.claimed


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What is to come in a queue."""

    generation: str = ""  # ends the ids of its messages; "" for a queue that does not exist
    last: int = 0  # the place that was given last
    due: int | None = None  # ms; nothing falls due before: no delay, no lease, no message; None: nothing will

    @property
    def marker(self) -> str | None:
        """The marker behind which comes whatever is posted from now on; None for the beginning."""
        return message_id(self.last, self.generation) if self.generation else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One entry of the control plane: a queue, a token, ..."""

    kind: str  # what it describes, such as "queue"
    scope: str  # the project, or "" where it belongs to none
    name: str  # unique within kind and scope; listings are in its byte order
    data: JsonObject  # what it says
    v: int = 1  # version of the shape of `data`; docs/explanation/upgrades.md tells when it grows
    revision: int = 0  # grows by one with each replacement; begins anywhere


class StepKind(enum.StrEnum):
    """What a step from one layout of stored data to the next does."""

    EXPAND = "expand"  # adds something that older releases do not notice; made whenever a store is opened
    MIGRATE = "migrate"  # fills what was added, in small parts, while old and new releases serve
    CONTRACT = "contract"  # removes what older releases need, so that they refuse the store from then on


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutStep:
    """A step from one layout of stored data to the next."""

    number: int  # of the layout that it leads to, from 1
    kind: StepKind
    what: str  # it does, in a few words


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which layout the data of a store have, as `hermod migrate` reports it."""

    driver: str  # its name
    found: int  # the layout of the data; 0 for a store that is new
    known: int  # the layout of this release
    pending: Sequence[LayoutStep] = field(default=())  # what leads from one to the other


@dataclass(frozen=True, kw_only=True, slots=True)
class Durability:
    """What a store promises about a crash, as `hermod check` reports it."""

    driver: str  # its name
    facts: Mapping[str, str]  # setting -> value as found
    warnings: Sequence[str] = field(default=())  # what can lose messages, one sentence each


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A store that queues can live in."""

    name: str  # 1 to 64 characters
    uri: str  # names the store; may hold a password
    weight: int = 0  # how likely it is to get a new queue, against the others; 0 for never
    flavor: str | None = None  # what queues ask for by name; None for those that ask for nothing
    options: JsonObject = field(default_factory=dict)  # of its driver
    state: PoolState = PoolState.OPEN  # whether it takes queues

    @property
    def takes_queues(self) -> bool:
        """Whether new queues may go there."""
        return self.weight > 0 and self.state is PoolState.OPEN


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptMessage:
    """A message as a store keeps it; travels from one store to another."""

    place: int  # in its queue, from 1
    body: bytes  # JSON text, or the sealed form of it
    created: int  # ms
    expires: int  # ms
    visible: int  # ms; end of the delay, 0 where there is none or it is over
    client_id: str  # who posted it
    sealed: bool  # whether `body` is encrypted
    claim_id: str | None  # the claim that holds it
    claim_count: int  # how often it was handed out


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptClaim:
    """A claim as a store keeps it."""

    id: str  # 32 hexadecimal digits
    ttl: int  # seconds
    renewed: int  # ms
    expires: int  # ms
    places: Sequence[int]  # of the messages that it may still hold


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptPost:
    """A post that may be repeated, as a store keeps it."""

    key: str  # the idempotency key
    fingerprint: bytes  # digest of what was posted
    first: int  # place of its first message
    count: int  # how many messages it had
    expires: int  # ms; when the key may be used anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Cargo:
    """A part of a queue on its way to another store: by key, what is kept now, or None for what is gone."""

    messages: Mapping[int, KeptMessage | None] = field(default_factory=dict)  # by place
    claims: Mapping[str, KeptClaim | None] = field(default_factory=dict)  # by id
    posts: Mapping[str, KeptPost | None] = field(default_factory=dict)  # by idempotency key
    cursor: str  # where the next part begins; means something to the store alone
    caught_up: bool  # whether nothing is known to follow


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """What a store knows of a queue beside its messages."""

    last: int  # the place that was given last
    subscribed: str  # the stamp of who noted last that posts need tickets; "" where they need none
    free: int  # messages not under a claim, delayed ones included
    claimed: int  # messages under a claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """Which connection a subscription is served through, and from where on."""

    node: str  # the process that serves it, never used again
    connection: str  # its id, likewise
    after: int  # place in the queue's log of pushed messages behind which its messages begin
    resumable: bool = False  # whether it outlives the connection, so that another one can go on with it


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """The wish of somebody outside to be told of every message of a queue."""

    id: str  # 24 hexadecimal digits
    address: Address  # the queue
    subscriber: str  # URI: whom to tell, and how
    ttl: int  # seconds
    renewed: int  # ms; when its life began, or began anew
    options: JsonObject = field(default_factory=dict)  # of the delivery
    confirmed: bool = False  # whether the subscriber said that it wants this
    disabled: str | None = None  # why nothing is delivered any more; None while it is
    push: Push | None = None  # None where the URI says how to tell the subscriber
    revision: int = 0  # grows with each change

    @property
    def expires(self) -> int:
        """When it is gone (ms)."""
        return self.renewed + self.ttl * 1000

    def age(self, now: int) -> int:
        """Whole seconds since its life began, never negative."""
        return max(0, now - self.renewed) // 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """One message that subscribers are to be told of."""

    id: str  # the same on every attempt to tell anybody
    body: bytes  # JSON text
    ttl: int  # seconds
    delay: int | None = None  # seconds, where the queue's messages have one


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """The notices of one post."""

    id: str  # of the message that it is in its outbox
    address: Address  # the queue that was posted to
    posted: int  # ms
    notices: Sequence[Notice]
    sealed: bool = False  # whether it was encrypted, and so must be what is made of it


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingDelivery:
    """A notice on its way to one subscriber, kept until the next attempt."""

    notice: Notice
    address: Address  # the queue that was posted to
    subscription_id: str
    attempt: int  # the next one, from 1
    posted: int  # ms; when the message was posted
    replayed: int = 0  # ms; when it was sent again after it had been given up, 0 if it never was
    begun: int = 0  # ms; when its first attempt was due, 0 before somebody took it for that
    payload: bytes | None = None  # what to send instead of the notice, as confirmations do
    options: JsonObject | None = None  # of the delivery, instead of the subscription's
    sealed: bool = False  # whether it is encrypted in the store
    id: str = ""  # of the message that it is in the store; "" before it is there


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """How one attempt to tell a subscriber ended."""

    id: str  # of the notice
    at: int  # ms
    attempt: int  # from 1
    outcome: str  # delivered, retry, rejected or gone
    status: int | None = None  # of the protocol, where there was an answer
    detail: str = ""  # for the subscription's owner
    seconds: float = 0.0  # that it took


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryCounts:
    """What became of the deliveries of a subscription; of the last second of a process that was killed, perhaps not all."""

    delivered: int = 0  # messages that the subscriber took
    failed: int = 0  # attempts that did not get through
    dead: int = 0  # messages that were given up
    filtered: int = 0  # messages that its filter held back
    last_error: str | None = None  # of the last attempt that failed
    attempts: Sequence[Attempt] = ()  # the last ones, newest first
