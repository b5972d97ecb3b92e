"""Processes: `hermod serve`, its parts, and how they start and end. Real processes, waited for by condition."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import ClientSession, WSMsgType

DEADLINE = 40.0  # seconds; far more than anything here takes
HEADERS = {
    "Client-ID": "0123456789abcdef0123456789abcdef",
    "X-Project-ID": "p",
    "Content-Type": "application/json",
}

RUNNER = """
import json, os, sys
from transport.supervisor import Supervisor

options = json.loads(sys.argv[1])
commands = options.pop("commands")
supervisor = Supervisor(parts=list(commands), environ=os.environ, command=commands.__getitem__, pause=0.05, **options)
sys.exit(supervisor.run())
"""

# Notes, each time in one write, that it started and that it was asked to end.
POLITE = """
import os, signal, sys
def note(what): os.write(1, f"{what} {os.getpid()}\\n".encode())
signal.signal(signal.SIGTERM, lambda *_: (note("end"), sys.exit(0)))
note("start")
while True: signal.pause()
"""

STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, f"start {os.getpid()}\\n".encode())
while True: signal.pause()
"""


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until a condition gives something true, and return that."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it never came true")


class Process:
    """A process in a folder, its output in a file."""

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
        self.output = folder / "output.txt"
        with self.output.open("w") as output:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env={**inherited, **environ},
                stdout=output,
                stderr=output,
            )
        self.family: set[psutil.Process] = set()

    def text(self) -> str:
        return self.output.read_text()

    def lines(self, start: str) -> list[str]:
        return [line for line in self.text().splitlines() if line.startswith(start)]

    def descendants(self) -> list[psutil.Process]:
        found = psutil.Process(self.popen.pid).children(recursive=True)
        self.family.update(found)
        return found

    def ended(self) -> int:
        return self.popen.wait(DEADLINE)

    def clean(self) -> None:
        if self.popen.poll() is None:
            self.descendants()
            self.popen.kill()
        self.popen.wait()
        for process in self.family:
            if process.is_running():
                process.kill()


@pytest.fixture
def run(tmp_path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str, **environ: str) -> Process:
        process = Process(tmp_path, *arguments, **environ)
        started.append(process)
        return process

    yield start
    for process in started:
        process.clean()


@pytest.fixture
def supervise(run) -> Callable[..., Process]:
    def start(grace: float = DEADLINE, settled: float = DEADLINE, **scripts: str) -> Process:
        commands = {name: [sys.executable, "-c", script] for name, script in scripts.items()}
        options = {"commands": commands, "grace": grace, "settled": settled}
        process: Process = run("-c", RUNNER, json.dumps(options))
        return process

    return start


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def pids(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines]


class TestSupervisor:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_all_parts_politely(self, supervise, number):
        process = supervise(one=POLITE, two=POLITE)
        eventually(lambda: len(process.lines("start")) == 2)
        process.popen.send_signal(number)
        assert process.ended() == 0
        assert len(process.lines("end")) == 2

    def test_a_part_that_does_not_end_is_killed(self, supervise):
        process = supervise(grace=0.1, one=STUBBORN)
        (pid,) = pids(eventually(lambda: process.lines("start")))
        process.popen.terminate()
        assert process.ended() == 0
        assert gone(pid)

    def test_a_second_interrupt_does_not_wait(self, supervise):
        process = supervise(one=STUBBORN)
        eventually(lambda: process.lines("start"))
        process.popen.send_signal(signal.SIGINT)
        eventually(lambda: "stopping" in process.text())
        process.popen.send_signal(signal.SIGINT)
        assert process.ended() == 0

    def test_a_part_that_cannot_start_ends_everything_with_its_code(self, supervise):
        process = supervise(one=POLITE, two="import sys; sys.exit('no disk')")
        assert process.ended() == 1
        assert "no disk" in process.text()
        assert "a part cannot start" in process.text()
        assert all(gone(pid) for pid in pids(process.lines("start")))

    def test_a_part_that_is_killed_at_its_start_has_a_code_too(self, supervise):
        process = supervise(one="import os; os.kill(os.getpid(), 9)")
        assert process.ended() == 128 + 9

    def test_a_part_that_ends_later_is_started_again(self, supervise):
        process = supervise(settled=0, one=POLITE, two=POLITE)
        first, other = pids(eventually(lambda: len(process.lines("start")) == 2 and process.lines("start")))
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(process.lines("start")) == 3)
        assert not gone(other)
        assert "started again" in process.text()

    def test_parts_end_with_a_supervisor_that_is_killed(self, supervise):
        process = supervise(one=POLITE, two=POLITE)
        parts = pids(eventually(lambda: len(process.lines("start")) == 2 and process.lines("start")))
        process.popen.kill()
        process.popen.wait()
        eventually(lambda: all(gone(pid) for pid in parts))
        assert len(process.lines("end")) == 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/")[0] == 300
    except OSError:
        return False


@pytest.fixture
def hermod(run) -> Callable[..., tuple[Process, int]]:
    """Start a serving command on a free port, and wait until it answers."""

    def start(command: str, *arguments: str, **environ: str) -> tuple[Process, int]:
        port = free_port()
        environ.setdefault("HERMOD_WEBSOCKET_BIND", f"127.0.0.1:{free_port()}")
        process = run("-m", "transport", command, "--bind", f"127.0.0.1:{port}", *arguments, **environ)
        eventually(lambda: answers(port) or process.popen.poll() is not None)
        assert process.popen.poll() is None, process.text()
        return process, port

    return start


#: Processes under `hermod serve`: a master with two workers, one with a worker for websockets, janitor and notifier.
ALL = 7


class TestServe:
    def test_it_serves_on_a_fresh_folder_and_ends_without_a_trace(self, hermod, tmp_path):
        process, port = hermod("serve")
        post = ask(port, "POST", "/v2/queues/q/messages", {"messages": [{"body": 1, "ttl": 60}]})
        assert post[0] == 201
        assert (tmp_path / "hermod-data" / "hermod.db").exists()
        assert "listening" in process.text()
        eventually(lambda: len(process.descendants()) == ALL)
        process.popen.terminate()
        assert process.ended() == 0
        eventually(lambda: all(gone(one.pid) for one in process.family))
        assert "Traceback" not in process.text()

    def test_idle_workers_are_small(self, hermod):
        process, _ = hermod("serve")
        eventually(lambda: len(process.descendants()) == ALL)
        assert max(one.memory_info().rss for one in process.descendants()) < 80 * 2**20

    def test_what_was_posted_is_there_after_everything_was_killed(self, hermod):
        process, port = hermod("serve")
        status, posted = ask(port, "POST", "/v2/queues/q/messages", {"messages": [{"body": 1, "ttl": 60}]})
        assert status == 201
        family = process.descendants()
        process.popen.kill()
        process.popen.wait()
        for one in family:
            one.kill()
        _, port = hermod("serve")
        assert ask(port, "GET", posted["resources"][0])[0] == 200

    def test_all_processes_end_when_the_first_one_is_killed(self, hermod):
        process, _ = hermod("serve")
        eventually(lambda: len(process.descendants()) == ALL)
        process.popen.kill()
        process.popen.wait()
        eventually(lambda: all(gone(one.pid) for one in process.family))

    def test_clients_of_websockets_are_told_to_connect_again_when_it_ends(self, hermod):
        bind = f"127.0.0.1:{free_port()}"
        process, port = hermod("serve", HERMOD_WEBSOCKET_BIND=bind)
        eventually(lambda: f"ws://{bind}" in process.text())

        async def story() -> None:
            async with ClientSession() as session, session.ws_connect(f"http://{bind}/") as client:
                body = {"queue_name": "q", "ttl": 600}
                await client.send_json({"action": "subscription_create", "headers": HEADERS, "body": body})
                assert (await client.receive_json(timeout=DEADLINE))["headers"]["status"] == 201
                messages = {"messages": [{"body": "hello", "ttl": 60}]}
                assert (await asyncio.to_thread(ask, port, "POST", "/v2/queues/q/messages", messages))[
                    0
                ] == 201
                assert (await client.receive_json(timeout=DEADLINE))["body"] == "hello"
                process.popen.terminate()
                assert (await client.receive(timeout=DEADLINE)).type is WSMsgType.CLOSE
                assert client.close_code == 1012

        asyncio.run(story())
        assert process.ended() == 0
        assert "Traceback" not in process.text()

    def test_a_store_in_memory_has_one_process(self, hermod):
        process, port = hermod("serve", "--store", "memory:")
        _, posted = ask(port, "POST", "/v2/queues/q/messages", {"messages": [{"body": 1, "ttl": 60}]})
        for _ in range(8):
            assert ask(port, "GET", posted["resources"][0])[0] == 200
        assert len(process.descendants()) == 2  # a master and a worker
        process.popen.terminate()
        assert process.ended() == 0
        assert "Traceback" not in process.text()

    def test_a_store_that_cannot_be_opened_is_said_once(self, run, tmp_path):
        (tmp_path / "file").write_text("")
        process = run(
            *("-m", "transport", "serve", "--bind", f"127.0.0.1:{free_port()}"),
            *("--store", "sqlite:///file/x.db"),
            HERMOD_WEBSOCKET_BIND=f"127.0.0.1:{free_port()}",
        )
        assert process.ended() == 1
        assert "Traceback" not in process.text()
        assert "a part cannot start" in process.text()


class TestApi:
    def test_settings_reach_the_workers(self, hermod):
        _, port = hermod("api", "--admin", HERMOD_LIMITS_MAX_QUEUES_PER_PAGE="1")
        assert ask(port, "GET", "/v2/queues?limit=2")[0] == 400
        assert ask(port, "GET", "/v2/queues?limit=1")[0] == 200

    def test_a_request_in_flight_is_finished(self, hermod):
        process, port = hermod("api", "--workers", "1", HERMOD_LOG_LEVEL="debug")
        body = json.dumps({"messages": [{"body": 1, "ttl": 60}]}).encode()
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        start = f"POST /v2/queues/q/messages HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{head}\r\n"
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(start.encode() + body[:5])
            eventually(lambda: taken(process, client))
            process.popen.terminate()
            eventually(lambda: "Handling signal: term" in process.text())
            client.sendall(body[5:])
            assert client.recv(65536).startswith(b"HTTP/1.1 201")
        assert process.ended() == 0

    def test_long_headers_are_refused(self, hermod):
        _, port = hermod("api")
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n")
            assert client.recv(65536).split()[1] == b"431"

    def test_nobody_names_the_path_in_a_header(self, hermod):
        _, port = hermod("api")
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nSCRIPT_NAME: /a\r\nPATH_INFO: /b\r\n\r\n")
            assert client.recv(65536).split()[1] == b"300"

    def test_an_address_in_use_is_an_error(self, hermod, run):
        _, port = hermod("api")
        process = run("-m", "transport", "api", "--bind", f"127.0.0.1:{port}")
        assert process.ended() == 1
        assert "in use" in process.text()


def taken(process: Process, client: socket.socket) -> bool:
    """Whether a worker holds the other end of a connection, and not only the kernel."""
    address = client.getsockname()
    return any(
        connection.raddr == address
        for one in process.descendants()
        for connection in one.net_connections("tcp4")
    )


class TestJanitor:
    def test_it_ends_politely(self, run, tmp_path):
        process = run("-m", "transport", "janitor")
        eventually((tmp_path / "hermod-data" / "hermod.db").exists)
        eventually(lambda: handles(process))
        process.popen.terminate()
        assert process.ended() == 0
        assert process.text() == ""


def handles(process: Process) -> bool:
    """Whether a process has its own handler of SIGTERM."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    (caught,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(caught & 1 << (signal.SIGTERM - 1))
