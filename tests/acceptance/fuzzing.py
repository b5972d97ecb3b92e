"""How many examples a property is tried with."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

#: So many times the usual number. The usual ones are the same each time, more of them are drawn anew.
DEPTH = int(os.environ.get("HERMOD_TEST_FUZZ", "1"))


def examples(number: int) -> settings:
    """Return the settings for so many examples, or a multiple of that if HERMOD_TEST_FUZZ says so."""
    return settings(
        max_examples=number * DEPTH,
        derandomize=DEPTH == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
