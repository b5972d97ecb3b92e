"""The workload `fan-out`: how late subscribers hear of messages, by webhook and by websocket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psutil

from bench import rest
from bench.arrivals import Arrivals, listening, receiving
from bench.client import UNANSWERED
from bench.connection import Connection
from bench.fleet import Result, Score, fleet
from bench.rows import Row
from bench.run import Findings
from bench.services import notifier, serving
from bench.setup import Setting, progress
from bench.usage import Meter

_RATE = 50.0  # posts per second, unless something else was asked for
_PATIENCE = 30.0  # seconds to wait for what is still on its way


def measure(setting: Setting) -> Findings:
    """Post at a steady rate to a queue with webhooks, then to one with websockets."""
    rows: list[Row] = []
    with _services(setting) as (websocket_url, processes):
        with receiving(setting.wish.receiver) as (port, arrivals):
            _subscribe(setting, port)
            rows += _posted(setting, "webhook", arrivals, processes)
        if websocket_url:
            target = setting.target
            who = (websocket_url, target.project, target.token, setting.queue)
            with listening(*who, str(setting.wish.subscribers)) as arrivals:
                rows += _posted(setting, "websocket", arrivals, processes)
    return Findings(rows=rows)


@contextmanager
def _services(setting: Setting) -> Iterator[tuple[str, Sequence[psutil.Process]]]:
    """Yield the URL for websockets, if there is one, and what was started for it beside the REST service."""
    if setting.store is None:
        yield setting.wish.websocket_url, ()
        return
    uri = setting.store.uri
    with (
        notifier(uri) as carrier,
        serving("transport", "websocket", "--store", uri, "--workers", "1") as (url, server),
    ):
        yield url.replace("http", "ws", 1) + "/", (carrier, server)


def _subscribe(setting: Setting, port: int) -> None:
    host = setting.wish.receiver
    with closing(Connection(setting.target)) as connection:
        for number in range(setting.wish.subscribers):
            uri = f"http://{host}:{port}/{number}"
            connection.ask(rest.subscribe(uri, queue=setting.queue))


def _posted(
    setting: Setting, kind: str, arrivals: Arrivals, processes: Sequence[psutil.Process]
) -> list[Row]:
    """Post for a while, and return what subscribers heard of it, and what the posts took."""
    wish, connections = setting.wish, setting.wish.connections[0]
    setting.fill(1)  # heard of when all that takes part is up
    arrivals.settle(wish.subscribers, _PATIENCE, silence=_PATIENCE)
    arrivals.seconds.clear()
    meter = Meter({"server": processes, **{k: v for k, v in setting.processes.items() if k == "store"}})
    with (
        fleet(min(wish.processes, connections), connections) as clients,
        progress(kind, wish.seconds) as watch,
    ):
        meter.start()
        posts = clients.run(
            setting.target,
            setting.load("post-timed"),
            seconds=wish.seconds,
            rate=wish.rate or _RATE,
            processes=setting.processes,
            watch=watch,
        )
    answered = sum(score.latencies.total_count for score in posts.roles.values()) - posts.errors[UNANSWERED]
    expected = answered * wish.batch * wish.subscribers
    arrivals.settle(expected, _PATIENCE)
    ages = arrivals.ages()
    score = Score(operations=len(ages), messages=len(ages))
    score.record(age / 1000 for age in ages)
    heard = Result(seconds=wish.seconds, roles={kind: score}, used=meter.read())
    if len(ages) < expected:
        heard.errors["not heard of in time"] += expected - len(ages)
    setting.drop()
    return [Row(name=kind, result=heard), Row(name=f"posts to {kind}s", result=posts)]
