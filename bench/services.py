"""Starts the services of Hermod as processes of their own, to be measured."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

HOST = "127.0.0.1"

_START = 30.0  # seconds for a service to come up


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: str, uri: str, *flags: str) -> Iterator[psutil.Process]:
    """Run a command of Hermod, with nothing in its environment that could configure it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "transport", command, "--store", uri, *flags],
        env={name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + _START
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError("A service does not come up.") from error
            time.sleep(0.1)
        else:
            return


def worker_of(process: psutil.Process) -> psutil.Process:
    """Return the only worker of a server."""
    (worker,) = process.children()
    return worker
