"""README and how-to guides say what happens: what they print is executed as printed, against a real service.

A block of `bash` or `python` is run; the block of `text` behind it is what comes out, and without one nothing
does. A block of `python` or `html` that begins with a comment such as `# receiver.py` or `<!-- page.html -->` is a
file of that name, and is not run by itself. The blocks of a page are one session in one folder, with the first block of
`toml` as `hermod.toml`. The example addresses get the ports of the service, and example ports of other servers get ports
that are free; `pip install` is left out, for the packages are there. A block of `console` is not run.

Pages on what subscribers are told are run over each kind of store.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.pages import (
    END,
    EXAMPLE,
    HOW_TO,
    READY,
    ROOT,
    SOCKET,
    Block,
    Places,
    Service,
    blocks,
    name_of,
    settings_of,
)
from transport.settings import load

SESSION = 100  # seconds that all blocks of a page may take

# What differs from run to run. The same id is the same id throughout a page, so ids are numbered.
IDS = re.compile(
    r"\b[0-9a-f]{64}\b|\bmsg_[0-9a-f]{32,}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{24}\b|hmd_[0-9a-f]{16}_[\w-]{43}"
    r"|\b[0-9a-f]{16}\b|\bwh(?:sec|pk)_[\w+/]{43}=|\bv1a?,[\w+/]{43,86}=+"
)
TIMES = re.compile(
    r'"age": ?\d+|"seconds": ?[\d.]+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|\b\d+/s\b'
    r"|(?<=Date: )\w{3}, \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}|webhook-timestamp: \d+|\('127.0.0.1', \d+\)"
)


@dataclass(frozen=True)
class Step:
    """Something to run, and what is to come out."""

    block: Block
    output: str


def steps(page: Path) -> list[Step]:
    found = blocks(page)
    following = [*found, Block("", "")][1:]
    return [
        Step(block, after.text if after.language == "text" else "")
        for block, after in zip(found, following, strict=True)
        if block.language in ("bash", "python") and name_of(block) is None
    ]


PAGES = [ROOT / "README.md", *sorted(HOW_TO.glob("*.md"))]
CLUSTER = HOW_TO / "production-cluster.md"  # tests/acceptance runs it, on many machines
SESSIONS = [page for page in PAGES if steps(page) and page != CLUSTER]
TOLD = [
    page
    for page in SESSIONS
    if page.stem
    in (
        "subscribe-a-webhook",
        "receive-events-safely",
        "receive-over-a-websocket",
        "send-mail",
        "publish-cloud-events",
    )
]
STORES: dict[str, Callable[[Path], str]] = {"redis": servers.redis_uri, "mongodb": servers.mongodb_uri}
RUNS = [
    *(pytest.param(page, None, id=page.name) for page in SESSIONS),
    *(pytest.param(page, store, id=f"{page.name}-{store}") for page in TOLD for store in STORES),
]
FILES = [(page, block) for page in PAGES for block in blocks(page) if block.language == "toml"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a session takes place."""
    path = tmp_path / "session"
    path.mkdir()
    return path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[str | None], Service]]:
    service = None

    def begin(store: str | None) -> Service:
        nonlocal service
        service = Service(folder, store)
        return service

    yield begin
    if service is not None:
        code = service.stop()
        sys.stdout.write(service.log.read_text(encoding="utf-8"))  # for whoever reads about a failure
        assert code == 0


def script(page: Path, folder: Path, places: Places) -> tuple[str, str]:
    """Return all steps of a page as one script, and the line that it prints behind each."""
    mark = secrets.token_hex(4)
    lines = ["set -euo pipefail"]
    for number, step in enumerate(steps(page)):
        text = places.put(step.block.text)
        if step.block.language == "python":
            path = folder / f"step_{number}.py"
            path.write_text(text, encoding="utf-8")
            text = f"python3 {path.name}\n"
        text = re.sub(r"^pip install .*\n", "", text, flags=re.MULTILINE)
        lines.append(f"{text}printf '\\n%s\\n' {mark}")
    lines.append("kill $(jobs -p) 2>/dev/null || true")  # what was started in the background
    return "\n".join(lines), mark


def run(text: str, service: Service) -> str:
    with subprocess.Popen(
        ["bash", "-c", text],
        cwd=service.folder,
        env=service.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as session:
        try:
            output, _ = session.communicate(timeout=SESSION)
        finally:
            with suppress(ProcessLookupError):  # what is left of it
                os.killpg(session.pid, signal.SIGKILL)
    assert session.returncode == 0, output
    return output


def masked(texts: list[str]) -> list[str]:
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"<id {len(names)}>")

    return [TIMES.sub("<time>", IDS.sub(name, text.strip())) for text in texts]


@pytest.mark.timeout(READY + SESSION + END + 10)
@pytest.mark.parametrize(("page", "store"), RUNS)
def test_a_page_says_what_happens(page, store, folder, start):
    uri = None if store is None else STORES[store](folder)
    places = Places()
    settings = [block for path, block in FILES if path == page]
    if settings:
        (folder / "hermod.toml").write_text(places.put(settings_of(settings[0])), encoding="utf-8")
    service = start(uri)
    places.service = {EXAMPLE: service.address("http"), SOCKET: service.address("ws")}
    for block in blocks(page):
        if name := name_of(block):
            (folder / name).write_text(places.put(block.text), encoding="utf-8")

    text, mark = script(page, folder, places)
    outputs = run(text, service).split(f"\n{mark}\n")[:-1]

    assert masked(outputs) == masked([places.put(step.output) for step in steps(page)])


@pytest.mark.parametrize(("page", "block"), FILES, ids=[page.name for page, _ in FILES])
def test_a_printed_settings_file_is_valid(page, block, tmp_path):
    path = tmp_path / "hermod.toml"
    path.write_text(settings_of(block), encoding="utf-8")

    loaded = load(path, environ={})

    assert loaded.file == path


def test_the_two_commands_run_the_service_and_the_tests():
    [commands] = [
        block.text.splitlines() for block in blocks(ROOT / "README.md") if block.language == "console"
    ]
    assert commands == ["make run", "make test"]

    run_it, test_it = (
        subprocess.run(
            [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        for command in commands
    )

    assert "bin/hermod serve" in run_it
    assert "bin/pytest" in test_it
