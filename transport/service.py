"""The service as the transports see it: everything that an operation may call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queues.service.claims import ClaimService
from queues.service.dead_letters import DeadLetterService
from queues.service.flavors import FlavorService
from queues.service.health import HealthService
from queues.service.messages import MessageService
from queues.service.moving import MovingService
from queues.service.pools import PoolService
from queues.service.queues import QueueService
from queues.service.tokens import TokenService
from queues.signing import Signer
from transport.access import AccessPolicy
from transport.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Service:
    """One opened service; `transport.wiring.open_service` builds it."""

    settings: Settings
    access: AccessPolicy
    pools: PoolService
    flavors: FlavorService
    moving: MovingService
    dead_letters: DeadLetterService
    queues: QueueService
    topics: QueueService
    messages: MessageService
    claims: ClaimService
    health: HealthService
    tokens: TokenService
    signer: Signer
    clock: Callable[[], int]  # ms since the epoch, of the control plane's store
    close: Callable[[], None]  # lets go of the stores
