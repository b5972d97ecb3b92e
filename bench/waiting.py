"""Long polling: what posts and claims cost while hundreds of clients wait for messages, and while none does."""

from __future__ import annotations

import http.client
import json
import secrets
import statistics
import threading
import time
from collections.abc import Callable

from bench.report import Figure
from bench.services import HOST, free_port, running, wait_for

WAITERS = 200
DEAREST = 1.2  # times what it takes while nobody waits

_SECONDS = 20  # that a client waits at most
_HEADERS = {
    "Client-ID": "0" * 32,
    "X-Project-ID": f"bench-{secrets.token_hex(4)}",
    "Content-Type": "application/json",
}
_POST = json.dumps({"messages": [{"body": "x" * 180, "ttl": 60}]})


def measure(uri: str, *, rounds: int) -> list[Figure]:
    """Measure on the store of a URI, which other processes can open."""
    port = free_port()
    with running("transport", "api", "--store", uri, "--bind", f"{HOST}:{port}", "--workers", "1") as api:
        wait_for(port, api)
        figures = []
        for name, queue in (("a queue each", "wait-{}"), ("one queue", "wait")):
            alone = _rounds(port, rounds)
            waiting = _wait(port, queue)
            time.sleep(2)
            together = _rounds(port, rounds)
            figures += [
                Figure(
                    table=f"REST over one connection while {WAITERS} clients wait, against while none does",
                    load=f"{load}, waiting for {name}",
                    columns={"alone, µs": alone[load], "together, µs": together[load]},
                    ratio=together[load] / alone[load],
                    at_most=DEAREST,
                )
                for load in alone
            ]
            for thread in waiting:
                thread.join()
        return figures


def _rounds(port: int, rounds: int) -> dict[str, float]:
    """Return the median time (µs) of a post, and of a claim of it with its deletion."""
    connection = http.client.HTTPConnection(HOST, port)
    times: dict[str, list[float]] = {"post": [], "claim": []}
    for _ in range(rounds):
        times["post"].append(_timed(lambda: _ask(connection, "POST", "/v2/queues/busy/messages", _POST, 201)))
        claimed: list[str] = []
        times["claim"].append(
            _timed(lambda: claimed.append(_ask(connection, "POST", "/v2/queues/busy/claims", "{}", 201)))  # noqa: B023
        )
        for message in json.loads(claimed[0])["messages"]:
            _ask(connection, "DELETE", message["href"], "", 204)
    connection.close()
    return {load: statistics.median(each) for load, each in times.items()}


def _wait(port: int, queue: str) -> list[threading.Thread]:
    """Let clients wait for messages that never come."""

    def one(number: int) -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS + 10)
        _ask(connection, "POST", f"/v2/queues/{queue.format(number)}/claims?wait={_SECONDS}", "{}", 204)
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(WAITERS)]
    for thread in threads:
        thread.start()
    return threads


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: str, status: int) -> str:
    connection.request(method, path, body, _HEADERS)
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != status:
        raise RuntimeError(f"The service answered {answer.status}: {text}")
    return text
