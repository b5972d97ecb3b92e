"""Messages: post, read, delete, pop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from queues.errors import Invalid, Unsealable
from queues.limits import MIN_TTL, Limits, check_idempotency_key, check_range, page_limit
from queues.metadata import QueuePolicy
from queues.models import Address, Caller, Lease, Message, NewMessage, Once, Posted, Selection
from queues.sealing import KeyRing
from queues.service.catalogue import Catalogue, Place
from queues.service.queues import QueueService
from queues.tickets import Announced, ticket_message


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A message as a client asks for it."""

    body: bytes  # JSON text
    ttl: int | None = None  # seconds; None for the queue's default
    delay: int | None = None  # seconds; None for the queue's default


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Messages, and the time (ms) at which they were seen."""

    messages: Sequence[Message]
    now: int


class MessageService:
    """Posts, reads and deletes messages of one project at a time.

    `window` (seconds) is how long an idempotency key is remembered.
    """

    def __init__(
        self, queues: QueueService, catalogue: Catalogue, limits: Limits, keys: KeyRing, *, window: int
    ) -> None:
        self._queues = queues
        self._catalogue = catalogue
        self._limits = limits
        self._keys = keys
        self._window = window

    def max_post_size(self, address: Address) -> int:
        """Return how many bytes a post to this queue may have."""
        return self._catalogue.known(address).policy.max_post_size

    def post(
        self,
        caller: Caller,
        address: Address,
        drafts: Sequence[Draft],
        *,
        key: str | None = None,
        fingerprint: bytes | None = None,
    ) -> Posted:
        """Store messages in order, all or none, and declare the queue if it is new.

        With an idempotency `key` a repeat within the window stores nothing and
        answers the same ids. A repeat has the same `fingerprint`; None for that of
        what is posted.

        Raises Invalid for no messages, or a ttl, delay or key out of bounds;
        KeyReused; Unsealable if the queue wants encryption and there is no key.
        """
        if not drafts:
            raise Invalid("There must be at least one message.")
        known = self._catalogue.known(address)
        messages = [self._accept(caller, draft, known.policy) for draft in drafts]
        once = None if key is None else self._once(key, drafts, fingerprint)
        announce = partial(self._tickets, address, drafts, messages)
        return self._queues.append(address, messages, once=once, announce=announce)

    def list(
        self,
        caller: Caller,
        address: Address,
        *,
        marker: str | None = None,
        limit: int | None = None,
        echo: bool = False,
        include_claimed: bool = False,
        include_delayed: bool | None = None,
    ) -> Page:
        """Return a page of messages, oldest first.

        `include_delayed`: None means that they are shown where the queue has no default delay.

        Raises Invalid for a limit out of range.
        """
        limit = page_limit(limit, self._limits.max_messages_per_page)
        selection = Selection(
            marker=marker,
            limit=limit,
            hide_client=None if echo else caller.client_id,
            include_claimed=include_claimed,
            include_delayed=self._shows_delayed(address) if include_delayed is None else include_delayed,
        )
        return self._page(address, lambda place: place.store.list(address, selection, now=place.now))

    def get(self, address: Address, ids: Collection[str]) -> Page:
        """Return those of the messages that exist, in queue order.

        Raises Invalid for too many ids.
        """
        self._check_ids(ids)
        return self._page(address, lambda place: place.store.get(address, ids, now=place.now))

    def delete(self, address: Address, message_id: str, *, claim_id: str | None = None) -> None:
        """Delete one message, if it exists.

        Raises MessageClaimed, ClaimNotHeld.
        """
        self._catalogue.at(
            address,
            lambda place: place.store.delete(address, message_id, now=place.now, claim_id=claim_id),
        )

    def delete_many(
        self, address: Address, ids: Collection[str], *, claim_ids: Collection[str] | None = None
    ) -> None:
        """Delete the messages that exist; `claim_ids`, if given, must cover those that are claimed.

        Raises Invalid for too many ids, MessageClaimed.
        """
        self._check_ids(ids)
        self._catalogue.at(
            address,
            lambda place: place.store.delete_many(address, ids, now=place.now, claim_ids=claim_ids),
        )

    def pop(self, address: Address, limit: int) -> Page:
        """Remove and return the first messages that could be claimed.

        Raises Invalid for a limit out of range.
        """
        check_range("pop", limit, 1, self._limits.max_messages_per_claim_or_pop)

        def step(place: Place) -> Page:
            popped = place.store.pop(address, limit, now=place.now)
            if popped.messages or not popped.sealed_next:
                return Page(messages=popped.messages, now=place.now)
            return Page(messages=self._pop_sealed(address, limit, place), now=place.now)

        return self._catalogue.at(address, step)

    def _pop_sealed(self, address: Address, limit: int, place: Place) -> Sequence[Message]:
        """Pop what begins with an encrypted message: lease it, decrypt it, and only then delete it.

        Raises Unsealable; what cannot be decrypted stays.
        """
        store, now = place.store, place.now
        claim = store.claim(address, Lease(ttl=MIN_TTL, grace=MIN_TTL, limit=limit), now=now).claim
        if claim is None:
            return []
        try:
            messages = self._keys.reveal(address.project, claim.messages)
        except Unsealable:
            store.release(address, claim.id, now=now)
            raise
        ids = [message.id for message in messages]
        store.delete_many(address, ids, now=now, claim_ids=[claim.id])
        store.release(address, claim.id, now=now)
        return [replace(message, claim_id=None, claim_count=message.claim_count - 1) for message in messages]

    def _shows_delayed(self, address: Address) -> bool:
        return not self._catalogue.known(address).policy.message_delay

    def _accept(self, caller: Caller, draft: Draft, policy: QueuePolicy) -> NewMessage:
        ttl = policy.message_ttl if draft.ttl is None else draft.ttl
        delay = policy.message_delay if draft.delay is None else draft.delay
        check_range("ttl of a message", ttl, MIN_TTL, self._limits.max_message_ttl)
        check_range("delay of a message", delay, 0, self._limits.max_message_delay)
        message = NewMessage(body=draft.body, ttl=ttl, delay=delay, client_id=caller.client_id)
        if policy.encrypted:
            return replace(message, body=self._keys.seal(caller.project, draft.body), sealed=True)
        return message

    def _once(self, key: str, drafts: Sequence[Draft], fingerprint: bytes | None) -> Once:
        check_idempotency_key(key)
        if fingerprint is not None:
            return Once(key=key, fingerprint=fingerprint, window=self._window)
        digest = hashlib.blake2b(digest_size=16)
        for draft in drafts:
            digest.update(f"{draft.ttl},{draft.delay},{len(draft.body)};".encode())
            digest.update(draft.body)
        return Once(key=key, fingerprint=digest.digest(), window=self._window)

    def _tickets(
        self, address: Address, drafts: Sequence[Draft], messages: Sequence[NewMessage]
    ) -> Sequence[NewMessage]:
        """Return the tickets of a post: subscribers hear of a message when its delay is over."""
        by_delay: dict[int, list[Announced]] = {}
        for draft, message in zip(drafts, messages, strict=True):
            delay = message.delay or None
            by_delay.setdefault(message.delay, []).append(Announced(draft.body, message.ttl, delay))
        seal = self._keys.seal if any(message.sealed for message in messages) else None
        return [ticket_message(address, notices, delay, seal=seal) for delay, notices in by_delay.items()]

    def _check_ids(self, ids: Collection[str]) -> None:
        check_range("number of ids", len(ids), 1, self._limits.max_messages_per_page)

    def _page(self, address: Address, read: Callable[[Place], Sequence[Message]]) -> Page:
        messages, now = self._catalogue.at(address, lambda place: (read(place), place.now))
        return Page(messages=self._keys.reveal(address.project, messages), now=now)
