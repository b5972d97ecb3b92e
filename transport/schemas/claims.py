"""Arguments of the operations on claims."""

from __future__ import annotations

import msgspec

from transport.schemas.queues import QueueRef


class ClaimTerms(msgspec.Struct, kw_only=True, frozen=True):
    """The terms of a claim; null means the default."""

    ttl: int | None = None
    grace: int | None = None


class ClaimWish(ClaimTerms, kw_only=True, frozen=True):
    """The terms of a new claim."""

    limit: int | None = None


class ClaimCreate(ClaimWish, kw_only=True, frozen=True):
    """Where to claim, and on which terms."""

    queue_name: str
    wait: int | None = None


class ClaimRef(QueueRef, kw_only=True, frozen=True):
    """Names a claim."""

    claim_id: str


class ClaimUpdate(ClaimTerms, kw_only=True, frozen=True):
    """A claim to renew, and the new terms."""

    queue_name: str
    claim_id: str
