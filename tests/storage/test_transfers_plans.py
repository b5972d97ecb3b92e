"""P7 for queues that move: what a step costs does not depend on what is queued, or on what was copied before."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from math import log2

import pytest

from bench import steps
from queues.models import Cargo
from queues.ports import Driver
from storage.registry import connect
from storage.sqlite_layout import upgrade
from storage.statements import load
from tests import servers
from tests.bench.test_depth import plan
from tests.storage.moving import Copy
from tests.storage.probe import Clock, Probe, ids
from tests.storage.test_mongodb_plans import CLAIM, CLAIMS, Deep, assert_found_by_index, opened

SHALLOW, DEEP = 600, 3_000  # messages
PART = 10  # things that a step copies

PARTS = ("claims", "messages", "posts", "touched")


def filled(driver: Driver, clock: Clock, size: int) -> tuple[Probe, Copy, dict[str, str]]:
    """Fill a queue and copy it; return, for each part of the copy, a cursor in its middle."""
    queue = Probe(driver.messages, clock)
    queue.fill(size, ttl=86_400)
    for _ in range(size // 8):
        queue.claim(4, ttl=43_200)
    for number in range(size // 4):
        queue.post_once("1", key=f"key {number}", window=86_400)
    copy = Copy(driver.transfers, queue.address).depart().catch_up()
    changed = queue.everything()[: size // 4]
    queue.delete_many(ids(changed[2::4]))
    for claim_id in {message.claim_id for message in changed if message.claim_id}:
        queue.renew(claim_id, ttl=50_000)
    cursors: dict[str, list[str]] = {part: [] for part in PARTS}
    again = Copy(driver.transfers, queue.address, move=copy.move)
    caught_up = False
    while not caught_up:
        caught_up = again.part(PART).caught_up
        cursors[again.cursor.partition(":")[0]].append(again.cursor)
    return queue, copy, {part: found[len(found) // 2] for part, found in cursors.items()}


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, int], int]]:
    """Counts what SQLite does for a step, in a queue of a size."""
    clock, folder = Clock(), tmp_path_factory.mktemp("plans")
    drivers: list[Driver] = []

    @cache
    def make(size: int) -> tuple[Driver, Probe, Copy, dict[str, str]]:
        driver = connect(f"sqlite:///{folder}/{size}.db", clock=clock)
        drivers.append(driver)
        return driver, *filled(driver, clock, size)

    def cost(name: str, size: int) -> int:
        driver, queue, copy, cursors = make(size)
        transfers = driver.transfers

        def export(cursor: str) -> Cargo:
            return transfers.export(queue.address, copy.move, cursor=cursor, limit=PART)

        acts: dict[str, Callable[[], object]] = {
            **{part: lambda cursor=cursor: export(cursor) for part, cursor in cursors.items()},  # type: ignore[misc]
            "begin": lambda: export(""),
            "depart": lambda: transfers.depart(queue.address, copy.move),
            "post": lambda: queue.post("1"),
            "claim": lambda: queue.claim(2),
        }

        def step() -> Iterator[None]:
            yield
            acts[name]()
            yield

        taken = steps.count(driver, step)
        assert taken
        return taken

    yield cost
    for driver in drivers:
        driver.close()


@pytest.mark.parametrize("name", ["begin", *PARTS, "depart", "post", "claim"])
def test_p7_sqlite_a_step_costs_the_same_at_any_depth(costs: Callable[[str, int], int], name: str) -> None:
    shallow, deep = costs(name, SHALLOW), costs(name, DEEP)

    assert deep <= 1.3 * shallow + log2(DEEP / SHALLOW), f"{shallow} steps at {SHALLOW}, {deep} at {DEEP}"


def test_no_statement_of_sqlites_walks_over_a_whole_table() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        upgrade(connection)
        found = {
            name: [step for step in plan(connection, statement) if step.startswith("SCAN")]
            for name, statement in load("sqlite/transfers.sql").items()
            if not name.startswith("watch_")
        }
    allowed = ("SCAN json_each ", "SCAN CONSTANT ROW")
    scanning = {name for name, scans in found.items() if any(not scan.startswith(allowed) for scan in scans)}

    assert scanning == {"departing_any"}, "that one stops at the first row"


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deep]:
    with opened(servers.mongodb_uri(tmp_path_factory.mktemp("moving"))) as store:
        store.fill("other")
        yield store


def test_p7_mongodb_no_step_scans(deep: Deep) -> None:
    transfers, queue = deep.driver.transfers, deep.fill("departing")
    for number in range(3 * PART):
        queue.post_once("1", key=f"key {number}", window=86_400)
    copy = Copy(transfers, queue.address)
    with deep.profiled() as profile:
        copy.depart()
        while not (caught_up := copy.part(CLAIM // 2).caught_up):
            pass
        queue.delete_many(ids(queue.page(limit=50)))
        copy.catch_up(CLAIM // 2)
    assert caught_up
    assert_found_by_index(profile)
    assert len(copy.claims) == CLAIMS
    claims = [each for each in profile if each["ns"].endswith(".claim")]
    assert max(each["nreturned"] for each in claims) <= CLAIM // 2 + 1

    with deep.profiled() as profile:
        transfers.shut(queue.address, copy.move)
        transfers.retire(queue.address, copy.move, now=deep.clock.now)
    assert_found_by_index(profile)
    assert not any(each["ns"].endswith((".message", ".touched")) for each in profile), (
        "it takes as long as the queue is deep, or as much has changed"
    )

    with deep.profiled() as profile:
        while queue.expire(PART):
            pass
    assert_found_by_index(profile)
    assert deep.database.touched.count_documents({}) == 0
