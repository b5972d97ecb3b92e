"""The commands that copy whole stores, and put copies in their place."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from queues.models import Address, NewMessage, Selection
from queues.service.moving import MovesUnderWay
from storage.registry import connect
from storage.sqlite import SqliteStore
from storage.sqlite_layout import script, scripts
from tests import servers
from tests.transport.test_cli import (  # noqa: F401 - fixtures
    _in_an_empty_folder,
    _log_as_before,
    hermod,
    said,
)
from tests.transport.test_cli_pools import ONE, STORE, TWO, filled, lines, pools, service  # noqa: F401 - fixtures

ADDRESS = Address(project="p", queue="q")
CONTROL = Path("control.db")
FOLDER = Path("backup")


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    """The store, with a message, in use."""
    opened = connect(STORE)
    assert isinstance(opened, SqliteStore)
    with closing(opened):
        post(opened, b"1")
        yield opened


def post(store: SqliteStore, *bodies: bytes) -> None:
    messages = [NewMessage(body=body, ttl=3600) for body in bodies]
    store.messages.post(ADDRESS, messages, now=store.messages.clock(), create=True)


def bodies(uri: str) -> list[bytes]:
    with closing(connect(uri)) as opened:
        found = opened.messages.list(ADDRESS, Selection(limit=100), now=opened.messages.clock())
        return [message.body for message in found]


def backed_up(*arguments: str) -> list[str]:
    result = hermod("backup", str(FOLDER), "--store", STORE, *arguments)
    assert (result.exit_code, said(result)) == (0, [])
    return result.stdout.splitlines()


def refused(*arguments: str, store: str = STORE, code: int = 1) -> str:
    result = hermod(*arguments, "--store", store)
    assert result.exit_code == code, result.output
    (line,) = said(result)
    return line


class TestBackup:
    def test_a_store_is_copied_while_it_is_used(self, store):
        (line,) = backed_up()
        post(store, b"2")

        assert line.endswith("of control.db, checked")
        assert [file.name for file in FOLDER.iterdir()] == ["hermod.db"]
        assert bodies("sqlite:///backup/hermod.db") == [b"1"]
        assert bodies(STORE) == [b"1", b"2"]

    def test_a_copy_is_one_point_in_time_whoever_writes(self, store):
        """Each post is two messages; a copy never has one of them, however many steps it took."""
        post(store, *[b"x" * 100_000] * 60)
        over = Event()

        def write() -> None:
            while not over.is_set():
                post(store, b"first", b"other")

        writer = Thread(target=write)
        writer.start()
        try:
            backed_up()
        finally:
            over.set()
            writer.join()
        with closing(sqlite3.connect(FOLDER / "hermod.db")) as copy:
            counts = dict(copy.execute("SELECT substr(body, 1, 5), count(*) FROM payload GROUP BY 1"))
            assert copy.execute("SELECT free FROM queue").fetchone()[0] == sum(counts.values())
        assert counts[b"first"] == counts[b"other"] > 0

    def test_only_the_owner_can_read_it(self, store):
        backed_up()

        assert stat.S_IMODE((FOLDER / "hermod.db").stat().st_mode) == 0o600
        assert stat.S_IMODE(FOLDER.stat().st_mode) == 0o700

    def test_nothing_is_overwritten(self, store):
        backed_up()
        before = (FOLDER / "hermod.db").read_bytes()
        post(store, b"2")

        assert "not overwritten" in refused("backup", str(FOLDER))
        assert (FOLDER / "hermod.db").read_bytes() == before
        assert len(list(FOLDER.iterdir())) == 1

    def test_what_an_interrupted_one_left_does_no_harm(self, store):
        FOLDER.mkdir()
        (FOLDER / "hermod.db.partial").write_bytes(b"half of it")

        backed_up()

        assert [file.name for file in FOLDER.iterdir()] == ["hermod.db"]

    def test_a_damaged_store_makes_no_backup(self, store):
        with closing(sqlite3.connect(CONTROL)) as other:
            other.execute("UPDATE payload SET checksum = checksum + 1")
            other.commit()

        assert "not what was stored" in refused("backup", str(FOLDER))
        assert list(FOLDER.iterdir()) == []
        assert "not what was stored" in refused("check", "--full")

    def test_a_whole_store_is_checked_whole(self, store):
        assert hermod("check", "--full", "--store", STORE).exit_code == 0

    def test_every_pool_is_copied(self, filled):  # noqa: F811 - the fixture
        result = hermod("backup", str(FOLDER), "--store", STORE, HERMOD_POOLING="true")

        assert result.exit_code == 0, result.output
        assert sorted(file.name for file in FOLDER.iterdir()) == ["hermod.db", "pool-one.db", "pool-two.db"]
        with closing(connect("sqlite:///backup/pool-one.db")) as copy:
            assert copy.messages.totals(now=copy.messages.clock()).total == 6

    def test_one_pool_is_copied(self, filled):  # noqa: F811 - the fixture
        lines("backup", str(FOLDER), "--pool", "one")

        assert [file.name for file in FOLDER.iterdir()] == ["pool-one.db"]

    def test_a_pool_that_does_not_exist(self, filled):  # noqa: F811 - the fixture
        assert hermod("backup", str(FOLDER), "--pool", "no", "--store", STORE).exit_code == 1

    def test_a_store_of_another_kind_is_named(self, tmp_path):
        uri = servers.redis_uri(tmp_path)
        result = hermod("backup", str(FOLDER), "--store", uri)

        assert result.exit_code == 1
        assert "not copied" in said(result)[0]
        assert said(result)[1] == "hermod: There is no SQLite store to back up."

    def test_no_queue_is_moved_meanwhile(self, filled):  # noqa: F811 - the fixture
        with service() as opened, service() as janitor:
            opened.moving.start("one")
            with opened.moving.halted(1) as tick:
                tick()
                assert not janitor.moving.run(Event())
                with pytest.raises(MovesUnderWay), janitor.moving.halted(0.1):
                    pass
                assert janitor.moving.progress("one").left == 3
            assert janitor.moving.run(Event())
            assert janitor.moving.progress("one").left == 0


class TestRestore:
    def test_a_copy_takes_the_place_of_a_store(self, store):
        backed_up()
        post(store, b"2")
        store.close()

        result = hermod("restore", "backup/hermod.db", "--replace", "--store", STORE)

        assert result.exit_code == 0, result.output
        aside, restored = result.stdout.splitlines()
        assert restored == "control.db: restored from backup/hermod.db"
        assert bodies(STORE) == [b"1"]
        assert bodies(f"sqlite:///{aside.partition(':')[0]}") == [b"1", b"2"]
        assert stat.S_IMODE(CONTROL.stat().st_mode) == 0o600

    def test_a_store_that_is_gone_needs_no_permission(self, store):
        backed_up()
        store.close()
        CONTROL.unlink()

        assert hermod("restore", "backup/hermod.db", "--store", STORE).exit_code == 0
        assert bodies(STORE) == [b"1"]

    def test_nothing_is_replaced_without_being_told(self, store):
        backed_up()
        post(store, b"2")
        store.close()

        assert "only if you say so" in refused("restore", "backup/hermod.db")
        assert bodies(STORE) == [b"1", b"2"]

    def test_a_store_in_use_is_left_alone(self, store):
        """By this process, and by another one."""
        backed_up()
        assert "is open in this process" in refused("restore", "backup/hermod.db", "--replace")
        post(store, b"2")
        store.close()
        program = (
            f"from storage.registry import connect; s = connect({STORE!r}); print(1, flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "1\n"
            assert "is in use" in refused("restore", "backup/hermod.db", "--replace")
            other.communicate("\n")

        assert bodies(STORE) == [b"1", b"2"]

    @pytest.mark.parametrize("spoil", ["cut", "page", "empty", "other"])
    def test_a_copy_that_is_not_whole_is_refused(self, store, spoil):
        post(store, *[b"x" * 10_000] * 20)
        backed_up()
        store.close()
        copy = FOLDER / "hermod.db"
        data = copy.read_bytes()
        spoilt = {
            "cut": data[:-4096],
            "page": data[:-40960] + b"\xa5" * 4096 + data[-36864:],
            "empty": b"",
            "other": b"no database" * 1000,
        }
        copy.write_bytes(spoilt[spoil])
        before = CONTROL.read_bytes()

        refused("restore", "backup/hermod.db", "--replace")

        assert CONTROL.read_bytes() == before
        assert copy.read_bytes() == spoilt[spoil]

    def test_a_damaged_store_is_replaced_with_its_log(self, store):
        """The log that is left has nothing to do with the copy."""
        backed_up()
        post(store, b"2")
        log = Path("control.db-wal").read_bytes()
        store.close()
        CONTROL.write_bytes(b"\xa5" * 10_000)
        Path("control.db-wal").write_bytes(log)
        assert "is damaged" in refused("check")

        assert hermod("restore", "backup/hermod.db", "--replace", "--store", STORE).exit_code == 0

        assert bodies(STORE) == [b"1"]
        (aside,) = Path().glob("control.db.replaced-*-wal")
        assert aside.read_bytes() == log

    def test_a_restore_that_was_interrupted_leaves_no_store_that_looks_empty(self, store):
        backed_up()
        store.close()
        CONTROL.rename("control.db.restoring")

        assert "a restore was interrupted" in refused("check")
        assert hermod("restore", "backup/hermod.db", "--store", STORE).exit_code == 0
        assert bodies(STORE) == [b"1"]
        assert not Path("control.db.restoring").exists()

    def test_the_store_of_a_pool(self, filled):  # noqa: F811 - the fixture
        lines("backup", str(FOLDER), "--pool", "one")
        Path("one.db").unlink()

        lines("restore", "backup/pool-one.db", "--pool", "one")

        with service() as opened:
            assert opened.pools.driver("one").messages.totals(now=opened.clock()).total == 6

    def test_a_store_of_another_kind(self, store):
        backed_up()

        assert "Only a SQLite store" in refused("restore", "backup/hermod.db", store="memory:", code=2)


class TestMigrate:
    def test_it_shows_the_layout_of_every_store(self, filled):  # noqa: F811 - the fixture
        assert lines("migrate", "--status") == [
            f"pool {name}: sqlite  layout 1, of this release 1" for name in ("(default)", "one", "two")
        ]
        assert lines("migrate", "--up") == lines("migrate", "--status")

    def test_it_does_what_is_left(self, store, monkeypatch):
        more = [
            script("0002_count.sql", "CREATE TABLE counted (x);\nINSERT INTO counted VALUES (1), (2);\n"),
            script(
                "0003_count.migrate.sql", "DELETE FROM counted WHERE x IN (SELECT x FROM counted LIMIT 1);\n"
            ),
            script("0004_count.contract.sql", "UPDATE format SET oldest_reader = 4;\n"),
        ]
        now = scripts()
        with monkeypatch.context() as newer:
            for module in ("sqlite_layout", "sqlite_damage", "sqlite_backup"):
                newer.setattr(f"storage.{module}.scripts", lambda: [*now, *more])
            status = hermod("migrate", "--status", "--store", STORE)
            up = hermod("migrate", "--up", "--store", STORE)

        assert status.stdout.splitlines() == [
            "pool (default): sqlite  layout 2, of this release 4",
            "  to do: 3 migrate: count",
            "  to do: 4 contract: count",
        ]
        assert up.stdout.splitlines() == [
            "pool (default): done: 3 migrate: count",
            "pool (default): done: 4 contract: count",
            "pool (default): sqlite  layout 4, of this release 4",
        ]
        assert "this one knows 1" in refused("migrate", "--status")

    def test_it_wants_to_know_what_to_do(self):
        assert hermod("migrate", "--store", STORE).exit_code == 2
