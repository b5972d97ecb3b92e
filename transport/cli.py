"""The command line. A command parses, calls and answers.

What a command calls is imported when it runs, so that `hermod --version` does not
wait for what only a server needs.
"""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

import queues
from transport.cli_bench import bench
from transport.cli_pools import flavor, pool
from transport.cli_start import (
    SERVER_FLAGS,
    Commands,
    Failure,
    flags,
    load_settings,
    opened,
    refuse_memory,
    start,
)
from transport.cli_stores import backup, full_check, migrate, restore, uris
from transport.cli_subscriptions import subscription

if TYPE_CHECKING:
    from queues.service.tokens import Token


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(queues.__version__, prog_name="hermod", message="%(prog)s %(version)s")
def hermod() -> None:
    """Hermod: a reliable, multi-tenant message queue that speaks OpenStack Zaqar v2."""


@hermod.command()
@flags(*SERVER_FLAGS)
def serve(config: Path | None, **given: object) -> None:
    """Run everything on this machine: the REST and the websocket service, the notifier and the janitor."""
    from transport.settings import check_exposure
    from transport.supervisor import supervise

    loaded = start(config, **given)
    check_exposure(loaded.settings)
    check_exposure(loaded.settings, "websocket.bind")
    raise SystemExit(supervise(loaded))


@hermod.command()
@flags(*SERVER_FLAGS)
def api(config: Path | None, **given: object) -> None:
    """Run the REST service."""
    from transport.settings import check_exposure

    settings = start(config, **given).settings
    check_exposure(settings)
    from transport.server import run
    from transport.wsgi.server import RestServer

    run(RestServer(settings))


@hermod.command()
@flags("config", "store", "websocket_bind", "websocket_workers")
def websocket(config: Path | None, **given: object) -> None:
    """Run the websocket service."""
    from transport.settings import check_exposure

    settings = start(config, **given).settings
    refuse_memory(settings)
    check_exposure(settings, "websocket.bind")
    from transport.server import run
    from transport.websocket.server import WebsocketServer

    run(WebsocketServer(settings))


@hermod.command()
@flags("config", "store")
def janitor(config: Path | None, **given: object) -> None:
    """Run the janitor, which reclaims what has expired."""
    settings = start(config, **given).settings
    refuse_memory(settings)
    from transport.janitor import run
    from transport.wiring import open_service

    with closing(open_service(settings)) as service:
        run(service, settings)


@hermod.command()
@flags("config", "store")
def notifier(config: Path | None, **given: object) -> None:
    """Run the notifier, which tells subscribers of messages."""
    with opened(config, **given) as service:
        from transport.notifier import run

        run(service)


@hermod.command()
@flags("config", "store")
def bridge(config: Path | None, **given: object) -> None:
    """Run the bridge, which takes notifications of OpenStack services from RabbitMQ."""
    with opened(config, **given) as service:
        from transport.bridge import run

        run(service)


@hermod.command()
@click.option("--full", is_flag=True, help="Read SQLite stores whole, which takes as long as the disk does.")
@flags("config", "store", "bind")
def check(config: Path | None, *, full: bool, **given: object) -> None:
    """Check the settings and the stores, and report what the stores promise.

    The exit code is 0 if all is well, 1 if a store cannot be used, 2 if the
    settings are wrong.
    """
    from transport.settings import check_exposure, hide_password, warnings
    from transport.wiring import open_service

    loaded = start(config, **given)
    check_exposure(loaded.settings)
    click.echo(f"settings: valid; file: {loaded.file or 'none'}")
    for warning in warnings(loaded.settings):
        click.echo(f"  warning: {warning}")
    click.echo(f"store: {hide_password(loaded.settings.store)}")
    with closing(open_service(loaded.settings)) as service:
        for name in service.pools.names():
            durability = service.pools.driver(name).messages.durability()
            click.echo(f"pool {name or '(default)'}: {durability.driver}")
            for fact, value in durability.facts.items():
                click.echo(f"  {fact}: {value}")
            for warning in durability.warnings:
                click.echo(f"  warning: {warning}")
        if full and (problems := [line for store in uris(service).items() for line in full_check(*store)]):
            raise Failure("\n".join(problems))


@hermod.command("config")
@flags(*SERVER_FLAGS)
@click.option("--toml", is_flag=True, help="Print a settings file with all defaults instead, to start from.")
def show_config(config: Path | None, *, toml: bool, **given: object) -> None:
    """Print every setting in force and where it comes from. Secrets stay hidden."""
    from transport.settings import listing

    if toml:
        lines = listing.default_file()
    else:
        loaded = load_settings(config, **given)
        lines = listing.effective(loaded.settings, loaded.sources)
    for line in lines:
        click.echo(line)


@hermod.command("sign-url")
@click.argument("queue")
@click.option("--project", required=True, help="Project of the queue.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    default=["messages"],
    show_default=True,
    help="Part of the queue to open: messages, claims or subscriptions. Repeatable.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=["GET"],
    show_default=True,
    help="HTTP method to allow. Repeatable.",
)
@click.option(
    "--expires", metavar="WHEN", default="1d", show_default=True, help="ISO 8601, or such as +90, 15m, 1h."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the JSON document that the REST service answers."
)
@flags("config")
def sign_url(
    queue: str,
    project: str,
    paths: list[str],
    methods: list[str],
    expires: str,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Sign a URL that opens a part of QUEUE to whoever holds it, for a while.

    Prints the headers to send with each request, one per line.
    """
    from dataclasses import asdict

    from queues.limits import check_address
    from queues.models import Address
    from queues.signing import Signer
    from transport import moments

    settings = load_settings(config).settings
    check_address(Address(project=project, queue=queue))
    now = datetime.now(UTC)
    wish = {
        "paths": list(paths),
        "methods": [method.upper() for method in methods],
        "expires": moments.parse(expires, now).isoformat(),
    }
    signed = Signer(settings.signed_url.signing_keys()).share(project, queue, wish, now=now)
    if as_json:
        click.echo(json.dumps(asdict(signed)))
        return
    click.echo(f"URL-Signature: {signed.signature}")
    click.echo(f"URL-Expires: {signed.expires}")
    click.echo(f"URL-Methods: {','.join(signed.methods)}")
    click.echo(f"URL-Paths: {','.join(signed.paths)}")
    click.echo(f"X-Project-ID: {signed.project}")


@hermod.group()
def token() -> None:
    """Make, list and revoke the tokens of auth_strategy token."""


@token.command("create")
@click.option("--project", required=True, help="Project that the token opens.")
@click.option(
    "--role",
    type=click.Choice(["reader", "member", "admin"]),
    default="member",
    show_default=True,
    help="What the token allows.",
)
@click.option("--expires", metavar="WHEN", help="ISO 8601, or such as 3600, 1h, 30d. Default: never.")
@click.option("--name", default="", help="What the token is for.")
@flags("config", "store")
def create_token(
    project: str, role: str, expires: str | None, name: str, config: Path | None, **given: object
) -> None:
    """Make a token and print it. It cannot be shown again."""
    from queues.models import Role
    from transport import moments

    with opened(config, **given) as service:
        now = datetime.fromtimestamp(service.clock() / 1000, UTC)
        until = None if expires is None else round(moments.parse(expires, now).timestamp() * 1000)
        made, secret = service.tokens.create(project, Role[role.upper()], expires=until, name=name)
    click.echo(secret)
    click.echo(f"token {made.id}: {_describe(made)}", err=True)


@token.command("list")
@click.option("--project", help="Only the tokens of this project.")
@flags("config", "store")
def list_tokens(project: str | None, config: Path | None, **given: object) -> None:
    """List tokens without their secrets: id, role, project, expiry, name."""
    with opened(config, **given) as service:
        for found in service.tokens.list(project):
            click.echo(f"{found.id}  {_describe(found)}")


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@flags("config", "store")
def revoke_token(token_id: str, config: Path | None, **given: object) -> None:
    """Make the token with this ID worthless at once."""
    with opened(config, **given) as service:
        service.tokens.revoke(token_id)


hermod.add_command(backup)
hermod.add_command(restore)
hermod.add_command(migrate)
hermod.add_command(bench)
hermod.add_command(pool)
hermod.add_command(flavor)
hermod.add_command(subscription)


def _describe(token: Token) -> str:
    until = "never expires"
    if token.expires is not None:
        until = f"expires {datetime.fromtimestamp(token.expires // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"{token.role.name.lower():<6}  project {token.project}  {until}  {token.name}".rstrip()


def main() -> None:
    """Run the command line."""
    hermod(prog_name="hermod")
