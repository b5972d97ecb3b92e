"""Operations on the service itself."""

from __future__ import annotations

import msgspec
import structlog

from queues.models import Caller
from queues.service.health import StoreHealth
from transport.dispatch import Operation
from transport.service import Service

_log = structlog.get_logger()


class Nothing(msgspec.Struct, kw_only=True, frozen=True):
    """No arguments."""


def ping_node(service: Service, _caller: Caller, _args: Nothing) -> None:
    """Return if the stores answer."""
    service.health.ping()


def check_node_health(service: Service, _caller: Caller, _args: Nothing) -> dict[str, StoreHealth]:
    """Try the operations on every store; by pool name."""
    report = service.health.report()
    for pool, health in report.items():
        for operation, trial in health.trials.items():
            if not trial.succeeded:
                _log.error(
                    "health check failed",
                    pool=pool,
                    operation=operation,
                    reason=str(trial.error),
                    ref=trial.ref,
                )
    return report


OPERATIONS = (
    Operation(name="ping_node", rule="ping:get", arguments=Nothing, run=ping_node),
    Operation(name="check_node_health", rule="health:get", arguments=Nothing, run=check_node_health),
)
