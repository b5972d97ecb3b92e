"""Runs `hermod-faults` as `python -m tests.faults`."""

from tests.faults.command import main

if __name__ == "__main__":
    main(prog_name="python -m tests.faults")
