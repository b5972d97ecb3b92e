"""P13: what a store holds states its layout; a newer one is used as long as it fits, and refused when it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from queues import versions
from queues.errors import StoreUnsupported
from queues.models import Address, LayoutStep, NewMessage, Record, Selection, StepKind
from queues.ports import Driver
from storage.layouts import Layered, bring_up, layout_of, make_ready
from storage.mongodb_layout import MongoLayout
from storage.redis_layout import RedisLayout
from storage.registry import connect
from storage.sqlite_layout import SqliteLayout, script, scripts
from tests.storage.probe import Clock
from tests.storage.variants import over_shared

pytestmark = over_shared

ADDRESS = Address(project="p", queue="q")
EXPAND, MIGRATE, CONTRACT = StepKind.EXPAND, StepKind.MIGRATE, StepKind.CONTRACT


@dataclass
class Releases:
    """A store, and the layouts of releases to come, whose steps say that they were made."""

    uri: str
    driver: Any
    made: list[str]

    def knowing(self, *kinds: StepKind) -> Layered:
        """Return the layout of a release that has such steps more than this one."""
        layout = self.driver.layout
        now = len(layout.steps)
        more = [
            LayoutStep(number=now + number, kind=kind, what="more")
            for number, kind in enumerate(kinds, start=1)
        ]
        if isinstance(layout, SqliteLayout):
            return SqliteLayout(layout._file, [*scripts(), *(_script(step) for step in more)])
        work = {step.number: self._note(step) for step in more}
        kind = RedisLayout if isinstance(layout, RedisLayout) else MongoLayout
        steps: Sequence[LayoutStep] = [*layout.steps, *more]
        return kind(layout._link, steps, work)

    def _note(self, step: LayoutStep) -> Callable[[Any], None]:
        return lambda _: self.made.append(step.kind.value)

    def open(self) -> Driver:
        """Open the store with this release, once more."""
        return connect(self.uri, clock=Clock())

    def was_made(self, kind: StepKind) -> bool:
        if kind.value in self.made:
            return True
        file: Any = getattr(self.driver.layout, "_file", None)
        if file is None:
            return False
        with file.snapshot() as connection:
            found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (f"of_{kind.value}",))
            return found.fetchone() is not None


def _script(step: LayoutStep) -> Any:
    """A script that leaves a table of its own behind; what migrates does so in three parts."""
    table = f"of_{step.kind.value}"
    sql = {
        EXPAND: f"CREATE TABLE {table} (x);\nCREATE TABLE todo (x);\nINSERT INTO todo VALUES (1), (2), (3);\n",
        MIGRATE: (
            f"CREATE TABLE IF NOT EXISTS {table} (x);\n"
            f"INSERT INTO {table} SELECT x FROM todo LIMIT 1;\n"
            "DELETE FROM todo WHERE rowid IN (SELECT rowid FROM todo LIMIT 1);\n"
        ),
        CONTRACT: f"CREATE TABLE {table} (x);\nUPDATE format SET oldest_reader = {step.number};\n",
    }[step.kind]
    suffix = "" if step.kind is EXPAND else f".{step.kind.value}"
    return script(f"{step.number:04}_more{suffix}.sql", sql)


@pytest.fixture
def releases(variant, tmp_path) -> Iterator[Releases]:
    uri = variant.uri(tmp_path)
    with closing(connect(uri, clock=Clock())) as driver:
        if not hasattr(driver, "layout"):
            pytest.skip("each store of a mix has a layout of its own")
        driver.messages.totals(now=0)
        yield Releases(uri, driver, [])


def post(driver: Driver) -> None:
    driver.messages.post(ADDRESS, [NewMessage(body=b"1", ttl=60)], now=driver.messages.clock(), create=True)


def count(driver: Driver) -> int:
    return len(driver.messages.list(ADDRESS, Selection(limit=100), now=driver.messages.clock()))


def test_a_new_store_has_the_layout_of_the_release(releases):
    found = layout_of(releases.driver.layout)

    assert found.found == found.known == len(releases.driver.layout.steps) > 0
    assert not found.pending
    assert list(bring_up(releases.driver.layout)) == []


def test_what_only_adds_is_done_when_a_newer_release_opens_the_store_and_this_one_goes_on(releases):
    post(releases.driver)
    newer = releases.knowing(EXPAND, MIGRATE, CONTRACT)

    make_ready(newer)

    assert releases.was_made(EXPAND)
    assert not releases.was_made(MIGRATE)
    assert not releases.was_made(CONTRACT)
    found = layout_of(newer)
    assert [step.kind for step in found.pending] == [MIGRATE, CONTRACT]
    assert found.found == found.known - 2
    post(releases.driver)
    with closing(releases.open()) as again:
        post(again)
        assert count(again) == 3


def test_the_rest_is_done_when_it_is_asked_for_and_then_this_release_refuses(releases):
    post(releases.driver)
    newer = releases.knowing(EXPAND, MIGRATE, CONTRACT)
    make_ready(newer)

    assert [step.kind for step in bring_up(newer)] == [MIGRATE, CONTRACT]

    assert releases.was_made(MIGRATE)
    assert releases.was_made(CONTRACT)
    assert not layout_of(newer).pending
    assert list(bring_up(newer)) == []
    make_ready(newer)
    with pytest.raises(StoreUnsupported, match=f"knows {len(releases.driver.layout.steps)}"):
        count_and_close(releases)


def count_and_close(releases: Releases) -> None:
    with closing(releases.open()) as again:
        count(again)


def test_what_an_earlier_release_left_is_done_before_something_is_added(releases):
    newer = releases.knowing(CONTRACT, EXPAND)

    make_ready(newer)

    assert releases.was_made(CONTRACT)
    assert releases.was_made(EXPAND)
    assert not layout_of(newer).pending


def test_a_step_that_was_interrupted_is_made_again(releases):
    newer: Any = releases.knowing(EXPAND, MIGRATE)
    make_ready(newer)
    step = layout_of(newer).pending[0]
    newer.perform(step)
    newer.perform(step)

    assert not layout_of(newer).pending


def test_a_record_of_a_newer_shape_is_refused(releases, monkeypatch):
    records = releases.driver.records
    old = Record(kind="queue", scope="p", name="old", data={"a": 1})
    with monkeypatch.context() as newer:
        newer.setattr(versions, "RECORD_VERSION", 2)
        assert records.insert(old)
        assert records.insert(Record(kind="queue", scope="p", name="new", data={"a": 1}, v=2))

    with pytest.raises(StoreUnsupported, match="version 2"):
        records.fetch("queue", "p", "new")
    with pytest.raises(StoreUnsupported, match="version 2"):
        records.scan("queue", "p", limit=10)
    assert records.fetch("queue", "p", "old") == old
