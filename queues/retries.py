"""How often a delivery is tried again, and how long to wait in between.

A policy is a JSON object: `_retry_policy` in the metadata of a queue or in the options of a
subscription. In the protocol's form it describes four phases; in Hermod's own form,
`{"delays": [0, 5, 300]}`, it names each wait. All waits are whole seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from queues.errors import Invalid
from queues.metadata import RETRY_DEFAULTS, check_retry_policy
from queues.models import Json, JsonObject

MOST_RETRIES = 10_000  # a policy that asks for more ends here
LONGEST_DELAY = 14 * 24 * 3600  # seconds; longer waits are cut to this, the longest life of a message

_STEP = 5  # seconds; the protocol counts the points of every series by it
_JITTER = (0.8, 1.2)  # the part of a wait that is really waited
_COUNTS = ("retries_with_no_delay", "minimum_delay_retries", "maximum_delay_retries")
_DELAYS = ("minimum_delay", "maximum_delay")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When a delivery that failed is tried again."""

    waits: tuple[int, ...]  # seconds; the first is the wait after the first attempt

    def delays(self) -> Sequence[int]:
        """Return all waits in seconds, in order; there is one attempt more than waits."""
        return self.waits

    def next_delay(self, attempt: int) -> int | None:
        """Return the seconds to wait after an attempt (from 1) failed; None where it was the last."""
        if attempt < 1:
            raise ValueError(f"attempts are counted from 1, not from {attempt}")
        return self.waits[attempt - 1] if attempt <= len(self.waits) else None


def jitter(delay: float, random: Random) -> float:
    """Return a wait (seconds) made up to a fifth shorter or longer, so that retries do not come in step."""
    return delay * random.uniform(*_JITTER)


def policy_for(queue: JsonObject | None, subscription: JsonObject | None) -> RetryPolicy:
    """Return the policy of a delivery, from the queue's `_retry_policy` and the subscription's.

    The subscription's goes first unless it is empty or either says `ignore_subscription_override`.

    Raises Invalid, see `parse`.
    """
    ours, theirs = queue or {}, subscription or {}
    fixed = any(policy.get("ignore_subscription_override") is True for policy in (ours, theirs))
    return parse(ours if fixed or not theirs else theirs)


def parse(document: Json) -> RetryPolicy:
    """Read one policy; None, and null members, stand for the defaults.

    Raises Invalid, naming what is wrong.
    """
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise _invalid("it must be an object")
    if document.get("delays") is not None:
        return RetryPolicy(waits=_listed(document["delays"]))
    given = {key: document[key] for key in RETRY_DEFAULTS if document.get(key) is not None}
    policy = {**RETRY_DEFAULTS, **given}
    _check(policy)
    return RetryPolicy(waits=_phases(policy))


def _listed(delays: Json) -> tuple[int, ...]:
    if not isinstance(delays, list) or not all(
        _is_count(delay) and delay <= LONGEST_DELAY for delay in delays
    ):
        raise _invalid(f"delays must be a list of integers from 0 to {LONGEST_DELAY}")
    if len(delays) > MOST_RETRIES:
        raise _invalid(f"delays must have at most {MOST_RETRIES} entries")
    return tuple(delays)


def _check(policy: Mapping[str, Json]) -> None:
    for name in (*_COUNTS, *_DELAYS):
        if not _is_count(policy[name]):
            raise _invalid(f"{name} must be an integer of at least 0")
    if not isinstance(policy["retry_backoff_function"], str) or (
        policy["retry_backoff_function"] not in _SERIES
    ):
        raise _invalid(f"retry_backoff_function must be one of {', '.join(_SERIES)}")
    if not isinstance(policy["ignore_subscription_override"], bool):
        raise _invalid("ignore_subscription_override must be a boolean")
    check_retry_policy(dict(policy))


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _invalid(what: str) -> Invalid:
    return Invalid(f"The attribute _retry_policy is not acceptable: {what}.")


def _phases(policy: Mapping[str, Json]) -> tuple[int, ...]:
    """Write out the four phases: at once, at the least delay, growing, at the greatest delay."""
    at_once, early, late = (min(policy[name], MOST_RETRIES) for name in _COUNTS)
    low, high = (min(policy[name], LONGEST_DELAY) for name in _DELAYS)
    growing = _SERIES[policy["retry_backoff_function"]](low, high)
    waits = (*(0,) * at_once, *(low,) * early, *growing, *(high,) * late)
    return waits[:MOST_RETRIES]


# The series as the protocol's first implementation computes them, to the last rounding.


def _linear(low: int, high: int) -> Sequence[int]:
    return range(low, high, _STEP)


def _arithmetic(low: int, high: int) -> Sequence[int]:
    points = _points(low, high)
    growth = 2 * (high - low) / (points * (points - 1)) if points > 1 else 0
    return [int(low + (number - 1) * number * growth / 2) for number in range(1, points + 1)]


def _geometric(low: int, high: int) -> Sequence[int]:
    first = low or 1  # nothing grows from 0
    ratio = _ratio(first, high, _points(low, high))
    return [int(first * ratio ** (number - 1)) for number in range(1, _points(low, high) + 1)]


def _exponential(low: int, high: int) -> Sequence[int]:
    first = low or 1
    ratio = _ratio(first, high, _points(low, high))
    return [int(first / ratio * ratio**number) for number in range(1, _points(low, high) + 1)]


def _points(low: int, high: int) -> int:
    return (high - low) // _STEP


def _ratio(first: int, high: int, points: int) -> float:
    return float(10 ** (math.log10(high / first) / (points - 1))) if points > 1 else 1.0


_SERIES: Mapping[str, Callable[[int, int], Sequence[int]]] = {
    "linear": _linear,
    "arithmetic": _arithmetic,
    "geometric": _geometric,
    "exponential": _exponential,
}
