"""The command `hermod bench`, whose program is in the repository, and not in what is installed."""

from __future__ import annotations

from importlib.metadata import entry_points

import click

from transport.cli_start import Failure

# Where the command is: an entry point, since no transport imports the bench.
_GROUP = "hermod.commands"


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure Hermod, or another service that speaks the same API; needs a checkout."""
    try:
        command: click.Command = entry_points(group=_GROUP)["bench"].load()
    except (KeyError, ModuleNotFoundError) as absent:
        library = (isinstance(absent, ModuleNotFoundError) and absent.name) or ""
        if library and library.partition(".")[0] != "bench":
            raise Failure(f"bench needs the library {library!r}: pip install 'hermod[bench]'.") from absent
        raise Failure(
            "bench is in the repository alone: run it from a checkout, after make bench or make test."
        ) from absent
    command.main(list(arguments), prog_name="hermod bench", standalone_mode=False)
