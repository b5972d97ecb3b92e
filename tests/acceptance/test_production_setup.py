"""The production set-up, started and used as docs/how-to/production-cluster.md prints it.

The settings files, units and commands are those of the page, in its order. For the page's own values stand others, so
that all machines fit on this one: `Cluster.put_in` has all of them. A few lines do what systemd does with a unit. The
load balancer, which the page calls an example, is left out: the clients do what it would do.
"""

from __future__ import annotations

import asyncio
import configparser
import itertools
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from zaqarclient.queues import client as zaqar
from zaqarclient.transport.errors import ServiceUnavailableError

from tests import servers

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "production-cluster.md"
BIN = Path(sys.executable).parent

READY = 40.0  # seconds that a server may take to come up
END = 40.0  # seconds that a server may take to end, as in the units
COMMAND = 30.0  # seconds that a command may take
WAIT = 30.0  # seconds until something must have come true

#: What the services of the packages start, as the page says where it names the files that they read.
PACKAGED = {
    "redis-server": "/usr/bin/redis-server /etc/redis/redis.conf",
    "mongod": "/usr/bin/mongod --config /etc/mongod.conf",
}


@dataclass(frozen=True)
class Block:
    """A block of code on the page."""

    section: str  # the heading that it stands under
    file: str  # the path that the paragraph before it begins with, or ""
    language: str
    text: str


def blocks() -> list[Block]:
    """Return all blocks of the page."""
    found = []
    section = ""
    for heading, paragraph, language, text in re.findall(
        r"^## ([^\n]+)$|^(?:([^\n]+(?:\n[^\n]+)*)\n\n)?```(\w+)\n(.*?)^```$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    ):
        section = heading or section
        if language:
            path = re.search(r"`(/etc/\S+)`", paragraph)
            named = path[1] if path and language in ("conf", "yaml", "toml", "ini") else ""
            found.append(Block(section, named, language, text))
    return found


def machines() -> dict[str, str]:
    """Return the page's machines and their addresses."""
    rows = re.findall(r"^\| (`.+?`) \| ([\d., ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        name.strip("` "): address.strip()
        for names, addresses in rows
        for name, address in zip(names.split(","), addresses.split(","), strict=True)
    }


@dataclass
class Unit:
    """A service as systemd would run it."""

    name: str
    command: Sequence[str]
    environ: dict[str, str]
    folder: Path
    ready: Callable[[], bool]  # whether it listens, where it does not say so itself
    notifies: bool  # whether it says so itself
    log: Path
    process: subprocess.Popen[bytes] | None = None
    notices: socket.socket | None = None

    def start(self) -> None:
        """Start it, without waiting."""
        environ = dict(self.environ)
        if self.notifies:
            self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            name = f"\0hermod-test-{secrets.token_hex(8)}"
            self.notices.bind(name)
            environ["NOTIFY_SOCKET"] = name.replace("\0", "@")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it is ready."""
        if self.notices is not None:
            self.notices.settimeout(READY)
            while b"READY=1" not in self.notices.recv(4096):
                pass
            self.notices.close()
            self.notices = None
            return
        deadline = time.monotonic() + READY
        while not self.ready():
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and wait for that."""
        if self.notices is not None:
            self.notices.close()
            self.notices = None
        if self.process is not None:
            self.process.terminate()
            self.ended()

    def kill(self) -> None:
        """End it as a loss of power would."""
        assert self.process is not None
        self.process.kill()
        self.ended()

    def ended(self) -> None:
        assert self.process is not None
        try:
            self.process.wait(END)
        finally:
            self.process.kill()
            self.process = None


@dataclass
class Cluster:
    """All machines of the page, in a folder each."""

    folder: Path
    network: str  # the first three numbers of all addresses
    password: str
    units: dict[tuple[str, str], Unit] = field(default_factory=dict)  # by machine and name
    blocks: list[Block] = field(default_factory=blocks)
    machines: dict[str, str] = field(default_factory=machines)

    def put_in(self, text: str, machine: str) -> str:
        """Put this cluster's values in for those of the page, and nothing else."""
        root = self.folder / machine
        for printed, value in (
            ("ADDRESS", self.machines[machine]),
            ("10.0.0.", self.network),
            ("PASSWORD", self.password),
            ("/usr/bin/redis-server", servers.redis_binary()),
            ("/usr/bin/mongod", servers.mongod_binary()),
            ("/opt/hermod/bin", str(BIN)),
            ("/etc", f"{root}/etc"),
            ("/var/lib", f"{root}/var/lib"),
        ):
            text = text.replace(printed, value)
        return text

    def write_files(self) -> None:
        """Write every file of the page on every machine."""
        for machine, block in itertools.product(self.machines, self.blocks):
            if block.file:
                path = self.folder / machine / block.file.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.put_in(block.text, machine), encoding="utf-8")
        for machine in self.machines:
            for name in ("redis", "mongodb", "hermod"):
                (self.folder / machine / "var/lib" / name).mkdir(parents=True)

    def follow(self, section: str) -> None:
        """Do what a section says."""
        found = [block for block in self.blocks if block.section == section]
        assert found, f"there is no section {section!r}"
        for block in found:
            if block.language == "console":
                self._type(block.text)
            elif block.language == "python":
                done = self._run([sys.executable, "-c", self.put_in(block.text, "node-1")], "node-1")
                assert done.returncode == 0, done.stderr

    def _type(self, text: str) -> None:
        """Run the commands of a block, and compare what they print where the page shows it."""
        parts = re.split(r"^(\S+)([#$]) (.*)\n", text, flags=re.MULTILINE)[1:]
        started: list[Unit] = []
        for machine, prompt, command, shown in zip(*[iter(parts)] * 4, strict=True):
            if command.startswith("systemctl "):
                assert prompt == "#"
                started += self._systemctl(machine, command.split()[1:])
            else:
                self._command(machine, command, shown)
        for unit in started:
            unit.wait()

    def _command(self, machine: str, command: str, shown: str) -> None:
        deadline = time.monotonic() + WAIT
        while True:
            done = self._run(["bash", "-c", self.put_in(command, machine)], machine)
            assert done.returncode == 0, (command, done.stderr)
            if "--status" not in command or "drained" in done.stdout:  # the page says to repeat it
                break
            assert time.monotonic() < deadline, done.stdout
        expected, dots, _ = self.put_in(shown, machine).partition("...\n")
        if shown:
            assert done.stdout.startswith(expected) if dots else done.stdout == expected
        assert "warning" not in done.stdout, done.stdout

    def _run(self, command: Sequence[str], machine: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder / machine,
            env=self._environ(machine),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND,
            check=False,
        )

    def _environ(self, machine: str) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
        return {**environ, "HERMOD_CONFIG": self.put_in("/etc/hermod/hermod.toml", machine)}

    def _systemctl(self, machine: str, arguments: Sequence[str]) -> list[Unit]:
        """Do what systemctl does; return what was started."""
        verb, names = arguments[0], [each for each in arguments[1:] if each != "--now"]
        started = []
        for name in names:
            unit = self.unit(machine, self.put_in(name, machine))
            if verb in ("restart", "disable"):
                unit.stop()
            if verb in ("restart", "enable"):
                unit.start()
                started.append(unit)
            if verb == "restart":
                unit.wait()
        return [] if verb == "restart" else started

    def unit(self, machine: str, name: str) -> Unit:
        """Return a service of a machine."""
        if (machine, name) not in self.units:
            self.units[machine, name] = self._make_unit(machine, name)
        return self.units[machine, name]

    def _make_unit(self, machine: str, name: str) -> Unit:
        root, environ, notifies = self.folder / machine, self._environ(machine), False
        if name in PACKAGED:
            command = self.put_in(PACKAGED[name], machine)
            port = {"redis-server": 6379, "mongod": 27017}[name]
        else:
            template, at, instance = name.partition("@")
            parser = configparser.ConfigParser(interpolation=None)
            parser.read(root / "etc/systemd/system" / f"{template}{at}.service", encoding="utf-8")
            service = parser["Service"]
            command = service["ExecStart"].replace("%i", instance)
            variable, _, value = service["Environment"].partition("=")
            environ[variable] = value
            notifies = service.get("Type") == "notify"
            port = 0
        return Unit(
            name=name,
            command=shlex.split(command),
            environ=environ,
            folder=root,
            ready=lambda: not port or listens(self.address(machine), port),
            notifies=notifies,
            log=root / f"{name}.log",
        )

    def address(self, machine: str) -> str:
        """Return the address that a machine has here."""
        return self.put_in("ADDRESS", machine)

    def token(self, name: str) -> str:
        """Return a token that the page made."""
        return (self.folder / "node-1/var/lib/hermod" / f"{name}.token").read_text().strip()

    def nodes(self) -> list[str]:
        """Return the URLs of the nodes."""
        return [f"http://{self.address(name)}:8888" for name in self.machines if name.startswith("node-")]

    def stop(self) -> None:
        """End everything, the services before their stores, which need not take leave."""
        running = [unit for unit in self.units.values() if unit.process is not None]
        with ExitStack() as ends:
            for unit in running:
                ends.callback(unit.kill if unit.name in PACKAGED else unit.stop)
            for unit in running:
                if unit.name not in PACKAGED and unit.process is not None:
                    unit.process.terminate()

    def sockets(self) -> list[str]:
        """Return the URLs of the nodes' websocket services."""
        return [node.replace("http:", "ws:").replace(":8888", ":9000") for node in self.nodes()]

    def ask(self, path: str, *, token: str = "operator", node: int = 0) -> Any:
        """Return what a node answers to a GET."""
        headers = {"X-Auth-Token": self.token(token), "Client-ID": "9f1c5f0e-2a0b-4f6e-8f52-0c6a1d2b3e4f"}
        return requests.get(self.nodes()[node] + path, headers=headers, timeout=30)

    def connect(self) -> list[Any]:
        """Return a python-zaqarclient for each node."""
        auth = {"backend": "keystone", "options": {"os_auth_token": self.token("acme")}}
        return [zaqar.Client(node, version=2, conf={"auth_opts": auth}) for node in self.nodes()]

    def pool_of(self, queue: str) -> str:
        """Return the pool that a queue lives in, which only the operator can find out: by counting."""
        before = self.volumes()
        self.connect()[0].queue(queue).post([{"body": "where am I", "ttl": 3600}])
        after = self.volumes()
        (pool,) = [name for name, total in after.items() if total > before[name]]
        return pool

    def volumes(self) -> dict[str, int]:
        """Return how many messages each pool has."""
        health = self.ask("/v2/health").json()
        return {name: pool["message_volume"]["total"] for name, pool in health.items() if "_" not in name}


def listens(host: str, port: int) -> bool:
    """Tell whether somebody listens there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


def free_network() -> str:
    """Return the beginning of loopback addresses at which nobody listens."""
    while True:
        network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 2}."
        try:
            with socket.socket() as probe:
                probe.bind((f"{network}1", 8888))
        except OSError as error:
            if not sys.platform.startswith("linux"):
                pytest.skip(f"only one loopback address: {error}")
        else:
            return network


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The set-up, started as the page says."""
    folder = Path(tempfile.mkdtemp(prefix="hermod-test-"))
    made = Cluster(folder=folder, network=free_network(), password=secrets.token_hex(16))
    try:
        made.write_files()
        for section in ("Redis", "MongoDB", "Pools", "Nodes", "Tokens"):
            made.follow(section)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Nodes:
    """What a load balancer does: each request goes to the next node, and to another if that one is not there."""

    def __init__(self, cluster: Cluster) -> None:
        self.gone = 0  # times that a node was not there
        self._nodes = itertools.cycle(cluster.connect())

    def call(self, queue: str, request: Callable[[Any], Any]) -> Any:
        """Make a request at some node."""
        for _ in range(6):
            try:
                return request(next(self._nodes).queue(queue))
            except requests.ConnectionError:
                self.gone += 1
        raise AssertionError("no node is there")


@dataclass
class Load:
    """Producers and consumers that go on while something happens, through all nodes in turn."""

    cluster: Cluster
    posted: set[str] = field(default_factory=set)  # what was answered with 201
    done: set[str] = field(default_factory=set)  # what was claimed and deleted
    refused: list[str] = field(default_factory=list)  # answers that nobody should get
    gone: int = 0  # times that a node was not there
    enough: threading.Event = field(default_factory=threading.Event)  # no more is to be posted
    over: threading.Event = field(default_factory=threading.Event)  # no more will be posted

    def produce(self, queue: str) -> None:
        """Post until it is enough."""
        nodes = Nodes(self.cluster)
        for number in itertools.count():
            body = f"{queue} {number}"
            with self._watch(nodes):
                nodes.call(queue, partial(post, body))
                self.posted.add(body)
            if self.enough.wait(0.05):
                return

    def consume(self, queue: str) -> None:
        """Claim and delete until nothing comes any more."""
        nodes = Nodes(self.cluster)
        while True:
            over = self.over.wait(0.1)
            with self._watch(nodes):
                messages = nodes.call(queue, claim)
                for message in messages:
                    nodes.call(queue, partial(acknowledge, message))
                    self.done.add(message.body)
                if over and not messages:
                    return

    @contextmanager
    def _watch(self, nodes: Nodes) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.refused.append(repr(error))
        self.gone += nodes.gone
        nodes.gone = 0


@dataclass
class Subscriber:
    """Somebody who is connected to one node after the other, and keeps the number of what was seen last."""

    cluster: Cluster
    queue: str
    told: list[str] = field(default_factory=list)
    connections: int = 0
    id: str = ""  # of the subscription
    sequence: int = 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Stay connected until the block is over; by then it must have been told of something that ends it."""
        end = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._stay(end)), daemon=True)
        thread.start()
        deadline = time.monotonic() + WAIT
        while not self.id:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            yield
        finally:
            end.set()
            thread.join(WAIT)
            assert not thread.is_alive()

    async def _stay(self, end: threading.Event) -> None:
        async with aiohttp.ClientSession() as session:
            for url in itertools.cycle(self.cluster.sockets()):
                with suppress(aiohttp.ClientError):
                    async with session.ws_connect(url) as socket:
                        self.connections += 1
                        await self._receive(socket, end)
                if end.is_set():
                    return

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, end: threading.Event) -> None:
        headers = {
            "X-Project-ID": "acme",
            "X-Auth-Token": self.cluster.token("acme"),
            "Client-ID": "9f1c5f0e-2a0b-4f6e-8f52-0c6a1d2b3e4f",
        }
        action = "subscription_resume" if self.id else "subscription_create"
        known = {"subscription_id": self.id, "sequence": self.sequence}
        body = known if self.id else {"options": {"sequence": True}}
        await socket.send_json({"action": "authenticate", "headers": headers})
        await socket.send_json(
            {"action": action, "headers": headers, "body": {"queue_name": self.queue, **body}}
        )
        while True:
            with suppress(TimeoutError):
                message = await socket.receive(timeout=0.2)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                self._take(json.loads(message.data))
            if end.is_set():
                return

    def _take(self, frame: dict[str, Any]) -> None:
        if "request" in frame:
            assert frame["headers"]["status"] < 300, frame
            if frame["request"]["action"] != "authenticate":
                self.id = frame["body"]["subscription_id"]
            return
        assert frame["previous"] <= self.sequence, "something is missing"
        if frame["sequence"] > self.sequence:
            self.sequence = frame["sequence"]
            if frame["Message_Type"] == "Notification":
                self.told.append(frame["body"])


def post(body: str, queue: Any) -> None:
    """Post a message, through the node that a queue was opened at."""
    queue.post([{"body": body, "ttl": 3600}])


def claim(queue: Any) -> list[Any]:
    """Claim messages, through the node that a queue was opened at."""
    return list(queue.claim(ttl=60, grace=60, limit=10))


def acknowledge(message: Any, queue: Any) -> None:
    """Delete a message, through the node that a queue was opened at."""
    message.queue = queue
    message.delete()


@contextmanager
def load(cluster: Cluster, queues: Sequence[str]) -> Iterator[Load]:
    """Work on these queues until all is done."""
    seen = Load(cluster)
    producers = [threading.Thread(target=seen.produce, args=(queue,), daemon=True) for queue in queues]
    consumers = [threading.Thread(target=seen.consume, args=(queue,), daemon=True) for queue in queues]
    for thread in (*producers, *consumers):
        thread.start()
    try:
        yield seen
    finally:
        for event, threads in ((seen.enough, producers), (seen.over, consumers)):
            event.set()
            for thread in threads:
                thread.join(WAIT)


def queues_of(cluster: Cluster, prefix: str, pools: Sequence[str]) -> dict[str, str]:
    """Make queues until each of these pools has one; return those by pool."""
    found: dict[str, str] = {}
    for number in range(40):
        name = f"{prefix}-{number}"
        found.setdefault(cluster.pool_of(name), name)
        if set(pools) <= set(found):
            return {pool: found[pool] for pool in pools}
    raise AssertionError(f"40 queues, and only in {found}")


def test_the_page_has_nothing_that_this_test_does_not_know(cluster):
    assert {block.language for block in cluster.blocks} == {
        *("conf", "yaml", "toml", "ini", "console", "python", "nginx")
    }
    assert {block.file for block in cluster.blocks if block.file} == {
        "/etc/redis/redis.conf",
        "/etc/mongod.conf",
        "/etc/hermod/hermod.toml",
        "/etc/systemd/system/hermod-api@.service",
        "/etc/systemd/system/hermod-websocket@.service",
        "/etc/systemd/system/hermod-janitor.service",
        "/etc/systemd/system/hermod-notifier.service",
    }


def test_what_is_posted_through_one_node_is_claimed_through_another(cluster):
    first, second, third = cluster.connect()
    first.queue("handed-on").post([{"body": number, "ttl": 3600} for number in range(5)])

    claimed = list(second.queue("handed-on").claim(ttl=60, grace=60))
    for message in claimed:
        message.delete()

    assert [message.body for message in claimed] == [0, 1, 2, 3, 4]
    assert third.queue("handed-on").stats["messages"]["total"] == 0


def test_a_flavor_chooses_the_pool(cluster):
    node = cluster.connect()[1]
    headers = {"X-Auth-Token": cluster.token("acme"), "Client-ID": "9f1c5f0e-2a0b-4f6e-8f52-0c6a1d2b3e4f"}
    made = requests.put(
        f"{cluster.nodes()[2]}/v2/queues/payments", json={"_flavor": "safe"}, headers=headers, timeout=30
    )

    assert made.status_code == 201
    assert cluster.pool_of("payments") == "mongodb"
    assert set(queues_of(cluster, "usual", ["redis-1", "redis-2"])) == {"redis-1", "redis-2"}
    assert node.queue("payments").stats["messages"]["total"] == 1


def test_a_pool_that_is_down_affects_only_its_own_queues(cluster):
    queues = queues_of(cluster, "apart", ["redis-1", "redis-2"])
    redis = cluster.unit("redis-2", "redis-server")
    node = cluster.connect()[0]

    redis.kill()
    try:
        with pytest.raises(ServiceUnavailableError):
            node.queue(queues["redis-2"]).post([{"body": "lost?", "ttl": 3600}])
        for other in cluster.connect():
            other.queue(queues["redis-1"]).post([{"body": "kept", "ttl": 3600}])
        listed = cluster.ask("/v2/queues?limit=20&name=apart", token="acme", node=1)
        assert set(queues.values()) <= {queue["name"] for queue in listed.json()["queues"]}
        assert cluster.ask("/v2/ping", token="acme").status_code == 204
        health = cluster.ask("/v2/health", node=2).json()
        assert {name: pool["storage_reachable"] for name, pool in health.items() if "_" not in name} == {
            "redis-1": True,
            "redis-2": False,
            "mongodb": True,
        }
    finally:
        redis.start()
        redis.wait()

    node.queue(queues["redis-2"]).post([{"body": "again", "ttl": 3600}])
    bodies = [message.body for message in node.queue(queues["redis-2"]).claim(ttl=60, grace=60)]
    assert bodies == ["where am I", "again"], "what was posted before is there, and what was refused is not"


def test_nodes_are_restarted_one_by_one_under_load(cluster):
    queues = queues_of(cluster, "restart", ["redis-1"])
    subscriber = Subscriber(cluster, queues["redis-1"])

    with subscriber.connected():
        with load(cluster, [*queues.values(), "payments"]) as seen:
            cluster.follow("Restart and upgrade")
        expected = {body for body in seen.posted if body.startswith(subscriber.queue)}
        deadline = time.monotonic() + WAIT
        while not expected <= set(subscriber.told) and time.monotonic() < deadline:
            time.sleep(0.05)

    assert not seen.refused
    assert len(seen.posted) > 50
    assert seen.posted <= seen.done
    assert expected <= set(subscriber.told)
    assert subscriber.connections > 1, "nodes were restarted, and it came back"
    assert len(subscriber.told) == len(set(subscriber.told))


def test_a_pool_is_drained_and_removed_under_load(cluster):
    queues = queues_of(cluster, "moved", ["redis-1", "redis-2"])

    with load(cluster, list(queues.values())) as seen:
        cluster.follow("Replace a pool")
        time.sleep(0.5)  # posts go on in the other pool

    assert not seen.refused
    assert not seen.gone
    assert len(seen.posted) > 50
    assert seen.posted <= seen.done
    assert cluster.pool_of(queues["redis-1"]) == "redis-2"
