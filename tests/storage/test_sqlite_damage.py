"""A damaged SQLite file is refused when it is opened, left as it is, and never answers with what is wrong."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from queues.errors import StoreDamaged, StoreUnavailable, StoreUnsupported
from queues.models import Address, Lease, NewMessage, Selection
from storage.sqlite import SqliteStore, connect
from storage.sqlite_file import SqliteFile
from storage.sqlite_log import read_log

ADDRESS, NOW = Address(project="p", queue="q"), 1_700_000_000_000
POSTS = 12
PAGE = 4096


def opened(path: Path, *, quick_check: int = 64) -> SqliteStore:
    return connect(f"sqlite:///{path}?quick_check={quick_check}", timeout=5, clock=lambda: NOW)


def post(store: SqliteStore, *bodies: bytes) -> None:
    store.messages.post(ADDRESS, [NewMessage(body=body, ttl=3600) for body in bodies], now=NOW, create=True)


def bodies(store: SqliteStore) -> list[bytes]:
    found = store.messages.list(ADDRESS, Selection(limit=1000), now=NOW)
    assert len(found) == store.messages.stats(ADDRESS, now=NOW).total
    return [message.body for message in found]


def body(number: int) -> bytes:
    return f"{number}".encode() * (1 + 900 * (number % 4))


def contents(folder: Path) -> dict[str, bytes]:
    """The data: what SQLite shares with others in memory is none, and neither is an empty log."""
    found = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    return {name: data for name, data in found.items() if data or not name.endswith("-wal")}


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a file as a crash leaves it: everything that was posted is in the log."""
    folder = tmp_path_factory.mktemp("crashed")
    with closing(opened(folder / "live.db")) as store:
        for number in range(POSTS):
            post(store, body(number))
        for suffix in ("", "-wal"):
            shutil.copy(folder / f"live.db{suffix}", folder / f"h.db{suffix}")
    for file in folder.glob("live*"):
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a file that was closed: everything is in the file itself."""
    folder = tmp_path_factory.mktemp("clean")
    with closing(opened(folder / "h.db")) as store:
        for number in range(20 * POSTS):
            post(store, body(number))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def spoil(file: Path, place: int, change: bytes) -> None:
    with file.open("r+b") as spoilt:
        spoilt.seek(place)
        spoilt.write(change)


def flip(file: Path, place: int) -> None:
    data = file.read_bytes()
    spoil(file, place, bytes([data[place] ^ 0x10]))


def commits(wal: Path) -> list[int]:
    """Where each transaction of a log ends, in bytes."""
    data = wal.read_bytes()
    frames = range(32, len(data), 24 + PAGE)
    return [place + 24 + PAGE for place in frames if struct.unpack_from(">I", data, place + 4)[0]]


def assert_refused(path: Path, why: str, *, quick_check: int = 64) -> None:
    before = contents(path.parent)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=why) as refusal:
            opened(path, quick_check=quick_check)
        assert str(path) in str(refusal.value)
        assert "restore" in str(refusal.value)
        assert ".recover" in str(refusal.value)
    assert contents(path.parent) == before


def test_what_a_crash_leaves_is_taken_whole(crashed, folder):
    shutil.copytree(crashed, folder)

    with closing(opened(folder / "h.db")) as store:
        assert bodies(store) == [body(number) for number in range(POSTS)]


def test_a_torn_log_is_taken_up_to_the_last_whole_transaction(crashed, folder):
    ends = commits(crashed / "h.db-wal")
    assert len(ends) >= POSTS + 1
    for cut in sorted({*ends[2:], *(end + 1 for end in ends[2:]), *(end - PAGE // 2 for end in ends[2:])}):
        shutil.copytree(crashed, folder)
        with (folder / "h.db-wal").open("r+b") as wal:
            wal.truncate(cut)

        with closing(opened(folder / "h.db")) as store:
            found = bodies(store)
            post(store, b"goes on")
            assert bodies(store) == [*found, b"goes on"]

        whole = sum(end <= cut for end in ends) - (len(ends) - POSTS)
        assert found == [body(number) for number in range(max(0, whole))]
        shutil.rmtree(folder)


def test_the_last_transaction_of_a_log_may_be_torn_in_any_way(crashed, folder):
    """It cannot be told from one that was being written when the machine stopped."""
    ends = commits(crashed / "h.db-wal")
    for place in range(ends[-2], ends[-1], 1111):
        shutil.copytree(crashed, folder)
        flip(folder / "h.db-wal", place)

        with closing(opened(folder / "h.db")) as store:
            assert bodies(store) == [body(number) for number in range(POSTS - 1)]
        shutil.rmtree(folder)


@pytest.mark.parametrize("part", [0, 5, 12, 17, 24, 3000])
def test_a_log_that_lost_an_acknowledged_transaction_in_the_middle_is_refused(crashed, folder, part):
    """SQLite would take it for torn there, and forget all that follows."""
    ends = commits(crashed / "h.db-wal")
    for end in ends[1:-2:3]:
        shutil.copytree(crashed, folder)
        flip(folder / "h.db-wal", end + part)

        assert_refused(folder / "h.db", "frame .* of its write-ahead log")
        shutil.rmtree(folder)


@pytest.mark.parametrize("place", [1, 9, 17, 25])
def test_a_log_whose_header_is_wrong_is_refused(crashed, folder, place):
    shutil.copytree(crashed, folder)
    flip(folder / "h.db-wal", place)

    assert_refused(folder / "h.db", "write-ahead log|page size")


def test_what_an_earlier_use_of_the_log_left_behind_is_no_damage(tmp_path):
    path = tmp_path / "h.db"
    with closing(opened(path)) as store:
        for _ in range(5):
            post(store, *[b"x" * PAGE] * 20)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
        post(store, b"y")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"copy.db{suffix}")

    log = read_log(tmp_path / "copy.db-wal")
    assert (log.whole * (PAGE + 24) + 32) < (tmp_path / "copy.db-wal").stat().st_size / 4
    with closing(opened(tmp_path / "copy.db")) as store:
        assert len(bodies(store)) == 101


@pytest.mark.parametrize("logged", [True, False])
def test_a_file_that_lost_its_end_is_refused(crashed, clean, folder, logged):
    shutil.copytree(crashed if logged else clean, folder)
    path = folder / "h.db"
    if logged:  # half of it is in the file, half of it in the log
        with closing(opened(path)) as store:
            post(store, *[b"x" * PAGE] * 50)
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA wal_checkpoint(RESTART)")
            post(store, b"y")
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", folder / f"copy.db{suffix}")
        for file in folder.glob("h.db*"):
            file.unlink()
        path = folder / "copy.db"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3 * PAGE)

    assert_refused(path, "pages are missing", quick_check=0)


@pytest.mark.parametrize("size", [16, 17, 18, 50, 95, 99])
def test_a_file_that_ends_in_its_header_is_refused(clean, folder, size):
    shutil.copytree(clean, folder)
    with (folder / "h.db").open("r+b") as file:
        file.truncate(size)

    assert_refused(folder / "h.db", f"it ends after {size} bytes")


def test_a_file_that_is_empty_or_gone_does_not_cost_its_log(crashed, folder):
    shutil.copytree(crashed, folder)
    (folder / "h.db").write_bytes(b"")
    assert_refused(folder / "h.db", "it is empty")

    (folder / "h.db").unlink()
    assert_refused(folder / "h.db", "it is gone")


@pytest.mark.parametrize(
    ("place", "why"), [(0, "not a database"), (16, "page size"), (100, "malformed|page 1")]
)
def test_a_file_that_begins_wrongly_is_refused(clean, folder, place, why):
    shutil.copytree(clean, folder)
    spoil(folder / "h.db", place, b"\xa5\xa5\xa5")

    assert_refused(folder / "h.db", why)


def test_a_page_that_was_overwritten_is_found_in_a_file_of_moderate_size(clean, folder):
    shutil.copytree(clean, folder)
    pages = (folder / "h.db").stat().st_size // PAGE
    spoil(folder / "h.db", pages // 2 * PAGE, random.Random(7).randbytes(PAGE))

    assert_refused(folder / "h.db", "page|row|malformed|Tree")


@pytest.mark.parametrize(
    "sql", ["DROP TABLE claim", "DROP INDEX message_by_state", "ALTER TABLE queue DROP COLUMN news"]
)
def test_a_file_without_one_of_its_tables_is_refused(clean, folder, sql):
    shutil.copytree(clean, folder)
    with closing(sqlite3.connect(folder / "h.db")) as other:
        other.execute(sql)

    assert_refused(folder / "h.db", "is missing", quick_check=0)


def test_a_body_that_is_not_what_was_stored_is_never_shown(clean, folder):
    shutil.copytree(clean, folder)
    path, wanted = folder / "h.db", body(7)
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE payload SET body = ? WHERE n = 8", (wanted.replace(b"7", b"1", 1),))
        other.execute("DELETE FROM payload WHERE n = 31")
        other.commit()

    with closing(opened(path)) as store:
        first, second = (
            store.messages.list(ADDRESS, Selection(limit=5), now=NOW),
            store.messages.list(ADDRESS, Selection(limit=7), now=NOW),
        )
        assert [message.body for message in (*first, *second)] == [body(n) for n in (*range(5), *range(7))]
        for limit in (8, 100):
            with pytest.raises(StoreDamaged):
                store.messages.list(ADDRESS, Selection(limit=limit), now=NOW)
            with pytest.raises(StoreDamaged):
                store.messages.pop(ADDRESS, limit, now=NOW)
            with pytest.raises(StoreDamaged):
                store.messages.claim(ADDRESS, Lease(ttl=60, grace=0, limit=limit), now=NOW)
        with pytest.raises(StoreDamaged):
            store.messages.list(ADDRESS, Selection(limit=1, marker=second[-1].id), now=NOW)
        assert store.messages.stats(ADDRESS, now=NOW).claimed == 0


@pytest.mark.parametrize("seed", range(8))
def test_what_a_spoilt_file_answers_is_right_or_an_error(clean, folder, seed):
    """Pages are overwritten behind the back of a store that did not look at them when it was opened."""
    shutil.copytree(clean, folder)
    path, chance = folder / "h.db", random.Random(seed)
    pages = path.stat().st_size // PAGE
    calls: list[Callable[[SqliteStore], object]] = [
        bodies,
        lambda store: store.messages.claim(ADDRESS, Lease(ttl=60, grace=0, limit=5), now=NOW),
        lambda store: store.messages.pop(ADDRESS, 3, now=NOW),
        lambda store: post(store, b"more"),
        lambda store: store.records.fetch("queue", "p", "q"),
    ]
    failed = 0
    with closing(opened(path, quick_check=0)) as store:
        for page in chance.sample(range(1, pages), pages // 4):
            spoil(path, page * PAGE, chance.randbytes(PAGE))
        for _ in range(10):
            call = chance.choice(calls)
            try:
                call(store)
            except (StoreDamaged, StoreUnavailable):
                failed += 1
    assert failed


def test_a_file_that_vanishes_while_it_is_used_is_not_made_anew(tmp_path):
    path = tmp_path / "h.db"
    with closing(opened(path)) as store:
        post(store, b"1")
        path.rename(tmp_path / "elsewhere.db")
        store.messages._file._idle_readers.clear()
        with pytest.raises((StoreDamaged, StoreUnavailable)):
            bodies(store)
        assert not path.exists()


WRITER = """
import sys
from queues.models import Address, NewMessage
from storage.registry import connect
store = connect(sys.argv[1])
print("ready", flush=True)
while True:
    now = store.messages.clock()
    store.messages.post(Address(project="p", queue="q"), [NewMessage(body=b"x" * 3000, ttl=60)] * 5, now=now, create=True)
    store.messages.pop(Address(project="p", queue="q"), 5, now=now)
"""


def test_a_file_that_others_write_to_is_no_damage(tmp_path):
    path = tmp_path / "h.db"
    command = [sys.executable, "-c", WRITER, f"sqlite:///{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            grown = 0
            while grown < 10:
                before = read_log(tmp_path / "h.db-wal").whole
                SqliteFile(path, timeout=10).close()
                grown += read_log(tmp_path / "h.db-wal").whole != before
            assert writer.poll() is None
        finally:
            writer.kill()


@pytest.mark.parametrize("query", ["quick_check=", "quick_check=-1", "quick_check=much", "other=1"])
def test_an_option_that_is_wrong_is_refused(tmp_path, query):
    with pytest.raises(StoreUnsupported, match="quick_check"):
        connect(f"sqlite:///{tmp_path}/h.db?{query}", timeout=1, clock=None)
