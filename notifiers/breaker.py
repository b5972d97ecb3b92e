"""A circuit breaker per endpoint: what has been down for a while is asked now and then, not all the time.

Whoever delivers asks `admit` first, and calls `report` once for each attempt that was admitted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from yarl import URL

from notifiers.outcome import Kind, Outcome

_TOO_MANY_REQUESTS = 429


class Endpoint(NamedTuple):
    """What fails as a whole."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerSettings:
    """When an endpoint is left alone, and for how long."""

    failures: int = 5  # in a row, that open the circuit
    pause: float = 5.0  # seconds until the first probe
    growth: float = 2.0  # how much longer each further pause is
    longest_pause: float = 600.0  # seconds
    probe_timeout: float = 120.0  # seconds; a probe that was not reported by then is forgotten
    most_endpoints: int = 10_000  # that are remembered


@dataclass(slots=True)
class _Circuit:
    failures: int = 0  # in a row
    pause: float = 0.0  # seconds; 0 while the circuit is closed
    retry_at: float = 0.0  # when the pause, or the time of a probe, is over
    probing: bool = False  # whether a probe is under way


class Breaker:
    """Keeps the circuits of all endpoints that failed of late; for one event loop."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        """Take settings and a monotonic clock (seconds)."""
        self._settings = settings
        self._clock = clock
        self._circuits: OrderedDict[Endpoint, _Circuit] = OrderedDict()

    def admit(self, endpoint: Endpoint) -> float:
        """Return 0 if an attempt may be made now, or else the seconds until it is worth asking again.

        Once the pause is over one attempt is let through, and the others wait for what becomes of it.
        """
        circuit = self._circuits.get(endpoint)
        if circuit is None or not circuit.pause:
            return 0.0
        wait = circuit.retry_at - self._clock()
        if wait > 0:
            return min(wait, circuit.pause) if circuit.probing else wait
        circuit.probing = True
        circuit.retry_at = self._clock() + self._settings.probe_timeout
        return 0.0

    def report(self, endpoint: Endpoint, outcome: Outcome | None) -> None:
        """Take note of how an admitted attempt ended; None where it was given up half-way."""
        works = None if outcome is None else works_after(outcome)
        if works:
            self._circuits.pop(endpoint, None)
        elif works is None:
            self._forget_probe(endpoint)
        else:
            self._count_failure(endpoint)

    def is_open(self, endpoint: Endpoint) -> bool:
        """Whether attempts are held back at present."""
        circuit = self._circuits.get(endpoint)
        return circuit is not None and circuit.pause > 0

    def _forget_probe(self, endpoint: Endpoint) -> None:
        circuit = self._circuits.get(endpoint)
        if circuit is not None and circuit.probing:
            circuit.probing = False
            circuit.retry_at = self._clock()

    def _count_failure(self, endpoint: Endpoint) -> None:
        circuit = self._circuits.setdefault(endpoint, _Circuit())
        self._circuits.move_to_end(endpoint)
        if len(self._circuits) > self._settings.most_endpoints:
            self._circuits.popitem(last=False)
        if circuit.pause and not circuit.probing:
            return  # of an attempt that began before the circuit opened
        circuit.failures += 1
        if circuit.failures >= self._settings.failures:
            longer = circuit.pause * self._settings.growth or self._settings.pause
            circuit.pause = min(longer, self._settings.longest_pause)
            circuit.retry_at = self._clock() + circuit.pause
            circuit.probing = False


def endpoint_of(subscriber: str) -> Endpoint | None:
    """Return the endpoint of a webhook's URI; None for other URIs, which have no circuit."""
    try:
        url = URL(subscriber.lower().removeprefix("trust+"))
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not url.host or not url.port:
        return None
    return Endpoint(url.scheme, url.host, url.port)


def works_after(outcome: Outcome) -> bool | None:
    """Whether an endpoint works, as far as an outcome tells; None where it does not.

    A refusal for good is an answer too. Too many requests (429) is neither: the subscriber says
    itself how long to wait.
    """
    if outcome.kind is Kind.RETRY:
        return None if outcome.status == _TOO_MANY_REQUESTS else False
    return True if outcome.kind is Kind.DELIVERED or outcome.status is not None else None
