"""Clients that work over REST while releases are exchanged, a webhook, and all clients together."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.acceptance.processes import listening
from tests.releases.connected import Talker
from tests.releases.ledger import PAUSE, Ledger

PRODUCERS, CONSUMERS, TALKERS = 1, 1, 2


def produce(ledger: Ledger, name: str) -> None:
    """Post over REST."""
    number = 0
    while not ledger.over:
        queue = "told" if number % 4 == 0 else "work"
        bodies = [f"{queue}-{name}-{number}-{index}" for index in range(1 + number % 3)]
        document = {"messages": [{"body": body} for body in bodies]}
        ledger.ask(number, "POST", f"/v2/queues/{queue}/messages", document, key=f"{name}-{number}")
        ledger.note_stored(name, bodies)
        number += 1
        time.sleep(PAUSE)


def consume(ledger: Ledger, name: str) -> None:
    """Claim and delete over REST."""
    number = len(name)
    while not ledger.over:
        time.sleep(PAUSE)
        number += 1
        queue = ("work", "told")[number % 2]
        _, claimed = ledger.ask(number, "POST", f"/v2/queues/{queue}/claims", {"ttl": 60, "grace": 60})
        for body, _, path in (each.partition(" ") for each in claimed):
            ledger.ask(number, "DELETE", path)
            ledger.note_deleted(name, body)


@contextmanager
def load(ledger: Ledger) -> Iterator[None]:
    """Let clients work during the block."""
    clients = {
        **{f"producer{number}": lambda name: produce(ledger, name) for number in range(PRODUCERS)},
        **{f"consumer{number}": lambda name: consume(ledger, name) for number in range(CONSUMERS)},
        **{f"talker{number}": Talker(ledger, binary=number % 2 == 1).run for number in range(TALKERS)},
    }
    ledger.done.update(dict.fromkeys(clients, 0))
    with ThreadPoolExecutor(len(clients)) as threads:
        work = [threads.submit(ledger.watching()(client), name) for name, client in clients.items()]
        try:
            yield
        finally:
            ledger.over = True
    for each in work:
        each.result()


@contextmanager
def webhook(ledger: Ledger) -> Iterator[str]:
    """Listen for webhooks, and yield where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
            with ledger.lock:
                ledger.told[body] += 1
                ledger.done["webhook"] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ledger.done["webhook"] = 0
    with listening(server):
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
