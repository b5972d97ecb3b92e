"""The connection to MongoDB: what it needs, made once at first use, and transactions that nobody ends."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pymongo
import pytest
from pymongo.database import Database

from queues.errors import StoreUnavailable, StoreUnsupported
from queues.models import Address, NewMessage
from storage.mongodb_link import INDEXES
from storage.registry import connect
from tests import servers

QUEUE = Address(project="p", queue="q")
MESSAGE = NewMessage(body=b"1", ttl=60)

#: Begins a transaction on the queue, says so, and never ends it; the arguments are the URI and the timeout.
LAGGARD = """
import sys, time
from queues.models import Address
from storage.mongodb_link import MongoLink

link = MongoLink(sys.argv[1], timeout=float(sys.argv[2]))
with link.bounded(), link.client.start_session() as session:
    session.start_transaction()
    link.database.queue.update_one({"_id": {"p": "p", "q": "q"}}, {"$inc": {"rev": 1}}, session=session)
    print("locked", flush=True)
    time.sleep(600)
"""


def post(driver):
    return driver.messages.post(QUEUE, [MESSAGE], now=driver.messages.clock(), create=True).ids


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://a:b:c/",
        "mongodb://[::1/",
        "mongodb://127.0.0.1:port/",
        "mongodb://127.0.0.1/?w=-1",
        "mongodb://127.0.0.1/?nonsense=1",
    ],
)
def test_a_wrong_uri_is_refused_at_once(uri):
    with pytest.raises(StoreUnsupported):
        connect(uri)


def test_a_server_that_is_no_replica_set_is_refused_when_it_is_used():
    process = servers.mongod()
    try:
        process.start()
        servers.eventually(lambda: servers.mongod_says(process))
        with closing(connect(f"mongodb://127.0.0.1:{process.port}/")) as driver:
            for _ in range(2):
                with pytest.raises(StoreUnsupported, match="--replSet"):
                    post(driver)
                with pytest.raises(StoreUnsupported, match="--replSet"):
                    driver.messages.durability()
    finally:
        process.stop()


def test_threads_that_come_first_together_find_the_indexes_made(tmp_path):
    uri = servers.mongodb_uri(tmp_path)
    with closing(connect(uri)) as driver, ThreadPoolExecutor(8) as threads:
        assert len({id_ for ids in threads.map(lambda _: post(driver), range(8)) for id_ in ids}) == 8
        client: pymongo.MongoClient[dict[str, object]]
        with pymongo.MongoClient(uri) as client:
            database: Database[dict[str, object]] = client.get_default_database()
            for collection, indexes in INDEXES.items():
                assert len(database[collection].index_information()) == len(indexes) + 1


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "gives up"])
def test_a_transaction_that_nobody_ends_does_not_lock_its_queue(tmp_path, dies):
    uri = servers.mongodb_uri(tmp_path)
    patience = 60.0 if dies else 0.5  # seconds
    with closing(connect(uri, timeout=2.0)) as driver:
        post(driver)
        command = [sys.executable, "-c", LAGGARD, uri, str(patience)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as laggard:
            try:
                assert laggard.stdout is not None
                assert laggard.stdout.readline() == b"locked\n"
                if dies:
                    laggard.kill()
                    laggard.wait()
                started = time.monotonic()
                post(driver)
                assert time.monotonic() - started < 3.0
            finally:
                laggard.kill()


def test_a_transaction_that_somebody_works_on_is_left_alone(tmp_path):
    uri = servers.mongodb_uri(tmp_path)
    with closing(connect(uri, timeout=0.5)) as driver:
        post(driver)
        command = [sys.executable, "-c", LAGGARD, uri, "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as laggard:
            try:
                assert laggard.stdout is not None
                assert laggard.stdout.readline() == b"locked\n"
                for _ in range(2):
                    with pytest.raises(StoreUnavailable):
                        post(driver)
            finally:
                laggard.kill()
