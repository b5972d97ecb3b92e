"""What a release says on websockets and to webhooks: its own processes, over real connections."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.acceptance.processes import PROJECT, Hermod, listening, wait_until
from tests.releases.frames import STORY, TOLD, Hook, Say
from tests.releases.sockets import Frame, Socket, answers

SIGNING_KEY = "a key of the recordings"

#: Everything is switched on that shows on the wire.
ENVIRON = {
    "HERMOD_AUTH_STRATEGY": "token",
    "HERMOD_EGRESS_ALLOW": "127.0.0.0/8",
    "HERMOD_NOTIFIER_PRIVATE_KEYS": "whsk_" + "A" * 43 + "=",
    "HERMOD_NOTIFIER_PUBLIC_URL": "https://queues.example.org",
    "HERMOD_NOTIFIER_REQUIRE_CONFIRMATION": "true",
    "HERMOD_NOTIFIER_SIGNING_KEYS": SIGNING_KEY,
    "HERMOD_SIGNED_URL_SECRET_KEYS": SIGNING_KEY,
    "HERMOD_WEBSOCKET_HEARTBEAT": "0.5",
}

#: The machine that answers, which is nobody's business.
_MACHINE = re.compile(r"http://[^/\"]+:[0-9]+/")

#: Headers of a delivery that come from the way it takes.
_OF_THE_WAY = {"host", "content-length", "connection"}

Recording = dict[str, Any]


@dataclass
class Receiver:
    """A webhook that keeps what it is sent."""

    requests: list[Recording] = field(default_factory=list)
    port: int = 0

    def sent(self, path: str) -> list[Recording]:
        """Return what came to a path."""
        return [each for each in self.requests if each["path"] == path]

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        """Take requests during the block."""
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                shown = {name.lower(): value for name, value in self.headers.items()}
                headers = {name: shown[name] for name in sorted(shown) if name not in _OF_THE_WAY}
                requests.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        with listening(server):
            yield self


@dataclass
class Talk:
    """A client that goes through a story over one connection."""

    socket: Socket
    names: dict[str, str]

    def tell(self, story: list[Say]) -> list[Recording]:
        """Return what was said, answered and pushed."""
        return [self._say(step) for step in story]

    def _say(self, step: Say) -> Recording:
        document = self._filled(step.document)
        reply = self.socket.send(document)
        for name, where in step.keep.items():
            self.names[name] = _found(reply, where)
        beats = [self._next(beat=True)] if step.beat else []
        return {
            "sent": document,
            "reply": json.loads(_MACHINE.sub("http://localhost:9000/", json.dumps(reply))),
            "pushed": [*beats, *(self._next() for _ in range(step.pushed))],
        }

    def _next(self, *, beat: bool = False) -> Frame:
        """Return the next notification, or the next heartbeat: these come by themselves."""
        while True:
            frame = self.socket.next()
            if (frame.get("Message_Type") == "Heartbeat") is beat:
                return frame

    def _filled(self, document: Any) -> Any:
        """Return a document with what the names stand for."""
        if isinstance(document, dict):
            return {name: self._filled(value) for name, value in document.items()}
        if isinstance(document, list):
            return [self._filled(value) for value in document]
        if isinstance(document, str):
            return re.sub(r"\{(\w+)\}", lambda found: self.names[found[1]], document)
        return document


def _found(reply: Frame, where: str) -> str:
    """Return what a reply has at a place."""
    found: Any = reply
    for part in where.split("."):
        if isinstance(found, list):
            found = found[int(part)]
        else:
            assert part in found, reply
            found = found[part]
    return str(found)


def told(talk: Talk, receiver: Receiver, hook: Hook) -> Recording:
    """Subscribe a webhook, confirm that, post to it, and return what it was sent."""
    path = f"/{hook.name}"
    subscriber = f"http://127.0.0.1:{receiver.port}{path}"
    queue = {"queue_name": hook.name}
    wish = {**queue, "subscriber": subscriber, "options": hook.options}
    made = talk.socket.ask("subscription_create", **wish)["body"]["subscription_id"]
    wait_until(lambda: receiver.sent(path), "the subscriber is asked to confirm")
    talk.socket.ask("subscription_confirm", **queue, subscription_id=made, confirmed=True)
    posted = talk.socket.ask("message_post", **queue, messages=[hook.message])
    assert posted["headers"]["status"] == 201, posted
    wait_until(lambda: len(receiver.sent(path)) == 2, "the subscriber is told")
    return {"subscription_id": made, "wish": wish, "requests": receiver.sent(path)}


@contextmanager
def running(folder: Path, environ: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Run a websocket process and a notifier of a release; yield the port of the one, and a token."""
    uri = f"sqlite:///{folder}/wire.db"
    services = []
    for command in ("websocket", "notifier"):
        (place := folder / command).mkdir()
        services.append(
            Hermod(folder=place, uri=uri, command=command, environ={**ENVIRON, **environ}),
        )
    try:
        for service in services:
            service.launch()
        token = make_token(uri, environ)
        wait_until(lambda: answers(services[0]), "the websocket service answers")
        yield services[0].port, token
        for service in services:
            assert '"level": "error"' not in service.log
    finally:
        for service in services:
            service.kill()


def make_token(uri: str, environ: Mapping[str, str]) -> str:
    """Have a release make a token."""
    command = (sys.executable, "-m", "transport", "token", "create", "--project", PROJECT, "--store", uri)
    made = subprocess.check_output(
        command,
        env={**os.environ, **environ},
        cwd=Path(uri.removeprefix("sqlite:///")).parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    return made.strip()


def record_wire(folder: Path, environ: Mapping[str, str]) -> tuple[Recording, Recording]:
    """Return what the release that an environment stands for says on websockets, by encoding, and to webhooks."""
    talks: Recording = {}
    with running(folder, environ) as (port, token), Receiver().listening() as receiver:
        hooks: Recording = {}
        for encoding in ("json", "msgpack"):
            with Socket(port, binary=encoding == "msgpack") as socket:
                talk = Talk(socket, {"token": token, "queue": encoding})
                talks[encoding] = talk.tell(STORY)
                if encoding == "json":
                    hooks = {hook.name: told(talk, receiver, hook) for hook in TOLD}
    return talks, hooks
