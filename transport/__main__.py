"""`python -m transport` is `hermod`."""

from transport.cli import main

main()
