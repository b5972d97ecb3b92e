"""Puts the parts together: the only module that sees all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from queues.errors import HermodError
from queues.ports import Driver, Stores, Trusts
from queues.rates import Rates
from queues.sealing import KeyRing
from queues.service.catalogue import QUEUE, TOPIC, Catalogue, Kind
from queues.service.claims import ClaimService
from queues.service.confirmations import ConfirmationService
from queues.service.dead_letters import DeadLetterService
from queues.service.deliveries import DeliveryService
from queues.service.flavors import FlavorService
from queues.service.health import HealthService
from queues.service.messages import MessageService
from queues.service.moving import MovingService
from queues.service.pools import PoolService
from queues.service.presence import PresenceService
from queues.service.pushes import PushService
from queues.service.queues import QueueService
from queues.service.quotas import Census, QuotaService
from queues.service.subscriptions import SubscriptionService
from queues.service.tokens import TokenService
from queues.service.waiting import WaitingRoom
from queues.signing import Signer
from storage.pooling import OpenStores
from storage.registry import connect
from transport.access import AccessPolicy
from transport.service import Service
from transport.settings import Settings
from transport.settings.model import BridgeSettings, KeystoneSettings, NotifierSettings

if TYPE_CHECKING:
    from notifiers.bridge import Bridge
    from notifiers.keystone import Keystone
    from notifiers.signatures import WebhookSigner
    from notifiers.trust_tokens import TrustTokens
    from notifiers.worker import Worker
    from queues.events import Event
    from queues.models import Layout, LayoutStep
    from storage.layouts import Layered


class KeystoneMissing(HermodError):
    """The setting keystone.auth_url needs a library that is not installed: pip install 'hermod[keystone]'."""

    code = "keystone-missing"


class ClosableStores(Stores, Protocol):
    """Opens the stores of the pools, and closes them in the end."""

    def close(self) -> None:
        """Close every store."""


def open_service(settings: Settings, *, clock: Callable[[], int] | None = None) -> Service:
    """Connect to the stores and build the service over them.

    To be called in the process that serves, never before a fork. `clock` (ms since
    the epoch) replaces the stores' own; tests use it.

    Raises StoreError where a store cannot be used, Invalid for keys that are none,
    KeystoneMissing.
    """
    driver = connect(settings.store, timeout=settings.storage.timeout, clock=clock)
    return assemble(settings, driver, clock=clock)


def assemble(
    settings: Settings,
    driver: Driver,
    *,
    clock: Callable[[], int] | None = None,
    stores: ClosableStores | None = None,
    draw: Callable[[], float] = random.random,
) -> Service:
    """Build the service over an opened driver, which keeps the records.

    Tests use `stores` and `draw` in place of the stores of the pools, and of chance.
    """
    records, limits, timeout = driver.records, settings.limits, settings.storage.timeout
    keys = KeyRing(settings.encryption.ring())
    trusts = _trusts(settings.keystone)
    stores = stores or OpenStores(timeout=timeout, clock=clock)
    cache_age = settings.cache.queue_age
    pools = PoolService(driver, stores, limits, enabled=settings.pooling, cache_age=cache_age, draw=draw)
    flavors = FlavorService(records, pools, limits)

    def declared(kind: Kind) -> tuple[Catalogue, QueueService]:
        catalogue = Catalogue(records, pools, limits, kind=kind, cache_age=cache_age, patience=timeout)
        can_encrypt = bool(settings.encryption.keys)
        quota = settings.quota.queues
        return catalogue, QueueService(
            catalogue, pools, flavors, limits, can_encrypt=can_encrypt, quota=quota
        )

    def close() -> None:
        quotas.close()
        if trusts is not None:
            trusts.close()
        stores.close()
        driver.close()

    catalogue, queues = declared(QUEUE)
    dead_letters = DeadLetterService(records, pools, catalogue, queues)
    clock = driver.messages.clock
    signer = Signer(settings.signed_url.signing_keys())
    notifier = settings.notifier
    deliveries = DeliveryService(
        records,
        pools,
        limits,
        keys,
        clock,
        dead_letter_ttl=notifier.dead_letter_ttl,
        lease=notifier.lease,
    )
    presence = PresenceService(records, clock)
    quotas = QuotaService(
        Census(
            lambda project, after: records.scan(QUEUE.record, project, after=after, limit=500),
            lambda address: queues.stats(address)[0].total if settings.most_messages else 0,
            lambda address: len(subscriptions.all(address)) if settings.quota.subscriptions else 0,
        ),
        messages=settings.most_messages,
        subscriptions=settings.quota.subscriptions,
    )
    subscriptions = SubscriptionService(
        records,
        catalogue,
        queues,
        limits,
        clock,
        forget=deliveries.drop,
        is_here=presence.is_here,
        allow=quotas.subscribe,
        trusts=trusts,
    )
    confirmations = ConfirmationService(
        deliveries,
        signer,
        limits,
        clock,
        required=notifier.require_confirmation,
        public_url=notifier.public_url or None,
        websocket_url=notifier.websocket_url or None,
        page_url=notifier.external_confirmation_url or None,
    )
    return Service(
        settings=settings,
        access=AccessPolicy(settings.access),
        rates=Rates(
            requests=settings.rate.requests, messages=settings.rate.messages, saved=settings.rate.burst
        ),
        quotas=quotas,
        pools=pools,
        flavors=flavors,
        moving=MovingService(records, pools, catalogue, dead_letters),
        dead_letters=dead_letters,
        presence=presence,
        subscriptions=subscriptions,
        confirmations=confirmations,
        deliveries=deliveries,
        pushes=PushService(pools, keys, retention=settings.websocket.retention),
        webhook_keys=partial(_webhook_signer, notifier),
        queues=queues,
        topics=declared(TOPIC)[1],
        messages=MessageService(queues, catalogue, limits, keys, window=settings.idempotency.window),
        claims=ClaimService(catalogue, dead_letters, limits, keys),
        waiting=WaitingRoom(
            catalogue,
            seats=settings.api.waiters,
            hands=settings.api.threads,
            backlog=settings.api.backlog,
            patience=settings.api.patience,
        ),
        health=HealthService(records, pools),
        tokens=TokenService(records, driver.messages.clock),
        signer=signer,
        clock=clock,
        close=close,
    )


def _webhook_signer(settings: NotifierSettings) -> WebhookSigner:
    # What it needs is imported when it is needed: most requests never ask.
    from notifiers.signatures import WebhookSigner

    return WebhookSigner(settings.shared_keys(), settings.ed25519_keys())


def _trusts(settings: KeystoneSettings) -> Trusts | None:
    keystone = _keystone(settings)
    if keystone is None:
        return None
    from notifiers.keystone import KeystoneTrusts

    return KeystoneTrusts(keystone)


def _trust_tokens(settings: KeystoneSettings) -> TrustTokens | None:
    keystone = _keystone(settings)
    if keystone is None:
        return None
    from notifiers.trust_tokens import TrustTokens

    return TrustTokens(keystone.token_of, release=keystone.close)


def _keystone(settings: KeystoneSettings) -> Keystone | None:
    if not settings.auth_url:
        return None
    try:
        from notifiers.keystone import Keystone
        from notifiers.keystone import KeystoneSettings as Options
    except ModuleNotFoundError as error:
        raise KeystoneMissing from error
    options = settings.model_dump(exclude={"password"})
    return Keystone(Options(password=settings.password.get_secret_value(), **options))


def notifier_worker(service: Service) -> Worker:
    """Build the worker that tells subscribers; to be called within the event loop that runs it."""
    from notifiers.egress import EgressPolicy
    from notifiers.mail import MailSettings
    from notifiers.registry import Parts, build
    from notifiers.webhook import WebhookSettings
    from notifiers.worker import Worker, WorkerSettings

    settings = service.settings
    notifier, mail = settings.notifier, settings.mail
    webhook = WebhookSettings(
        connect_timeout=notifier.connect_timeout,
        timeout=notifier.timeout,
        egress=EgressPolicy(allow=settings.egress.allow),
    )
    server = MailSettings(
        host=mail.host,
        port=mail.port,
        security=mail.security,
        username=mail.user,
        password=mail.password.get_secret_value(),
        sender=mail.sender,
        timeout=notifier.timeout,
    )
    parts = Parts(
        webhook=webhook,
        signer=_webhook_signer(notifier),
        credentials=_trust_tokens(settings.keystone),
        mail=server if mail.host else None,
    )
    return Worker(
        service.deliveries,
        service.subscriptions,
        service.pushes,
        build(parts),
        WorkerSettings(
            in_flight=notifier.concurrency,
            per_subscriber=notifier.per_subscriber,
            timeout=notifier.timeout,
            require_confirmation=notifier.require_confirmation,
        ),
    )


def event_bridge(settings: BridgeSettings, post: Callable[[Sequence[Event]], None]) -> Bridge:
    """Build the bridge from RabbitMQ; raises ModuleNotFoundError where its library is not installed."""
    from notifiers.bridge import Bridge, Source

    source = Source(
        url=settings.url.get_secret_value(),
        exchanges=settings.exchanges,
        topics=settings.topics,
        queue=settings.source_queue,
        durable_exchanges=settings.durable_exchanges,
        dead_letter_exchange=settings.dead_letter_exchange or None,
        arguments=settings.queue_arguments,
    )
    return Bridge(source, post)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for any other store. Raises StoreUnsupported."""
    from storage import sqlite_uri

    return sqlite_uri.parse(uri).path if sqlite_uri.is_sqlite(uri) else None


def back_up(path: Path, target: Path, tick: Callable[[], None]) -> None:
    """Copy the file of a SQLite store; see `storage.sqlite_backup`."""
    from storage import sqlite_backup

    sqlite_backup.back_up(path, target, tick=tick)


def restore(copy: Path, path: Path, *, replace: bool) -> Path | None:
    """Put a copy in the place of the file of a SQLite store; see `storage.sqlite_backup`."""
    from storage import sqlite_backup

    return sqlite_backup.restore(copy, path, replace=replace)


def verify(path: Path) -> Sequence[str]:
    """Read the file of a SQLite store whole, and return what is wrong."""
    from storage import sqlite_backup

    return sqlite_backup.verify_in_use(path)


def layouts(service: Service) -> Iterator[tuple[str, Layered]]:
    """Yield what keeps the layout of each store, by pool; "" is the control store. Some drivers have none."""
    for name in service.pools.names():
        found = getattr(service.pools.driver(name), "layout", None)
        if found is not None:
            yield name, found


def layout_of(layered: Layered) -> Layout:
    """Return which layout a store has; see `storage.layouts`."""
    from storage.layouts import layout_of

    return layout_of(layered)


def bring_up(layered: Layered) -> Iterator[LayoutStep]:
    """Make the steps that are left, and yield each when it is made."""
    from storage.layouts import bring_up

    return bring_up(layered)
