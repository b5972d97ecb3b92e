"""More load than the service can take: it says so early, loses nothing, stays small, and is as fast as before afterwards."""

from __future__ import annotations

import statistics
import time

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.crowds import asking, is_as_fast, latency
from tests.acceptance.processes import Client, Reply, wait_until

CONNECTIONS = 60  # with two threads, and ten in line, that is five times what is let in
LINE = 10
SECONDS = 4.0
ENOUGH = 200  # answers of either kind
MEBIBYTE = 2**20


def post(client: Client) -> Reply:
    return client.post("q", ["x" * 1000])


def test_overload_is_refused_early_and_over_when_it_is_over(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1", "--threads", "2", HERMOD_API_BACKLOG=str(LINE)).start()
    before = latency(service)
    (worker,) = service.workers()
    with asking(service, CONNECTIONS, post) as crowd:
        # When the load has come up: threads and connections take memory once.
        wait_until(lambda: len(crowd.of(503)) > ENOUGH, "requests are refused")
        small = worker.memory_info().rss
        with service.client() as probe:
            begun = time.monotonic()
            while time.monotonic() - begun < SECONDS or not (crowd.of(201) and len(crowd.of(503)) > ENOUGH):
                assert time.monotonic() - begun < 10 * SECONDS
                assert probe.request("GET", "/").status == 300
        grown = worker.memory_info().rss - small

    assert crowd.lost == []
    assert {answer.status for answer in crowd.answers} == {201, 503}
    refused = crowd.of(503)
    assert {answer.retry_after for answer in refused} == {"2"}
    assert statistics.median(answer.seconds for answer in refused) < 1.5
    assert grown < 64 * MEBIBYTE
    with service.client() as client:
        assert client.request("GET", "/v2/queues/q/stats").document()["messages"]["total"] == len(
            crowd.of(201)
        )
    assert is_as_fast(service, before)


def test_a_refusal_has_the_shape_of_every_error(hermod: MakeHermod) -> None:
    service = hermod(
        "api",
        *("--workers", "1", "--threads", "1"),
        HERMOD_API_BACKLOG="0",
        HERMOD_CORS_ALLOWED_ORIGINS="*",
    ).start()
    with asking(service, 4, post), service.client() as client:
        deadline = time.monotonic() + 30
        while (reply := client.request("GET", "/v2/queues", headers={"Origin": "https://a"})).status != 503:
            assert time.monotonic() < deadline
    assert reply.document() == {
        "title": "Service temporarily unavailable",
        "description": "The request cannot be served now. Please retry in 2 seconds.",
    }
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["retry-after"] == "2"
    assert reply.headers["x-openstack-request-id"].startswith("req-")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "more requests than can be served" in service.log
    assert service.log.count("more requests than can be served") < 5
