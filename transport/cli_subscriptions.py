"""The commands on subscriptions: who is told of a queue's messages, and how that goes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from transport.cli_start import flags, opened

if TYPE_CHECKING:
    from queues.models import Address, Subscription

_PROJECT = click.option("--project", required=True, help="Project of the queue.")


@click.group()
def subscription() -> None:
    """Look after the subscriptions of a queue."""


@subscription.command("list")
@click.argument("queue")
@_PROJECT
@flags("config", "store")
def list_subscriptions(queue: str, project: str, config: Path | None, **given: object) -> None:
    """List the subscriptions of QUEUE: id, state, subscriber."""
    with opened(config, **given) as service:
        for found in service.subscriptions.all(_address(project, queue)):
            click.echo(_line(found))


@subscription.command("show")
@click.argument("queue")
@click.argument("subscription_id", metavar="ID")
@_PROJECT
@flags("config", "store")
def show_subscription(
    queue: str, subscription_id: str, project: str, config: Path | None, **given: object
) -> None:
    """Show the subscription ID of QUEUE, and what became of its deliveries."""
    with opened(config, **given) as service:
        address = _address(project, queue)
        click.echo(_line(service.subscriptions.get(address, subscription_id)))
        counts = service.deliveries.counts(address, subscription_id)
        click.echo(
            f"  delivered {counts.delivered}  failed attempts {counts.failed}"
            f"  dead-lettered {counts.dead}  filtered {counts.filtered}"
        )
        for attempt in counts.attempts:
            click.echo(f"  {_moment(attempt.at)}  {attempt.id}  {attempt.outcome}  {attempt.detail}".rstrip())


@subscription.command("failed")
@click.argument("queue")
@click.argument("subscription_id", metavar="ID")
@_PROJECT
@flags("config", "store")
def list_failed(queue: str, subscription_id: str, project: str, config: Path | None, **given: object) -> None:
    """List the deliveries of a subscription that were given up: id, when, how many bytes."""
    with opened(config, **given) as service:
        address, marker = _address(project, queue), None
        service.subscriptions.get(address, subscription_id)
        while page := service.deliveries.dead(address, subscription_id, marker=marker):
            for pending, given_up in page:
                click.echo(f"{pending.id}  {_moment(given_up)}  {len(pending.notice.body)} bytes")
            marker = page[-1][0].id


@subscription.command("replay")
@click.argument("queue")
@click.argument("subscription_id", metavar="ID")
@click.option("--id", "ids", multiple=True, help="A delivery that was given up. Repeatable.")
@click.option("--since", metavar="WHEN", help="All that were given up since: ISO 8601.")
@_PROJECT
@flags("config", "store")
def replay(
    queue: str,
    subscription_id: str,
    ids: tuple[str, ...],
    since: str | None,
    project: str,
    config: Path | None,
    **given: object,
) -> None:
    """Have deliveries of a subscription that were given up made anew."""
    from transport import moments

    with opened(config, **given) as service:
        address = _address(project, queue)
        service.subscriptions.get(address, subscription_id)
        begin = None if since is None else round(moments.parse(since, datetime.now(UTC)).timestamp() * 1000)
        count = service.deliveries.replay(address, subscription_id, ids=ids or None, since=begin)
    click.echo(f"{count} sent again")


@subscription.command("remove")
@click.argument("queue")
@click.argument("subscription_id", metavar="ID")
@_PROJECT
@flags("config", "store")
def remove_subscription(
    queue: str, subscription_id: str, project: str, config: Path | None, **given: object
) -> None:
    """Remove the subscription ID of QUEUE, if it is there."""
    with opened(config, **given) as service:
        address = _address(project, queue)
        service.subscriptions.delete(address, subscription_id)
        service.deliveries.drop(address, subscription_id)


def _address(project: str, queue: str) -> Address:
    from queues.limits import check_address
    from queues.models import Address

    address = Address(project=project, queue=queue)
    check_address(address)
    return address


def _line(subscription: Subscription) -> str:
    state = "confirmed" if subscription.confirmed else "unconfirmed"
    if subscription.disabled is not None:
        state = f"disabled ({subscription.disabled})"
    return f"{subscription.id}  {state}  {subscription.subscriber}"


def _moment(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
