"""The commands on whole stores: back up, restore, migrate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from transport.cli_start import Failure, WrongUse, flags, load_settings, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from queues.models import LayoutStep
    from transport.service import Service

_PATIENCE = 40.0  # seconds that a backup waits for a queue that is being moved

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--pool", help="Only the store of this pool.")
@flags("config", "store")
def backup(folder: Path, pool: str | None, config: Path | None, **given: object) -> None:
    """Copy every SQLite store into FOLDER, while the service runs, and check the copies.

    The control store becomes hermod.db there, the store of a pool pool-NAME.db. Nothing is
    overwritten. Stores of another kind are named, and have to be copied by their own means.
    """
    with opened(config, **given) as service:
        files = dict(_files(service, pool))
        if not files:
            raise Failure("There is no SQLite store to back up.")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _halted(service) as tick:
            for target, path in files.items():
                _back_up(path, folder / target, tick)


@click.command()
@click.argument("copy", metavar="FILE", type=_FILE)
@click.option("--pool", help="Put it in the place of the store of this pool.")
@click.option(
    "--replace", is_flag=True, help="Replace the file that is there, which is kept under another name."
)
@flags("config", "store")
def restore(copy: Path, pool: str | None, config: Path | None, *, replace: bool, **given: object) -> None:
    """Put FILE, which a backup made, in the place of the store, which nobody may use meanwhile.

    What was posted since the backup is gone then, and what was deleted since is back.
    """
    from transport import wiring

    if pool is None:
        uri = load_settings(config, **given).settings.store
    else:
        with opened(config, **given) as service:
            uri = service.pools.get(pool).uri
    path = wiring.sqlite_file(uri)
    if path is None:
        raise WrongUse("Only a SQLite store is restored from a file.")
    aside = wiring.restore(copy, path, replace=replace)
    if aside is not None:
        click.echo(f"{aside}: what was there before")
    click.echo(f"{path}: restored from {copy}")


@click.command()
@click.option(
    "--status", "action", flag_value="status", help="Print what there is to do, and do nothing of it."
)
@click.option("--up", "action", flag_value="up", help="Do it. No process of an older release may run.")
@flags("config", "store")
def migrate(action: str | None, config: Path | None, **given: object) -> None:
    """Bring the data of the stores to the layout of this release, after an upgrade."""
    from transport import wiring

    if action is None:
        raise WrongUse("Either --status or --up says what to do.")
    with opened(config, **given) as service:
        for name, layered in wiring.layouts(service):
            if action == "up":
                for step in wiring.bring_up(layered):
                    click.echo(f"pool {name or '(default)'}: done: {_step(step)}")
            found = wiring.layout_of(layered)
            click.echo(
                f"pool {name or '(default)'}: {found.driver}  layout {found.found}, of this release {found.known}"
            )
            for step in found.pending:
                click.echo(f"  to do: {_step(step)}")


def _step(step: LayoutStep) -> str:
    return f"{step.number} {step.kind.value}: {step.what}"


def full_check(name: str, uri: str) -> Iterator[str]:
    """Yield what is wrong with a SQLite store that is read whole."""
    from transport import wiring

    if path := wiring.sqlite_file(uri):
        for problem in wiring.verify(path):
            yield f"pool {name or '(default)'}: {problem}"


def uris(service: Service) -> Mapping[str, str]:
    """Return where the stores are, by pool; "" is the control store."""
    names = service.pools.names()
    return {name: service.pools.get(name).uri if name else service.settings.store for name in names}


def _files(service: Service, pool: str | None) -> Iterator[tuple[str, Path]]:
    """Yield the files to copy by the name of the copy, and say which stores have none."""
    from queues.errors import PoolNotFound
    from queues.redaction import hide_password
    from transport import wiring

    found = uris(service)
    if pool is not None and pool not in found:
        raise PoolNotFound
    for name, uri in found.items():
        if pool not in (None, name):
            continue
        path = wiring.sqlite_file(uri)
        if path is None:
            click.echo(
                f"pool {name or '(default)'}: not copied, {hide_password(uri)} is no SQLite store", err=True
            )
        else:
            yield f"pool-{name}.db" if name else "hermod.db", path


def _halted(service: Service) -> AbstractContextManager[Callable[[], None]]:
    """See to it that no queue goes from one store to another while they are copied one after the other."""
    if service.pools.enabled:
        return service.moving.halted(_PATIENCE)
    return nullcontext(lambda: None)


def _back_up(path: Path, target: Path, tick: Callable[[], None]) -> None:
    from transport import wiring

    wiring.back_up(path, target, tick)
    tick()
    click.echo(f"{target}: {target.stat().st_size} bytes of {path}, checked")
