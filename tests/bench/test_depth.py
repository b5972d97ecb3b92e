"""P7: what an operation costs does not depend on what is queued.

Told by counting the steps of SQLite's virtual machine, which are the same on every
machine and in every run, not by the clock.
"""

import re
import sqlite3
from contextlib import closing
from functools import partial
from math import log2

import pytest

from bench import steps
from bench.bodies import messages
from bench.depth import OPERATIONS, measure
from bench.populations import KINDS, populate
from queues.models import Address, Once
from storage.registry import connect
from storage.sqlite_layout import upgrade
from storage.statements import load

SHALLOW, DEEP = 100, 5_000
ADDRESS = Address(project="p", queue="q")

#: What may walk over a whole table or index, and why.
SCANS = {
    "queue_totals": "counts over all queues for the health report; no request of a tenant runs it",
    "pile_abandoned": "walks an index of what it looks for and of nothing else, and stops at the first",
}


def costs_the_same(shallow, deep):
    assert shallow, "no steps were counted"
    return deep <= 1.3 * shallow + log2(DEEP / SHALLOW)


@pytest.fixture(scope="module")
def open_store(tmp_path_factory):
    """Opens stores by name, once each."""
    folder = tmp_path_factory.mktemp("stores")
    opened = {}

    def open_one(name):
        if name not in opened:
            opened[name] = connect(f"sqlite:///{folder}/{name}.db")
        return opened[name]

    yield open_one
    for store in opened.values():
        store.close()


@pytest.fixture(scope="module")
def filled(open_store):
    """Returns a filled queue and its store; the operations leave them as they were."""
    kept = {}

    def fill(kind, size):
        if (kind, size) not in kept:
            store = open_store(f"{list(KINDS).index(kind)}-{size}")
            kept[kind, size] = store, populate(store.messages, ADDRESS, kind, size)
        return kept[kind, size]

    return fill


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_the_same_at_any_depth(name, kind, filled):
    shallow, deep = (
        steps.count(store, partial(OPERATIONS[name], population))
        for store, population in (filled(kind, SHALLOW), filled(kind, DEEP))
    )

    assert costs_the_same(shallow, deep), f"{shallow} steps at {SHALLOW}, {deep} at {DEEP}"


def janitor(store, now, limit):
    def step():
        yield
        store.messages.expire(now=now, limit=limit)
        yield

    return steps.count(store, step)


def test_looking_for_what_has_expired_costs_the_same_at_any_depth(open_store):
    def look_in(size):
        store = open_store(f"nothing-expired-{size}")
        population = populate(store.messages, ADDRESS, "half of them claimed", size)
        return janitor(store, population.store.clock(), 1000)

    shallow, deep = look_in(SHALLOW), look_in(DEEP)

    assert costs_the_same(shallow, deep), f"{shallow} steps at {SHALLOW}, {deep} at {DEEP}"


def test_the_janitor_pays_for_what_it_reclaims_and_not_for_what_is_left(open_store):
    def reclaim_100_of(size):
        store = open_store(f"expired-{size}")
        now = store.messages.clock()
        for ttl, count in ((60, 100), (3600, size)):
            store.messages.post(ADDRESS, messages(count, ttl=ttl), now=now, create=True)
        return janitor(store, now + 60_000, 100)

    shallow, deep = reclaim_100_of(SHALLOW), reclaim_100_of(DEEP)

    assert costs_the_same(shallow, deep), f"{shallow} steps at {SHALLOW}, {deep} at {DEEP}"


def test_forgetting_idempotency_keys_costs_by_what_is_forgotten(open_store):
    def forget_10_of(size):
        store = open_store(f"keys-{size}")
        now = store.messages.clock()
        for number in range(10 + size):
            window = 60 if number < 10 else 3600
            once = Once(key=f"key-{number}", fingerprint=bytes(16), window=window)
            store.messages.post(ADDRESS, messages(1), now=now, once=once, create=True)
        return janitor(store, now + 60_000, 10)

    shallow, deep = forget_10_of(10), forget_10_of(500)

    assert costs_the_same(shallow, deep), f"{shallow} steps with 10 keys left, {deep} with 500"


def test_no_statement_walks_over_a_whole_table():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        upgrade(connection)
        scanning = {
            name
            for name, statement in load("sqlite/statements.sql").items()
            for step in plan(connection, statement)
            if re.match(r"SCAN (?!json_each |wanted VIRTUAL TABLE|CONSTANT ROW|\(subquery|chosen$)", step)
        }

    assert scanning == set(SCANS)


def plan(connection, statement):
    names = re.findall(r":(\w+)", statement)
    values = dict.fromkeys(names) if names else (None,) * statement.count("?")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def test_the_benchmark_compares_every_operation_on_every_population(open_store):
    figures = measure(lambda name: open_store(f"measured-{name}"), size=100, rounds=1)

    assert len({figure.table for figure in figures}) == len(KINDS)
    assert {figure.load for figure in figures} == set(OPERATIONS)
    assert all(figure.ratio > 0 and figure.at_most == 1.2 for figure in figures)
