"""What the how-to guides print to receive messages with misses nothing when the service is killed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser import Browser, binary
from tests.pages import END, EXAMPLE, HOW_TO, READY, SOCKET, Places, Service, blocks, name_of, settings_of

TOLD = 40.0  # seconds until a receiver must have been told


def eventually(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + TOLD
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Session:
    """A page's files in a folder, and the service that they speak to."""

    def __init__(self, page: str, folder: Path) -> None:
        self.folder = folder
        self.places = Places()
        found = blocks(HOW_TO / page)
        for block in found:
            if block.language == "toml":
                (folder / "hermod.toml").write_text(self.places.put(settings_of(block)), encoding="utf-8")
        self.service = Service(folder)
        self._rest = self.service.address("http")
        self.places.service = {EXAMPLE: self._rest, SOCKET: self.service.address("ws")}
        for block in found:
            if name := name_of(block):
                (folder / name).write_text(self.places.put(block.text), encoding="utf-8")

    def post(self, *orders: int) -> None:
        """Post messages as the page does."""
        request = urllib.request.Request(
            f"http://{self._rest}/v2/queues/orders/messages",
            json.dumps({"messages": [{"body": {"order": order}} for order in orders]}).encode(),
            {"X-Project-ID": "demo", "Client-ID": str(uuid.uuid4()), "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 201

    def kill_websockets(self) -> None:
        """End the process that serves websockets without a warning; its master starts another one."""
        serve = psutil.Process(self.service.process.pid)
        (master,) = [part for part in serve.children() if "websocket" in part.cmdline()]
        killed = master.children()
        assert killed
        for worker in killed:
            worker.kill()
        eventually(lambda: not any(map(psutil.Process.is_running, killed)), lambda: killed)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[str], Session]]:
    with ExitStack() as stack:

        def start(page: str) -> Session:
            session = Session(page, tmp_path)
            stack.callback(session.service.stop)
            return session

        yield start


@pytest.mark.timeout(READY + 3 * TOLD + END)
def test_the_program_goes_on_where_it_was_when_the_service_was_killed(begin):
    session = begin("receive-over-a-websocket.md")
    with (session.folder / "received.txt").open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "receive.py"],
            cwd=session.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:

        def received() -> str:
            text: str = (session.folder / "received.txt").read_text()
            return text

        eventually((session.folder / "receive.json").exists, received)
        session.post(1, 2)
        eventually(lambda: "2" in received(), received)
        session.kill_websockets()
        session.post(3, 4)
        eventually(lambda: "4" in received(), received)
        session.post(5)
        eventually(lambda: "5" in received(), received)

        assert received().splitlines() == [f"{{'order': {number}}}" for number in (1, 2, 3, 4, 5)]
    finally:
        program.kill()
        program.wait(END)


@pytest.mark.timeout(2 * READY + 4 * TOLD + END)
def test_the_web_page_goes_on_where_it_was_when_the_service_was_killed_or_the_page_reloaded(begin):
    binary()  # or skip at once
    session = begin("receive-in-a-browser.md")
    port = session.places.put("8000")
    web = subprocess.Popen(
        [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"],
        cwd=session.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}/orders.html"
        eventually(lambda: _is_there(url), lambda: "the page is served")
        with Browser(session.folder, url) as browser:

            def shown() -> list[Any]:
                items = (
                    "[...document.querySelectorAll('#messages li')].map(item => JSON.parse(item.textContent))"
                )
                return [item["order"] for item in browser.evaluate(items)]

            def state() -> Any:
                return browser.evaluate("document.getElementById('state')?.textContent")

            eventually(lambda: state() == "connected", state)
            session.post(1, 2)
            eventually(lambda: shown() == [1, 2], shown)
            session.kill_websockets()
            session.post(3, 4)
            eventually(lambda: len(shown()) >= 4, shown)
            session.post(5)
            eventually(lambda: len(shown()) >= 5, shown)
            assert shown() == [1, 2, 3, 4, 5]

            browser.evaluate("location.href = 'about:blank'")
            eventually(lambda: browser.evaluate("location.href") == "about:blank", lambda: "the page is left")
            session.post(6)
            browser.evaluate(f"location.href = {json.dumps(url)}")
            eventually(lambda: shown() == [6], shown)
    finally:
        web.kill()
        web.wait(END)


def _is_there(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
