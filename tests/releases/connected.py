"""Clients that work over websockets while releases are exchanged, and those who are told over them."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from tests.acceptance.processes import wait_until
from tests.releases.ledger import PAUSE, Ledger
from tests.releases.sockets import Frame, Gone, Socket


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
        ledger.done[name] = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._id or ledger.error, "there is a subscription")

    def stop(self) -> None:
        """End."""
        self._over = True
        if self._socket is not None:
            self._socket.cut()
        self._thread.join()
        self._ledger.check()

    def has_all(self, bodies: set[str]) -> bool:
        """Whether it was told of everything; raises what went wrong."""
        self._ledger.check()
        return bodies <= set(self.bodies)

    def _run(self) -> None:
        with contextlib.suppress(BaseException), self._ledger.watching():
            while not self._over:
                with contextlib.suppress(Gone), connect(self._ledger, binary=self._binary) as socket:
                    self._socket = socket
                    self._follow(socket)
                if not self._over:
                    self._ledger.goes_on()

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
        if socket.port not in self.ports:
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
