"""Claims: leases of messages to one worker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from queues.errors import Unsealable
from queues.limits import MIN_TTL, Limits, check_range, page_limit
from queues.models import Address, Claim, Claimed, Lease
from queues.sealing import KeyRing
from queues.service.catalogue import Catalogue, Place
from queues.service.dead_letters import DeadLetterService, Way


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenClaim:
    """A claim, and the time (ms) at which it was seen."""

    claim: Claim
    now: int


class ClaimService:
    """Creates, reads, renews and releases claims."""

    def __init__(
        self, catalogue: Catalogue, dead_letters: DeadLetterService, limits: Limits, keys: KeyRing
    ) -> None:
        self._catalogue = catalogue
        self._dead_letters = dead_letters
        self._limits = limits
        self._keys = keys

    def create(
        self,
        address: Address,
        *,
        limit: int | None = None,
        ttl: int | None = None,
        grace: int | None = None,
    ) -> SeenClaim | None:
        """Lease the first messages that are free; None where there is none.

        `ttl` and `grace` are seconds; None means the default. Messages that were
        claimed too often go to the queue's dead-letter queue instead, which is
        declared if it is new.

        Raises Invalid for a value out of range.
        """
        limit = page_limit(limit, self._limits.max_messages_per_claim_or_pop)
        terms = replace(self._lease(ttl, grace), limit=limit)

        def step(place: Place) -> tuple[Claimed, Way | None, int]:
            way = self._dead_letters.way(address, place)
            lease = replace(terms, dead_letter=None if way is None else way.step)
            return place.store.claim(address, lease, now=place.now), way, place.now

        claimed, way, now = self._catalogue.at(address, step)
        if claimed.dead_lettered and way is not None:
            self._dead_letters.deliver(way)
        if claimed.claim is None:
            return None
        try:
            return self._seen(address, claimed.claim, now)
        except Unsealable:
            self.release(address, claimed.claim.id)  # for somebody who has the key
            raise

    def check(self, *, ttl: int | None, grace: int | None) -> None:
        """Raise Invalid for terms that no claim may have."""
        self._lease(ttl, grace)

    def read(self, address: Address, claim_id: str) -> SeenClaim:
        """Return a live claim with what is left of its messages.

        Raises ClaimNotFound.
        """
        claim, now = self._catalogue.at(
            address,
            lambda place: (place.store.read_claim(address, claim_id, now=place.now), place.now),
        )
        return self._seen(address, claim, now)

    def renew(
        self, address: Address, claim_id: str, *, ttl: int | None = None, grace: int | None = None
    ) -> None:
        """Let a live claim begin anew; None means the default.

        Raises Invalid for a value out of range, ClaimNotFound.
        """
        lease = self._lease(ttl, grace)
        self._catalogue.at(address, lambda place: place.store.renew(address, claim_id, lease, now=place.now))

    def release(self, address: Address, claim_id: str) -> None:
        """End a claim, if it lives; its messages are free at once."""
        self._catalogue.at(address, lambda place: place.store.release(address, claim_id, now=place.now))

    def _lease(self, ttl: int | None, grace: int | None) -> Lease:
        limits = self._limits
        ttl = limits.default_claim_ttl if ttl is None else ttl
        grace = limits.default_claim_grace if grace is None else grace
        check_range("ttl of a claim", ttl, MIN_TTL, limits.max_claim_ttl)
        check_range("grace of a claim", grace, MIN_TTL, limits.max_claim_grace)
        return Lease(ttl=ttl, grace=grace)

    def _seen(self, address: Address, claim: Claim, now: int) -> SeenClaim:
        messages = self._keys.reveal(address.project, claim.messages)
        return SeenClaim(claim=replace(claim, messages=messages), now=now)
