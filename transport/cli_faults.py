"""The program `hermod-faults`, which is in the repository alone, and here no more than the way to it."""

from __future__ import annotations

import sys

from transport.cli_bench import from_checkout
from transport.cli_start import Failure


def main() -> None:
    """Put Hermod under faults; the exit code is 2 where there is no checkout, or something else that it needs is missing."""
    try:
        command = from_checkout("faults", package="tests", extra="test")
    except Failure as failure:
        failure.show()
        sys.exit(2)
    command.main(prog_name="hermod-faults")
