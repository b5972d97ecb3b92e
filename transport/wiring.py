"""Puts the parts together: the only module that sees all of them."""

from __future__ import annotations

from collections.abc import Callable

from queues.ports import Driver
from queues.sealing import KeyRing
from queues.service.claims import ClaimService
from queues.service.health import HealthService
from queues.service.messages import MessageService
from queues.service.queues import QUEUE, TOPIC, Kind, QueueService
from queues.service.tokens import TokenService
from queues.signing import Signer
from storage.pooling import OneStore
from storage.registry import connect
from transport.access import AccessPolicy
from transport.service import Service
from transport.settings import Settings


def open_service(settings: Settings, *, clock: Callable[[], int] | None = None) -> Service:
    """Connect to the stores and build the service over them.

    To be called in the process that serves, never before a fork. `clock` (ms since
    the epoch) replaces the stores' own; tests use it.

    Raises StoreError where a store cannot be used, Invalid for keys that are none.
    """
    driver = connect(settings.store, timeout=settings.storage.timeout, clock=clock)
    return assemble(settings, driver)


def assemble(settings: Settings, driver: Driver) -> Service:
    """Build the service over an opened driver."""
    records, router = driver.records, OneStore(driver.messages)
    keys = KeyRing(settings.encryption.ring())

    def declared(kind: Kind) -> QueueService:
        return QueueService(
            records,
            router,
            settings.limits,
            can_encrypt=bool(settings.encryption.keys),
            kind=kind,
            cache_age=settings.cache.queue_age,
        )

    queues = declared(QUEUE)
    window = settings.idempotency.window
    return Service(
        settings=settings,
        access=AccessPolicy(settings.access),
        router=router,
        queues=queues,
        topics=declared(TOPIC),
        messages=MessageService(queues, router, settings.limits, keys, window=window),
        claims=ClaimService(queues, router, settings.limits, keys),
        health=HealthService(records, router),
        tokens=TokenService(records, driver.messages.clock),
        signer=Signer(settings.signed_url.signing_keys()),
        clock=driver.messages.clock,
        close=driver.close,
    )
