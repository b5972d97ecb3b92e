"""Runs operations: access rule, arguments, operation, error table.

Nothing here knows a transport. A transport names the operation and the caller,
and passes a function that reads the arguments, since nobody's body is parsed
before it is known that he may call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import structlog

from queues.errors import HermodError, Overloaded
from queues.models import Caller
from transport.problems import INTERNAL, Problem, problem_of
from transport.service import Service

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R")

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[A, R]):
    """One thing that the service does, whatever the transport."""

    name: str  # as the websocket protocol calls it
    rule: str | None  # its access rule; None for what anybody may do
    arguments: type[A]  # its schema
    run: Callable[[Service, Caller, A], R]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply(Generic[R]):
    """What came of it: exactly one of the two, where a value may be None."""

    value: R | None = None
    problem: Problem | None = None


def dispatch(service: Service, operation: Operation[A, R], caller: Caller, read: Callable[[], A]) -> Reply[R]:
    """Run an operation and turn whatever goes wrong into a problem.

    The value may be a `Vigil`: then the transport waits, as it can, and each step of it is an `attempt`.
    """

    def work() -> R:
        service.rates.request(caller.project)
        if operation.rule is not None:
            service.access.check(operation.rule, caller)
        return operation.run(service, caller, read())

    return attempt(operation.name, work)


def attempt(operation: str, work: Callable[[], R]) -> Reply[R]:
    """Do some work for an operation and turn whatever goes wrong into a problem."""
    try:
        return Reply(value=work())
    except HermodError as error:
        return Reply(problem=explain(operation, error))
    except Exception:
        _log.exception("operation failed", operation=operation)
        return Reply(problem=INTERNAL)


def explain(operation: str, error: HermodError) -> Problem:
    """Return what a client is told of an error, and log what an operator must know of it."""
    problem = problem_of(error)
    # Of too much work an entry for each would make more.
    if problem.status >= 500 and not isinstance(error, Overloaded):
        _log.error("operation refused", operation=operation, reason=str(error))
    return problem
