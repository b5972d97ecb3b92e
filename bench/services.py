"""Servers as processes of their own: the services of Hermod, yardsticks, and the engines of stores."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.usage import Processes

HOST = "127.0.0.1"
STORES = ("sqlite", "redis", "mongodb")  # that can be started here

_START = 30.0  # seconds for a service to come up


class NotHere(Exception):
    """What is to be measured cannot be started on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A store to measure."""

    name: str  # one of `STORES`, or what the URI begins with
    uri: str
    processes: Sequence[psutil.Process] = ()  # of its engine, if that was started here

    def used(self) -> Processes:
        """Return whose processor time is the store's."""
        return {"store": self.processes} if self.processes else {}


@contextmanager
def store(wanted: str, folder: Path) -> Iterator[Store]:
    """Yield the store of a URI, or a new one of the `STORES`, whose engine runs meanwhile.

    Raises NotHere.
    """
    if wanted == "sqlite":
        yield Store(name=wanted, uri=f"sqlite:///{folder / 'hermod.db'}")
    elif wanted in STORES:
        # The tests know how; this needs what they need, which a service elsewhere does not.
        try:
            import pytest

            from tests import servers
        except ModuleNotFoundError as absent:
            raise NotHere(f"starting {wanted} needs {absent.name}: pip install 'hermod[test]'") from absent

        make = {"redis": servers.redis_server, "mongodb": servers.mongodb_server}[wanted]
        try:
            engine = make()
        except (pytest.skip.Exception, pytest.fail.Exception) as reason:
            raise NotHere(str(reason)) from reason
        try:
            engine.start()
            running = [each.process for each in engine.processes if each.process]
            processes = [psutil.Process(process.pid) for process in running]
            base, _, query = engine.base.partition("?")
            uri = f"{base}hermod?{query}" if wanted == "mongodb" else engine.base
            yield Store(name=wanted, uri=uri, processes=processes)
        finally:
            engine.stop()
    else:
        yield Store(name=wanted.partition(":")[0], uri=wanted)


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(module: str, *arguments: str, **environ: str) -> Iterator[psutil.Process]:
    """Run a module, with nothing else in its environment that could configure it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**clean, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def notifier(uri: str) -> Iterator[psutil.Process]:
    """Run a notifier that may call this machine."""
    allowed = {"HERMOD_EGRESS_ALLOW": "127.0.0.0/8", "HERMOD_LOG_LEVEL": "warning"}
    with running("transport", "notifier", "--store", uri, **allowed) as process:
        yield process


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server on a port of its own; yield its URL too."""
    port = free_port()
    with running(module, *arguments, "--bind", f"{HOST}:{port}") as process:
        wait_for(port, process)
        yield f"http://{HOST}:{port}", process


def wait_for(port: int, process: psutil.Process) -> None:
    """Wait until a process listens; raises RuntimeError if it does not."""
    deadline = time.monotonic() + _START
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError as error:
            if time.monotonic() > deadline or process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError("A server does not come up.") from error
            time.sleep(0.1)
        else:
            return


def worker_of(process: psutil.Process) -> psutil.Process:
    """Return the only worker of a server."""
    (worker,) = process.children()
    return worker
