"""The command line of `hermod bench`. A command parses, calls and answers."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from bench import services
from bench.commands_run import WORKLOADS, run
from bench.conditions import Conditions, conditions
from bench.report import Figure, save, stated, text

if TYPE_CHECKING:
    from bench.contest import Measured
    from queues.ports import Driver

_SHALLOW = 5_000  # messages at the end of the workload `depth`, where it is to be short

_STORE = click.option("--store", metavar="URI", help="Measure this store instead of new SQLite files.")
_SHARED_STORE = click.option(
    "--store", metavar="URI", help="Measure this store instead of a new SQLite file."
)
_JSON = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the figures to a file too.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure Hermod, or another service that speaks the same API."""


bench.add_command(run)


@bench.command(name="workloads")
@click.option("--store", default="sqlite", show_default=True, metavar="STORE", help="As that of run.")
@click.option("--seconds", default=1.0, show_default=True, help="How long each counts.")
@click.pass_context
def _workloads(context: click.Context, store: str, seconds: float) -> None:
    """Run every workload, for a moment each."""
    for workload in WORKLOADS:
        click.echo(f"--- {workload}\n")
        context.invoke(
            run, workload=workload, store=store, seconds=seconds, warm_up=seconds / 2, depth=_SHALLOW
        )
        click.echo()


@bench.command(name="goals")
@click.option(
    "--store",
    "stores",
    type=click.Choice(services.STORES),
    multiple=True,
    default=services.STORES,
    help="On which store; all by default. Can be repeated.",
)
@click.option("--seconds", default=1.0, show_default=True, help="Length of a slice of load.")
@click.option("--slices", default=3, show_default=True, help="How many of them each load has.")
@click.option(
    "--rounds",
    default=60,
    show_default=True,
    help="How often operations on a deep queue are timed; 0: never.",
)
@_JSON
def _goals(stores: Sequence[str], seconds: float, slices: int, rounds: int, json_file: Path | None) -> None:
    """Compare the service with its yardsticks, and tell which goals are met."""
    from bench import contest, goals

    effort = contest.Effort(seconds=seconds, slices=slices, rounds=rounds)
    found: dict[str, Measured | str] = {}
    with click.progressbar(
        length=len(stores) * contest.STEPS,
        label="goals",
        file=sys.stderr,
        item_show_func=lambda done: done or "",
    ) as bar:
        for store in stores:
            try:
                found[store] = contest.measure(store, effort, lambda done: bar.update(1, done))
            except services.NotHere as reason:
                found[store] = f"could not run: {reason}"
                bar.update(contest.STEPS)
    for store, measured in found.items():
        if not isinstance(measured, str):
            click.echo(f"{stated(measured.conditions)}\n\n{contest.text(store, measured)}\n")
    click.echo(goals.text(found))
    if json_file is not None:
        json_file.write_text(json.dumps(goals.documents(found), indent=2) + "\n", encoding="utf-8")


@bench.command(name="compare")
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def _compare(before: Path, after: Path) -> None:
    """Tell what has changed from the figures in one file to those in another."""
    from bench import compare

    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    click.echo(compare.text(old, new))


@bench.command(name="depth")
@click.option("--messages", default=200_000, show_default=True, help="How deep the large queues are.")
@click.option("--rounds", default=50, show_default=True, help="How often each operation is timed.")
@_STORE
@_JSON
def _depth(messages: int, rounds: int, store: str | None, json_file: Path | None) -> None:
    """Compare what operations of a store cost on small queues and on large ones."""
    from bench import depth

    with _stores(store) as (open_store, _, found):
        figures = depth.measure(open_store, size=messages, rounds=rounds)
        figures += depth.measure_debts(open_store, size=messages)
        _report(found, figures, json_file)


@bench.command(name="memory")
@click.option("--messages", default=1_000_000, show_default=True, help="How many messages are queued.")
@click.option("--store", metavar="URI", required=True, help="A Redis that nobody else uses.")
@_JSON
def _memory(messages: int, store: str, json_file: Path | None) -> None:
    """Measure what a message takes up in the memory of Redis."""
    from bench import memory

    with _stores(store) as (open_store, _, found):
        _report(found, memory.measure(open_store("memory"), store, size=messages), json_file)


@bench.command(name="fanout")
@click.option("--seconds", default=8.0, show_default=True, help="How long each load lasts.")
@_SHARED_STORE
@_JSON
def _fanout(seconds: float, store: str | None, json_file: Path | None) -> None:
    """Measure a notifier at its limits, and what having a subscriber costs a post."""
    from bench import fanout

    _report_of_services(store, json_file, partial(fanout.measure, seconds=seconds))


@bench.command(name="hotpath")
@click.option("--rounds", default=1000, show_default=True, help="How often each load is timed.")
@_JSON
def _hotpath(rounds: int, json_file: Path | None) -> None:
    """Compare posting, claiming and deleting in one thread with what bare sqlite3 takes for the same rows."""
    from bench import hotpath

    with _stores(None) as (_, folder, found):
        _report(found, hotpath.measure(folder, rounds=rounds), json_file)


@bench.command(name="websocket")
@click.option("--seconds", default=5.0, show_default=True, help="How long the load of requests lasts.")
@_SHARED_STORE
@_JSON
def _websocket(seconds: float, store: str | None, json_file: Path | None) -> None:
    """Measure requests, idle connections and pushed messages over websockets."""
    from bench import websocket

    _report_of_services(store, json_file, partial(websocket.measure, seconds=seconds))


@contextmanager
def _stores(uri: str | None) -> Iterator[tuple[Callable[[str], Driver], Path, Conditions]]:
    """Yield a function that opens stores by name, the folder of the files, and the conditions so far.

    There is a new SQLite file for each name, or the one store of the URI for all.
    """
    from storage.registry import connect

    with TemporaryDirectory(prefix="hermod-bench-") as folder, ExitStack() as opened:
        own = secrets.token_hex(4)

        def open_store(name: str) -> Driver:
            driver = connect(uri or f"sqlite:///{folder}/{own}-{name}.db")
            opened.callback(driver.close)
            return driver

        yield open_store, Path(folder), conditions(open_store("conditions"), Path(folder))


def _report_of_services(
    store: str | None, json_file: Path | None, measure: Callable[[str], list[Figure]]
) -> None:
    """Measure services, which are processes of their own, on the store of a URI or on a new SQLite file."""
    with _stores(store) as (_, folder, found):
        _report(found, measure(store or f"sqlite:///{folder}/services.db"), json_file)


def _report(found: Conditions, figures: Sequence[Figure], json_file: Path | None) -> None:
    click.echo(text(found, figures))
    if json_file is not None:
        save(json_file, found, figures)
