"""Pages of the documentation as sessions: their blocks, the service that they speak to, and where it listens."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests import servers

ROOT = Path(__file__).parent.parent
HOW_TO = ROOT / "docs" / "how-to"
BIN = Path(sys.executable).parent

EXAMPLE = "127.0.0.1:8888"  # where the pages expect the REST service
SOCKET = "127.0.0.1:9000"  # where they expect the websocket service
PORTS = re.compile(r"\b(?:8000|8025)\b")  # where they expect a web server of the reader's, and a mail server
READY = 30  # seconds until the service listens, on a slow machine
END = 40  # seconds until the service has stopped

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


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def name_of(block: Block) -> str | None:
    """The name of the file that a block is; None for one that is run."""
    beginnings = {"python": r"# (\w+\.py)\n", "html": r"<!-- (\w+\.html) -->\n"}
    found = re.match(beginnings.get(block.language, "$^"), block.text)
    return found and found[1]


def settings_of(block: Block) -> str:
    text = block.text
    for word, make in OWN.items():
        while word in text:
            text = text.replace(word, make(), 1)
    return text


class Service:
    """`hermod serve` on a free port, in a folder of its own."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
        self.environ = {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HERMOD_WEBSOCKET_BIND": f"127.0.0.1:{servers.free_port()}",
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

    def address(self, scheme: str) -> str:
        """Wait until a part of the service says where it listens."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                if '"event":"listening"' in line:
                    found, _, address = str(json.loads(line)["url"]).partition("://")
                    if found == scheme:
                        return address
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            time.sleep(0.02)
        raise AssertionError(f"the service does not listen for {scheme}")

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(END)
        finally:
            self.process.kill()  # its parts end with it


class Places:
    """Where the servers of a session listen, instead of where a page expects them."""

    def __init__(self) -> None:
        self.service: dict[str, str] = {}  # addresses, by those that are printed
        self._ports: dict[str, str] = {}

    def put(self, text: str) -> str:
        for example, address in self.service.items():
            text = text.replace(example, address)
        return PORTS.sub(lambda found: self._port(found[0]), text)

    def _port(self, example: str) -> str:
        if example not in self._ports:
            self._ports[example] = str(servers.free_port())
        return self._ports[example]
