"""The hot path over sockets: 2 workers and 8 connections, against a bare falcon application and bare sqlite3.

Client, server and store share the machine, and take turns with the yardsticks in
short slices.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.pool import Pool
from pathlib import Path

import psutil

from bench import rest
from bench.bare import BareQueue
from bench.client import Connection, Order, Tally, work
from bench.hotpath import LOADS
from bench.populations import post
from bench.report import Figure
from bench.services import free_port
from queues.models import Address
from queues.ports import MessageStore
from storage.registry import connect

WORKERS = 2
THREADS = 8
CLIENTS = 2  # processes
CONNECTIONS = 4  # of each client

#: Share of the speed of bare sqlite3 that is wanted.
GOALS = {"post 1": 0.5, "post 10": 0.6}

_HOST = "127.0.0.1"
_ADDRESS = Address(project=rest.PROJECT, queue=rest.QUEUE)
_START = 20.0  # seconds that a server has to come up


@dataclass(kw_only=True)
class Score:
    """What was done in all slices so far."""

    rates: list[float] = field(default_factory=list)  # how often the load was done per second, by slice
    latencies: list[float] = field(default_factory=list)  # seconds
    server_cpu: float = 0.0  # seconds
    client_cpu: float = 0.0  # seconds

    @property
    def rate(self) -> float:
        """The rate of the slice in the middle."""
        return statistics.median(self.rates)

    @property
    def count(self) -> int:
        """How often the load was done."""
        return len(self.latencies)

    def add(self, tallies: Sequence[Tally], seconds: float, server_cpu: float) -> None:
        """Add a slice; RuntimeError if anything went wrong in it."""
        errors = [error for tally in tallies for error in tally.errors]
        if errors:
            raise RuntimeError(f"{len(errors)} connections failed, the first one: {errors[0]}")
        before = self.count
        for tally in tallies:
            self.latencies += tally.latencies
            self.client_cpu += tally.cpu
        self.rates.append((self.count - before) / seconds)
        self.server_cpu += server_cpu


class Server:
    """A running server: its address, and the CPU time of all its processes."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = psutil.Process(process.pid)

    def cpu(self) -> float:
        """Return the seconds spent so far."""
        family = [self._process, *self._process.children(recursive=True)]
        times = [process.cpu_times() for process in family]
        return sum(each.user + each.system for each in times)


def measure(folder: Path, *, seconds: float, slices: int, stock: int = 60_000) -> list[Figure]:
    """Compare the service with the yardsticks, `slices` times so many seconds for each.

    `stock` messages are there to be claimed when a slice begins.
    """
    uri = f"sqlite:///{folder / 'served.db'}"
    with ExitStack() as opened:
        driver = connect(uri)
        opened.callback(driver.close)
        bare = BareQueue(folder / "alone.db")
        opened.callback(bare.close)
        clients = opened.enter_context(multiprocessing.get_context("spawn").Pool(CLIENTS))
        noop = opened.enter_context(_serving(folder, "bench.noop"))
        hermod = opened.enter_context(_serving(folder, "transport", "api", "--store", uri))
        figures = []
        for load, (_, messages) in LOADS.items():
            scores = {name: Score() for name in ("bare", "noop", "hermod")}
            for number in range(1 + slices):
                counted = scores if number else {name: Score() for name in scores}  # the first one warms up
                _restock(driver.messages, bare, stock)
                _slice_alone(counted["bare"], bare, load, seconds)
                _slice(counted["noop"], noop, clients, load, seconds)
                _slice(counted["hermod"], hermod, clients, load, seconds)
            figures.append(_figure(load, messages, scores))
    return figures


@contextmanager
def _serving(folder: Path, *command: str) -> Iterator[Server]:
    """Run a server, with nothing in its environment that could configure it."""
    port = free_port()
    flags = ["--bind", f"{_HOST}:{port}", "--workers", str(WORKERS), "--threads", str(THREADS)]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *flags],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            connection = Connection(_HOST, port)
            connection.send(rest.post(1))
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("A server does not come up.") from error
            time.sleep(0.1)
        else:
            connection.close()
            return


def _restock(store: MessageStore, bare: BareQueue, stock: int) -> None:
    """Make sure that there is enough to claim."""
    store.drop(_ADDRESS)
    post(store, _ADDRESS, stock)
    bare.post(stock)


def _slice_alone(score: Score, bare: BareQueue, load: str, seconds: float) -> None:
    operation, _ = LOADS[load]
    tally = Tally(latencies=[], cpu=0.0, errors=[])
    start = before = time.perf_counter()
    while before < start + seconds:
        operation(bare)
        after = time.perf_counter()
        tally.latencies.append(after - before)
        before = after
    score.add([tally], before - start, 0.0)


def _slice(score: Score, server: Server, clients: Pool, load: str, seconds: float) -> None:
    order = Order(
        host=_HOST,
        port=server.port,
        load=load,
        connections=CONNECTIONS,
        start=time.time() + 0.2,
        seconds=seconds,
    )
    cpu = server.cpu()
    tallies = clients.map(work, [order] * CLIENTS, chunksize=1)
    score.add(tallies, seconds, server.cpu() - cpu)


def _figure(load: str, messages: int, scores: Mapping[str, Score]) -> Figure:
    bare, noop, hermod = scores["bare"], scores["noop"], scores["hermod"]
    latencies = statistics.quantiles(hermod.latencies, n=100)
    return Figure(
        table=f"Hot path over sockets: {WORKERS} workers, {CLIENTS * CONNECTIONS} connections;"
        " the ratio is the speed over that of bare sqlite3 in one thread",
        load=load,
        columns={
            "bare/s": round(bare.rate),
            "no-op/s": round(noop.rate),
            "Hermod/s": round(hermod.rate),
            "messages/s": round(hermod.rate * messages),
            "p50, ms": latencies[49] * 1000,
            "p99, ms": latencies[98] * 1000,
            "no-op, cpu µs": noop.server_cpu / noop.count * 1e6,
            "Hermod, cpu µs": hermod.server_cpu / hermod.count * 1e6,
            "client, cpu µs": hermod.client_cpu / hermod.count * 1e6,
            "of no-op": hermod.rate / noop.rate,
        },
        ratio=hermod.rate / bare.rate,
        at_least=GOALS.get(load),
    )
