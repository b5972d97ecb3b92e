"""Keeps what a release stores and answers: `python -m tests.releases.record`, at its tag.

Makes tests/releases/VERSION with a store of each kind, what was asked and answered to make it and of it, what was said on
websockets and to webhooks, and the release as a wheel. Refuses to change what is there. `python -m tests.releases.record
VERSION` has the wheel of a release that is kept say what was not recorded with it.
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
from tests.releases.previous import RELEASES, from_wheel
from tests.releases.story import READS, WRITES
from tests.releases.wire import record_wire

ROOT = Path(__file__).parents[2]
WIRE = ("websocket.json", "webhooks.json")


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


def record_all(target: Path) -> None:
    """Record this version."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in FILES:
            found = record(kind, Path(scratch), target)
            write(target / f"{kind}-answers.json", found)
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
    record_said(target)


def record_said(target: Path) -> None:
    """Have the wheel say on websockets and to webhooks what there is to say."""
    with tempfile.TemporaryDirectory() as scratch:
        (packages := Path(scratch, "release")).mkdir()
        from_wheel(target, packages)
        (run := Path(scratch, "run")).mkdir()
        for name, found in zip(WIRE, record_wire(run, {"PYTHONPATH": str(packages)}), strict=True):
            write(target / name, found)


def write(path: Path, document: object) -> None:
    """Write a document to a file that is new."""
    with path.open("x") as file:
        file.write(json.dumps(document, indent=1) + "\n")


def main(*versions: str) -> None:
    """Record this version, or what is not there of others."""
    target = RELEASES / queues.__version__
    try:
        for version in versions:
            record_said(RELEASES / version)
        if not versions:
            if target.exists() and any(target.iterdir()):
                sys.exit(f"{target} is there, and what was recorded is never changed.")
            target.mkdir(exist_ok=True)
            record_all(target)
    finally:
        servers.stop_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
