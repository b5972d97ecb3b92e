"""Redis: who watches is told over one connection, which breaks, falls silent, and leads to servers that are replaced."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.connection import Connection

from queues.errors import StoreUnavailable
from queues.ports import Driver
from storage.redis_keys import channel
from storage.redis_link import RedisLink
from storage.registry import connect
from tests import servers
from tests.acceptance.faults import Proxy
from tests.servers import Process, Store
from tests.storage.probe import HOME, Clock, Probe
from tests.storage.test_watching import Bell, settle

TIMEOUT = 1.0  # seconds
OFTEN = 0.2  # seconds between two looks at the connection
PATIENTLY = 0.5  # the same, where the server has to answer meanwhile, on a busy machine


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return servers.shared("redis", servers.redis_server).uri(tmp_path)


@pytest.fixture
def driver(uri: str, clock: Clock) -> Iterator[Driver]:
    with closing(connect(uri, timeout=TIMEOUT, clock=clock)) as opened:
        yield opened


@pytest.fixture
def queue(driver: Driver, clock: Clock) -> Probe:
    return Probe(driver.messages, clock)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the connection be looked at often."""
    monkeypatch.setattr("storage.redis_listener._CHECK", OFTEN)


def watch(probe: Probe) -> Bell:
    """Watch the queue; the watch is in force."""
    bell = Bell()
    probe.store.watch(probe.address, bell)
    assert bell.heard()
    return bell


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "redis-listener"]


def by_port(uri: str, process: Process, port: int) -> str:
    """Return a URI that leads to the same server by another port."""
    return uri.replace(f":{process.port}/", f":{port}/")


def prefix_of(uri: str) -> str:
    return uri.rpartition("prefix=")[2]


def hears(process: Process, uri: str) -> bool:
    """Whether somebody watches the queue at this server."""
    with closing(redis.Redis(port=process.port, socket_timeout=TIMEOUT)) as client:
        return is_heard(client, uri)


def is_heard(client: Any, uri: str) -> bool:
    """Whether somebody watches the queue at the server of this connection."""
    return bool(client.pubsub_numsub(channel(prefix_of(uri), HOME, 0))[0][1])


def posted(queue: Probe) -> Callable[[], bool]:
    """Return what posts, unless the store is not to be had now."""

    def attempt() -> bool:
        with suppress(StoreUnavailable):
            queue.post("a")
            return True
        return False

    return attempt


def test_nothing_listens_before_the_first_watch(queue):
    queue.post("a")

    assert listeners() == []


@pytest.mark.usefixtures("often")
def test_nothing_listens_when_nothing_has_been_watched_for_a_while(queue, monkeypatch):
    bell = Bell()
    end = queue.store.watch(queue.address, bell)
    assert bell.heard()
    monkeypatch.setattr("storage.redis_listener._LINGER", 0)
    end()

    servers.eventually(lambda: not listeners(), seconds=10)

    bell = watch(queue)
    queue.post("a")
    assert bell.heard()


def test_a_watch_does_not_wait_for_a_server_that_says_nothing(clock):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        driver = connect(f"redis://127.0.0.1:{mute.getsockname()[1]}/0", timeout=60.0, clock=clock)
        started = time.monotonic()
        for number in range(100):
            probe = Probe(driver.messages, clock).other(str(number))
            driver.messages.watch(probe.address, Bell())()
        driver.close()
        assert time.monotonic() - started < 10


def test_a_watch_of_a_server_that_is_not_there_begins_when_it_comes(tmp_path, clock):
    store = servers.redis_server()
    try:
        with closing(connect(store.uri(tmp_path), timeout=TIMEOUT, clock=clock)) as driver:
            queue, bell = Probe(driver.messages, clock), Bell()
            queue.store.watch(queue.address, bell)
            assert bell.silent()

            store.start()

            assert bell.heard()
            queue.post("a")
            assert bell.heard()
    finally:
        store.stop()


def test_a_watch_is_in_force_long_before_the_connection_is_looked_at(queue, monkeypatch):
    monkeypatch.setattr("storage.redis_listener._CHECK", 60.0)
    watch(queue)

    watch(queue.other())


@pytest.mark.usefixtures("often")
def test_a_connection_that_fell_silent_is_given_up(uri, queue, clock, monkeypatch):
    process = servers.shared("redis", servers.redis_server).processes[0]
    connections = []

    def listen(link: RedisLink) -> Connection:
        connections.append(link)
        return kept(link)

    kept = RedisLink.listen
    monkeypatch.setattr(RedisLink, "listen", listen)
    with (
        Proxy(process.port) as proxy,
        closing(connect(by_port(uri, process, proxy.port), timeout=TIMEOUT, clock=clock)) as driver,
    ):
        bell = watch(Probe(driver.messages, clock))
        proxy.hold()
        servers.eventually(lambda: len(connections) > 1)
        queue.post("a")
        bell.forget()

        proxy.forward()

        assert bell.heard()


def test_watches_come_and_go_in_many_threads(queue):
    def work(number: int) -> None:
        probe = queue.other(f"q{number % 3}")
        for _ in range(50):
            bell = Bell()
            end = probe.store.watch(probe.address, bell)
            assert bell.heard()
            bell.forget()
            probe.post("a")
            assert bell.heard()
            end()

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(12)))

    assert len(listeners()) == 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_either_protocol_will_do(uri, clock, protocol):
    with closing(connect(f"{uri}&protocol={protocol}", clock=clock)) as driver:
        queue = Probe(driver.messages, clock)
        bell = watch(queue)
        settle(queue, bell)
        for _ in range(3):
            queue.post("a")
            assert bell.heard()


@pytest.mark.parametrize("protocol", [2, 3])
def test_an_answer_to_a_ping_is_enough(uri, clock, protocol, monkeypatch):
    monkeypatch.setattr("storage.redis_listener._CHECK", PATIENTLY)
    address = uri.rpartition("prefix=")[0].rstrip("?&")
    with (
        closing(connect(f"{uri}&protocol={protocol}", clock=clock)) as driver,
        closing(redis.Redis.from_url(address)) as client,
    ):
        queue = Probe(driver.messages, clock)
        bell = watch(queue)
        before = client.client_list("pubsub")
        with client.monitor() as monitor:
            for _ in range(3):
                while monitor.next_command()["command"] != "PING":
                    pass

        assert [each["id"] for each in client.client_list("pubsub")] == [each["id"] for each in before]
        assert bell.silent()


def test_the_same_queue_in_another_database_is_another_one(uri, clock):
    with closing(connect(uri.replace("/0?", "/1?"), clock=clock)) as other, closing(connect(uri)) as driver:
        queue, stranger = Probe(driver.messages, clock), Probe(other.messages, clock)
        bell, theirs = watch(queue), watch(stranger)

        stranger.post("a")
        assert theirs.heard()

        settle(queue, bell)
        assert bell.silent()
        stranger.drop()


def test_a_post_by_who_may_not_publish_is_a_post(uri, clock):
    address = uri.rpartition("prefix=")[0].rstrip("?&")
    with closing(redis.Redis.from_url(address)) as client:
        client.acl_setuser(
            "reader", enabled=True, reset=True, passwords=["+x"], keys=["*"], categories=["+@all"]
        )
        client.execute_command("ACL", "SETUSER", "reader", "resetchannels")
        try:
            with closing(connect(uri.replace("://", "://reader:x@"), clock=clock)) as driver:
                queue = Probe(driver.messages, clock)
                bell = Bell()
                queue.store.watch(queue.address, bell)
                queue.post("a")
                assert queue.counts() == (1, 0, 1)
                assert bell.silent()
                client.execute_command("ACL", "SETUSER", "reader", "allchannels")
                assert bell.heard()
        finally:
            client.acl_deluser("reader")


def test_who_reads_too_slowly_is_disconnected_and_told_of_everything(uri, queue, clock):
    process = servers.shared("redis", servers.redis_server).processes[0]
    with (
        Proxy(process.port) as proxy,
        closing(redis.Redis(port=process.port)) as client,
        closing(connect(by_port(uri, process, proxy.port), clock=clock)) as slow,
    ):
        kept = client.config_get("client-output-buffer-limit")["client-output-buffer-limit"] or ""
        bell = watch(Probe(slow.messages, clock))
        client.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
        try:
            proxy.hold()
            while client.publish(channel(prefix_of(uri), HOME, 0), "x" * 1_000_000):
                pass
            queue.post("a")
            bell.forget()
        finally:
            client.config_set("client-output-buffer-limit", kept)

        proxy.forward()

        assert bell.heard()
        servers.eventually(lambda: hears(process, uri))
        bell.forget()
        queue.post("b")
        assert bell.heard()


@pytest.fixture
def cluster() -> Store:
    return servers.shared("redis-cluster", servers.redis_cluster)


@pytest.fixture
def spread(cluster: Store, tmp_path: Path, clock: Clock) -> Iterator[Probe]:
    """A queue of a cluster."""
    with closing(connect(cluster.uri(tmp_path), timeout=TIMEOUT, clock=clock)) as driver:
        yield Probe(driver.messages, clock)


def test_a_cluster_is_listened_at_another_node_when_one_ends_the_connection(cluster, spread, tmp_path):
    uri = cluster.uri(tmp_path)
    bell = watch(spread)
    for _ in range(4):
        (node,) = (each for each in cluster.processes if hears(each, uri))
        with closing(redis.Redis(port=node.port)) as client:
            client.client_kill_filter(_type="pubsub")

        assert bell.heard()
        assert not hears(node, uri)
        spread.post("a")
        assert bell.heard()


@pytest.mark.usefixtures("often")
def test_a_node_that_is_out_of_touch_with_the_others_is_left(cluster, spread, tmp_path):
    uri = cluster.uri(tmp_path)
    bell = watch(spread)
    (node,) = (each for each in cluster.processes if hears(each, uri))
    others = [each for each in cluster.processes if each is not node]
    for each in others:
        each.pause()
    try:
        servers.eventually(lambda: not hears(node, uri), seconds=20)
    finally:
        for each in others:
            each.resume()
    servers.eventually(cluster.ready)
    bell.forget()

    servers.eventually(posted(spread))

    assert bell.heard()


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Store]:
    """A master with replicas that nobody else uses."""
    store = servers.redis_sentinel(3)
    try:
        store.start()
        yield store
    finally:
        store.stop()


@pytest.fixture
def master(sentinel: Store) -> Process:
    servers.eventually(sentinel.ready)
    found = sentinel.leader()
    assert found is not None
    return found


@pytest.fixture
def replicated(sentinel: Store, tmp_path: Path, clock: Clock) -> Iterator[Probe]:
    """A queue of which there are copies."""
    with closing(connect(sentinel.uri(tmp_path), timeout=TIMEOUT, clock=clock)) as driver:
        yield Probe(driver.messages, clock)


def follows(sentinel: Store, uri: str, queue: Probe, bell: Bell, *, former: Process) -> None:
    """See another server become the master, and a post there be told."""
    servers.eventually(lambda: sentinel.leader() not in (None, former))
    bell.forget()
    servers.eventually(posted(queue))
    assert bell.heard()
    found: Any = sentinel.leader()
    servers.eventually(lambda: hears(found, uri))
    bell.forget()
    queue.post("b")
    assert bell.heard()


def test_a_master_that_dies_is_listened_at_no_more(sentinel, master, replicated, tmp_path):
    bell = watch(replicated)
    master.kill()
    try:
        follows(sentinel, sentinel.uri(tmp_path), replicated, bell, former=master)
    finally:
        master.start()


@pytest.mark.usefixtures("often")
def test_a_master_that_is_paused_is_listened_at_no_more(sentinel, master, replicated, tmp_path):
    bell = watch(replicated)
    master.pause()
    try:
        follows(sentinel, sentinel.uri(tmp_path), replicated, bell, former=master)
    finally:
        master.resume()


@pytest.mark.usefixtures("often")
def test_a_master_that_was_replaced_unawares_is_listened_at_no_more(sentinel, master, replicated, tmp_path):
    bell = watch(replicated)
    with closing(redis.Redis(port=master.port)) as client:
        client.ping()
        # From now on it answers to who is connected, and to no sentinel.
        client.config_set("requirepass", "x")
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            assert is_heard(client, sentinel.uri(tmp_path))
            follows(sentinel, sentinel.uri(tmp_path), replicated, bell, former=master)
            assert not is_heard(client, sentinel.uri(tmp_path))
        finally:
            client.config_set("requirepass", "")
    servers.eventually(sentinel.ready)
