"""Runs a workload against a service, and tells what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from bench.contest import yardsticks
from bench.fleet import Fleet, Result, fleet
from bench.report import Figure
from bench.rest import Target
from bench.rows import Row, by_role
from bench.services import serving
from bench.setup import Setting, progress

CEILING = "the client's own ceiling"

_CEILING = 2.0  # seconds at most
_YARDSTICK = 3.0  # seconds at most
_TAKEN = 15_000  # messages per second that a closed loop takes at most
_LISTED = 1_000  # messages that are there when pages are listed


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a workload came to."""

    rows: list[Row]
    figures: list[Figure] = field(default_factory=list)  # how it compares with itself


def requests(setting: Setting) -> Findings:
    """Send requests of a kind over many connections, once for each number of connections."""
    wish = setting.wish
    rows = []
    for connections in wish.connections:
        with fleet(min(wish.processes, connections), connections) as clients:
            name = (
                wish.workload if len(wish.connections) == 1 else f"{wish.workload}, {connections} connections"
            )
            row = Row(name=name, result=put(setting, clients, wish.workload))
            if len(wish.connections) > 1:
                row = replace(row, line="messages per second", at=connections)
            rows += by_role(row)
            if connections == wish.connections[-1]:
                rows += _beside(setting, clients)
    return Findings(rows=rows)


def put(setting: Setting, clients: Fleet, name: str, *, label: str = "") -> Result:
    """Put a load on the service, which finds what it needs in the queue, and tidy up."""
    wish = setting.wish
    setting.fill(_stock(setting, name))
    with progress(label or name, wish.warm_up + wish.seconds) as watch:
        result = clients.run(
            setting.target,
            setting.load(name),
            seconds=wish.seconds,
            warm_up=wish.warm_up,
            rate=wish.rate,
            processes=setting.processes,
            watch=lambda gone: watch(gone + wish.warm_up),
        )
    setting.drop()
    return result


def _stock(setting: Setting, name: str) -> int:
    wish = setting.wish
    if wish.stock is not None:
        return wish.stock
    if name == "claim-delete":
        taken = _TAKEN if wish.rate is None else wish.rate * wish.batch * 1.1
        return round(taken * (wish.seconds + wish.warm_up))
    return _LISTED if name == "list" else 1


def _beside(setting: Setting, clients: Fleet) -> Iterator[Row]:
    """Yield what the client could do at most, and the yardsticks, if they are wanted."""
    wish = setting.wish
    load = setting.load(wish.workload)
    with ExitStack() as opened:
        if wish.ceiling:
            url, _ = opened.enter_context(serving("bench.canned"))
            yield Row(
                name=CEILING, result=clients.run(Target(url=url), load, seconds=min(wish.seconds, _CEILING))
            )
        if wish.yardsticks and setting.store is not None:
            flags = ("--workers", str(wish.workers), "--threads", str(wish.threads))
            others = opened.enter_context(yardsticks(setting.store, setting.folder, clients, flags))
            for name, contender in others.get(load.name, {}).items():
                contender.prepare(load, round(_TAKEN * 3 * min(wish.seconds, _YARDSTICK)))
                yield Row(name=name, result=contender.run(load, min(wish.seconds, _YARDSTICK)))
