"""The yardsticks do what they are compared for."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from bench.bodies import body
from bench.connection import Connection
from bench.rest import Target, claim, delete, found, post
from bench.services import serving
from bench.workloads import Load
from bench.yardsticks.alone import ENGINES, BareOrder, open_engine, work_alone
from tests import servers

STORES = {
    "streams": servers.redis_uri,
    "lua": servers.redis_uri,
    "documents": servers.mongodb_uri,
    "leases": servers.mongodb_uri,
    "transactions": servers.mongodb_uri,
    "rows": lambda folder: f"sqlite:///{folder}/bare.db",
}


def test_every_engine_has_a_store_to_be_tested_on():
    assert set(STORES) == set(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_takes_what_was_posted(name, tmp_path):
    with closing(open_engine(name, STORES[name](tmp_path), 200)) as engine:
        engine.prepare(5)
        engine.post(1)
        engine.post(4)

        assert engine.take(7) == 7
        assert engine.take(7) == 3
        assert engine.take(7) == 0


@pytest.mark.parametrize(("load", "each"), [("post", 1), ("post-batch", 3), ("claim-delete", 3)])
def test_threads_work_on_an_engine_for_a_while(load, each, tmp_path):
    uri = STORES["lua"](tmp_path)
    with closing(open_engine("lua", uri, 200)) as engine:
        engine.prepare(30_000)
    order = BareOrder(
        engine="lua", uri=uri, load=Load(name=load, batch=3), threads=2, start=time.time(), seconds=0.1
    )

    tally = work_alone(order)

    count = tally.counts[load]
    assert count.messages == each * count.operations > 0
    assert len(count.latencies) == count.operations
    assert tally.cpu > 0


@pytest.mark.parametrize("name", ["leases", "transactions"])
def test_threads_that_claim_together_take_each_message_once(name, tmp_path):
    with closing(open_engine(name, STORES[name](tmp_path), 200)) as engine, ThreadPoolExecutor(4) as threads:
        engine.prepare(40)

        taken = [*threads.map(engine.take, [7] * 20)]
        left = engine.take(40)

    assert sum(taken) + left == 40


@pytest.mark.parametrize("store", ["", "lua", "documents"])
def test_a_bare_application_answers_as_the_service_does(store, tmp_path):
    option = {"": (), "lua": ("--redis",), "documents": ("--mongodb",)}[store]
    more = (*option, STORES[store](tmp_path)) if store else ()
    command = ("bench.yardsticks.app", "--workers", "1", "--threads", "2", *more)
    with serving(*command) as (url, _), closing(Connection(Target(url=url))) as connection:
        first, second = (connection.ask(post(1)).body for _ in range(2))
        claimed = found(connection.ask(claim(10)).body)
        connection.ask(delete(claimed))

    assert (first != second) is bool(store)
    assert len(claimed) == 10


def test_a_body_has_as_many_bytes_as_are_wanted():
    assert [len(body(size)) for size in (100, 200, 5000)] == [100, 200, 5000]
