"""The parts of the suite that are no checkers: history, proxy, schedule, tools."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.processes import free_port
from tests.faults.caller import Caller
from tests.faults.faults import end_of_log
from tests.faults.history import FOREVER, History, read
from tests.faults.nemesis import deck, schedule
from tests.faults.proxy import DELAY, LAG, FaultyProxy, Mode
from tests.faults.tools import Tools, find_tools
from tests.faults.world import STORES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return find_tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    def answer(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=repeat, args=(connection,), daemon=True).start()

    def repeat(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(100):
                    connection.sendall(data)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connected(proxy: FaultyProxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    connection.sendall(b"hello")
    assert connection.recv(100) == b"hello"
    return connection


class TestHistory:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        history = History(tmp_path / "log")
        with history.operation("p", "post", "alpha", "jobs", values=["a"]) as pending:
            pending.end("ok", ids=["1"])
        history.note("n", "fault", fault="kill")
        history.close()
        post, fault = read(tmp_path / "log")
        assert (post.process, post.name, post.tenant, post.queue) == ("p", "post", "alpha", "jobs")
        assert (post.outcome, post.asked, post.answered) == ("ok", {"values": ["a"]}, {"ids": ["1"]})
        assert 0 <= post.started <= post.ended <= fault.started == fault.ended
        assert fault.answered == {"fault": "kill"}

    def test_an_operation_that_fails_or_never_ends_is_unknown(self, tmp_path: Path) -> None:
        history = History(tmp_path / "log")
        with pytest.raises(ZeroDivisionError), history.operation("p", "claim"):
            raise ZeroDivisionError
        endless = history.operation("q", "claim")
        endless.__enter__()
        history.close()
        first, second = read(tmp_path / "log")
        assert (first.outcome, second.outcome) == ("unknown", "unknown")
        assert first.ended < second.ended == FOREVER

    def test_a_last_line_that_is_torn_is_left_out(self, tmp_path: Path) -> None:
        history = History(tmp_path / "log")
        history.note("n", "fault", fault="kill")
        history.close()
        with (tmp_path / "log").open("a") as log:
            log.write('{"event":"fa')
        assert len(read(tmp_path / "log")) == 1


class TestProxy:
    def test_a_connection_that_is_reset_and_one_that_is_made_meanwhile(self, echo: int) -> None:
        with FaultyProxy(echo) as proxy:
            connection = connected(proxy)
            proxy.disturb("reset")
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as other:
                other.sendall(b"hello")
                with pytest.raises(ConnectionResetError):
                    other.recv(100)
            proxy.forward()
            connected(proxy).close()
            connection.close()

    @pytest.mark.parametrize(("mode", "late"), [("delay", 2 * DELAY), ("lag", LAG)])
    def test_what_is_late_arrives(self, echo: int, mode: Mode, late: float) -> None:
        with FaultyProxy(echo) as proxy, connected(proxy) as connection:
            proxy.disturb(mode)
            started = time.monotonic()
            connection.sendall(b"late")
            assert connection.recv(100) == b"late"
            assert late <= time.monotonic() - started < 2 * LAG
            proxy.forward()

    def test_a_black_hole_keeps_what_it_takes_until_it_is_over(self, echo: int) -> None:
        with FaultyProxy(echo) as proxy, connected(proxy) as connection:
            proxy.disturb("blackhole")
            connection.sendall(b"later")
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(100)
            proxy.forward()
            connection.settimeout(5)
            assert connection.recv(100) == b"later"

    def test_a_cut_ends_connections_and_lets_nobody_in(self, echo: int) -> None:
        with FaultyProxy(echo) as proxy, connected(proxy) as connection:
            proxy.disturb("cut")
            assert connection.recv(100) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", proxy.port))
            proxy.forward()
            connected(proxy).close()


class TestSchedule:
    @pytest.mark.parametrize("store", STORES)
    def test_the_same_seed_draws_the_same_faults(self, tools: Tools, store: str) -> None:
        drawn = schedule(store, tools, 7, 600, (1, 2))
        assert drawn == schedule(store, tools, 7, 600, (1, 2))
        assert drawn != schedule(store, tools, 8, 600, (1, 2))

    @pytest.mark.parametrize("store", STORES)
    def test_a_long_run_has_every_fault_and_none_in_the_way_of_another(
        self, tools: Tools, store: str
    ) -> None:
        periods = schedule(store, tools, 7, 1200, (1, 12))
        drawn = {fault.name for period in periods for fault in period.faults}
        assert drawn == {fault.name for fault in deck(store, tools)}
        for period in periods:
            touched = [thing for fault in period.faults for thing in fault.touches]
            assert len(touched) == len(set(touched))


def test_the_same_seed_draws_the_same_decisions_whatever_goes_wrong(tmp_path: Path) -> None:
    history = History(tmp_path / "log")
    calm, disturbed = (Caller("p", "alpha", [free_port(), free_port()], history, "redis/7") for _ in range(2))
    assert disturbed.claim("jobs", 3, 1) == ("", [])  # nobody listens, and another port is drawn next time
    assert disturbed.claim("jobs", 3, 1) == ("", [])
    assert [disturbed.random.random() for _ in range(5)] == [calm.random.random() for _ in range(5)]
    other = Caller("p", "alpha", [1], history, "redis/8")
    assert other.random.random() != Caller("p", "alpha", [1], history, "redis/7").random.random()
    history.close()


def test_leases_are_short_in_the_processes_of_a_run_alone() -> None:
    """Whatever else the suite imports, the limits of the tests beside it are those of the service."""
    for module in ("tests.faults.run", "tests.faults.node"):
        code = f"import {module}, queues.limits; print(queues.limits.MIN_TTL)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == 60


def test_the_end_of_a_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "file-wal"
    with closing(sqlite3.connect(tmp_path / "file", isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("CREATE TABLE t (n)")
        for number in range(20):
            file.execute("INSERT INTO t VALUES (?)", (number,))
        end, frame = end_of_log(log.read_bytes())
        assert (end, (end - 32) % frame) == (log.stat().st_size, 0)
        file.execute("PRAGMA wal_checkpoint(RESTART)")
        file.execute("INSERT INTO t VALUES (20)")
        assert end_of_log(log.read_bytes()) == (32 + frame, frame)


DISK = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    for act in (lambda: file.write(b"x"), lambda: os.fsync(file)):
        try:
            act()
        except OSError as error:
            print(error.errno)
        else:
            print(0)
"""


class TestTools:
    def test_a_disk_that_is_full_or_does_not_sync(self, tools: Tools, tmp_path: Path) -> None:
        if tools.shim is None:
            pytest.skip(tools.absent["disks"])
        meant, other = tmp_path / "meant", tmp_path / "other"
        meant.mkdir()

        def tried(path: Path) -> str:
            environ = {**os.environ, **tools.environ(disk=meant)}
            command = [sys.executable, "-c", DISK, str(path)]
            return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout

        assert tried(meant / "file") == "0\n0\n"
        tools.switch_disk("full", on=True)
        assert tried(meant / "file") == "28\n0\n"
        assert tried(other) == "0\n0\n"
        tools.switch_disk("full", on=False)
        tools.switch_disk("sync", on=True)
        assert tried(meant / "file") == "0\n5\n"
        tools.switch_disk("sync", on=False)

    def test_a_clock_that_is_off_while_the_monotonic_one_is_not(self, tools: Tools) -> None:
        if tools.shim is None:
            pytest.skip(tools.absent["clocks"])
        code = "import json, time; print(json.dumps([time.time(), time.time_ns() / 1e9, time.monotonic()]))"
        environ = {**os.environ, **tools.environ(clock=True)}
        tools.set_clocks(3600)
        try:
            text = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
        finally:
            tools.set_clocks(0)
        seconds, nanoseconds, monotonic = json.loads(text.stdout)
        assert seconds - time.time() == pytest.approx(3600, abs=30)
        assert nanoseconds - time.time() == pytest.approx(3600, abs=30)
        assert monotonic - time.monotonic() == pytest.approx(0, abs=30)
