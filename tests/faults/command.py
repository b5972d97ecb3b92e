"""`hermod-faults`: a run, the replay of runs that once failed, or the check of a run that was made before."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tests.faults.kept import FOLDER, VARIABLE, attempt
from tests.faults.report import Report
from tests.faults.run import Options, check_folder
from tests.faults.seeds import ONCE_FAILED
from tests.faults.world import STORES

_ROOT = Path(tempfile.gettempdir()) / "hermod-faults"


@click.command()
@click.option("--store", type=click.Choice(STORES), help="Where messages are; sqlite by default.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same faults.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Of faults and quiet times.")
@click.option(
    "--quiet",
    type=click.FloatRange(min=0),
    nargs=2,
    default=Options.quiet,
    show_default=True,
    help="Seconds without faults behind each, from and to.",
)
@click.option("--without", multiple=True, metavar="WORD", help="No faults whose names begin so; repeatable.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=_ROOT, help="Where runs are; a temporary folder."
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    default=FOLDER,
    envvar=VARIABLE,
    show_default=True,
    help="Where those that failed are kept.",
)
@click.option("--leave", is_flag=True, help="Leave the history and the logs of a run that was valid, too.")
@click.option("--once-failed", is_flag=True, help="Replay the runs that once found something.")
@click.option(
    "--check", type=click.Path(path_type=Path, exists=True), help="Check the run in this folder again."
)
def main(
    store: str | None,
    seed: int,
    minutes: float,
    quiet: tuple[float, float],
    without: tuple[str, ...],
    folder: Path,
    keep: Path,
    check: Path | None,
    *,
    leave: bool,
    once_failed: bool,
) -> None:
    """Put Hermod under faults, and tell which promises it kept. The exit code is 1 if there is one it did not."""
    if check is not None:
        _end(check_folder(check))
    if once_failed:
        wished = [each.options for each in ONCE_FAILED if store in (None, each.store)]
    else:
        known = Options(store=store or "sqlite", seed=seed, seconds=60 * minutes, folder=folder)
        wished = [replace(known, quiet=quiet, without=without)]
    reports = [_run(replace(each, folder=folder / each.name), keep, leave=leave) for each in wished]
    raise SystemExit(0 if all(report.valid for report in reports) else 1)


def _run(options: Options, keep: Path, *, leave: bool) -> Report:
    """Make a run, and say what came of it. Raises UsageError where there is no server for it."""
    try:
        report, kept = attempt(options, keep)
    except (pytest.skip.Exception, pytest.fail.Exception) as reason:
        raise click.UsageError(str(reason)) from reason
    click.echo(report.text())
    if kept is not None:
        click.echo(kept.text())
    if kept is not None or leave:
        click.echo(f"all files are in {options.folder}")
    else:
        shutil.rmtree(options.folder)
    return report


def _end(report: Report) -> None:
    click.echo(report.text())
    raise SystemExit(0 if report.valid else 1)
