"""Token buckets: how fast a project may go."""

from __future__ import annotations

import threading

import pytest

from queues import rates as rates_module
from queues.errors import TooManyRequests
from queues.rates import Buckets, Rates


class Timer:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


def test_a_full_bucket_is_emptied_at_once_and_fills_up_with_time(timer: Timer) -> None:
    buckets = Buckets(10, 20, timer)

    assert [buckets.take("p") for _ in range(20)] == [0] * 20
    assert buckets.take("p") == pytest.approx(0.1)
    timer.now += 0.05
    assert buckets.take("p") == pytest.approx(0.05)
    timer.now += 0.05
    assert buckets.take("p") == 0
    assert buckets.take("p") == pytest.approx(0.1)


def test_a_bucket_never_holds_more_than_it_can(timer: Timer) -> None:
    buckets = Buckets(10, 5, timer)
    timer.now += 3600
    assert [buckets.take("p") for _ in range(6)] == [0, 0, 0, 0, 0, pytest.approx(0.1)]


def test_over_time_nobody_gets_more_than_the_rate(timer: Timer) -> None:
    buckets = Buckets(3, 6, timer)
    passed = 0
    for _ in range(10_000):
        timer.now += 0.01
        passed += buckets.take("p") == 0
    assert passed == pytest.approx(6 + 3 * 100, abs=1)


def test_a_slow_rate_lets_one_pass_at_a_time(timer: Timer) -> None:
    buckets = Buckets(0.1, 0.2, timer)
    assert buckets.take("p") == 0
    assert buckets.take("p") == pytest.approx(10)
    timer.now += 10.001
    assert buckets.take("p") == 0


def test_more_than_a_bucket_holds_comes_out_of_a_full_one_and_is_paid_off(timer: Timer) -> None:
    buckets = Buckets(10, 10, timer)
    assert buckets.take("p", 1) == 0
    assert buckets.take("p", 30) == pytest.approx(0.1)
    timer.now += 0.1
    assert buckets.take("p", 30) == 0
    assert buckets.take("p", 1) == pytest.approx(2.1)


def test_what_is_refused_takes_nothing(timer: Timer) -> None:
    buckets = Buckets(10, 10, timer)
    assert buckets.take("p", 8) == 0
    assert buckets.take("p", 5) > 0
    assert buckets.take("p", 2) == 0


def test_projects_have_buckets_of_their_own(timer: Timer) -> None:
    buckets = Buckets(1, 1, timer)
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0


def test_only_so_many_projects_are_remembered(timer: Timer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "_MOST", 100)
    buckets = Buckets(1, 1, timer)
    for number in range(1000):
        assert buckets.take(f"p{number}") == 0
    assert len(buckets._levels) == 100
    assert buckets.take("p999") > 0
    assert buckets.take("p0") == 0


def test_threads_together_get_no_more_than_one(timer: Timer) -> None:
    buckets = Buckets(1, 500, timer)
    passed: list[int] = []

    def run() -> None:
        passed.append(sum(buckets.take("p") == 0 for _ in range(200)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 500


def test_without_rates_nothing_is_bounded() -> None:
    rates = Rates()
    for _ in range(1000):
        rates.request("p")
        rates.post("p", 1000)


def test_who_is_too_fast_is_told_when_to_come_again_in_whole_seconds(timer: Timer) -> None:
    rates = Rates(requests=10, messages=2, saved=1, timer=timer)
    for _ in range(10):
        rates.request("p")
    with pytest.raises(TooManyRequests, match="more requests") as soon:
        rates.request("p")
    assert soon.value.seconds == 1
    rates.post("p", 20)
    with pytest.raises(TooManyRequests, match="more messages") as later:
        rates.post("p", 2)
    assert later.value.seconds == 10
