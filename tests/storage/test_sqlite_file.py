"""The SQLite file: versions of its tables, foreign and damaged files, group commit."""

import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from queues.errors import QueueNotFound, StoreDamaged, StoreUnavailable, StoreUnsupported
from queues.models import Address, Lease, NewMessage
from storage.sqlite import SqliteMessages
from storage.sqlite_file import SqliteFile
from storage.sqlite_layout import APPLICATION_ID, script, scripts, upgrade
from storage.sqlite_listener import SqliteListener


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store" / "hermod.db"


@pytest.fixture
def file(path):
    with closing(SqliteFile(path, timeout=5)) as opened:
        yield opened


def names(connection):
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def steps(*texts):
    return [script(f"{number:04}_step.sql", text) for number, text in enumerate(texts, start=1)]


def test_a_new_file_gets_the_newest_tables_and_our_mark(file):
    with file.snapshot() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(scripts()),)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert {"queue", "message", "claim", "record"} <= names(connection)


def test_a_file_is_written_durably(file):
    synchronous = file.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0])
    mode = file.write(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0])

    assert (synchronous, mode) == (2, "wal")


def test_an_older_file_is_brought_up_to_date_with_its_data(path):
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as old:
        first = "CREATE TABLE format (oldest_reader INTEGER);\nINSERT INTO format VALUES (1);\nCREATE TABLE a (x);"
        upgrade(old, steps(first))
        old.execute("INSERT INTO a VALUES (7)")

        upgrade(old, steps(first, "ALTER TABLE a ADD COLUMN y DEFAULT 1;\n", "CREATE TABLE b (z);\n"))

        assert old.execute("PRAGMA user_version").fetchone() == (3,)
        assert old.execute("SELECT x, y FROM a").fetchall() == [(7, 1)]
        assert "b" in names(old)


def test_an_upgrade_that_fails_changes_nothing():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as old:
        first = "CREATE TABLE format (oldest_reader INTEGER);\nINSERT INTO format VALUES (1);\n"
        upgrade(old, steps(first))

        with pytest.raises(sqlite3.OperationalError):
            upgrade(old, steps(first, "CREATE TABLE b (z);\nCREATE TABLE format (again);\n"))

        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        assert "b" not in names(old)


def test_a_newer_file_is_used_while_it_accepts_older_readers(path):
    with closing(SqliteFile(path, timeout=5)) as newer:
        newer.write(lambda c: c.execute("PRAGMA user_version = 99"))

    with closing(SqliteFile(path, timeout=5)) as file:
        assert file.write(lambda c: c.execute("SELECT count(*) FROM queue").fetchone()) == (0,)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_newer_file_that_needs_newer_readers_is_refused_untouched(path):
    with closing(SqliteFile(path, timeout=5)) as newer:
        newer.write(lambda c: c.execute("UPDATE format SET oldest_reader = 99"))
        newer.write(lambda c: c.execute("PRAGMA user_version = 99"))

    with pytest.raises(StoreUnsupported, match="version 99"):
        SqliteFile(path, timeout=5)


def test_a_file_of_another_program_is_refused_untouched(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")

    with pytest.raises(StoreUnsupported, match="other program"):
        SqliteFile(path, timeout=5)

    with closing(sqlite3.connect(path)) as connection:
        assert names(connection) == {"theirs"}


def test_a_file_that_is_no_database_is_reported_as_damaged_and_left_alone(path):
    path.parent.mkdir()
    garbage = b"this is no database, whatever its name says" * 100
    path.write_bytes(garbage)

    with pytest.raises(StoreDamaged):
        SqliteFile(path, timeout=5)

    assert path.read_bytes() == garbage


def test_a_folder_that_cannot_be_made_is_a_store_that_is_unavailable(tmp_path):
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(StoreUnavailable):
        SqliteFile(tmp_path / "taken" / "hermod.db", timeout=5)


def test_many_processes_may_open_a_new_file_at_once(path):
    def open_and_close(_):
        SqliteFile(path, timeout=20).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_close, range(16)))

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM format").fetchone() == (1,)


def test_a_step_that_is_refused_leaves_nothing_behind_and_harms_no_other(file):
    """Steps that share one transaction are undone one by one."""
    both_queued = threading.Barrier(3, timeout=10)

    def slow(connection):
        both_queued.wait()  # the others queue up behind this one, and share the next transaction
        connection.execute("INSERT INTO pile (abandoned) VALUES (1)")

    def refused(connection):
        connection.execute("INSERT INTO pile (abandoned) VALUES (2)")
        raise QueueNotFound

    def accepted(connection):
        connection.execute("INSERT INTO pile (abandoned) VALUES (3)")

    def queue_up(step):
        both_queued.wait()
        file.write(step)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(file.write, slow)
        second, third = pool.submit(queue_up, refused), pool.submit(queue_up, accepted)
        first.result(10)
        third.result(10)
        with pytest.raises(QueueNotFound):
            second.result(10)

    with file.snapshot() as connection:
        found = connection.execute("SELECT abandoned FROM pile ORDER BY 1").fetchall()
    assert found == [(1,), (3,)]


def together(file, *steps):
    """Run steps in one transaction, in this order: they queue up behind one that waits for them."""
    busy, go_on = threading.Event(), threading.Event()

    def slow(_connection):
        busy.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(len(steps) + 1) as pool:
        first = pool.submit(file.write, slow)
        assert busy.wait(10)
        found = []
        for number, step in enumerate(steps, start=1):
            found.append(pool.submit(file.write, step))
            while file._writers.waiting < number:
                assert not first.done()
        go_on.set()
    return found


@pytest.fixture
def transactions(file):
    """What began."""
    found = []
    file._writer.set_trace_callback(lambda sql: found.append(sql) if sql.startswith("BEGIN") else None)
    return found


def test_steps_that_are_refused_late_are_run_twice_at_most(file, transactions):
    """However many of a group are refused after they changed something, it begins anew once, and each is undone."""
    runs: list[int] = []

    def step(number):
        def run(connection):
            runs.append(number)
            connection.execute("INSERT INTO pile (abandoned) VALUES (?)", (number,))
            if number % 2:
                raise QueueNotFound

        return run

    found = together(file, *map(step, range(8)))

    refused = [isinstance(each.exception(), QueueNotFound) for each in found]
    assert refused == [number % 2 == 1 for number in range(8)]
    assert max(Counter(runs).values()) == 2
    assert len(transactions) == 3
    with file.snapshot() as connection:
        left = connection.execute("SELECT abandoned FROM pile ORDER BY 1").fetchall()
    assert left == [(0,), (2,), (4,), (6,)]


def test_a_refusal_counts_only_in_the_transaction_that_is_committed(file):
    """A step that was refused in one that was given up is asked again."""
    outcomes = iter([False, True])  # whether it is there, whenever it is asked

    def asks(_connection):
        if not next(outcomes):
            raise QueueNotFound
        return "there"

    def refused_late(connection):
        connection.execute("INSERT INTO pile (abandoned) VALUES (2)")
        raise QueueNotFound

    asked, late = together(file, asks, refused_late)

    assert asked.result() == "there"
    with pytest.raises(QueueNotFound):
        late.result()


def test_writers_share_transactions(file, transactions):
    """While one commits, those that queue up are committed together."""
    found = together(file, *[lambda c: c.execute("SELECT 1").fetchone()] * 8)

    assert [each.result() for each in found] == [(1,)] * 8
    assert len(transactions) == 2


def test_a_writer_gives_up_in_bounded_time_when_others_take_too_long(path):
    with closing(SqliteFile(path, timeout=0.2)) as file, ThreadPoolExecutor(2) as pool:
        busy, go_on = threading.Event(), threading.Event()

        def slow(connection):
            busy.set()
            assert go_on.wait(10)

        first = pool.submit(file.write, slow)
        assert busy.wait(10)
        with pytest.raises(StoreUnavailable):
            file.write(lambda c: c.execute("INSERT INTO pile (abandoned) VALUES (9)"))
        go_on.set()
        first.result(10)

        assert file.write(lambda c: c.execute("SELECT count(*) FROM pile").fetchone()) == (0,)


def test_a_file_locked_by_another_program_is_unavailable_until_it_lets_go(path):
    with (
        closing(SqliteFile(path, timeout=0.2)) as file,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            file.write(lambda c: c.execute("SELECT 1").fetchone())
        other.execute("COMMIT")

        assert file.write(lambda c: c.execute("SELECT 1").fetchone()) == (1,)


def test_a_reader_sees_one_point_in_time(file):
    with file.snapshot() as connection:
        before = connection.execute("SELECT count(*) FROM pile").fetchone()
        file.write(lambda c: c.execute("INSERT INTO pile (abandoned) VALUES (0)"))
        assert connection.execute("SELECT count(*) FROM pile").fetchone() == before

    with file.snapshot() as connection:
        assert connection.execute("SELECT count(*) FROM pile").fetchone() == (1,)


def test_an_error_while_reading_does_not_cost_a_connection(file):
    with pytest.raises(QueueNotFound), file.snapshot():
        raise QueueNotFound

    assert len(file._idle_readers) == 1


def test_readers_cannot_write(file):
    with pytest.raises(StoreUnavailable, match="readonly"), file.snapshot() as connection:
        connection.execute("INSERT INTO pile (abandoned) VALUES (0)")


@pytest.mark.parametrize("ask", ["claim", "pop", "delete", "release"])
def test_p7_asking_an_empty_queue_writes_nothing(file, ask):
    """So that consumers that wait for messages do not keep the disk busy."""
    address, now = Address(project="p", queue="q"), 1_700_000_000_000
    messages = SqliteMessages(file, SqliteListener(file), lambda: now)
    messages.post(address, [NewMessage(body=b"1", ttl=60)], now=now, create=True)
    messages.pop(address, 1, now=now)
    before = file._writer.total_changes

    {
        "claim": lambda: messages.claim(address, Lease(ttl=60, grace=60), now=now),
        "pop": lambda: messages.pop(address, 1, now=now),
        "delete": lambda: messages.delete(address, "1" * 32, now=now),
        "release": lambda: messages.release(address, "1" * 32, now=now),
    }[ask]()

    assert file._writer.total_changes == before
