"""The service as the transports see it: everything that an operation may call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from queues.rates import Rates
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
from queues.service.quotas import QuotaService
from queues.service.subscriptions import SubscriptionService
from queues.service.tokens import TokenService
from queues.service.waiting import WaitingRoom
from queues.signing import Signer
from transport.access import AccessPolicy
from transport.settings import Settings


class WebhookKeys(Protocol):
    """Tells by which keys a subscriber can see that a webhook is genuine."""

    def secrets(self, subscription_id: str) -> Sequence[str]:
        """Return the shared ones, the newest first."""

    def public_keys(self) -> Sequence[str]:
        """Return the public ones, the newest first."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One opened service; `transport.wiring.open_service` builds it."""

    settings: Settings
    access: AccessPolicy
    rates: Rates
    quotas: QuotaService
    pools: PoolService
    flavors: FlavorService
    moving: MovingService
    dead_letters: DeadLetterService
    presence: PresenceService
    subscriptions: SubscriptionService
    confirmations: ConfirmationService
    deliveries: DeliveryService
    pushes: PushService
    webhook_keys: Callable[[], WebhookKeys]
    queues: QueueService
    topics: QueueService
    messages: MessageService
    claims: ClaimService
    waiting: WaitingRoom
    health: HealthService
    tokens: TokenService
    signer: Signer
    clock: Callable[[], int]  # ms since the epoch, of the control plane's store
    close: Callable[[], None]  # lets go of the stores
