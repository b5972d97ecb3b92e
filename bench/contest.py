"""The service on a store against bare applications and the engine alone: 2 workers, 8 connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import depth, rows, services
from bench.conditions import BODY_SIZE, Conditions, conditions
from bench.fleet import Fleet, fleet
from bench.report import Figure, tables
from bench.rows import Row
from bench.services import Store, serving
from bench.trials import Alone, Contender, Served, take_turns
from bench.workloads import Load
from bench.yardsticks.alone import open_engine
from queues.ports import Driver
from storage.registry import connect

WORKERS = 2
THREADS = 8
PROCESSES = 2  # of clients
CONNECTIONS = 8

SERVICE = "Hermod"
LUA_APP = "falcon, one Lua call"
INSERT_APP = "falcon, one insert_one"
COMMIT_APP = "falcon, one commit"
APP = "falcon, nothing"
TRANSACTION = "one transaction"

#: The loads, as they are called in the tables.
LOADS: Mapping[str, Load] = {
    "post of 1": Load(name="post", queue="post"),
    "post of 10": Load(name="post-batch", queue="post-batch"),
    "claim 10 + delete 10": Load(name="claim-delete", queue="claim-delete"),
}

#: What the engines alone are called, by store and load, and which of `bench.yardsticks.alone.ENGINES` that is.
BARE: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "redis": {
        "post": {"XADD": "streams", "one Lua call": "lua"},
        "post-batch": {"pipeline of XADD": "streams"},
        "claim-delete": {"XREADGROUP + XACK + XDEL": "streams"},
    },
    "mongodb": {
        "post": {"insert_one": "documents", TRANSACTION: "transactions"},
        "post-batch": {"insert_many": "documents", TRANSACTION: "transactions"},
        "claim-delete": {
            "find + update_many + delete_many": "leases",
            "the same in two transactions": "transactions",
        },
    },
    "sqlite": {load.name: {"sqlite3": "rows"} for load in LOADS.values()},
}

#: How often `measure` tells how far it has come.
STEPS = len(LOADS) + 1

#: How deep the large queue is.
DEEP: Mapping[str, int] = {"redis": 1_000_000, "mongodb": 200_000, "sqlite": 200_000}

#: The most messages per second that are taken; so many are there when a slice begins.
_FASTEST: Mapping[str, int] = {"redis": 30_000, "mongodb": 15_000, "sqlite": 30_000}


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much time is spent on a store."""

    seconds: float  # of a slice
    slices: int  # of each contender under each load
    rounds: int  # how often each operation is timed on a deep queue; 0 leaves depth out
    deep: Mapping[str, int] = field(default_factory=lambda: DEEP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was found out on a store."""

    conditions: Conditions
    trials: Mapping[str, Mapping[str, Row]]  # by load and contender
    depth: list[Figure]  # empty if it was left out


def measure(name: str, effort: Effort, told: Callable[[str], object] = lambda _: None) -> Measured:
    """Measure on a new store of a name, and tell each of the `STEPS` when it is done; raises NotHere."""
    with (
        TemporaryDirectory(prefix="hermod-bench-") as folder,
        services.store(name, Path(folder)) as store,
    ):
        with closing(connect(store.uri)) as driver:
            found = conditions(
                driver,
                Path(folder),
                setup={
                    "workers": WORKERS,
                    "threads": THREADS,
                    "client processes": PROCESSES,
                    "connections": CONNECTIONS,
                    "slices": effort.slices,
                    "seconds": effort.seconds,
                },
            )
            trials = _trials(store, Path(folder), driver, effort, told)
        figures = _depth(store, Path(folder), effort)
        told(f"{name}, depth")
        return Measured(conditions=found, trials=trials, depth=figures)


def _trials(
    store: Store, folder: Path, driver: Driver, effort: Effort, told: Callable[[str], object]
) -> dict[str, dict[str, Row]]:
    flags = ("--workers", str(WORKERS), "--threads", str(THREADS))
    stock = round(_FASTEST[store.name] * (effort.seconds + 0.5))
    with (
        fleet(PROCESSES, CONNECTIONS) as clients,
        serving("transport", "api", "--store", store.uri, *flags) as (url, process),
        yardsticks(store, folder, clients, flags) as others,
    ):
        service = Served(clients, url, {"server": [process], **store.used()}, driver.messages)
        found = {}
        for name, load in LOADS.items():
            found[name] = take_turns(
                {SERVICE: service, **others[load.name]},
                load,
                seconds=effort.seconds,
                slices=effort.slices,
                stock=stock,
            )
            told(f"{store.name}, {name}")
        return found


@contextmanager
def yardsticks(
    store: Store, folder: Path, clients: Fleet, flags: Sequence[str]
) -> Iterator[Mapping[str, dict[str, Contender]]]:
    """Yield what a service on a store is compared with, by the name of the load; `flags` are gunicorn's."""
    with ExitStack() as opened:

        def serve(*arguments: str) -> Served:
            command = ("bench.yardsticks.app", *arguments, *flags)
            url, process = opened.enter_context(serving(*command))
            return Served(clients, url, {"server": [process], **store.used()})

        app = serve()
        found: dict[str, dict[str, Contender]] = {load.name: {APP: app} for load in LOADS.values()}
        if store.name == "redis":
            found["post"][LUA_APP] = serve("--redis", store.uri)
        if store.name == "mongodb":
            found["post"][INSERT_APP] = serve("--mongodb", store.uri)
        # SQLite has one writer at a time, and does best without others that wait for it.
        threads = 1 if store.name == "sqlite" else clients.connections
        uri = f"sqlite:///{folder / 'alone.db'}" if store.name == "sqlite" else store.uri
        if store.name == "sqlite":
            open_engine("rows", uri, BODY_SIZE).close()  # for two workers cannot make it at once
            found["post"][COMMIT_APP] = serve("--sqlite", uri)
        for load, engines in BARE.get(store.name, {}).items():
            for name, kind in engines.items():
                found[load][name] = Alone(clients, kind, uri, store.used(), threads)
        yield found


def _depth(store: Store, folder: Path, effort: Effort) -> list[Figure]:
    if not effort.rounds:
        return []
    with ExitStack() as opened:

        def open_store(name: str) -> Driver:
            uri = f"sqlite:///{folder / name}.db" if store.name == "sqlite" else store.uri
            return opened.enter_context(closing(connect(uri)))

        # A purge takes a filling anew; and where memory is given back behind it, the clock says little.
        return depth.measure(
            open_store,
            size=effort.deep[store.name],
            rounds=effort.rounds,
            kinds=("ready",),
            without=("purge",),
        )


def text(store: str, measured: Measured) -> str:
    """Return what was measured on a store, as tables."""
    parts = [
        f"{load}, {store}\n\n{rows.text(list(trials.values()))}" for load, trials in measured.trials.items()
    ]
    return "\n\n".join([*parts, tables(measured.depth)] if measured.depth else parts)
