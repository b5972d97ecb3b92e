"""A circuit breaker: what has been down for a while is asked now and then, not all the time.

A delivery goes through two circuits. A host that cannot be reached is so for everybody who
subscribed it, whoever finds out, so it has one circuit for all. A failure behind it, such as
an error or no answer in time, says nothing of the host's other paths, nor of who else has
this one: it counts against the one subscription.

Whoever delivers asks `admit` first, and calls `report` once for each attempt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from yarl import URL

from notifiers.outcome import Kind, Outcome

_TOO_MANY_REQUESTS = 429


class Host(NamedTuple):
    """What is reached or not as a whole, whoever wants to."""

    scheme: str
    name: str
    port: int


class Target(NamedTuple):
    """A subscription, for as long as it has this URI."""

    subscription_id: str
    subscriber: str


Circuit: TypeAlias = Host | Target


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerSettings:
    """When something is left alone, and for how long."""

    failures: int = 5  # in a row, that open a circuit
    pause: float = 5.0  # seconds until the first probe
    growth: float = 2.0  # how much longer each further pause is
    longest_pause: float = 600.0  # seconds
    probe_timeout: float = 120.0  # seconds; a probe that was not reported by then is forgotten
    most_circuits: int = 20_000  # that are remembered


@dataclass(slots=True)
class _State:
    failures: int = 0  # in a row
    pause: float = 0.0  # seconds; 0 while the circuit is closed
    retry_at: float = 0.0  # when the pause, or the time of a probe, is over
    probing: bool = False  # whether a probe is under way


class Breaker:
    """Keeps the circuits of all that failed of late; for one event loop."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        """Take settings and a monotonic clock (seconds)."""
        self._settings = settings
        self._clock = clock
        self._states: OrderedDict[Circuit, _State] = OrderedDict()

    def admit(self, *circuits: Circuit) -> float:
        """Return 0 if an attempt may be made through all of them, or else the seconds until it is worth asking again.

        Once a pause is over one attempt is let through, and the others wait for what becomes of it.
        """
        if not self._states:  # as mostly
            return 0.0
        wait = max((self._wait(circuit) for circuit in circuits), default=0.0)
        if not wait:
            for circuit in circuits:
                self._begin(circuit)
        return wait

    def report(self, outcome: Outcome | None, *circuits: Circuit) -> None:
        """Take note of how an attempt ended, admitted or not; None where it was given up half-way."""
        if not self._states and outcome is not None and outcome.kind is Kind.DELIVERED:
            return
        for circuit in circuits:
            works = None if outcome is None else works_after(outcome, circuit)
            if works:
                self._states.pop(circuit, None)
            elif works is None:
                self._forget_probe(circuit)
            else:
                self._count_failure(circuit)

    def is_open(self, *circuits: Circuit) -> bool:
        """Whether attempts through any of them are held back at present."""
        return any(circuit in self._states and self._states[circuit].pause > 0 for circuit in circuits)

    def _wait(self, circuit: Circuit) -> float:
        state = self._states.get(circuit)
        if state is None or not state.pause:
            return 0.0
        wait = max(0.0, state.retry_at - self._clock())
        # What becomes of a probe is mostly known long before its time is over.
        return min(wait, self._settings.pause) if state.probing else wait

    def _begin(self, circuit: Circuit) -> None:
        state = self._states.get(circuit)
        if state is not None and state.pause:
            state.probing = True
            state.retry_at = self._clock() + self._settings.probe_timeout

    def _forget_probe(self, circuit: Circuit) -> None:
        state = self._states.get(circuit)
        if state is not None and state.probing:
            state.probing = False
            state.retry_at = self._clock()

    def _count_failure(self, circuit: Circuit) -> None:
        state = self._states.setdefault(circuit, _State())
        self._states.move_to_end(circuit)
        if len(self._states) > self._settings.most_circuits:
            self._states.popitem(last=False)
        if state.pause and not state.probing:
            return  # of an attempt that began before the circuit opened, or was made all the same
        state.failures += 1
        if state.failures >= self._settings.failures:
            longer = state.pause * self._settings.growth or self._settings.pause
            state.pause = min(longer, self._settings.longest_pause)
            state.retry_at = self._clock() + state.pause
            state.probing = False


@lru_cache(maxsize=10_000)
def circuits_of(subscription_id: str, subscriber: str) -> tuple[Circuit, ...]:
    """Return the circuits that deliveries to a webhook go through; none for other URIs."""
    try:
        url = URL(subscriber.lower().removeprefix("trust+"))
    except ValueError:
        return ()
    if url.scheme not in ("http", "https") or not url.host or not url.port:
        return ()
    return Host(url.scheme, url.host, url.port), Target(subscription_id, subscriber)


def works_after(outcome: Outcome, circuit: Circuit) -> bool | None:
    """Whether there is nothing wrong with what a circuit stands for, as far as an outcome tells; None where it does not.

    A refusal for good is an answer too. Too many requests (429) tells nothing of a subscriber, which says
    itself how long to wait.
    """
    if isinstance(circuit, Host):
        return outcome.reached
    if outcome.kind is Kind.RETRY:
        return None if outcome.reached is False or outcome.status == _TOO_MANY_REQUESTS else False
    return True if outcome.kind is Kind.DELIVERED or outcome.status is not None else None
