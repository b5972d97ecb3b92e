"""The commands on pools and flavors: what the operator's requests do, from a shell."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click

from queues.errors import Invalid, StoreError
from queues.redaction import hide_password
from transport.cli_start import flags, opened

if TYPE_CHECKING:
    from queues.models import JsonObject, Pool
    from queues.service.flavors import Flavor
    from queues.service.moving import Drain
    from queues.service.pools import PoolService
    from transport.service import Service

_TICK = 1.0  # seconds between two lines of progress


@click.group()
def pool() -> None:
    """Register, show, change, drain and remove pools."""


@pool.command("add")
@click.argument("name")
@click.argument("uri")
@click.option("--weight", type=int, default=1, show_default=True, help="How likely it is to get a new queue.")
@click.option("--flavor", default="", help="Flavor that it belongs to.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of its driver. Repeatable."
)
@flags("config", "store")
def add_pool(
    name: str,
    uri: str,
    weight: int,
    flavor: str,
    options: tuple[str, ...],
    config: Path | None,
    **given: object,
) -> None:
    """Register the store at URI as the pool NAME, or register it anew. The store must answer."""
    with opened(config, **given) as service:
        _enabled(service)
        service.pools.put(name, uri=uri, weight=weight, flavor=flavor, options=_options(options))


@pool.command("set")
@click.argument("name")
@click.option("--uri", help="Where its store is.")
@click.option("--weight", type=int, help="How likely it is to get a new queue; 0 for never.")
@click.option("--flavor", help="Flavor that it belongs to; empty for none.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of its driver. Repeatable."
)
@flags("config", "store")
def set_pool(
    name: str,
    uri: str | None,
    weight: int | None,
    flavor: str | None,
    options: tuple[str, ...],
    config: Path | None,
    **given: object,
) -> None:
    """Change the pool NAME."""
    from queues.service.pools import PoolChanges

    with opened(config, **given) as service:
        _enabled(service)
        changed = _options(options) if options else None
        changes = PoolChanges(uri=uri, weight=weight, flavor=flavor, options=changed)
        click.echo(_line(service.pools.update(name, changes)))


@pool.command("list")
@flags("config", "store")
def list_pools(config: Path | None, **given: object) -> None:
    """List pools: name, weight, flavor, state, URI."""
    with opened(config, **given) as service:
        for found in _enabled(service).all():
            click.echo(_line(found))


@pool.command("show")
@click.argument("name")
@flags("config", "store")
def show_pool(name: str, config: Path | None, **given: object) -> None:
    """Show the pool NAME, and how many queues live there."""
    with opened(config, **given) as service:
        found = _enabled(service).get(name)
        click.echo(_line(found))
        for key, value in found.options.items():
            click.echo(f"  option {key}: {value}")
        click.echo(f"  queues: {service.moving.progress(name).left}")


@pool.command("drain")
@click.argument("name")
@click.option("--detach", is_flag=True, help="Do not wait; the janitor does the work.")
@click.option("--status", is_flag=True, help="Print how far it has come, and change nothing.")
@click.option("--stop", is_flag=True, help="Let the pool be; what was moved stays moved.")
@flags("config", "store")
def drain_pool(
    name: str, config: Path | None, *, detach: bool, status: bool, stop: bool, **given: object
) -> None:
    """Move the queues of the pool NAME to other pools, and put no new ones there.

    Clients go on meanwhile. Without a flag this command takes part in the work and
    prints how far it has come until no queue is left; ended before, the janitor goes on.
    """
    with opened(config, **given) as service:
        _enabled(service)
        if stop:
            click.echo(_progress(service.moving.stop(name)))
        elif status:
            click.echo(_progress(service.moving.progress(name)))
        elif detach:
            click.echo(_progress(service.moving.start(name)))
        else:
            _follow(service, name)


@pool.command("remove")
@click.argument("name")
@flags("config", "store")
def remove_pool(name: str, config: Path | None, **given: object) -> None:
    """Take the pool NAME off the list, if no queue lives there. Its store is left alone."""
    from functools import partial

    with opened(config, **given) as service:
        _enabled(service).remove(name, in_use=partial(service.moving.in_use, name))


@click.group()
def flavor() -> None:
    """Declare, show and remove flavors."""


@flavor.command("add")
@click.argument("name")
@click.argument("pools", nargs=-1, required=True, metavar="POOL...")
@click.option("--project", required=True, help="Project that may ask for it.")
@flags("config", "store")
def add_flavor(name: str, pools: tuple[str, ...], project: str, config: Path | None, **given: object) -> None:
    """Let the queues of a project ask for the flavor NAME, and give it these pools."""
    with opened(config, **given) as service:
        _enabled(service)
        service.flavors.put(project, name, pools)


@flavor.command("list")
@click.option("--project", required=True, help="Project that has the flavors.")
@flags("config", "store")
def list_flavors(project: str, config: Path | None, **given: object) -> None:
    """List the flavors of a project: name, pools."""
    with opened(config, **given) as service:
        _enabled(service)
        marker = ""
        while page := service.flavors.list(project, marker=marker):
            for found in page:
                click.echo(_flavor_line(found))
            marker = page[-1].name


@flavor.command("show")
@click.argument("name")
@click.option("--project", required=True, help="Project that has the flavor.")
@flags("config", "store")
def show_flavor(name: str, project: str, config: Path | None, **given: object) -> None:
    """Show the flavor NAME: its pools and what they can do."""
    with opened(config, **given) as service:
        _enabled(service)
        found = service.flavors.get(project, name)
        click.echo(_flavor_line(found))
        click.echo(f"  capabilities: {', '.join(found.capabilities or ())}")


@flavor.command("remove")
@click.argument("name")
@click.option("--project", required=True, help="Project that has the flavor.")
@flags("config", "store")
def remove_flavor(name: str, project: str, config: Path | None, **given: object) -> None:
    """Remove the flavor NAME; its pools have none then, and queues stay where they are."""
    with opened(config, **given) as service:
        _enabled(service)
        service.flavors.remove(project, name)


def _enabled(service: Service) -> PoolService:
    from transport.settings import SettingsError

    if not service.pools.enabled:
        raise SettingsError("There are no pools as long as the setting pooling is off.")
    return service.pools


def _options(texts: tuple[str, ...]) -> JsonObject:
    import json

    options: JsonObject = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Invalid(f"An option is KEY=VALUE, not {text!r}.")
        try:
            parsed: Any = json.loads(value)
        except ValueError:
            parsed = value
        options[key] = parsed
    return options


def _follow(service: Service, name: str) -> None:
    """Take part in the work until no queue is left, or the caller has enough."""
    service.moving.start(name)
    stop = Event()
    worker = Thread(target=_work, args=(service, stop))
    worker.start()
    try:
        shown = ""
        while True:
            found = service.moving.progress(name)
            if (line := _progress(found)) != shown:
                click.echo(line)
                shown = line
            if not found.active or found.left == 0 or stop.wait(_TICK):
                return
    finally:
        stop.set()
        worker.join()


def _work(service: Service, stop: Event) -> None:
    while not stop.is_set():
        try:
            service.moving.run(stop)
        except StoreError as error:
            click.echo(f"hermod: {error}", err=True)
        stop.wait(_TICK / 10)


def _line(pool: Pool) -> str:
    flavor = pool.flavor or "-"
    uri = hide_password(pool.uri)
    return f"{pool.name}  weight {pool.weight}  flavor {flavor}  {pool.state}  {uri}"


def _flavor_line(flavor: Flavor) -> str:
    return f"{flavor.name}  {' '.join(flavor.pools)}".rstrip()


def _progress(drain: Drain) -> str:
    state = "draining" if drain.active else "open"
    if drain.active and drain.left == 0:
        state = "drained"
    line = (
        f"{drain.pool}: {state}  {drain.left} queues left  {drain.queues} moved"
        f"  {drain.messages} messages  {drain.rate:.0f}/s"
    )
    return line if drain.problem is None else f"{line}  problem: {drain.problem}"
