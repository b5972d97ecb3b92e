"""Clients that work while releases are exchanged: over REST, over websockets, and those who are told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.acceptance.processes import GONE, Client, listening, wait_until
from tests.releases.sockets import Frame, Gone, Socket

PRODUCERS, CONSUMERS, TALKERS = 1, 1, 2
PAUSE = 0.05  # seconds that a client leaves the machine to others
ENOUGH = 15  # messages that are stored, and deleted, between two exchanges
SOME = 3  # things that each client gets done between them


@dataclass
class Ledger:
    """What the clients of the service know."""

    ports: list[int] = field(default_factory=list)  # of the REST processes that are there
    nodes: list[int] = field(default_factory=list)  # of the websocket processes
    stored: set[str] = field(default_factory=set)
    deleted: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)  # what the webhook has got
    done: Counter[str] = field(default_factory=Counter)  # what each client got done
    cut_off: int = 0
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flows(self) -> None:
        """Return when some more messages were stored, and deleted, and when everybody got something done."""
        stored, deleted = len(self.stored) + ENOUGH, len(self.deleted) + ENOUGH
        done = {name: number + SOME for name, number in self.done.items()}
        wait_until(
            lambda: (
                len(self.stored) >= stored
                and len(self.deleted) >= deleted
                and all(self.done[name] >= number for name, number in done.items())
            ),
            "the load flows",
        )

    def goes_on(self) -> None:
        """Note that a request was cut off, which is to be asked again."""
        with self.lock:
            self.cut_off += 1
        assert not self.over, "a request was cut off, and no process ended"
        time.sleep(PAUSE)

    def ask(
        self, number: int, method: str, path: str, body: object = None, key: str = ""
    ) -> tuple[int, list[str]]:
        """Ask one process after the other until one answers; return the status, and ids or paths.

        What is cut off is asked again.
        """
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            number += 1
            with self.lock:
                port = self.ports[number % len(self.ports)]
            with contextlib.suppress(*GONE), Client(port) as client:
                answer = client.request(method, path, body, headers=headers)
                assert answer.status < 400, answer
                if method == "POST" and path.endswith("claims"):
                    return answer.status, [f"{each['body']} {each['href']}" for each in answer.messages()]
                return answer.status, []
            self.goes_on()

    def note_stored(self, client: str, bodies: list[str]) -> None:
        """Note that a post was answered."""
        with self.lock:
            self.stored.update(bodies)
            self.done[client] += 1

    def note_deleted(self, client: str, body: str) -> None:
        """Note that a message was acknowledged."""
        with self.lock:
            self.deleted[body] += 1
            self.done[client] += 1


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


class Talker:
    """Posts, claims and deletes over a websocket, and connects again when that ends."""

    def __init__(self, ledger: Ledger, *, binary: bool) -> None:
        self._ledger = ledger
        self._binary = binary
        self._socket: Socket | None = None

    def run(self, name: str) -> None:
        number = 0
        while not self._ledger.over:
            queue = ("work", "told")[number % 2]
            bodies = [f"{queue}-{name}-{number}-{index}" for index in range(2)]
            messages = [{"body": body} for body in bodies]
            key = f"{name}-{number}"
            self._ask("message_post", queue_name=queue, messages=messages, idempotency_key=key)
            self._ledger.note_stored(name, bodies)
            claimed = self._ask("claim_create", queue_name=queue, ttl=60, grace=60, limit=2)
            for each in claimed.get("messages", ()):
                wish = {"message_id": each["id"], "claim_id": each["claim_id"]}
                self._ask("message_delete", queue_name=queue, **wish)
                self._ledger.note_deleted(name, each["body"])
            number += 1
            time.sleep(PAUSE)
        self._hang_up()

    def _ask(self, action: str, **body: Any) -> Frame:
        """Ask until there is an answer, at whatever process; return its body."""
        while True:
            try:
                if self._socket is None:
                    self._socket = connect(self._ledger, binary=self._binary)
                reply = self._socket.ask(action, **body)
            except Gone:
                self._hang_up()
                self._ledger.goes_on()
                continue
            assert reply["headers"]["status"] < 300, reply
            found: Frame = reply["body"]
            return found

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Follower:
    """Is subscribed over a websocket; when that ends it goes on at another process, behind what it saw last."""

    def __init__(self, ledger: Ledger, name: str, *, binary: bool) -> None:
        self.bodies: list[str] = []  # of what it was told, in that order
        self.ports: list[int] = []  # of the processes that served it
        self._ledger = ledger
        self._name = name
        self._binary = binary
        self._id = ""  # of its subscription
        self._seen = 0  # the last number
        self._socket: Socket | None = None
        self._over = False
        self._error: BaseException | None = None
        ledger.done[name] = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._id or self._error, "there is a subscription")

    def stop(self) -> None:
        """End; raise what went wrong."""
        self._over = True
        if self._socket is not None:
            self._socket.cut()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def has_all(self, bodies: set[str]) -> bool:
        """Whether it was told of everything; raises what went wrong."""
        if self._error is not None:
            raise self._error
        return bodies <= set(self.bodies)

    def _run(self) -> None:
        try:
            while not self._over:
                with contextlib.suppress(Gone), connect(self._ledger, binary=self._binary) as socket:
                    self._socket = socket
                    self._follow(socket)
                if not self._over:
                    self._ledger.goes_on()
        except BaseException as error:  # for whoever waits
            self._error = error

    def _follow(self, socket: Socket) -> None:
        if not self._id:
            made = socket.ask("subscription_create", queue_name="told", options={"sequence": True})
            assert made["headers"]["status"] == 201, made
            self._id = made["body"]["subscription_id"]
        else:
            wish = {"subscription_id": self._id, "sequence": self._seen}
            resumed = socket.ask("subscription_resume", queue_name="told", **wish)
            assert resumed["headers"]["status"] == 200, resumed
            assert resumed["body"]["gap"] is None, resumed
        self.ports.append(socket.port)
        while not self._over:
            self._take(socket.next())

    def _take(self, frame: Frame) -> None:
        assert frame["previous"] == self._seen, "it missed something, or was told it twice"
        if frame["Message_Type"] == "Heartbeat":
            return
        assert frame["sequence"] == self._seen + 1
        self._seen += 1
        self.bodies.append(frame["body"])
        with self._ledger.lock:
            self._ledger.done[self._name] += 1


def connect(ledger: Ledger, *, binary: bool) -> Socket:
    """Return a connection to the websocket process that came last; raises Gone."""
    with ledger.lock:
        port = ledger.nodes[-1]
    return Socket(port, binary=binary)


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
        work = [threads.submit(client, name) for name, client in clients.items()]
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
