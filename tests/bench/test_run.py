"""The workloads move what they say, on a service that is started for them; how fast is for the benchmark to tell."""

from dataclasses import replace

import pytest

from bench import fan_out, growth, waiting
from bench.rest import Target
from bench.run import CEILING, requests
from bench.services import serving
from bench.setup import Wish, setting

SHORT = Wish(workload="post", processes=1, connections=(2,), seconds=0.3, warm_up=0.0, stock=50, waiters=4)


@pytest.fixture(scope="module")
def place():
    with setting(SHORT) as found:
        yield found


def doing(place, workload, **values):
    return replace(place, wish=replace(place.wish, workload=workload, **values))


def names(findings):
    return [row.name for row in findings.rows]


def test_a_load_is_compared_with_the_yardsticks_and_the_client_itself(place):
    found = requests(doing(place, "post-batch", yardsticks=True))

    assert names(found) == ["post-batch", CEILING, "falcon, nothing", "sqlite3"]
    assert all(row.result.messages and not row.result.errors for row in found.rows)
    assert set(found.rows[0].result.used) == {"server", "client"}


@pytest.mark.parametrize("workload", ["claim-delete", "list"])
def test_messages_are_there_for_those_who_take_them(place, workload):
    found = requests(doing(place, workload, ceiling=False))

    (row,) = found.rows
    assert row.result.messages >= 10
    assert not row.result.errors


def test_requests_are_timed_while_a_queue_grows(place, monkeypatch):
    monkeypatch.setattr(growth, "_SMALLEST", 100)
    monkeypatch.setattr(growth, "_ROUNDS", 2)

    found = growth.measure(doing(place, "depth", depth=500))

    assert {row.at for row in found.rows} == {100, 500}
    assert len(found.figures) == len({row.line for row in found.rows}) == 6
    assert all(figure.ratio > 0 and figure.at_most == 1.2 for figure in found.figures)


def test_clients_wait_while_others_work(place):
    found = waiting.measure(doing(place, "idle-waiters"))

    assert names(found) == ["nobody waits", "4 wait for a queue each", "4 wait for one queue"]
    assert len(found.figures) == 4
    assert not any(row.result.errors for row in found.rows)


def test_a_service_that_lets_nobody_wait_is_found_out(place):
    with serving("bench.canned") as (url, _):
        impatient = replace(place, target=Target(url=url))

        with pytest.raises(RuntimeError, match="was to wait"), waiting._waiting(impatient, ["a", "b"]):
            pass


def test_subscribers_hear_of_every_message(place):
    found = fan_out.measure(doing(place, "fan-out", rate=20.0, subscribers=2, batch=5))

    heard = {row.name: row.result for row in found.rows}
    assert list(heard) == ["webhook", "posts to webhooks", "websocket", "posts to websockets"]
    for kind in ("webhook", "websocket"):
        posts = heard[f"posts to {kind}s"].roles["post"].latencies.total_count
        assert heard[kind].messages == 2 * 5 * posts > 0
        assert not heard[kind].errors
