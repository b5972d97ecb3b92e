"""The command `hermod bench`, whose program is in the repository, and not in what is installed."""

from __future__ import annotations

from importlib.metadata import entry_points

import click

from transport.cli_start import Failure

# Where such commands are: entry points, since no transport imports the bench or the tests.
_GROUP = "hermod.commands"


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure Hermod, or another service that speaks the same API; needs a checkout."""
    command = from_checkout("bench", package="bench", extra="bench")
    command.main(list(arguments), prog_name="hermod bench", standalone_mode=False)


def from_checkout(name: str, *, package: str, extra: str) -> click.Command:
    """Return a command that is in the repository alone, in a package that needs an extra. Raises Failure."""
    try:
        command: click.Command = entry_points(group=_GROUP)[name].load()
    except (KeyError, ModuleNotFoundError) as absent:
        library = (isinstance(absent, ModuleNotFoundError) and absent.name) or ""
        if library and library.partition(".")[0] != package:
            raise Failure(f"{name} needs the library {library!r}: pip install 'hermod[{extra}]'.") from absent
        raise Failure(
            f"{name} is in the repository alone: run it from a checkout, after make bench or make test."
        ) from absent
    return command
