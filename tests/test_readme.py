"""README and how-to guides say what happens: what they print is executed as printed, against a real service.

A block of `bash` or `python` is run; the block of `text` behind it is what comes out, and without one nothing
does. A block of `python` that begins with a comment such as `# receiver.py` is a file of that name, and is not run
by itself. The blocks of a page are one session in one folder, with the first block of `toml` as `hermod.toml`. The
example address gets the port of the service, and example ports of other servers get ports that are free; `pip
install` is left out, for the packages are there. A block of `console` is not run.

Pages on what subscribers are told are run over each kind of store.
"""

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from transport.settings import load

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

EXAMPLE = "127.0.0.1:8888"  # where the pages expect the service
PORTS = re.compile(r"\b(?:9000|8025)\b")  # where they expect a receiver of webhooks, and a mail server
READY = 30  # seconds until the service listens, on a slow machine
SESSION = 100  # seconds that all blocks of a page may take
END = 40  # seconds until the service has stopped

# What differs from run to run. The same id is the same id throughout a page, so ids are numbered.
IDS = re.compile(
    r"\b[0-9a-f]{64}\b|\bmsg_[0-9a-f]{32,}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{24}\b|hmd_[0-9a-f]{16}_[\w-]{43}"
    r"|\b[0-9a-f]{16}\b|\bwh(?:sec|pk)_[\w+/]{43}=|\bv1a?,[\w+/]{43,86}=+"
)
TIMES = re.compile(
    r'"age": ?\d+|"seconds": ?[\d.]+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|\b\d+/s\b'
    r"|(?<=Date: )\w{3}, \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}|webhook-timestamp: \d+|\('127.0.0.1', \d+\)"
)

# What the reader is to make, where a page prints a word in capitals.
OWN = {
    '"SECRET"': lambda: f'"{secrets.token_urlsafe(32)}"',
    ":KEY": lambda: f":{base64.b64encode(secrets.token_bytes(32)).decode()}",
    "whsk_KEY": lambda: f"whsk_{base64.b64encode(secrets.token_bytes(32)).decode()}",
}


@dataclass(frozen=True)
class Block:
    language: str
    text: str


@dataclass(frozen=True)
class Step:
    """Something to run, and what is to come out."""

    block: Block
    output: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def steps(page: Path) -> list[Step]:
    found = blocks(page)
    following = [*found[1:], Block("", "")]
    return [
        Step(block, after.text if after.language == "text" else "")
        for block, after in zip(found, following, strict=True)
        if block.language in ("bash", "python") and name_of(block) is None
    ]


def name_of(block: Block) -> str | None:
    """The name of the file that a block is; None for one that is run."""
    found = re.match(r"# (\w+\.py)\n", block.text) if block.language == "python" else None
    return found and found[1]


def settings_of(block: Block) -> str:
    text = block.text
    for word, make in OWN.items():
        while word in text:
            text = text.replace(word, make(), 1)
    return text


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
CLUSTER = ROOT / "docs" / "how-to" / "production-cluster.md"  # tests/acceptance runs it, on many machines
SESSIONS = [page for page in PAGES if steps(page) and page != CLUSTER]
TOLD = [
    page
    for page in SESSIONS
    if page.stem in ("subscribe-a-webhook", "receive-events-safely", "send-mail", "publish-cloud-events")
]
STORES: dict[str, Callable[[Path], str]] = {"redis": servers.redis_uri, "mongodb": servers.mongodb_uri}
RUNS = [
    *(pytest.param(page, None, id=page.name) for page in SESSIONS),
    *(pytest.param(page, store, id=f"{page.name}-{store}") for page in TOLD for store in STORES),
]
FILES = [(page, block) for page in PAGES for block in blocks(page) if block.language == "toml"]


class Service:
    """`hermod serve` on a free port, in a folder of its own."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
        self.environ = {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HERMOD_WEBSOCKET_BIND": "127.0.0.1:0",
        }
        if store is not None:
            self.environ["HERMOD_STORE"] = store
        self.log = folder / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["hermod", "serve", "--bind", "127.0.0.1:0"],
                cwd=folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def address(self) -> str:
        """Wait until the service says where it listens."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                if '"event":"listening"' in line:
                    address: str = json.loads(line)["url"].removeprefix("http://")
                    return address
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            time.sleep(0.02)
        raise AssertionError("the service does not listen")

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(END)
        finally:
            self.process.kill()  # its parts end with it


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


class Places:
    """Where the servers of a session listen, instead of where a page expects them."""

    def __init__(self) -> None:
        self.address = EXAMPLE  # of the service
        self._ports: dict[str, str] = {}

    def put(self, text: str) -> str:
        return PORTS.sub(lambda found: self._port(found[0]), text.replace(EXAMPLE, self.address))

    def _port(self, example: str) -> str:
        if example not in self._ports:
            self._ports[example] = str(servers.free_port())
        return self._ports[example]


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
    places.address = service.address()
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
