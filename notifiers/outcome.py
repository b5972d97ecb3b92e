"""One delivery to one subscriber: what goes in, what comes out, who carries it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Protocol

from queues.errors import HermodError
from queues.models import JsonObject

LONGEST_DETAIL = 200  # characters
LONGEST_PAUSE = 24 * 3600  # seconds; how long a subscriber may ask to be left alone

_ID = re.compile(r"[!-\-/-~]{1,255}")  # what a header can carry, without the full stop


class Kind(enum.StrEnum):
    """What is to follow from an attempt."""

    DELIVERED = "delivered"  # the subscriber has it
    RETRY = "retry"  # it may work later
    REJECTED = "rejected"  # it never will: no further attempt
    GONE = "gone"  # neither will any other: disable the subscription


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One message on its way to one subscriber; ValueError for an id that cannot be signed."""

    id: str  # webhook-id: the same on every attempt, without a full stop
    subscription_id: str  # keys of signatures are derived from it
    project: str  # the tenant
    queue: str  # the queue that the message was posted to
    subscriber: str  # the URI
    options: JsonObject = field(default_factory=dict)  # the subscription's
    payload: bytes  # the JSON text that the protocol posts
    body: bytes  # the message's own JSON text
    attempt: int = 1  # from 1

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(
                "the id of a delivery is up to 255 printable ASCII characters without full stops"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How an attempt ended."""

    kind: Kind  # what is to follow
    status: int | None = None  # of HTTP or SMTP, where there was an answer
    detail: str = ""  # for the tenant: no secrets, no word of the response
    retry_after: float | None = None  # seconds that the subscriber asked to wait
    reached: bool | None = None  # whether its host was there; None where that is not known
    seconds: float = 0.0  # that the attempt took

    def __post_init__(self) -> None:
        # A frozen instance can only be changed this way.
        object.__setattr__(self, "detail", self.detail[:LONGEST_DETAIL])
        if self.retry_after is not None:
            object.__setattr__(self, "retry_after", min(max(0.0, self.retry_after), float(LONGEST_PAUSE)))


class Undeliverable(HermodError):
    """The subscription is of a kind that nothing can be delivered to."""

    # Within notifiers only: its message becomes the detail of an outcome, REJECTED.
    code = "undeliverable"


class Notifier(Protocol):
    """Carries messages to the subscribers of some URI schemes."""

    async def deliver(self, delivery: Delivery) -> Outcome:
        """Make one attempt; raises nothing but cancellation."""
        ...

    async def close(self) -> None:
        """Give back connections; no delivery may follow."""
        ...
