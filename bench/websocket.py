"""The websocket service: requests per second, idle connections, and a post on its way to a thousand subscribers.

The service, the notifier and the clients, all of them in one more, are a process each.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack, ExitStack, closing

import psutil
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector

from bench.frames import Client, frame, keep_asking
from bench.report import Figure, against
from bench.services import HOST, free_port, running, wait_for, worker_of

LEAST_RATE = 3_000  # requests per second that one process should answer
LARGEST = 150.0  # MiB of one process with so many idle connections
LONGEST = 300.0  # ms, p99 from a post to the frame of the last of so many subscribers

_IDLE = 2_000
_CROWD = 1_000
_POSTS = 20
_CLIENTS = 64
_HEADERS = {"Client-ID": "0" * 32, "X-Project-ID": f"bench-{secrets.token_hex(4)}"}
_BODY = "x" * 180


def measure(uri: str, *, seconds: float) -> list[Figure]:
    """Measure on the store of a URI, which other processes can open."""
    port = free_port()
    with (
        running(
            "transport", "websocket", "--store", uri, "--bind", f"{HOST}:{port}", "--workers", "1"
        ) as service,
        running("transport", "notifier", "--store", uri),
    ):
        wait_for(port, service)
        worker = worker_of(service)
        rate, cost = _requests(port, worker, seconds)
        size, latencies = asyncio.run(_connected(f"ws://{HOST}:{port}/", worker))
    table = "Websocket: one process; the ratio is to the goal"
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    posts = f"posts of 200 bytes over {_CLIENTS} connections, per second"
    allowed = "the same, as the processor time of the service allows"
    idle = f"memory with {_IDLE:,} idle connections, MiB"
    crowd = f"from a post to {_CROWD:,} subscribers, ms"
    return [
        against(LEAST_RATE, rate, table=table, load=posts, least=True),
        against(LEAST_RATE, 1 / cost, table=table, load=allowed, least=True),
        against(LARGEST, size, table=table, load=idle, most=True),
        against(LONGEST, p50, table=table, load=f"p50 {crowd}"),
        against(LONGEST, p99, table=table, load=f"p99 {crowd}", most=True),
    ]


def _requests(port: int, worker: psutil.Process, seconds: float) -> tuple[float, float]:
    """Return requests per second, and the processor time (s) of the service for each."""
    request = frame(_frame("message_post", queue_name="load", messages=[{"body": _BODY, "ttl": 60}]).encode())
    with ExitStack() as opened:
        clients = [opened.enter_context(closing(Client(HOST, port))) for _ in range(_CLIENTS)]
        before = worker.cpu_times()
        count = keep_asking(clients, request, b'"status":201', seconds)
        after = worker.cpu_times()
    busy = after.user + after.system - before.user - before.system
    return count / seconds, busy / count


async def _connected(url: str, worker: psutil.Process) -> tuple[float, list[float]]:
    """Return the memory with idle connections, and the latencies of a crowd of subscribers."""
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        return await _idle(session, url, worker), await _crowd(session, url)


async def _idle(session: ClientSession, url: str, worker: psutil.Process) -> float:
    """Return the memory (MiB) of the service with connections that do nothing."""
    async with AsyncExitStack() as opened:
        for _ in range(_IDLE):
            await opened.enter_async_context(session.ws_connect(url))
        size: int = worker.memory_info().rss
    return size / 2**20


async def _crowd(session: ClientSession, url: str) -> list[float]:
    """Return the times (ms) from posts to subscribers, in order."""
    latencies: list[float] = []
    async with AsyncExitStack() as opened:
        clients = []
        for _ in range(_CROWD):
            client = await opened.enter_async_context(session.ws_connect(url))
            await _ask(client, _frame("subscription_create", queue_name="crowd", ttl=600), 201)
            clients.append(client)
        poster = await opened.enter_async_context(session.ws_connect(url))
        for _ in range(_POSTS):
            start = time.perf_counter()

            async def heard(client: ClientWebSocketResponse, start: float = start) -> float:
                await client.receive()
                return (time.perf_counter() - start) * 1000

            hearing = [asyncio.create_task(heard(client)) for client in clients]
            await _ask(poster, _frame("message_post", queue_name="crowd", messages=[{"body": _BODY}]), 201)
            latencies += await asyncio.gather(*hearing)
    return sorted(latencies)


def _frame(action: str, **body: object) -> str:
    return json.dumps({"action": action, "headers": _HEADERS, "body": body})


async def _ask(client: ClientWebSocketResponse, frame: str, status: int) -> None:
    await client.send_str(frame)
    reply = await client.receive_str()
    if f'"status":{status}' not in reply:
        raise RuntimeError(f"The service answered {reply}")
