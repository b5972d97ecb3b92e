"""Subscriptions: who is to be told of the messages of a queue, and how.

They belong to a queue and outlive it. A subscriber has one subscription of a queue at
most: a record that is named by a digest of its URI says which.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

from queues.errors import ConcurrentChange, Conflict, Invalid, NotFound, SubscriberTaken, SubscriptionNotFound
from queues.filters import parse as parse_filter
from queues.limits import MIN_TTL, Limits, page_limit
from queues.models import Address, Json, JsonObject, Push, Record, Subscription
from queues.ports import RecordStore, Trusts
from queues.retries import parse as parse_retry_policy
from queues.service.catalogue import SUBSCRIPTION, Catalogue, subscriptions_scope
from queues.service.queues import QueueService
from queues.service.trusts import TRUST_ID, TRUSTING, TrustKeeper, is_trusting, with_trust

SCHEMES = ("http", "https", "mailto")  # and TRUSTING, where there is a Keystone
FORMATS = ("zaqar", "cloudevents-structured", "cloudevents-binary")

_OWNER = "subscriber"
_ATTEMPTS = 20  # to change a record that others keep changing
_SCAN = 200  # records read at once
_LATEST = 253_402_300_799_000  # ms; the end of the year 9999
_MAX_URI = 2048  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a client wants of a subscription; None for what it does not say."""

    subscriber: str | None = None  # URI
    ttl: int | None = None  # seconds
    options: JsonObject | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What became of the wish for a subscription."""

    subscription: Subscription
    new: bool  # whether it was made; otherwise it waits for its confirmation still


@dataclass(frozen=True, kw_only=True, slots=True)
class Audience:
    """Who hears of a queue's messages."""

    by_id: Mapping[str, Subscription]
    retry_policy: JsonObject | None  # the queue's


class SubscriptionService:
    """Makes, shows, changes and removes subscriptions.

    `clock` gives ms since the epoch. `forget` drops what is known of the deliveries of a
    subscription that is gone, by its queue and id. `is_here` tells whether a process
    that serves connections is alive. `allow` raises QuotaExceeded for a project that has
    as many as it may have. Without `trusts` nobody can be subscribed who
    wants a token.
    """

    def __init__(
        self,
        records: RecordStore,
        catalogue: Catalogue,
        queues: QueueService,
        limits: Limits,
        clock: Callable[[], int],
        *,
        forget: Callable[[Address, str], None],
        is_here: Callable[[str], bool],
        allow: Callable[[str], None],
        trusts: Trusts | None = None,
    ) -> None:
        self._records = records
        self._catalogue = catalogue
        self._queues = queues
        self._limits = limits
        self._clock = clock
        self._forget = forget
        self._is_here = is_here
        self._allow = allow
        self._schemes = SCHEMES if trusts is None else (*SCHEMES, *TRUSTING)
        self._trusts = TrustKeeper(trusts)

    def read(self, document: Json) -> Terms:
        """Read what a client wants, as JSON.

        Raises Invalid, naming what is wrong.
        """
        if not isinstance(document, dict):
            raise Invalid("Subscriptions must be a dict.")
        ttl, options = document.get("ttl"), document.get("options")
        if "subscriber" in document:
            self._check_subscriber(document["subscriber"])
        if "ttl" in document:
            self._check_ttl(ttl)
        if "options" in document:
            _check_options(options)
        return Terms(subscriber=document.get("subscriber"), ttl=ttl, options=options)

    def create(
        self, address: Address, terms: Terms, *, push: Push | None = None, token: str | None = None
    ) -> Made:
        """Subscribe somebody to a queue, which is declared if it is new.

        A subscriber that has a subscription which waits for its confirmation gets that one. Who is
        connected has confirmed by that. By the caller's `token` of Keystone's a trust is made for
        subscribers that want tokens.

        Raises Invalid; QuotaExceeded; SubscriberTaken if it has one that is confirmed; what
        `Trusts.create` raises.
        """
        if terms.subscriber is None:
            raise Invalid("Missing parameter subscriber in body.")
        subscription = Subscription(
            id=secrets.token_hex(12),
            address=address,
            subscriber=terms.subscriber,
            ttl=self._limits.default_subscription_ttl if terms.ttl is None else terms.ttl,
            renewed=self._clock(),
            options=terms.options or {},
            confirmed=push is not None,
            push=push,
        )
        there = None
        if is_trusting(subscription.subscriber):
            there = self._holder(subscription)  # whose trust is there already
        if there is None:
            self._allow(address.project)
            trust = self._trusts.grant(subscription.subscriber, token, expires=subscription.expires)
            subscription = replace(subscription, options=with_trust(subscription.options, trust))
        self._queues.ensure(address)
        there = there or self._enter(subscription)
        if there is not None and there.confirmed:
            raise SubscriberTaken
        self._subscribe(address)
        return Made(subscription=there or subscription, new=there is None)

    def get(self, address: Address, subscription_id: str) -> Subscription:
        """Return a subscription of a queue.

        Raises SubscriptionNotFound.
        """
        found = self._find(address, subscription_id)
        if found is None:
            raise SubscriptionNotFound
        return found

    def list(
        self, address: Address, *, marker: str | None = None, limit: int | None = None
    ) -> tuple[Sequence[Subscription], int]:
        """Return a page of a queue's subscriptions by id, and the time (ms) it was at.

        Raises Invalid for a limit out of range.
        """
        limit = page_limit(limit, self._limits.max_subscriptions_per_page)
        now = self._clock()
        page: list[Subscription] = []
        for subscription in self._scan(address, marker or "", now):
            page.append(subscription)
            if len(page) == limit:
                break
        return page, now

    def all(self, address: Address) -> Sequence[Subscription]:
        """Return every subscription of a queue; those that have expired are removed on the way."""
        return list(self._scan(address, "", self._clock()))

    def audience(self, address: Address) -> Audience:
        """Return everybody who has a subscription of a queue, and the queue's retry policy."""
        queue = self._queues.find(address)
        policy = None if queue is None else queue.metadata.get("_retry_policy")
        return Audience(by_id={each.id: each for each in self.all(address)}, retry_policy=policy)

    def update(
        self, address: Address, subscription_id: str, terms: Terms, *, token: str | None = None
    ) -> Subscription:
        """Change a subscription and return it: a ttl begins anew, another subscriber has to confirm again.

        A subscriber that wants tokens gets those of whoever changed the subscription last, by a trust
        that is made with the caller's `token` of Keystone's.

        Raises Invalid if nothing is to be changed, SubscriptionNotFound, SubscriberTaken; what
        `Trusts.create` raises.
        """
        if terms == Terms():
            raise Invalid("Unable to update subscription")
        before = self.get(address, subscription_id)
        if before.push is not None and terms.subscriber is not None:
            raise Invalid("The subscriber of this subscription is a connection, and stays one.")
        wanted = self._changed(before, terms)
        trust = None
        if is_trusting(wanted.subscriber):
            if self._holder(wanted) is not None:
                raise SubscriberTaken
            trust = self._trusts.grant(wanted.subscriber, token, expires=wanted.expires)
        replaced = before

        def change(old: Subscription) -> Subscription:
            nonlocal replaced
            if trust is not None and (old.subscriber, old.options) != (before.subscriber, before.options):
                raise ConcurrentChange  # to what the caller would not have lent a token to
            replaced = old
            new = self._changed(old, terms)
            if new.subscriber != old.subscriber and self._take(new) is not None:
                raise SubscriberTaken
            return replace(new, options=with_trust(new.options, trust))

        try:
            after = self._change(address, subscription_id, change)
        except (Conflict, NotFound):
            self._trusts.end(trust)
            raise
        self._trusts.end(replaced.options.get(TRUST_ID))
        if after.subscriber != before.subscriber:
            self._give_up(before)
        return after

    def confirm(self, address: Address, subscription_id: str, *, confirmed: bool) -> Subscription:
        """Note what the subscriber says, and return the subscription.

        Raises SubscriptionNotFound.
        """
        return self._change(address, subscription_id, lambda old: replace(old, confirmed=confirmed))

    def attach(self, address: Address, subscription_id: str, *, node: str, connection: str) -> Subscription:
        """Let a subscription be served through another connection, and begin its life anew; return it.

        Raises SubscriptionNotFound, also where it cannot outlive its connection.
        """

        def change(old: Subscription) -> Subscription:
            if old.push is None or not old.push.resumable:
                raise SubscriptionNotFound
            return replace(
                old, push=replace(old.push, node=node, connection=connection), renewed=self._clock()
            )

        return self._change(address, subscription_id, change)

    def renew(self, address: Address, subscription_id: str, connection: str) -> Subscription | None:
        """Begin the life of a connection's subscription anew; None where the connection has it no longer."""

        def change(old: Subscription) -> Subscription:
            if old.push is None or old.push.connection != connection:
                raise SubscriptionNotFound
            return replace(old, renewed=self._clock())

        try:
            return self._change(address, subscription_id, change)
        except SubscriptionNotFound:
            return None

    def disable(self, address: Address, subscription_id: str, reason: str) -> None:
        """Deliver nothing any more, until the subscription is changed; one that is gone stays so."""
        try:
            self._change(address, subscription_id, lambda old: replace(old, disabled=reason))
        except SubscriptionNotFound:
            return

    def delete(self, address: Address, subscription_id: str) -> None:
        """Remove a subscription, if this queue has it."""
        found = self._find(address, subscription_id)
        if found is not None:
            self._remove(found)
            self._unsubscribe_if_none(address)

    def purge(self, address: Address) -> None:
        """Remove every subscription of a queue."""
        for found in self.all(address):
            self._remove(found)
        self._unsubscribe_if_none(address)

    def _check_subscriber(self, subscriber: Json) -> None:
        if not isinstance(subscriber, str) or not 1 <= len(subscriber) <= _MAX_URI:
            raise Invalid(f"The subscriber must be a URI of 1 to {_MAX_URI} characters.")
        try:
            parts = urlsplit(subscriber)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise Invalid(f"The subscriber is no URI: {error}.") from error
        if parts.scheme not in self._schemes:
            lacking = " This service has no Keystone for trust+." if parts.scheme in TRUSTING else ""
            raise Invalid(
                "The subscriber type of subscription must be supported in the list"
                f" {list(self._schemes)}.{lacking}"
            )
        if parts.scheme.endswith(("http", "https")) and (not host or parts.username is not None):
            raise Invalid("The subscriber must name a host, and no user.")
        if any(character.isspace() or not character.isprintable() for character in subscriber):
            raise Invalid("The subscriber must have no blanks and no control characters.")

    def _check_ttl(self, ttl: Json) -> None:
        if isinstance(ttl, bool) or not isinstance(ttl, int):
            raise Invalid("TTL must be an integer.")
        if ttl < MIN_TTL:
            raise Invalid(f"The TTL of a subscription must be at least {MIN_TTL} seconds.")
        if self._clock() + ttl * 1000 > _LATEST:
            raise Invalid("The TTL is too large: the subscription would last beyond the year 9999.")

    def _find(self, address: Address, subscription_id: str) -> Subscription | None:
        record = self._records.fetch(SUBSCRIPTION, subscriptions_scope(address), subscription_id)
        found = None if record is None else _subscription(address, record)
        return found if found is not None and self._lives(found, self._clock()) else None

    def _lives(self, subscription: Subscription, now: int) -> bool:
        """Whether a subscription has not expired, nor lost the connection that it ends with."""
        push = subscription.push
        here = push is None or push.resumable or self._is_here(push.node)
        return here and subscription.expires > now

    def _scan(self, address: Address, after: str, now: int) -> Iterator[Subscription]:
        scope = subscriptions_scope(address)
        while page := self._records.scan(SUBSCRIPTION, scope, after=after, limit=_SCAN):
            for record in page:
                found = _subscription(address, record)
                if self._lives(found, now):
                    yield found
                else:
                    self._remove(found)
            after = page[-1].name
            if len(page) < _SCAN:
                return

    def _change(
        self, address: Address, subscription_id: str, change: Callable[[Subscription], Subscription]
    ) -> Subscription:
        for _ in range(_ATTEMPTS):
            new = change(self.get(address, subscription_id))
            if self._records.replace(_record(new)):
                return new
        raise ConcurrentChange

    def _changed(self, old: Subscription, terms: Terms) -> Subscription:
        """Return a subscription with what a client wants changed."""
        new = replace(old, disabled=None)
        if terms.ttl is not None:
            new = replace(new, ttl=terms.ttl, renewed=self._clock())
        if terms.options is not None:
            new = replace(new, options=terms.options)
        if terms.subscriber is not None and terms.subscriber != old.subscriber:
            new = replace(new, subscriber=terms.subscriber, confirmed=False)
        return new

    def _enter(self, subscription: Subscription) -> Subscription | None:
        """Keep a new subscription, unless its subscriber has another one: then return that."""
        # First the subscription, then the sign of who has it: a sign without one counts for nothing.
        self._records.insert(_record(subscription))
        there = self._take(subscription)
        if there is not None:
            self._records.remove(SUBSCRIPTION, subscriptions_scope(subscription.address), subscription.id)
            self._trusts.end(subscription.options.get(TRUST_ID))
        return there

    def _holder(self, subscription: Subscription) -> Subscription | None:
        """Return the other subscription that has the subscriber of this one, if any."""
        sign = _sign(subscription)
        found = self._records.fetch(_OWNER, sign.scope, sign.name)
        there = None if found is None else self._find(subscription.address, found.data["id"])
        if there is None or there.subscriber != subscription.subscriber or there.id == subscription.id:
            return None
        return there

    def _take(self, subscription: Subscription) -> Subscription | None:
        """Make a subscription the only one of its subscriber; return the one that is in the way, if any."""
        address = subscription.address
        sign = _sign(subscription)
        for _ in range(_ATTEMPTS):
            if self._records.insert(sign):
                return None
            found = self._records.fetch(_OWNER, sign.scope, sign.name)
            if found is None:
                continue
            there = self._find(address, found.data["id"])
            if there is not None and there.subscriber == subscription.subscriber:
                return None if there.id == subscription.id else there
            if self._records.replace(replace(sign, revision=found.revision)):
                return None
        raise ConcurrentChange

    def _give_up(self, subscription: Subscription) -> None:
        """Let others have the subscriber of a subscription that has it no longer."""
        sign = _sign(subscription)
        found = self._records.fetch(_OWNER, sign.scope, sign.name)
        if found is not None and found.data["id"] == subscription.id:
            self._records.remove(_OWNER, sign.scope, sign.name, revision=found.revision)

    def _remove(self, subscription: Subscription) -> None:
        """Remove a subscription unless it was changed since it was read."""
        scope = subscriptions_scope(subscription.address)
        if self._records.remove(SUBSCRIPTION, scope, subscription.id, revision=subscription.revision):
            self._give_up(subscription)
            self._forget(subscription.address, subscription.id)
            if subscription.expires > self._clock():  # or else its trust has ended as well
                self._trusts.end(subscription.options.get(TRUST_ID))

    def _unsubscribe_if_none(self, address: Address) -> None:
        """Let posts tell nobody, if nobody is left; whoever subscribes meanwhile leaves a stamp of their own."""
        if self._catalogue.subscribed(address):
            return
        stamp = self._subscribe(address)
        if not self._catalogue.subscribed(address):
            self._catalogue.at(address, lambda place: place.store.unsubscribe(address, stamp))

    def _subscribe(self, address: Address) -> str:
        """Let posts tell subscribers; return the stamp of it."""
        stamp = secrets.token_hex(8)
        self._catalogue.at(address, lambda place: place.store.subscribe(address, stamp))
        return stamp


def _check_options(options: Json) -> None:
    if not isinstance(options, dict):
        raise Invalid("Options must be a dict.")
    if TRUST_ID in options:
        raise Invalid("The option trust_id is given by the service, never by a client.")
    headers = options.get("post_headers")
    if headers is not None and not (
        isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values())
    ):
        raise Invalid("The option post_headers must be an object of texts.")
    for name in ("post_data", "from", "subject"):
        if options.get(name) is not None and not isinstance(options[name], str):
            raise Invalid(f"The option {name} must be a text.")
    if not isinstance(options.get("sequence", False), bool):
        raise Invalid("The option sequence must be true or false.")
    if options.get("format") is not None and options["format"] not in FORMATS:
        raise Invalid(f"The option format must be one of {', '.join(FORMATS)}.")
    if options.get("_retry_policy") is not None:
        parse_retry_policy(options["_retry_policy"])
    if options.get("filter") is not None:
        parse_filter(options["filter"])


def _sign(subscription: Subscription) -> Record:
    return Record(
        kind=_OWNER,
        scope=subscriptions_scope(subscription.address),
        name=hashlib.sha256(subscription.subscriber.encode(errors="surrogatepass")).hexdigest(),
        data={"id": subscription.id},
    )


def _record(subscription: Subscription) -> Record:
    return Record(
        kind=SUBSCRIPTION,
        scope=subscriptions_scope(subscription.address),
        name=subscription.id,
        data={
            "subscriber": subscription.subscriber,
            "ttl": subscription.ttl,
            "renewed": subscription.renewed,
            "options": subscription.options,
            "confirmed": subscription.confirmed,
            "disabled": subscription.disabled,
            **({} if subscription.push is None else {"push": asdict(subscription.push)}),
        },
        revision=subscription.revision,
    )


def _subscription(address: Address, record: Record) -> Subscription:
    data = record.data
    return Subscription(
        id=record.name,
        address=address,
        subscriber=data["subscriber"],
        ttl=data["ttl"],
        renewed=data["renewed"],
        options=data["options"],
        confirmed=data["confirmed"],
        disabled=data["disabled"],
        push=Push(**data["push"]) if "push" in data else None,
        revision=record.revision,
    )
