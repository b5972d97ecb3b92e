"""The connection to Redis: what is refused at once, what is bounded, and a cluster that changes."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
import redis
from redis.crc import key_slot

from queues.errors import StoreError, StoreUnavailable, StoreUnsupported
from queues.models import Address, NewMessage, Selection
from storage.redis_keys import shard_of
from storage.redis_link import RedisLink
from storage.registry import connect
from tests import servers

TIMEOUT = 0.6  # seconds
BOUND = 2 * TIMEOUT + 1.0  # seconds, on a busy machine
THREADS = 8
QUEUE = Address(project="p", queue="q")
MESSAGE = NewMessage(body=b"1", ttl=60)


def post(driver):
    return driver.messages.post(QUEUE, [MESSAGE], now=driver.messages.clock(), create=True).ids


def count(driver):
    return driver.messages.stats(QUEUE, now=driver.messages.clock()).total


def refusal(act, *arguments):
    """Return what an act raises, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(StoreError) as raised:
        act(*arguments)
    return raised.type, time.monotonic() - started


@pytest.mark.parametrize(
    "uri",
    [
        "redis://127.0.0.1:1/?nonsense=1",
        "redis://127.0.0.1:1/x",
        "redis://127.0.0.1:port/0",
        "redis://127.0.0.1:1,127.0.0.1:2/0",
        "redis://127.0.0.1:1/?prefix=a:b",
        "redis://127.0.0.1:1/?wait_replicas=some",
        "redis://127.0.0.1:1/?wait_replicas=-1",
        "redis://127.0.0.1:1/?socket_timeout=long",
        "redis+sentinel://127.0.0.1:1",
        "redis+sentinel://127.0.0.1:1/service/x",
        "redis+sentinel://127.0.0.1:1/service?nonsense=1",
        "redis+cluster://127.0.0.1:1/0",
        "redis+cluster://127.0.0.1:1?nonsense=1",
    ],
)
def test_a_wrong_uri_is_refused_at_once(uri):
    with pytest.raises(StoreUnsupported):
        connect(uri)


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        port: int = listener.getsockname()[1]
        yield port


@pytest.mark.parametrize(
    "uri",
    [
        "redis://127.0.0.1:{0}/0",
        "redis+sentinel://127.0.0.1:{0},localhost:{0},127.0.0.2:{0}/service",
        "redis+cluster://127.0.0.1:{0},localhost:{0}",
        "mongodb://127.0.0.1:{0}/",
    ],
)
def test_threads_do_not_wait_for_a_mute_server_one_after_the_other(mute, uri):
    with (
        closing(connect(uri.format(mute), timeout=TIMEOUT)) as driver,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        for act in (post, count):
            found = list(threads.map(lambda _, act=act: refusal(act, driver), range(THREADS)))
            assert {kind for kind, _ in found} == {StoreUnavailable}
            assert max(seconds for _, seconds in found) < BOUND


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_post_whose_answer_is_lost_is_not_sent_again(tmp_path, scheme):
    name, make = {
        "redis": ("redis", servers.redis_server),
        "redis+cluster": ("redis-cluster", servers.redis_cluster),
    }[scheme]
    store = servers.shared(name, make)
    with closing(connect(store.uri(tmp_path), timeout=TIMEOUT)) as driver:
        post(driver)
        for process in store.processes:
            process.pause()
        try:
            kind, seconds = refusal(post, driver)
        finally:
            for process in store.processes:
                process.resume()
        assert kind is StoreUnavailable
        assert seconds < BOUND
        servers.eventually(store.ready)
        servers.eventually(lambda: count(driver) == 2)
        post(driver)
        assert count(driver) == 3


def test_what_no_replica_confirms_is_refused_in_time(tmp_path):
    with closing(connect(f"{servers.redis_uri(tmp_path)}&wait_replicas=1", timeout=TIMEOUT)) as driver:
        kind, seconds = refusal(post, driver)
        assert kind is StoreUnavailable
        assert seconds < BOUND
        assert count(driver) == 1  # it may have been done, and to look is no promise
        assert refusal(lambda: driver.messages.delete(QUEUE, "0" * 32, now=0))[0] is StoreUnavailable
        durability = driver.messages.durability()
    assert durability.facts["wait_replicas"] == "1"
    assert durability.facts["replicas"] == "0"
    assert [warning for warning in durability.warnings if "what is written is refused" in warning]


@pytest.mark.parametrize("uri", ["redis+sentinel://{}/service", "redis+cluster://{}"])
def test_where_a_server_can_fail_over_a_replica_is_waited_for(uri):
    with closing(RedisLink(uri.format("127.0.0.1:1"), timeout=TIMEOUT)) as link:
        assert link.wait_replicas == 1


def test_a_cluster_without_waiting_for_replicas_says_what_that_costs(tmp_path):
    with closing(connect(servers.redis_cluster_uri(tmp_path))) as driver:
        durability = driver.messages.durability()
    assert durability.facts["mode"] == "cluster"
    assert [warning for warning in durability.warnings if "wait_replicas is 0" in warning]


def test_a_slot_that_moves_is_refused_and_then_found_where_it_went(tmp_path):
    nodes = servers.shared("redis-cluster", servers.redis_cluster).processes
    clients = [redis.Redis(port=node.port) for node in nodes]
    ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
    slot = key_slot(f"{{{shard_of(QUEUE)}}}".encode())
    source = slot * 3 // 16384
    target = (source + 1) % 3
    everything = Selection(limit=10, include_claimed=True)

    def move(start, end):
        clients[end].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[start])
        clients[start].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[end])
        yield
        while keys := clients[start].execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
            clients[start].execute_command(
                "MIGRATE", "127.0.0.1", nodes[end].port, "", 0, 5000, "KEYS", *keys
            )
            yield
        for client in (clients[end], clients[start], *clients):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[end])

    with closing(connect(servers.redis_cluster_uri(tmp_path), timeout=TIMEOUT)) as driver:
        posted = [*post(driver), *post(driver)]
        for start, end in ((source, target), (target, source)):
            # Half a queue here and half there is neither read nor changed, nor made anew.
            for _ in move(start, end):
                assert refusal(post, driver)[1] < BOUND
            posted += post(driver)
            found = driver.messages.list(QUEUE, everything, now=driver.messages.clock())
            assert [message.id for message in found] == posted
    for client in clients:
        with suppress(redis.RedisError):
            client.close()


def test_a_connection_that_is_in_use_when_the_store_is_closed_is_closed_when_it_is_not(tmp_path):
    uri = servers.redis_uri(tmp_path)
    link = RedisLink(uri, timeout=TIMEOUT)
    key = f"{link.prefix}:nothing"
    with ThreadPoolExecutor(1) as threads, redis.Redis.from_url(uri.partition("?")[0]) as other:

        def waiting():
            return [each for each in other.client_list() if each["cmd"] == "blpop"]

        answer = threads.submit(link.read, key, "BLPOP", key, 0.4)
        servers.eventually(waiting)
        link.close()
        assert answer.result() is None
        assert waiting() == []
