"""SQLite: who watches is told by whoever commits in this process, and by a thread that looks for what others commit."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from queues.ports import Driver
from storage.registry import connect
from storage.sqlite_file import SqliteFile
from tests import servers
from tests.storage.moving import Passage
from tests.storage.probe import Clock, Probe, bring_nothing_new
from tests.storage.test_watching import Bell

PAGE = 4096  # bytes of the file that SQLite reads at once

#: Posts to a queue of the store that the argument names.
POSTER = """
import sys
from queues.models import Address, NewMessage
from storage.registry import connect

messages = connect(sys.argv[1]).messages
address = Address(project="project", queue="queue")
messages.post(address, [NewMessage(body=b"1", ttl=60)], now=messages.clock(), create=True)
"""


class Lookouts:
    """What happens at the connections that look on."""

    def __init__(self, really: Callable[[SqliteFile], sqlite3.Connection]) -> None:
        self._really = really
        self.error: Exception | None = None  # is raised in place of opening one
        self.opened: list[float] = []  # when one was asked for, by the monotonic clock
        self.statements: list[str] = []

    def open(self, file: SqliteFile) -> sqlite3.Connection:
        self.opened.append(time.monotonic())
        if self.error:
            raise self.error
        connection = self._really(file)
        connection.set_trace_callback(self.statements.append)
        return connection

    def look(self) -> None:
        """Wait until the thread has told all that has been committed by now."""
        seen = len(self.statements)
        servers.eventually(lambda: len(self.statements) > seen + 2)


@pytest.fixture(autouse=True)
def lookouts(monkeypatch: pytest.MonkeyPatch) -> Lookouts:
    watched = Lookouts(SqliteFile.observe)

    def observe(file: SqliteFile) -> sqlite3.Connection:
        return watched.open(file)

    monkeypatch.setattr(SqliteFile, "observe", observe)
    return watched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a #, 100 %" / "store.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(path: Path, clock: Clock) -> Iterator[Driver]:
    with closing(connect(f"sqlite:///{path}", clock=clock)) as found:
        yield found


@pytest.fixture
def queue(driver: Driver, clock: Clock) -> Probe:
    return Probe(driver.messages, clock)


@pytest.fixture
def there(path: Path, clock: Clock) -> Iterator[Probe]:
    """The same queue, for another process."""
    with closing(connect(f"sqlite:///{path}", clock=clock)) as found:
        yield Probe(found.messages, clock)


def watch(queue: Probe) -> Bell:
    """Watch a queue; the watch is in force."""
    bell = Bell()
    queue.store.watch(queue.address, bell)
    assert bell.heard()
    return bell


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sqlite-listener"]


def test_nobody_looks_on_before_somebody_watches(queue: Probe, lookouts: Lookouts) -> None:
    queue.post("a")

    assert listeners() == []
    assert lookouts.opened == []


def test_what_this_process_commits_is_told_once(queue: Probe, lookouts: Lookouts) -> None:
    rings: list[int] = []
    queue.store.watch(queue.address, lambda: rings.append(1))
    servers.eventually(lambda: rings)
    lookouts.look()
    rings.clear()

    queue.post("a")
    assert rings == [1], "it does not wait for the thread"
    lookouts.look()

    assert rings == [1]


def test_what_is_told_is_committed(queue: Probe, path: Path) -> None:
    """Whoever is woken finds it, on a connection that has no part in the transaction."""
    found: list[int] = []

    def count() -> None:
        with closing(sqlite3.connect(path)) as connection:
            found.append(connection.execute("SELECT count(*) FROM message").fetchone()[0])

    queue.store.watch(queue.address, count)
    servers.eventually(lambda: found)
    for number in range(5):
        found.clear()
        queue.post(str(number))
        assert found[0] == number + 1


def test_what_another_process_commits_is_told(queue: Probe, path: Path) -> None:
    bell = watch(queue)

    subprocess.run([sys.executable, "-c", POSTER, f"sqlite:///{path}"], check=True, timeout=20)

    assert bell.heard()


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_is_taken_or_looked_at_wakes_nobody(
    queue: Probe, there: Probe, lookouts: Lookouts, where: str
) -> None:
    acting = queue if where == "here" else there
    acting.fill(10)
    bell = watch(queue)
    lookouts.look()
    bell.forget()

    bring_nothing_new(acting)
    acting.other().post("a")
    acting.drop()
    lookouts.look()

    assert bell.silent()


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_queue_that_is_made_anew_has_news(
    queue: Probe, there: Probe, lookouts: Lookouts, where: str
) -> None:
    acting = queue if where == "here" else there
    for number in range(3):
        acting.post(str(number))
    bell = watch(queue)
    acting.drop()
    lookouts.look()
    bell.forget()

    acting.post("a")

    assert bell.heard()


def test_a_queue_that_moved_here_is_told(
    queue: Probe, driver: Driver, clock: Clock, tmp_path: Path, lookouts: Lookouts
) -> None:
    with closing(connect(f"sqlite:///{tmp_path / 'source.db'}", clock=clock)) as source:
        Probe(source.messages, clock).fill(3)
        passage = Passage(source, driver, queue.address).begin().catch_up()
        bell = watch(queue)
        passage.land()
        lookouts.look()
        bell.forget()

        passage.open()

        assert bell.heard()


def test_while_nothing_happens_the_disk_is_left_alone(queue: Probe, lookouts: Lookouts) -> None:
    queue.post("a")
    watch(queue)
    lookouts.look()
    lookouts.statements.clear()

    for _ in range(3):
        lookouts.look()

    assert set(lookouts.statements) == {"PRAGMA data_version"}


def test_a_change_costs_one_statement_however_many_queues_are_watched(
    queue: Probe, there: Probe, lookouts: Lookouts
) -> None:
    bells = [watch(queue.other(str(number))) for number in range(50)]
    lookouts.look()
    lookouts.statements.clear()

    there.other("7").post("a")

    assert bells[7].heard()
    lookouts.look()
    assert len([each for each in lookouts.statements if each != "PRAGMA data_version"]) == 1
    assert [number for number, bell in enumerate(bells) if not bell.silent()] == []


def test_a_thread_that_nobody_needs_ends_and_the_next_watch_starts_another(
    queue: Probe, there: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite_listener.LINGER", 0.05)
    for _ in range(3):
        bell = Bell()
        end = queue.store.watch(queue.address, bell)
        assert bell.heard()
        assert len(listeners()) == 1
        there.post("a")
        assert bell.heard()
        end()
        servers.eventually(lambda: not listeners())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_a_defect_ended_is_replaced(queue: Probe, there: Probe, lookouts: Lookouts) -> None:
    lookouts.error = RuntimeError("a defect")
    bell = Bell()
    queue.store.watch(queue.address, bell)
    servers.eventually(lambda: not listeners())
    lookouts.error = None

    watch(queue.other())

    assert bell.heard()
    there.post("a")
    assert bell.heard()


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("unable to open database file"),
        sqlite3.OperationalError("database is locked"),
        sqlite3.DatabaseError("database disk image is malformed"),
        FileNotFoundError("the working directory is gone"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_read_is_tried_again_and_again_less_and_less_often(
    queue: Probe, there: Probe, lookouts: Lookouts, error: Exception
) -> None:
    lookouts.error = error
    bell = Bell()
    queue.store.watch(queue.address, bell)
    servers.eventually(lambda: len(lookouts.opened) >= 5)
    there.post("nobody can look yet")
    assert bell.silent()
    pauses = [after - before for before, after in pairwise(lookouts.opened)]
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))

    lookouts.error = None

    assert bell.heard()
    there.post("a")
    assert bell.heard()


def test_what_this_process_commits_is_told_while_the_thread_cannot_read(
    queue: Probe, lookouts: Lookouts
) -> None:
    lookouts.error = sqlite3.OperationalError("database is locked")
    bell = Bell()
    queue.store.watch(queue.address, bell)

    queue.post("a")

    assert not bell.silent()
    queue.post("b")
    assert bell.heard()


def test_who_watches_is_told_of_what_came_while_the_file_was_damaged(
    queue: Probe, there: Probe, path: Path, lookouts: Lookouts
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    there.post("so that the other process need not read what will be damaged")
    bell, other = watch(queue), watch(queue.other())
    lookouts.look()
    bell.forget()
    other.forget()
    whole = path.read_bytes()[:PAGE]
    damage(path, b"damage" * PAGE)
    there.post("a")
    servers.eventually(lambda: len(lookouts.opened) >= 3)
    assert bell.silent()

    damage(path, whole)

    assert bell.heard()
    assert other.heard(), "nobody knows what was missed"
    there.post("b")
    assert bell.heard()
    assert len(listeners()) == 1


def damage(path: Path, content: bytes) -> None:
    """Overwrite the first page of a file."""
    with path.open("r+b") as file:
        file.write(content[:PAGE])


def test_a_driver_that_is_closed_while_its_file_cannot_be_read_leaves_no_thread(
    path: Path, clock: Clock, lookouts: Lookouts
) -> None:
    lookouts.error = sqlite3.OperationalError("database is locked")
    driver = connect(f"sqlite:///{path}", clock=clock)
    driver.messages.watch(Probe(driver.messages, clock).address, Bell())
    servers.eventually(lambda: len(lookouts.opened) > 4)
    assert len(listeners()) == 1

    driver.close()

    assert listeners() == []


def test_a_watch_of_a_store_that_was_closed_does_nothing(driver: Driver, queue: Probe) -> None:
    driver.close()
    bell = Bell()

    queue.store.watch(queue.address, bell)()

    assert bell.silent()
    assert listeners() == []
