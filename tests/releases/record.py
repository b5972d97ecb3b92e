"""Keeps what a release stores and answers: `python -m tests.releases.record`, at its tag.

Makes tests/releases/VERSION with a store of each kind, what was asked and answered to make it and of it, and the
release as a wheel. Refuses to change what is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import queues
from tests import servers
from tests.releases.application import NOW, Exchange, application
from tests.releases.dumps import FILES, dump, uri_of
from tests.releases.story import READS, WRITES

ROOT = Path(__file__).parents[2]


def record(kind: str, scratch: Path, target: Path) -> dict[str, object]:
    """Tell both halves of the story to a new store, keep the store as it is in between, and return what was answered."""
    uri, names = uri_of(kind, scratch), dict[str, str]()
    with application(uri) as app:
        writes = app.tell(WRITES, names)
        middle = app.now
    dump(kind, uri, target / FILES[kind])
    with application(uri, middle) as app:
        reads: list[Exchange] = app.tell(READS, names)
    return {"began": NOW, "now": middle, "names": names, "writes": writes, "reads": reads}


def main() -> None:
    """Record this version."""
    target = Path(__file__).parent / queues.__version__
    if target.exists() and any(target.iterdir()):
        sys.exit(f"{target} is there, and what was recorded is never changed.")
    target.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for kind in FILES:
                found = record(kind, Path(scratch), target)
                (target / f"{kind}-answers.json").write_text(json.dumps(found, indent=1) + "\n")
    finally:
        servers.stop_all()
    pip = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(target),
        str(ROOT),
    )
    subprocess.run(pip, check=True)


if __name__ == "__main__":
    main()
