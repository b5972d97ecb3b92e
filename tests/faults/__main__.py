"""`python -m tests.faults`: one run, or the check of one that was made before."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from tests.faults.run import Options, check_folder, run
from tests.faults.world import STORES


@click.command()
@click.option("--store", type=click.Choice(STORES), default="sqlite", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same faults.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Of faults and quiet times.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where runs are kept; a temporary one by default."
)
@click.option("--keep", is_flag=True, help="Keep the history of a run that was valid, too.")
@click.option(
    "--check", type=click.Path(path_type=Path, exists=True), help="Check the run in this folder again."
)
def main(
    store: str, seed: int, minutes: float, folder: Path | None, *, keep: bool, check: Path | None
) -> None:
    """Put Hermod under faults, and tell which promises it kept. The exit code is 1 if there is one it did not."""
    if check is not None:
        report = check_folder(check)
    else:
        root = folder or Path(tempfile.gettempdir()) / "hermod-faults"
        options = Options(store=store, seed=seed, seconds=60 * minutes, folder=root / f"{store}-{seed}")
        report = run(options)
        if report.valid and not keep:
            shutil.rmtree(options.folder)
        else:
            click.echo(f"kept in {options.folder}")
    click.echo(report.text())
    raise SystemExit(0 if report.valid else 1)


if __name__ == "__main__":
    main()
