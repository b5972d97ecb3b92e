"""What the commands have in common: flags that stand for settings, and how a command begins and fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from queues.errors import HermodError, Invalid

if TYPE_CHECKING:
    from transport.service import Service
    from transport.settings import Loaded, Settings

Command = TypeVar("Command", bound=Callable[..., Any])

# The flags that stand for settings. The parameter is the dotted key, with two underscores for the dot; the value
# is checked in the same place as those of the file and the environment.
FLAGS: dict[str, Callable[[Any], Any]] = {
    "config": click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file (HERMOD_CONFIG)."
    ),
    "store": click.option("--store", metavar="URI", help="Store (HERMOD_STORE)."),
    "admin": click.option(
        "--admin", is_flag=True, default=None, help="Serve the operator's routes too (HERMOD_ADMIN)."
    ),
    "bind": click.option(
        "--bind", "api__bind", metavar="HOST:PORT", help="Address to listen on (HERMOD_API_BIND)."
    ),
    "workers": click.option(
        "--workers", "api__workers", metavar="N", help="Worker processes (HERMOD_API_WORKERS)."
    ),
    "websocket_bind": click.option(
        "--bind", "websocket__bind", metavar="HOST:PORT", help="Address to listen on (HERMOD_WEBSOCKET_BIND)."
    ),
    "websocket_workers": click.option(
        "--workers", "websocket__workers", metavar="N", help="Worker processes (HERMOD_WEBSOCKET_WORKERS)."
    ),
    "threads": click.option(
        "--threads", "api__threads", metavar="N", help="Threads per worker (HERMOD_API_THREADS)."
    ),
}
SERVER_FLAGS = ("config", "store", "admin", "bind", "workers", "threads")


class Failure(click.ClickException):
    """An expected error: on standard error, a line for each thing that is wrong."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it."""
        for line in self.message.splitlines():
            click.echo(f"hermod: {line}", file=file, err=True)


class WrongUse(Failure):
    """Something that the caller got wrong."""

    exit_code = 2


class Commands(click.Group):
    """Commands whose expected errors are told without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except HermodError as error:
            from transport.settings import SettingsError

            failure = WrongUse if isinstance(error, SettingsError | Invalid) else Failure
            raise failure(str(error)) from error


def flags(*names: str) -> Callable[[Command], Command]:
    """Give a command these of the flags."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = FLAGS[name](command)
        return command

    return decorate


def load_settings(config: Path | None, **given: object) -> Loaded:
    """Load the settings; what is given on the command line goes before the rest."""
    from transport.settings import load

    return load(config, flags={name.replace("__", "."): value for name, value in given.items()})


def start(config: Path | None, **given: object) -> Loaded:
    """Load the settings and set the log up."""
    from transport import logs

    loaded = load_settings(config, **given)
    logs.configure(loaded.settings.log)
    return loaded


def refuse_memory(settings: Settings) -> None:
    """Raise SettingsError for a store that no other process can use."""
    from transport.settings import SettingsError

    if settings.in_memory:
        raise SettingsError(
            "The memory: store is inside the process that serves; no other process can use it."
        )


@contextmanager
def opened(config: Path | None, **given: object) -> Iterator[Service]:
    """Open the service on stores that other processes use too."""
    from transport.wiring import open_service

    settings = start(config, **given).settings
    refuse_memory(settings)
    with closing(open_service(settings)) as service:
        yield service
