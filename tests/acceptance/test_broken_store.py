"""A store that fails while the service runs: 503 within bounded time, nothing half-done, and it resumes (P12)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import Client, Hermod, Reply, together, wait_until

KIBIBYTE = 2**10


@contextlib.contextmanager
def locked(service: Hermod) -> Iterator[sqlite3.Connection]:
    """Hold the file's lock, as another program might, until the block ends or the transaction does."""
    connection = sqlite3.connect(service.store, isolation_level=None, timeout=30)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    finally:
        connection.close()


def assert_unavailable(answer: Reply) -> None:
    assert answer.status == 503, answer
    assert int(answer.headers["retry-after"]) > 0
    assert set(answer.document()) == {"title", "description"}
    assert answer.document()["title"] == "Service temporarily unavailable"


def dump(service: Hermod) -> list[str]:
    with contextlib.closing(sqlite3.connect(service.store)) as connection:
        return list(connection.iterdump())


def test_a_locked_file_is_503_for_whoever_writes(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "2", HERMOD_STORAGE_TIMEOUT="0.2").start()
    with service.client() as client:
        paths = client.post("q", ["a", "b", "c"]).document()["resources"]
        claim = client.request("POST", "/v2/queues/q/claims?limit=1").headers["location"]
        patch = {"Content-Type": "application/openstack-messaging-v2.0-json-patch"}
        before = dump(service)
        with locked(service):
            writes = [
                client.request("PUT", "/v2/queues/new"),
                client.request(
                    "PATCH", "/v2/queues/q", [{"op": "add", "path": "/metadata/a", "value": 1}], headers=patch
                ),
                client.request("DELETE", "/v2/queues/q"),
                client.request("POST", "/v2/queues/q/purge"),
                client.post("q", ["d"]),
                client.post("new", ["d"]),
                client.post("q", ["d"], key="once"),
                client.request("DELETE", paths[2]),
                client.request("DELETE", f"/v2/queues/q/messages?ids={paths[1].rpartition('/')[2]}"),
                client.request("DELETE", "/v2/queues/q/messages?pop=1"),
                client.request("POST", "/v2/queues/q/claims"),
                client.request("PATCH", claim, {"ttl": 100}),
                client.request("DELETE", claim),
            ]
            for answer in writes:
                assert_unavailable(answer)
            # Who only reads need not wait for a writer.
            assert client.request("GET", "/v2/ping").status == 204
            assert [message["body"] for message in client.everything("q")] == ["a", "b", "c"]
            assert client.request("GET", claim).status == 200
        assert dump(service) == before
        assert client.post("q", ["d"], key="once").status == 201
        assert client.request("DELETE", claim).status == 204
        popped = client.request("DELETE", "/v2/queues/q/messages?pop=10").messages()
        assert [message["body"] for message in popped] == ["a", "b", "c", "d"]


def test_a_short_lock_is_waited_for(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "2", HERMOD_STORAGE_TIMEOUT="20").start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(service.client()) for _ in range(8)]
        with locked(service):
            for number, client in enumerate(clients):
                client.send("POST", "/v2/queues/q/messages", {"messages": [{"body": number}]})
        assert [client.receive().status for client in clients] == [201] * 8
        assert sorted(message["body"] for message in clients[0].everything("q")) == list(range(8))


def crowd(service: Hermod, lock: sqlite3.Connection, name: str) -> list[tuple[str, Reply]]:
    """Let clients write to a locked file at once, and release it when the first of them is refused.

    Return what each of them would have posted, with the answer. If the name begins with pop, they pop instead.
    """
    answers: list[tuple[str, Reply]] = []
    refused = threading.Event()

    def write(index: int) -> None:
        body = f"{name}-{index}"
        with service.client() as client:
            if name.startswith("pop"):
                answer = client.request("DELETE", "/v2/queues/q/messages?pop=1")
            else:
                answer = client.post("q", [body])
            answers.append((body, answer))
            if answer.status == 503:
                refused.set()

    threads = threading.Thread(target=together, args=(12, write), daemon=True)
    threads.start()
    assert refused.wait(30)
    lock.execute("ROLLBACK")
    threads.join(60)
    assert len(answers) == 12
    return answers


@pytest.mark.parametrize("way", ["post", "pop"])
def test_what_was_refused_was_not_done_after_all(hermod: MakeHermod, way: str) -> None:
    service = hermod("api", "--workers", "1", "--threads", "12", HERMOD_STORAGE_TIMEOUT="0.5").start()
    expected = {f"stock-{n}" for n in range(60)}
    with service.client() as client:
        assert client.post("q", sorted(expected)).status == 201
        for attempt in range(4):
            with locked(service) as lock:
                answers = crowd(service, lock, f"{way}-{attempt}")
            for body, answer in answers:
                if answer.status == 503:
                    assert_unavailable(answer)
                elif way == "post":
                    assert answer.status == 201
                    expected.add(body)
                else:
                    assert answer.status == 200
                    expected -= {message["body"] for message in answer.messages()}
            assert {message["body"] for message in client.everything("q")} == expected


class Keeper:
    """Posts big messages, and remembers what was answered."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stored: set[str] = set()
        self.refused: set[str] = set()

    def post(self, size: int) -> int:
        """Post so many bytes; return the status."""
        body = f"{len(self.stored) + len(self.refused)}:".ljust(size, "x")
        answer = self.client.post("q", [body])
        if answer.status == 201:
            self.stored.add(body)
        else:
            assert_unavailable(answer)
            self.refused.add(body)
        return answer.status

    def check(self) -> None:
        """What was stored is there once, what was refused is not."""
        found = Counter(message["body"] for message in self.client.everything("q"))
        assert found == Counter(self.stored)
        stats = self.client.request("GET", "/v2/queues/q/stats").document()["messages"]
        assert stats["total"] == len(self.stored)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit the files of a running process")
def test_a_full_disk_is_503_until_there_is_room(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1").start()
    (worker,) = service.workers()
    with service.client() as client:
        keeper = Keeper(client)
        for _ in range(5):
            assert keeper.post(100 * KIBIBYTE) == 201
        largest = max(path.stat().st_size for path in service.store.parent.iterdir())
        unlimited = worker.rlimit(psutil.RLIMIT_FSIZE)
        for _ in range(2):
            # A limit for files does what a full disk does: a write fails, perhaps in the middle.
            worker.rlimit(psutil.RLIMIT_FSIZE, (largest + 250 * KIBIBYTE + 100, unlimited[1]))
            statuses = [keeper.post(100 * KIBIBYTE) for _ in range(60)]
            assert 503 in statuses
            keeper.post(10)
            assert client.request("GET", "/v2/ping").status == 204
            keeper.check()
            worker.rlimit(psutil.RLIMIT_FSIZE, unlimited)
            assert keeper.post(100 * KIBIBYTE) == 201
            keeper.check()
            largest = max(path.stat().st_size for path in service.store.parent.iterdir())
    service.kill()
    service.start()
    with service.client() as client:
        keeper.client = client
        keeper.check()
    with contextlib.closing(sqlite3.connect(service.store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_damaged_file_is_503_until_it_is_whole_again(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1", HERMOD_STORAGE_TIMEOUT="0.5").start()
    with service.client() as client:
        keeper = Keeper(client)
        for _ in range(40):  # more than SQLite keeps in memory
            assert keeper.post(200 * KIBIBYTE) == 201
        with contextlib.closing(sqlite3.connect(service.store, timeout=30)) as connection:
            wait_until(
                lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0),
                "everything is in the file itself",
            )
        whole = service.store.read_bytes()
        with service.store.open("r+b") as file:
            file.write(b"\xa5" * len(whole))
        unavailable = 0
        for _ in range(5):
            for request in (
                ("GET", "/v2/queues/q/messages?echo=true"),
                ("GET", "/v2/queues/q/stats"),
                ("GET", "/v2/queues/q"),
                ("GET", "/v2/queues"),
                ("GET", "/v2/ping"),
                ("POST", "/v2/queues/q/claims"),
                ("PUT", "/v2/queues/new"),
            ):
                answer = client.request(*request)
                # What SQLite has in memory can still be answered.
                assert answer.status in (200, 201, 204, 503), answer
                if answer.status == 503:
                    assert_unavailable(answer)
                    unavailable += 1
        assert unavailable
        with service.store.open("r+b") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        wait_until(lambda: keeper.post(10) == 201, "the service resumes", 10)
        keeper.check()
        assert client.request("POST", "/v2/queues/q/claims").status == 201


def test_a_file_that_is_damaged_at_the_start_is_not_served(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1").start()
    with service.client() as client:
        for number in range(30):
            assert client.post("q", [f"{number}".ljust(5 * KIBIBYTE)]).status == 201
    service.kill()  # so that everything is in the log
    log = service.store.with_name(f"{service.store.name}-wal")
    data = log.read_bytes()
    half = len(data) // 2
    spoilt = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
    for path, content, why in ((log, spoilt, "write-ahead log"), (service.store, b"", "it is empty")):
        whole = path.read_bytes()
        path.write_bytes(content)
        service.launch()
        assert service.ended() == 1
        (line,) = service.log.splitlines()[-1:]
        for part in (str(service.store), why, "hermod restore", ".recover", "Nothing was changed"):
            assert part in line
        assert path.read_bytes() == content
        path.write_bytes(whole)
    service.start()
    with service.client() as client:
        assert len(client.everything("q")) == 30
