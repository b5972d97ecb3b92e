"""What can go wrong, in the domain's words.

The docstring of a class is its default message; `code` names it for machines.
How a transport answers is the transport's business (`transport/problems.py`),
so there is no HTTP number here.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from queues.models import Address


class HermodError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class Invalid(HermodError):
    """The request breaks a rule or a limit."""

    code = "invalid"


class InvalidName(Invalid):
    """A queue name has 1 to 64 characters out of A-Z, a-z, 0-9, underscore, hyphen and full stop; a project id has at most 256."""

    code = "invalid-name"


class InvalidTopicName(InvalidName):
    """A topic name has 1 to 64 characters out of A-Z, a-z, 0-9, underscore, hyphen and full stop; a project id has at most 256."""

    code = "invalid-topic-name"


class InvalidChange(Invalid):
    """The change of the metadata is malformed, or its result breaks a rule."""

    code = "invalid-change"


class PoolsDiffer(Invalid):
    """The pools of a flavor must be able to do the same."""

    code = "pools-differ"


class NotFound(HermodError):
    """There is no such thing."""

    code = "not-found"


class QueueNotFound(NotFound):
    """There is no such queue."""

    code = "queue-not-found"


class MessageNotFound(NotFound):
    """There is no such message in this queue."""

    code = "message-not-found"


class ClaimNotFound(NotFound):
    """There is no such claim on this queue: it never was, it was released, or it has expired."""

    code = "claim-not-found"


class PoolNotFound(NotFound):
    """There is no such pool."""

    code = "pool-not-found"


class SubscriptionNotFound(NotFound):
    """There is no such subscription of this queue: it never was, it was deleted, or it has expired."""

    code = "subscription-not-found"


class FlavorNotFound(NotFound):
    """There is no such flavor."""

    code = "flavor-not-found"


class TokenNotFound(NotFound):
    """There is no such token."""

    code = "token-not-found"


class Conflict(HermodError):
    """The request does not fit what is stored."""

    code = "conflict"


class MissingKey(Conflict):
    """The metadata has no such key."""

    code = "missing-key"


class ConcurrentChange(Conflict):
    """Somebody else kept changing the same thing; read it again and repeat the request."""

    code = "concurrent-change"


class SubscriberTaken(Conflict):
    """This subscriber has a subscription of this queue already."""

    code = "subscriber-taken"


class UriTaken(Conflict):
    """Another pool has this URI."""

    code = "uri-taken"


class KeyReused(Conflict):
    """This idempotency key was used for another post within the window."""

    code = "idempotency-key-reused"


class Refused(HermodError):
    """The state of the thing does not allow this."""

    code = "refused"


class MessageClaimed(Refused):
    """The message is claimed; only the holder of the claim can delete it, by naming the claim."""

    code = "message-claimed"


class PoolInUse(Refused):
    """Queues live in this pool; drain it first."""

    code = "pool-in-use"


class LastOfFlavor(Refused):
    """This is the only pool of its flavor; take it out of the flavor first."""

    code = "last-of-flavor"


class ClaimNotHeld(HermodError):
    """The claim does not hold this message: it does not exist, it has expired, or it was taken on other messages."""

    code = "claim-not-held"


class Denied(HermodError):
    """Your role does not allow this operation."""

    code = "denied"


class Unauthenticated(HermodError):
    """A valid token is required."""

    code = "unauthenticated"


class TokenRefused(Unauthenticated):
    """Keystone does not know the token in X-Auth-Token, or it has expired."""

    code = "token-refused"


class TrustRefused(Denied):
    """Keystone does not let the token in X-Auth-Token make a trust."""

    code = "trust-refused"


class BadSignature(HermodError):
    """The pre-signed URL does not allow this."""

    code = "bad-signature"


class Untold(HermodError):
    """Something between a store and a service, which handles it: no client is ever told."""

    code = "untold"


class QueueMoved(Untold):
    """The queue is shut in this store: it moves, or has moved, to another one."""

    code = "queue-moved"

    def __init__(self, address: Address, move: str) -> None:
        super().__init__()
        self.address = address  # of the queue that was met shut
        self.move = move  # id of the move that it is shut for


class FanOutChanged(Untold):
    """A queue has got its first subscriber, or lost its last one, since the post was made ready."""

    code = "fan-out-changed"

    def __init__(self, *, subscribed: bool) -> None:
        super().__init__()
        self.subscribed = subscribed  # whether it has any


class MoveInterrupted(Untold):
    """The queue was purged, deleted, or taken over by another move."""

    code = "move-interrupted"


class TrustsUnavailable(HermodError):
    """Keystone does not answer."""

    code = "keystone-unavailable"


class Unsealable(HermodError):
    """The queue wants encrypted messages, and this service has no key to encrypt or decrypt them with."""

    code = "no-encryption-key"


class Overloaded(HermodError):
    """More is asked of the service than it can do now."""

    code = "overloaded"


class TooManyRequests(HermodError):
    """The project asks for more than it may in so short a time."""

    code = "too-many-requests"

    def __init__(self, message: str | None = None, *, seconds: int = 1) -> None:
        super().__init__(message)
        self.seconds = seconds  # after which it may ask again


class QuotaExceeded(HermodError):
    """The project has as much as it may have."""

    code = "quota-exceeded"


class StoreError(HermodError):
    """The store cannot be used."""

    code = "store-error"


class StoreUnavailable(StoreError):
    """The store does not answer."""

    code = "store-unavailable"


class StoreDamaged(StoreError):
    """The store's data are damaged."""

    code = "store-damaged"


class StoreUnsupported(StoreError):
    """The store cannot be used with this version of Hermod."""

    code = "store-unsupported"


class NoPool(StoreError):
    """No pool can take this queue: none has a weight, or all are being drained."""

    code = "no-pool"


class PoolMissing(StoreError):
    """The pool that this queue lives in is not registered."""

    code = "pool-missing"
