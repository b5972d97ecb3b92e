import pytest

from notifiers.breaker import Breaker, BreakerSettings, Endpoint, endpoint_of, works_after
from notifiers.outcome import Kind, Outcome

HERE, THERE = Endpoint("https", "a.example", 443), Endpoint("https", "b.example", 443)
FINE = Outcome(kind=Kind.DELIVERED, status=204)
DOWN = Outcome(kind=Kind.RETRY, status=503)
SETTINGS = BreakerSettings(
    failures=3, pause=10, growth=2, longest_pause=35, probe_timeout=60, most_endpoints=4
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(SETTINGS, clock)


def fail(breaker: Breaker, endpoint: Endpoint = HERE, times: int = 3) -> None:
    for _ in range(times):
        assert breaker.admit(endpoint) == 0
        breaker.report(endpoint, DOWN)


class TestOpening:
    def test_it_takes_failures_in_a_row(self, breaker):
        fail(breaker, times=2)
        breaker.report(HERE, FINE)
        fail(breaker, times=2)
        assert not breaker.is_open(HERE)
        fail(breaker, times=1)
        assert breaker.is_open(HERE)
        assert breaker.admit(HERE) == 10

    def test_others_are_not_held_back(self, breaker):
        fail(breaker)
        assert breaker.admit(THERE) == 0

    def test_attempts_that_began_before_do_not_count_twice(self, breaker):
        fail(breaker)
        breaker.report(HERE, DOWN)
        assert breaker.admit(HERE) == 10


class TestProbing:
    def test_one_at_a_time(self, breaker, clock):
        fail(breaker)
        clock.now += 9
        assert breaker.admit(HERE) == 1
        clock.now += 1
        assert breaker.admit(HERE) == 0
        assert breaker.admit(HERE) > 0
        breaker.report(HERE, FINE)
        assert [breaker.admit(HERE) for _ in range(3)] == [0, 0, 0]
        assert not breaker.is_open(HERE)

    def test_the_pause_grows_up_to_the_longest(self, breaker, clock):
        fail(breaker)
        pauses = []
        for _ in range(4):
            pauses.append(breaker.admit(HERE))
            clock.now += pauses[-1]
            fail(breaker, times=1)
        assert pauses == [10, 20, 35, 35]

    def test_a_probe_given_up_makes_room_for_another(self, breaker, clock):
        fail(breaker)
        clock.now += 10
        assert breaker.admit(HERE) == 0
        breaker.report(HERE, None)
        assert breaker.admit(HERE) == 0

    def test_a_probe_never_heard_of_makes_room_in_the_end(self, breaker, clock):
        fail(breaker)
        clock.now += 10
        assert breaker.admit(HERE) == 0
        clock.now += 59
        assert breaker.admit(HERE) > 0
        clock.now += 1
        assert breaker.admit(HERE) == 0


def test_memory_is_bounded(breaker):
    endpoints = [Endpoint("http", f"{number}.example", 80) for number in range(6)]
    for endpoint in endpoints:
        fail(breaker, endpoint)
    assert [breaker.is_open(endpoint) for endpoint in endpoints] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("outcome", "works"),
    [
        (FINE, True),
        (DOWN, False),
        (Outcome(kind=Kind.RETRY), False),
        (Outcome(kind=Kind.RETRY, status=429), None),
        (Outcome(kind=Kind.REJECTED, status=404), True),
        (Outcome(kind=Kind.REJECTED), None),
        (Outcome(kind=Kind.GONE, status=410), True),
    ],
)
def test_what_an_outcome_tells(outcome, works):
    assert works_after(outcome) is works


@pytest.mark.parametrize(
    ("subscriber", "endpoint"),
    [
        ("https://a.example/x?y", HERE),
        ("trust+https://A.example:443/", HERE),
        ("http://[::1]:81/", Endpoint("http", "::1", 81)),
        ("mailto:a@b.example", None),
        ("http://", None),
        ("http://[", None),
    ],
)
def test_endpoints(subscriber, endpoint):
    assert endpoint_of(subscriber) == endpoint
