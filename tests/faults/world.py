"""The processes of a run: a store, services over it, and a supervisor that starts again whatever ended."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from tests import servers
from tests.acceptance.processes import GONE, Client, Hermod, free_port, is_gone, wait_until
from tests.faults.history import History
from tests.faults.proxy import FaultyProxy
from tests.faults.tools import Tools
from tests.servers import Process, Store

STORES = ("sqlite", "redis", "mongodb")
COMMANDS = {
    "api-1": ("api", "--workers", "1", "--threads", "8"),
    "api-2": ("api", "--workers", "1", "--threads", "8"),
    "websocket": ("websocket", "--workers", "1"),
    "notifier-1": ("notifier",),
    "notifier-2": ("notifier",),
    "janitor": ("janitor",),
}
APIS = ("api-1", "api-2")

STORAGE_TIMEOUT = 1.5  # seconds
RECOVERY = 45.0  # seconds until everything must answer again when all faults are over
_GLANCE = 2.0  # seconds that an answer to the question whether a process works may take
_ROUND = 0.1  # seconds between two looks of the supervisor
_PAUSE = 0.5  # seconds before what ended is started again

ENVIRON = {
    "HERMOD_EGRESS_ALLOW": "127.0.0.0/8",
    "HERMOD_LIMITS_MAX_MESSAGES_PER_PAGE": "500",
    "HERMOD_NOTIFIER_LEASE": "5",
    "HERMOD_NOTIFIER_TIMEOUT": "3",
    "HERMOD_STORAGE_TIMEOUT": str(STORAGE_TIMEOUT),
    "HERMOD_WEBSOCKET_HEARTBEAT": "2",
    "HERMOD_WEBSOCKET_PING_INTERVAL": "3",
    "HERMOD_WEBSOCKET_RETENTION": "86400",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}


@dataclass(kw_only=True)
class Node(Hermod):
    """A process of Hermod that clients reach through a proxy, and that reaches its store through another."""

    name: str
    front: FaultyProxy | None = None  # of those that listen
    back: FaultyProxy | None = None  # of those whose store is a server
    held: bool = False  # whether the supervisor leaves it alone

    def command_line(self) -> list[str]:
        """Return the command, with leases that may be short."""
        python, _, _, *rest = super().command_line()
        return [python, "-m", "tests.faults.node", *rest]

    def answers(self) -> bool:
        """Whether it does what it is there for, as far as that can be asked."""
        if self.process is None or self.process.poll() is not None:
            return False
        if self.front is None:
            return True
        # The websocket service tells plain HTTP to upgrade; whether its store answers shows with its subscribers.
        expected = 204 if self.command == "api" else 426
        with contextlib.suppress(*GONE), Client(self.port, patience=_GLANCE) as client:
            return client.request("GET", "/v2/ping").status == expected
        return False

    def suspend(self) -> None:
        """Let all of its processes do nothing."""
        self._signal(psutil.Process.suspend)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(psutil.Process.resume)

    def kill_worker(self) -> None:
        """End one of the processes that answer requests, which its master starts again."""
        for process in self.workers()[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _signal(self, act: Callable[[psutil.Process], None]) -> None:
        for process in self.tree() if self.process else ():
            if not is_gone(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    act(process)


class World:
    """All processes of a run. Use it as a context."""

    def __init__(self, store: str, folder: Path, tools: Tools, history: History) -> None:
        self.store = store
        self.tools = tools
        self.nodes: dict[str, Node] = {}
        self.server: Store | None = None  # none for SQLite
        self._server_held = False
        self._folder = folder
        self._history = history
        self._lock = threading.RLock()  # guards starts and ends of processes
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._open = ExitStack()

    def __enter__(self) -> World:
        try:
            if self.store != "sqlite":
                self.server = _server(self.store, self.tools)
                self._open.callback(self.server.stop)
                self.server.start()
            for name in COMMANDS:
                self.nodes[name] = self._node(name)
            self._open.callback(self._kill)
            self.nodes["api-1"].start()  # makes tables and indexes before others look for them
            for node in self.nodes.values():
                if node.process is None:
                    node.launch()
            self.wait_until_ready()
            self._supervisor.start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._supervisor.join(60)
        self._open.close()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self._folder / "store" / "h.db"

    def front_ports(self, *names: str) -> list[int]:
        """Return where clients reach processes."""
        return [front.port for name in names if (front := self.nodes[name].front) is not None]

    def wait_until_ready(self) -> None:
        """Return when every process does what it is there for."""
        wait_until(lambda: all(n.answers() for n in self.nodes.values()), "all answer", RECOVERY)

    def hold(self, *names: str) -> None:
        """Kill some processes, which stay away until they are released."""
        with self._lock:
            for node in (self.nodes[name] for name in names):
                node.held = True
                if node.process is not None:
                    node.kill()

    def release(self, *names: str) -> None:
        """Let the supervisor have some processes again."""
        for name in names:
            self.nodes[name].held = False

    def process_of_store(self) -> Process:
        """Return the server of the store."""
        assert self.server is not None
        return self.server.processes[0]

    def hold_server(self) -> None:
        """Kill the server of the store, which stays away until it is released."""
        with self._lock:
            self._server_held = True
            self.process_of_store().kill()

    def release_server(self) -> None:
        """Let the supervisor have the server again."""
        self._server_held = False

    def end(self) -> dict[str, int]:
        """Stop all services politely; return their exit codes."""
        self._over.set()
        self._supervisor.join(60)
        running = [node for node in self.nodes.values() if node.process is not None]
        for node in running:
            node.terminate()
        return {node.name: node.ended() for node in running}

    def logs(self) -> str:
        """Return what all services wrote."""
        return "\n".join(f"--- {node.name}\n{node.log}" for node in self.nodes.values())

    def _kill(self) -> None:
        for node in self.nodes.values():
            if node.process is not None:
                node.resume()
                node.kill()

    def _node(self, name: str) -> Node:
        command, *arguments = COMMANDS[name]
        folder = self._folder / name
        folder.mkdir(parents=True)
        node = Node(folder=folder, name=name, command=command, arguments=arguments, uri=self._uri())
        node.environ = {**ENVIRON, **self._preloaded(name)}
        if self.server is not None:
            node.back = self._open.enter_context(FaultyProxy(self.process_of_store().port))
            node.uri = node.uri.replace(str(self.process_of_store().port), str(node.back.port))
        if command in ("api", "websocket"):
            node.port = free_port()
            node.front = self._open.enter_context(FaultyProxy(node.port))
        return node

    def _uri(self) -> str:
        if self.server is None:
            return f"sqlite:///{self.database}"
        uri = servers.own_uri(self.server.base, Path("faults"))
        return uri.replace("replicaSet=hermod", "directConnection=true")  # or it would go around the proxy

    def _preloaded(self, name: str) -> dict[str, str]:
        # A file has the clock of its machine, which is that of all; a server has its own, whatever the nodes think.
        if self.server is None:
            return self.tools.environ(disk=self.database.parent, clock=True)
        return self.tools.environ(clock=name in CLOCKS)

    def _supervise(self) -> None:
        while not self._over.wait(_ROUND):
            with self._lock:
                for node in self.nodes.values():
                    if not node.held and (node.process is None or node.process.poll() is not None):
                        self._start_again(node)
                for process in self.server.processes if self.server and not self._server_held else ():
                    if process.process is None or process.process.poll() is not None:
                        process.kill()
                        process.start()

    def _start_again(self, node: Node) -> None:
        if node.process is not None:
            self._history.note("supervisor", "ended", node=node.name, code=node.process.returncode)
        if not self._over.wait(_PAUSE):
            node.launch()


#: Those whose clocks jump where the store has one of its own.
CLOCKS = ("api-2", "notifier-2", "janitor")


def _server(store: str, tools: Tools) -> Store:
    if store == "mongodb":
        return servers.mongodb_server()

    def command(port: int, folder: Path) -> Sequence[str]:
        environ = [f"{name}={value}" for name, value in tools.environ(disk=folder).items()]
        return ("env", *environ, *servers.redis_command(servers.redis_binary(), port, folder))

    process = Process(command)
    client = redis.Redis(port=process.port)

    def ready() -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    base = f"redis://127.0.0.1:{process.port}/0"
    return Store(processes=[process], base=base, ready=ready, leader=lambda: process)
