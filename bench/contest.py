"""The service on a store against bare applications and the engine alone: 2 workers, 8 connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import depth, services
from bench.conditions import Conditions, conditions
from bench.fleet import Fleet, fleet
from bench.report import Cell, Figure, table, tables
from bench.services import Store, serving
from bench.trials import Alone, Contender, Served, Trial, take_turns
from bench.workloads import Load
from queues.ports import Driver
from storage.registry import connect

WORKERS = 2
THREADS = 8
PROCESSES = 2  # of clients
CONNECTIONS = 8

SERVICE = "Hermod"
LUA_APP = "falcon, one Lua call"
APP = "falcon, nothing"

#: The loads, as they are called in the tables.
LOADS: Mapping[str, Load] = {
    "post of 1": Load(name="post", queue="post"),
    "post of 10": Load(name="post-batch", queue="post-batch"),
    "claim 10 + delete 10": Load(name="claim-delete", queue="claim-delete"),
}

#: What the engines alone are called, by store and load, and which of `bench.yardsticks.alone.ENGINES` that is.
BARE: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "redis": {
        "post of 1": {"XADD": "streams", "one Lua call": "lua"},
        "post of 10": {"pipeline of XADD": "streams"},
        "claim 10 + delete 10": {"XREADGROUP + XACK + XDEL": "streams"},
    },
    "mongodb": {"post of 1": {"insert_one": "documents"}, "post of 10": {"insert_many": "documents"}},
    "sqlite": {load: {"sqlite3": "rows"} for load in LOADS},
}

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
    trials: Mapping[str, Mapping[str, Trial]]  # by load and contender
    depth: list[Figure]  # empty if it was left out


def measure(name: str, effort: Effort) -> Measured:
    """Measure on a new store of a name; raises NotHere."""
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
            trials = _trials(store, Path(folder), driver, effort)
        return Measured(conditions=found, trials=trials, depth=_depth(store, Path(folder), effort))


def _trials(store: Store, folder: Path, driver: Driver, effort: Effort) -> dict[str, dict[str, Trial]]:
    stock = round(_FASTEST[store.name] * (effort.seconds + 0.5))
    with (
        fleet(PROCESSES, CONNECTIONS) as clients,
        _contenders(store, folder, driver, clients) as contenders,
    ):
        return {
            load: take_turns(
                contenders[load], LOADS[load], seconds=effort.seconds, slices=effort.slices, stock=stock
            )
            for load in LOADS
        }


@contextmanager
def _contenders(
    store: Store, folder: Path, driver: Driver, clients: Fleet
) -> Iterator[Mapping[str, Mapping[str, Contender]]]:
    """Yield who is measured under each load."""
    flags = ("--workers", str(WORKERS), "--threads", str(THREADS))
    engine = {"store": store.processes} if store.processes else {}
    with ExitStack() as opened:

        def serve(stocked: Driver | None, module: str, *arguments: str) -> Contender:
            url, process = opened.enter_context(serving(module, *arguments, *flags))
            messages = stocked.messages if stocked else None
            return Served(clients, url, {"server": [process], **engine}, messages)

        service = serve(driver, "transport", "api", "--store", store.uri)
        app = serve(None, "bench.yardsticks.app")
        found = {load: {SERVICE: service, APP: app} for load in LOADS}
        if store.name == "redis":
            lua_app = serve(None, "bench.yardsticks.app", "--redis", store.uri)
            found["post of 1"][LUA_APP] = lua_app
        # SQLite has one writer at a time, and does best without others that wait for it.
        threads = 1 if store.name == "sqlite" else CONNECTIONS
        uri = f"sqlite:///{folder / 'alone.db'}" if store.name == "sqlite" else store.uri
        for load, engines in BARE[store.name].items():
            for name, kind in engines.items():
                found[load][name] = Alone(clients, kind, uri, engine, threads)
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


#: What is told of a contender under a load; CPU is for each message.
_HEADS = (
    *("load", "what", "messages/s", "slowest", "fastest"),
    *("p50, ms", "p95, ms", "p99, ms", "max, ms"),
    *("server, cpu µs", "store, cpu µs", "client, cpu µs", "all, cpu µs", "errors"),
)


def text(store: str, measured: Measured) -> str:
    """Return what was measured on a store, as tables."""
    rows = [
        _row(load, name, trial) for load, trials in measured.trials.items() for name, trial in trials.items()
    ]
    parts = [f"{store}\n\n{table(_HEADS, rows)}"]
    return "\n\n".join([*parts, tables(measured.depth)] if measured.depth else parts)


def _row(load: str, name: str, trial: Trial) -> list[Cell]:
    at = trial.score.latencies.get_value_at_percentile
    return [
        *(load, name),
        *(round(rate) for rate in (trial.rate, min(trial.rates), max(trial.rates))),
        *(at(percent) / 1000 for percent in (50.0, 95.0, 99.0, 100.0)),
        *(trial.cpu_each(part) for part in ("server", "store", "client")),
        trial.cpu_each(),
        trial.errors.total(),
    ]
