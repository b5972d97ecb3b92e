"""The operations, one function each, in one table by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transport.dispatch import Operation
from transport.operations import claims, events, messages, pools, queues, subscriptions, system

OPERATIONS: Mapping[str, Operation[Any, Any]] = {
    operation.name: operation
    for module in (queues, messages, events, claims, subscriptions, pools, system)
    for operation in module.OPERATIONS
}
