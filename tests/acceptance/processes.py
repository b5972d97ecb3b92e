"""Real processes of the service, and clients that speak to them over sockets. Every wait has an end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psutil

READY = 30.0  # seconds that a start may take on a very slow machine
ANSWER = 30.0  # seconds that an answer may take
END = 40.0  # seconds that an end may take

CLIENT = "30387f00-4ff4-4f4f-8d5c-4b3a7c5c2f10"
PROJECT = "tenant"


def wait_until(condition: Callable[[], object], what: str, seconds: float = READY) -> None:
    """Return when the condition holds; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} seconds in vain: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def listening(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer in threads."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the service answered."""

    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes

    def document(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages of a page, a claim or a pop; none of an empty answer."""
        found: list[dict[str, Any]] = self.document()["messages"] if self.body else []
        return found


#: What a client sees when the service goes away while it is being spoken to.
GONE = (OSError, http.client.HTTPException)


class Client:
    """One connection, for one thread, opened anew after each failure."""

    def __init__(
        self, port: int, *, project: str = PROJECT, client_id: str = CLIENT, patience: float = ANSWER
    ) -> None:
        self._identity = {"Client-ID": client_id, "X-Project-ID": project}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def local_port(self) -> int:
        """Return the port of this end of the connection."""
        assert self._connection.sock is not None
        port: int = self._connection.sock.getsockname()[1]
        return port

    def request(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send a request and read the answer; raises one of GONE if there is none."""
        self.send(method, path, body, headers=headers)
        return self.receive()

    def send(
        self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request."""
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, data, {**self._identity, **(headers or {})})
        except GONE:
            self._connection.close()
            raise

    def receive(self) -> Reply:
        """Read the answer to the request that was sent."""
        try:
            answer = self._connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(status=answer.status, headers=names, body=answer.read())
        except GONE:
            self._connection.close()
            raise

    def post(self, queue: str, bodies: Sequence[object], *, key: str | None = None, **member: Any) -> Reply:
        """Post messages, with an idempotency key if there is one."""
        document = {"messages": [{"body": body, **member} for body in bodies]}
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.request("POST", f"/v2/queues/{queue}/messages", document, headers=headers)

    def everything(self, queue: str) -> list[dict[str, Any]]:
        """Follow the markers from the first message of a queue to the last; claimed ones too."""
        found: list[dict[str, Any]] = []
        path = f"/v2/queues/{queue}/messages?limit=20&echo=true&include_claimed=true&include_delayed=true"
        while True:
            page = self.request("GET", path)
            assert page.status == 200, page
            if not page.messages():
                return found
            found += page.messages()
            path = page.document()["links"][0]["href"]


@dataclass(kw_only=True)
class Hermod:
    """A command of Hermod on a port and a store; it can be ended and started again."""

    folder: Path
    uri: str = ""  # of its store; "" for a SQLite file in its folder
    command: str = "serve"
    arguments: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)  # of the REST service, or the one that the command runs
    websocket_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        """The SQLite file."""
        return self.folder / "store" / "h.db"

    @property
    def log(self) -> str:
        """What the processes wrote."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command_line(self) -> list[str]:
        """Return the command and its arguments."""
        store, bind = self.uri or f"sqlite:///{self.store}", f"127.0.0.1:{self.port}"
        given = [*self.arguments]
        if "--bind" not in given and self.command in ("serve", "api", "websocket"):
            given += ["--bind", bind]
        return [sys.executable, "-m", "transport", self.command, "--store", store, *given]

    def _ports(self) -> dict[str, str]:
        return {"HERMOD_WEBSOCKET_BIND": f"127.0.0.1:{self.websocket_port}"}

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the command, without waiting for anything."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command_line(),
                cwd=self.folder,
                env={**environ, "HERMOD_LOG_LEVEL": "warning", **self._ports(), **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self) -> Hermod:
        """Start the command and wait until it answers."""
        process = self.launch()

        def ready() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}:\n{self.log}"
            with contextlib.suppress(*GONE), self.client() as client:
                return client.request("GET", "/v2/ping").status == 204
            return False

        wait_until(ready, "the service answers")
        return self

    def client(self, **options: Any) -> Client:
        """Return a new connection."""
        return Client(self.port, **options)

    def tree(self) -> list[psutil.Process]:
        """Return the process and all that descend from it, parents first."""
        assert self.process is not None
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Return the processes that answer requests."""
        tree = self.tree()
        if self.command == "serve":
            tree = [process for process in tree if not is_gone(process) and "api" in process.cmdline()]
        return [process for process in tree[1:] if not is_gone(process)]

    def kill(self) -> None:
        """End every process with SIGKILL, parents first, so that nobody starts another one."""
        tree = self.tree()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait(END)
        self.process = None
        wait_until(lambda: all(map(is_gone, tree)), "the processes are gone", END)

    def terminate(self) -> None:
        """Ask the service to stop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        assert self.process is not None
        code = self.process.wait(END)
        self.process = None
        return code

    def stop(self) -> int:
        """Stop the service; return its exit code."""
        self.terminate()
        return self.ended()


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended, even if nobody has taken note of it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def together(number: int, work: Callable[[int], None]) -> None:
    """Run `work(0)` to `work(number - 1)`, each in a thread of its own; raise the first error as soon as it is there."""
    ends: SimpleQueue[BaseException | None] = SimpleQueue()

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            ends.put(error)
        else:
            ends.put(None)

    for index in range(number):
        threading.Thread(target=run, args=(index,), daemon=True).start()
    deadline = time.monotonic() + 3 * ANSWER
    for _ in range(number):
        try:
            error = ends.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise AssertionError("the threads come to no end") from None
        if error is not None:
            raise error
