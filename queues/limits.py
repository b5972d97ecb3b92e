"""Defaults, bounds, and the checks that need nothing but them.

The numbers are those of the Zaqar v2 contract. An operator can change the
fields of `Limits`; the constants below are part of the protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from queues.errors import Invalid, InvalidName
from queues.models import Address

DEFAULT_PAGE = 10  # items on a page, or messages in a claim, where the client names no limit
MIN_TTL = 60  # seconds; of messages, claims, grace and subscriptions
MAX_PROJECT = 256  # characters of a project id
MAX_WAIT = 20  # seconds that a request may wait for messages
MAX_DEPTH = 100  # levels of nesting in any JSON document
MAX_INTEGER = 2**63 - 1  # integers in JSON are signed 64-bit
MAX_IDEMPOTENCY_KEY = 255  # visible ASCII characters

_QUEUE_NAME = re.compile(r"[a-zA-Z0-9_\-.]{1,64}").fullmatch
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}").fullmatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an operator bounds. Durations in seconds, sizes in bytes."""

    default_message_ttl: int = 3600  # of a message whose post names none
    default_message_delay: int = 0  # of a message on a queue that has none of its own
    default_claim_ttl: int = 300  # of a claim that names none
    default_claim_grace: int = 60  # of a claim that names none
    default_subscription_ttl: int = 3600  # of a subscription that names none
    max_queues_per_page: int = 20
    max_messages_per_page: int = 20  # also of ids in one request
    max_subscriptions_per_page: int = 20
    max_messages_per_claim_or_pop: int = 20
    max_pools_per_page: int = 20
    max_flavors_per_page: int = 20
    max_queue_metadata: int = 65536
    max_messages_post_size: int = 262144
    max_message_ttl: int = 1209600
    max_message_delay: int = 900
    max_claim_ttl: int = 43200
    max_claim_grace: int = 43200


def check_address(address: Address, *, refusal: type[InvalidName] = InvalidName) -> None:
    """Raise `refusal` unless queue name and project id keep the rules."""
    if not _QUEUE_NAME(address.queue) or len(address.project) > MAX_PROJECT:
        raise refusal


def is_queue_name(name: object) -> bool:
    """Tell whether a value would do as the name of a queue."""
    return isinstance(name, str) and _QUEUE_NAME(name) is not None


def check_range(what: str, value: int, low: int, high: int) -> None:
    """Raise Invalid, naming the bounds, unless low <= value <= high."""
    if not low <= value <= high:
        raise Invalid(f"The {what} must be from {low} to {high}.")


def page_limit(limit: int | None, maximum: int) -> int:
    """Return how many items there may be on a page, or messages in a claim; None asks for the default.

    Raises Invalid unless 1 <= limit <= maximum.
    """
    limit = min(DEFAULT_PAGE, maximum) if limit is None else limit
    check_range("limit", limit, 1, maximum)
    return limit


def check_idempotency_key(key: str) -> None:
    """Raise Invalid unless the key is 1 to 255 visible ASCII characters."""
    if not _IDEMPOTENCY_KEY(key):
        raise Invalid(f"An idempotency key has 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters.")
