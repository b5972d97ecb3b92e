"""Subscribers are told of every message, though API and notifier are killed at random moments. Quirk E1.

Each pair of a message and a subscription ends as a delivery that was answered with 2xx, or
among the dead letters.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import GONE, Hermod, listening, together, wait_until

SEED = 20261121
PRODUCERS = 2
SUBSCRIBERS = 4
MESSAGES = 60  # of each producer at least
ROUNDS = 6  # of killing
LEASE = 5  # seconds after which somebody takes over what a notifier had
DEADLINE = 60.0  # seconds until everything must have been told after the last round

ENVIRON = {
    "HERMOD_EGRESS_ALLOW": "127.0.0.0/8",
    "HERMOD_NOTIFIER_LEASE": str(LEASE),
    "HERMOD_NOTIFIER_SIGNING_KEYS": "a key of the tests",
    "HERMOD_NOTIFIER_TIMEOUT": "2",
}

#: Retries are quick here, and there are enough of them that chance alone gives nothing up.
POLICY = {"delays": [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]}

STORES = {
    "sqlite": lambda folder: f"sqlite:///{folder}/shared.db",
    "redis": servers.redis_uri,
    "mongodb": servers.mongodb_uri,
}


class Receiver:
    """A subscriber that takes most messages, and remembers which, and under which id."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(SEED + number)
        self._lock = threading.Lock()
        self.taken: dict[str, int] = defaultdict(int)  # bodies that were answered with 2xx, and how often
        self.ids: dict[str, set[str]] = defaultdict(set)  # webhook-ids by body
        self.failures = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.answer(self, document["body"], self.headers["webhook-id"])

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing of notifiers that were killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def answer(self, request: BaseHTTPRequestHandler, body: str, id_: str) -> None:
        """Take a message, or fail in one of many ways."""
        with self._lock:
            self.ids[body].add(id_)
            fate = self._random.random()
            if self.refuses(body):
                status = 400
            elif fate < 0.77:
                status = 200
            else:
                status = 500
                self.failures += 1
        if 0.87 <= fate < 0.96:  # a reset in place of an answer
            linger = struct.pack("ii", 1, 0)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.close_connection = True
            return
        if fate >= 0.96:
            # Slower than what a batch waits for; some of it slower than an attempt may be.
            threading.Event().wait(1.2 if fate < 0.98 else 2.5)
            status = 200 if status == 500 else status
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        if status == 200:
            with self._lock:
                self.taken[body] += 1

    def refuses(self, body: str) -> bool:
        """Whether it will never take a message."""
        return body.endswith("7")


class Killer:
    """Kills the API, the notifier, or both, and starts them again."""

    def __init__(self, api: Hermod, notifier: Hermod, receivers: list[Receiver]) -> None:
        self._api, self._notifier, self._receivers = api, notifier, receivers
        self._random = random.Random(SEED)
        self.over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        try:
            for number in range(ROUNDS):
                goal = self._told() + self._random.randint(10, 60)
                wait_until(lambda goal=goal: self._told() >= goal, "deliveries go on", DEADLINE)  # type: ignore[misc]
                doomed = [[self._notifier], [self._api, self._notifier], [self._notifier], [self._api]][
                    number % 4
                ]
                for service in doomed:
                    service.kill()
                    self.kills += 1
                for service in doomed:
                    if service is self._api:
                        service.start()
                    else:
                        service.launch()
        finally:
            self.over.set()

    def _told(self) -> int:
        return sum(len(receiver.taken) for receiver in self._receivers)


def produce(api: Hermod, producer: int, over: threading.Event, posted: list[str]) -> None:
    """Post messages until the killing is over, each until it was answered."""
    number = 0
    while not over.is_set() or len(posted) < MESSAGES:
        bodies = [f"{producer}-{number}-{index}" for index in range(1 + number % 3)]
        key = f"{producer}-{number}"
        end = time.monotonic() + DEADLINE
        while True:
            try:
                with api.client() as client:
                    answer = client.post("q", bodies, key=key)
                assert answer.status == 201, answer
                break
            except GONE:
                assert time.monotonic() < end, "the API does not come back"
                over.wait(0.05)
        posted += bodies
        number += 1
        over.wait(0.08)


def given_up(api: Hermod, path: str) -> set[str]:
    """Return the bodies of a subscription's dead letters."""
    found: set[str] = set()
    link = f"{path}/failed?limit=20"
    with api.client() as client:
        while True:
            document = client.request("GET", link).document()
            if not document["deliveries"]:
                return found
            found |= {each["body"] for each in document["deliveries"]}
            link = document["links"][0]["href"]


@pytest.mark.parametrize("store", STORES)
def test_e1_whoever_is_killed_every_subscriber_is_told_of_every_message(
    hermod: MakeHermod, tmp_path: Path, store: str
) -> None:
    uri = STORES[store](tmp_path)
    api = hermod("api", "--workers", "1", "--threads", "4", store=uri, **ENVIRON).start()
    notifier = hermod("notifier", store=uri, **ENVIRON)
    notifier.launch()
    receivers = [Receiver(number) for number in range(SUBSCRIBERS)]
    paths = []
    with api.client() as client:
        for receiver in receivers:
            wish: dict[str, Any] = {"subscriber": receiver.url, "options": {"_retry_policy": POLICY}}
            made = client.request("POST", "/v2/queues/q/subscriptions", wish)
            assert made.status == 201, made
            paths.append(f"/v2/queues/q/subscriptions/{made.document()['subscription_id']}")
    killer = Killer(api, notifier, receivers)
    posted: list[list[str]] = [[] for _ in range(PRODUCERS)]

    def act(index: int) -> None:
        if index == PRODUCERS:
            killer.run()
        else:
            produce(api, index, killer.over, posted[index])

    with ExitStack() as stack:
        for receiver in receivers:
            stack.enter_context(listening(receiver.server))
        together(PRODUCERS + 1, act)
        messages = {body for each in posted for body in each}
        assert len(messages) >= PRODUCERS * MESSAGES

        def missing() -> list[tuple[int, str]]:
            return [
                (number, body)
                for number, (receiver, path) in enumerate(zip(receivers, paths, strict=True))
                for body in messages - set(receiver.taken) - given_up(api, path)
            ]

        end = time.monotonic() + DEADLINE
        while left := missing():
            assert time.monotonic() < end, f"{len(left)} were never told: {left[:10]}"
            threading.Event().wait(0.5)  # each look asks a store that has enough to do

        for receiver, path in zip(receivers, paths, strict=True):
            dead = given_up(api, path)
            assert {body for body in messages if receiver.refuses(body)} <= dead
            assert not {body for body in receiver.taken if receiver.refuses(body)}
            assert set(receiver.taken) <= messages
            assert receiver.failures > 10, "nothing was ever tried again"
        for body in messages:
            ids = {id_ for receiver in receivers for id_ in receiver.ids[body]}
            assert len(ids) == 1, f"one message, several ids: {body} {ids}"
        every = [id_ for body in messages for id_ in receivers[0].ids[body]]
        assert len(set(every)) == len(messages), "several messages, one id"
    assert killer.kills > ROUNDS
    assert notifier.stop() == 0
    assert "Traceback" not in notifier.log
