"""Runs that failed, in a folder that outlives them: what they were, what was wrong, and how to make them again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.report import Report
from tests.faults.run import Options, run

FOLDER = Path("faults-failed")  # below the working directory, unless it is told otherwise
VARIABLE = "HERMOD_TEST_FAULTS_KEEP"  # which tells so

_ROOT = Path(__file__).parents[2]
_FILES = ("history.jsonl", "logs", "plan.json", "report.json", "report.txt")  # of a run, without the store's


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A run that was kept."""

    folder: Path
    command: str  # which makes it again

    def text(self) -> str:
        """Say where it is, and how to make it again."""
        return f"kept in {self.folder}; again:\n  {self.command}\ncheck it again:\n  hermod-faults --check {self.folder}"


def attempt(options: Options, folder: Path | None = None) -> tuple[Report, Kept | None]:
    """Make a run, and keep it if it failed: in this folder, or the one that the environment names."""
    report = run(options)
    if report.valid:
        return report, None
    return report, keep(options, report, folder or Path(os.environ.get(VARIABLE, FOLDER)))


def keep(options: Options, report: Report, folder: Path) -> Kept:
    """Copy what a run left to a new folder below this one."""
    now = datetime.now(UTC)
    kept = Kept(
        folder=(folder / f"{options.name}-{now:%Y%m%dT%H%M%S%fZ}").absolute(), command=command(options)
    )
    kept.folder.mkdir(parents=True)
    for name in _FILES:
        if (file := options.folder / name).exists():
            shutil.copy(file, kept.folder)
    facts = {
        "store": options.store,
        "seed": options.seed,
        "seconds": options.seconds,
        "quiet": options.quiet,
        "without": options.without,
        "absent": report.absent,
        "commit": commit(),
        "date": now.isoformat(timespec="seconds"),
        "command": kept.command,
        "problems": report.problems,
    }
    (kept.folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    return kept


def command(options: Options) -> str:
    """Return the command that makes a run with the same faults."""
    words = ["hermod-faults", "--store", options.store, "--seed", str(options.seed)]
    words += ["--minutes", f"{options.seconds / 60:.12g}"]
    if options.quiet != Options.quiet:
        words += ["--quiet", *map(str, options.quiet)]
    for word in options.without:
        words += ["--without", word]
    return shlex.join(words)


def commit() -> str:
    """Return the commit of the checkout, with a `+` if it was changed; "unknown" where there is no git."""
    try:
        found = [
            subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0].strip() + ("+" if found[1].strip() else "")
