"""From a post to a webhook: how many a notifier process delivers, how soon, and what a post costs for it.

The notifier, the subscriber and whoever posts are a process each.
"""

from __future__ import annotations

import json
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial

from bench import rest
from bench.arrivals import Arrivals, receiving
from bench.connection import Connection
from bench.report import Figure, against
from bench.rest import Target
from bench.services import notifier, serving
from queues.models import Address, Caller
from queues.service.messages import Draft
from queues.service.subscriptions import Terms
from transport.service import Service
from transport.settings import Settings
from transport.wiring import open_service

LEAST_RATE = 2_500  # deliveries per second that one notifier process should reach
LONGEST = 100.0  # ms, p99 from post to delivery at half of that rate
DEAREST = 1.2  # times what a post without subscribers costs

_START = 3.0  # seconds for a notifier to come up
_CROWD = 1_000  # subscribers of one queue
_POSTS = 8
_MOST = 0.99  # of the deliveries
_DELAYED = 1.5  # times as late as without a subscriber that hangs

_CALLER = Caller(project="bench-fan-out", client_id="0" * 32)
_PADDING = "x" * 170
_BATCH = 10  # messages of a post, where the number of deliveries is what counts


def measure(uri: str, *, seconds: float) -> list[Figure]:
    """Measure on the store of a URI, which other processes can open."""
    settings = Settings(store=uri)
    with closing(open_service(settings)) as service:
        costs = _cost_of_posts(service, uri)
        with receiving() as (port, steady), notifier(uri):
            time.sleep(_START)
            _steady(service, port, LEAST_RATE / 2, seconds)
            time.sleep(1.5)
        with receiving() as (port, flood):
            address = _flood(service, port, seconds)
            with notifier(uri):
                time.sleep(seconds)
            service.subscriptions.purge(address)  # what is left is nobody's
        crowds = [_crowd(service, uri, hangs=hangs) for hangs in (False, True)]
    table = "Fan-out: one notifier process, one subscriber on loopback, 200-byte messages; the ratio is to the goal"
    return [
        against(LEAST_RATE, flood.rate(), table=table, load="deliveries/s from a backlog", least=True),
        against(
            LONGEST,
            steady.percentile(0.99),
            table=table,
            load=f"p99 from post to delivery at {LEAST_RATE // 2:,}/s, ms",
            most=True,
        ),
        *(
            Figure(
                table=f"Fan-out to {_CROWD:,} subscribers of a queue, {_POSTS} posts a second apart: from post to"
                " delivery, with one more subscriber that never answers against without it",
                load=name,
                columns={"without, ms": crowds[0].percentile(part), "with, ms": crowds[1].percentile(part)},
                ratio=crowds[1].percentile(part) / crowds[0].percentile(part),
                at_most=_DELAYED if part == _MOST else None,
            )
            for name, part in (("p50", 0.5), ("p99", _MOST), ("longest", 1.0))
        ),
        *costs,
    ]


def _cost_of_posts(service: Service, uri: str, rounds: int = 400) -> list[Figure]:
    plain, told = _address("plain"), _address("told")
    service.subscriptions.create(told, Terms(subscriber="http://127.0.0.1:9/"))
    within = {
        batch: {
            address: partial(service.messages.post, _CALLER, address, _drafts(batch))
            for address in (plain, told)
        }
        for batch in (1, _BATCH)
    }
    with (
        serving("transport", "api", "--store", uri, "--workers", "1") as (url, _),
        closing(Connection(Target(url=url, project=_CALLER.project))) as client,
    ):
        over_http = {
            batch: {
                address: partial(client.ask, rest.post(batch, queue=address.queue))
                for address in (plain, told)
            }
            for batch in (1, _BATCH)
        }
        figures = [
            _cost(name, posts, rounds, goal)
            for batch in (1, _BATCH)
            for name, posts, goal in (
                (f"post of {batch}, as a client sees it", over_http[batch], DEAREST),
                (f"post of {batch}, HTTP left out", within[batch], None),
            )
        ]
    for address in (plain, told):
        service.queues.delete(address)
        service.subscriptions.purge(address)
    return figures


def _cost(
    load: str, posts: Mapping[Address, Callable[[], object]], rounds: int, goal: float | None
) -> Figure:
    """Compare posts to the first of two queues with posts to the second, which has a subscriber."""
    times: dict[Address, list[float]] = {address: [] for address in posts}
    for number in range(rounds):
        for address, post in list(posts.items())[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            post()
            times[address].append((time.perf_counter() - start) * 1e6)
    without, with_ = (statistics.median(each) for each in times.values())
    return Figure(
        table="A post with a subscriber against one without",
        load=load,
        columns={"without, µs": without, "with, µs": with_},
        ratio=with_ / without,
        at_most=goal,
    )


def _crowd(service: Service, uri: str, *, hangs: bool) -> Arrivals:
    """Let a thousand subscribers hear of a few posts."""
    address = _address("crowd")
    with socket.socket() as silent, receiving() as (port, arrivals):
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for number in range(_CROWD):
            service.subscriptions.create(address, Terms(subscriber=f"http://127.0.0.1:{port}/{number}"))
        if hangs:
            nobody = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            service.subscriptions.create(address, Terms(subscriber=nobody))
        with notifier(uri):
            time.sleep(_START)
            for _ in range(_POSTS):
                service.messages.post(_CALLER, address, _drafts(1))
                time.sleep(1)
            time.sleep(1.5)
    service.subscriptions.purge(address)
    return arrivals


def _flood(service: Service, port: int, seconds: float) -> Address:
    address = _subscribed(service, port)
    for _ in range(round(2 * LEAST_RATE * seconds / _BATCH)):
        service.messages.post(_CALLER, address, _drafts(_BATCH))
    return address


def _steady(service: Service, port: int, rate: float, seconds: float) -> None:
    address, start = _subscribed(service, port), time.monotonic()
    for number in range(round(rate * seconds)):
        service.messages.post(_CALLER, address, _drafts(1))
        time.sleep(max(0.0, start + number / rate - time.monotonic()))


def _subscribed(service: Service, port: int) -> Address:
    address = _address("fan-out")
    service.subscriptions.create(address, Terms(subscriber=f"http://127.0.0.1:{port}/"))
    return address


def _address(name: str) -> Address:
    return Address(project=_CALLER.project, queue=f"{name}-{secrets.token_hex(4)}")


def _drafts(count: int) -> list[Draft]:
    body = json.dumps({"note": _PADDING, "t": time.time()}, separators=(",", ":")).encode()
    return [Draft(body=body)] * count
