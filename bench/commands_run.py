"""The command line of `hermod bench run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import click

from bench import services
from bench.setup import Setting, Wish, setting
from queues.errors import HermodError

if TYPE_CHECKING:
    from bench.run import Findings

_DEFAULT = Wish(workload="")
_COUNT = click.IntRange(min=1)
_TIME = click.FloatRange(min=0, min_open=True)

#: What measures each workload; imported when it is asked for.
WORKLOADS = {
    **dict.fromkeys(("post", "post-batch", "claim-delete", "mixed", "list"), "bench.run:requests"),
    "fan-out": "bench.fan_out:measure",
    "depth": "bench.growth:measure",
    "idle-waiters": "bench.waiting:measure",
}


@click.command()
@click.argument("workload", type=click.Choice(list(WORKLOADS)))
@click.option("--url", default="", metavar="URL", help="A service that runs already, without /v2.")
@click.option(
    "--store",
    default=_DEFAULT.store,
    show_default=True,
    metavar="STORE",
    help=f"Otherwise one is started, on this store: a URI, or {', '.join(services.STORES)} for a new one.",
)
@click.option("--project", default="", help="Project of the queues; one of their own by default.")
@click.option("--token", default="", envvar="HERMOD_BENCH_TOKEN", help="Token to send (HERMOD_BENCH_TOKEN).")
@click.option("--websocket-url", default="", metavar="URL", help="Where --url speaks websocket, for fan-out.")
@click.option(
    "--receiver",
    default=_DEFAULT.receiver,
    show_default=True,
    metavar="HOST",
    help="Address of this machine at which --url reaches webhooks, for fan-out.",
)
@click.option("--processes", type=_COUNT, default=2, show_default=True, help="Client processes.")
@click.option(
    "--connections",
    type=_COUNT,
    multiple=True,
    default=_DEFAULT.connections,
    show_default=True,
    help="Connections of all of them together. Repeated: a run for each number.",
)
@click.option("--workers", type=_COUNT, default=2, show_default=True, help="Workers of the service started.")
@click.option("--threads", type=_COUNT, default=8, show_default=True, help="Threads of each worker.")
@click.option("--seconds", type=_TIME, default=10.0, show_default=True, help="How long it counts.")
@click.option(
    "--warm-up", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds before that."
)
@click.option(
    "--rate",
    type=_TIME,
    help="Operations due per second (open loop). Without it, each connection sends as soon as it can (closed loop).",
)
@click.option(
    "--size",
    type=click.IntRange(min=100),
    default=_DEFAULT.size,
    show_default=True,
    help="Bytes of a message body.",
)
@click.option(
    "--batch", type=_COUNT, default=10, show_default=True, help="Messages of a request, where not 1."
)
@click.option("--stock", type=_COUNT, help="Messages that are there at first. Default: enough.")
@click.option(
    "--depth", type=_COUNT, default=_DEFAULT.depth, show_default=True, help="Messages at the end of depth."
)
@click.option(
    "--waiters",
    type=click.IntRange(1, 1000),
    default=_DEFAULT.waiters,
    show_default=True,
    help="Clients that wait in idle-waiters.",
)
@click.option(
    "--subscribers", type=_COUNT, default=1, show_default=True, help="Subscribers of each kind in fan-out."
)
@click.option(
    "--yardsticks", is_flag=True, help="Put the same load on a bare application and the bare engine too."
)
@click.option(
    "--ceiling/--no-ceiling",
    default=True,
    help="Whether to find out what the client could do at most.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write JSON too.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), metavar="FILE", help="Draw an SVG too.")
def run(json_file: Path | None, plot_file: Path | None, **wished: Any) -> None:  # noqa: ANN401 - of many types
    """Put a workload on a service, and print what came of it."""
    measure: Callable[[Setting], Findings] = resolve_name(WORKLOADS[wished["workload"]])
    try:
        with setting(Wish(**wished)) as place:
            findings = measure(place)
    except (services.NotHere, HermodError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    _tell(place, findings)
    if json_file is not None:
        _write(json_file, place, findings)
    if plot_file is not None:
        _draw(plot_file, place, findings)


def _tell(place: Setting, findings: Findings) -> None:
    from bench import report, rows

    parts = [report.stated(place.conditions), rows.text(findings.rows), report.tables(findings.figures)]
    click.echo("\n\n".join(filter(None, parts)))


def _write(path: Path, place: Setting, findings: Findings) -> None:
    from bench import report, rows

    document = {
        "rows": [rows.document(row) for row in findings.rows],
        "figures": [asdict(figure) for figure in findings.figures],
    }
    report.write(path, place.conditions, document)


def _draw(path: Path, place: Setting, findings: Findings) -> None:
    """Draw how it grows, if it does, and how latencies are distributed, beside it then."""
    from bench import plot

    title = place.wish.workload
    if plot.growth(path, title, findings.rows):
        path = path.with_stem(f"{path.stem}-latencies")
    plot.latencies(path, title, findings.rows)
