"""A real browser without a screen, asked over its debugging protocol what is on a page."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from tests import servers

NAMES = ("chromium", "chromium-browser", "google-chrome")
READY = 30.0  # seconds that a start, or an answer, may take
END = 15.0  # seconds until it has ended


def binary() -> str:
    """Return the program; without one the test is skipped, or fails where it is required."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        servers.absent("chromium", f"none of {', '.join(NAMES)} is on PATH")
    return found or ""


class Browser:
    """A browser with one page, and nobody's profile."""

    def __init__(self, folder: Path, url: str) -> None:
        self._log = folder / "browser.txt"
        # Nobody but a container's root has no sandbox to be kept in; and what it shows comes from this machine.
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    binary(),
                    "--headless",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--no-first-run",
                    "--remote-debugging-port=0",
                    f"--user-data-dir={folder / 'profile'}",
                    *alone,
                    url,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._ids = itertools.count()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(END)
        finally:
            self._process.kill()

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript is on the page."""
        return asyncio.run(self._evaluate(expression))

    async def _evaluate(self, expression: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=READY)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.get(f"http://{self._address()}/json/list") as answer:
                (page,) = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"]) as debugger:
                number = next(self._ids)
                asked = {"expression": expression, "returnByValue": True}
                await debugger.send_json({"id": number, "method": "Runtime.evaluate", "params": asked})
                while (said := await debugger.receive_json()).get("id") != number:
                    pass
        assert "exceptionDetails" not in said["result"], said
        return said["result"]["result"].get("value")

    def _address(self) -> str:
        """Wait until it says where it can be asked."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            text = self._log.read_text(encoding="utf-8", errors="replace")
            if found := re.search(r"DevTools listening on ws://([^/]+)/", text):
                return found[1]
            assert self._process.poll() is None, text
            time.sleep(0.02)
        raise AssertionError("the browser does not come up")
