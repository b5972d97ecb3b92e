"""Those who are told: a webhook, a client that is pushed to over a websocket, and one that follows a listing."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websocket import WebSocket, WebSocketException, create_connection

from tests.acceptance.processes import CLIENT
from tests.faults.caller import Caller
from tests.faults.history import History

SILENCE = 8.0  # seconds without a frame after which a connection is given up; heartbeats come every two
RETRY = 0.2  # seconds until a client connects again
TARDY = 0.8  # seconds that a webhook takes for an answer at most
PAGE = 100  # messages of a listing


class Webhook:
    """A receiver that takes its time for some deliveries, and refuses some for the time being."""

    def __init__(self, tenant: str, history: History, seed: str) -> None:
        self.tenant = tenant
        self.subscription = ""
        self.taken: set[str] = set()
        self._history = history
        self._random = random.Random(f"{seed}/{tenant}/webhook")
        self._lock = threading.Lock()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(webhook.receive(document["body"], self.headers["webhook-id"]))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing of notifiers that were killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def receive(self, value: str, webhook_id: str) -> int:
        """Take a delivery, or not; return the status."""
        with self._lock:
            wait = self._random.uniform(0, TARDY) if self._random.random() < 0.3 else 0.0
            # What takes long is more likely to be refused, for then the notifier may have been killed meanwhile.
            status = 503 if self._random.random() < (0.4 if wait else 0.05) else 200
        threading.Event().wait(wait)
        with self._lock:
            self._history.note(
                f"webhook-{self.tenant}", "delivery", self.tenant, value=value, id=webhook_id, status=status
            )
            if status == 200:
                self.taken.add(value)
        return status

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()


class Lost(Exception):
    """The connection is over."""


class Pushed:
    """A subscriber that connects again whenever its connection is over, and resumes."""

    def __init__(self, name: str, tenant: str, queue: str, port: int, history: History) -> None:
        self.tenant = tenant
        self.seen = 0  # the last number
        self.taken: set[str] = set()
        self._name = f"{name}-{tenant}"
        self._queue = queue
        self._port = port
        self._history = history
        self._subscription = ""

    def subscribe(self) -> None:
        """Make the subscription."""
        with self._connected() as socket:
            options = {"sequence": True}
            made = self._ask(socket, "subscription_create", ttl=86400, options=options)
            self._subscription = made["body"]["subscription_id"]

    def run(self, over: threading.Event) -> None:
        """Take what is pushed."""
        while not over.is_set():
            try:
                with self._connected() as socket:
                    self._resume(socket)
                    while not over.is_set():
                        self._take(self._receive(socket))
            except (Lost, OSError, WebSocketException):
                over.wait(RETRY)

    @contextmanager
    def _connected(self) -> Iterator[WebSocket]:
        socket = create_connection(f"ws://127.0.0.1:{self._port}/", timeout=SILENCE)
        try:
            yield socket
        finally:
            socket.shutdown()

    def _resume(self, socket: WebSocket) -> None:
        wish = {"subscription_id": self._subscription, "sequence": self.seen}
        with self._history.operation(self._name, "resume", self.tenant, self._queue, **wish) as pending:
            answer = self._ask(socket, "subscription_resume", **wish)
            status = answer["headers"]["status"]
            if status == 503:
                raise Lost
            pending.end("ok" if status == 200 else "fail", status=status, gap=answer["body"].get("gap"))
        if status != 200:
            raise Lost

    def _ask(self, socket: WebSocket, action: str, **body: Any) -> dict[str, Any]:
        headers = {"Client-ID": CLIENT, "X-Project-ID": self.tenant}
        document = {"action": action, "headers": headers, "body": {"queue_name": self._queue, **body}}
        socket.send(json.dumps(document))
        while True:  # what is pushed comes behind the reply, to a connection that has nothing else
            frame = self._receive(socket)
            if "request" in frame:
                return frame

    def _receive(self, socket: WebSocket) -> dict[str, Any]:
        text = socket.recv()
        if not text:
            raise Lost
        frame: dict[str, Any] = json.loads(text)
        return frame

    def _take(self, frame: dict[str, Any]) -> None:
        """Do what the documentation of numbered messages says."""
        number, previous = frame["sequence"], frame["previous"]
        heartbeat = frame["Message_Type"] == "Heartbeat"
        if previous > self.seen:
            self._history.note(self._name, "missed", self.tenant, self._queue, seen=self.seen, frame=frame)
            raise Lost
        if heartbeat or number <= self.seen:
            return
        self.seen = number
        self.taken.add(frame["body"])
        facts = {"sequence": number, "previous": previous, "value": frame["body"]}
        self._history.note(self._name, "frame", self.tenant, self._queue, **facts)


class Follower:
    """A client that lists a queue from marker to marker."""

    def __init__(self, caller: Caller, queue: str) -> None:
        self.tenant = caller.tenant
        self._caller = caller
        self._queue = queue
        self._marker = ""

    def run(self, over: threading.Event) -> None:
        """Follow the queue."""
        while not over.wait(RETRY):
            self.step()
        self._caller.close()

    def step(self) -> None:
        """Take what is there."""
        while found := self._caller.page(self._queue, self._marker, PAGE):
            self._marker = found[-1]["id"]
            if len(found) < PAGE:
                return
