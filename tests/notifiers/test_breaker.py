import pytest

from notifiers.breaker import Breaker, BreakerSettings, Circuit, Host, Target, circuits_of, works_after
from notifiers.outcome import Kind, Outcome

HERE, THERE = Target("s1", "https://a.example/1"), Target("s2", "https://a.example/2")
HOST = Host("https", "a.example", 443)
FINE = Outcome(kind=Kind.DELIVERED, status=204, reached=True)
DOWN = Outcome(kind=Kind.RETRY, status=503, reached=True)
ABSENT = Outcome(kind=Kind.RETRY, reached=False)
SETTINGS = BreakerSettings(
    failures=3, pause=10, growth=2, longest_pause=35, probe_timeout=60, most_circuits=4
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


def fail(breaker: Breaker, *circuits: Circuit, times: int = 3, outcome: Outcome = DOWN) -> None:
    for _ in range(times):
        assert breaker.admit(*circuits or [HERE]) == 0
        breaker.report(outcome, *circuits or [HERE])


class TestOpening:
    def test_it_takes_failures_in_a_row(self, breaker):
        fail(breaker, times=2)
        breaker.report(FINE, HERE)
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
        breaker.report(DOWN, HERE)
        assert breaker.admit(HERE) == 10


class TestProbing:
    def test_one_at_a_time(self, breaker, clock):
        fail(breaker)
        clock.now += 9
        assert breaker.admit(HERE) == 1
        clock.now += 1
        assert breaker.admit(HERE) == 0
        assert breaker.admit(HERE) > 0
        breaker.report(FINE, HERE)
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
        breaker.report(None, HERE)
        assert breaker.admit(HERE) == 0

    def test_a_probe_never_heard_of_makes_room_in_the_end(self, breaker, clock):
        fail(breaker)
        clock.now += 10
        assert breaker.admit(HERE) == 0
        clock.now += 59
        assert breaker.admit(HERE) > 0
        clock.now += 1
        assert breaker.admit(HERE) == 0


class TestTwoCircuits:
    def test_an_endpoint_that_fails_costs_the_others_of_its_host_nothing(self, breaker):
        fail(breaker, HOST, HERE)
        assert breaker.admit(HOST, HERE) == 10
        assert breaker.admit(HOST, THERE) == 0

    def test_a_host_that_is_not_there_is_left_alone_by_all(self, breaker):
        fail(breaker, HOST, HERE, times=2, outcome=ABSENT)
        fail(breaker, HOST, THERE, times=1, outcome=ABSENT)
        assert breaker.admit(HOST, HERE) == breaker.admit(HOST, THERE) == 10
        assert not breaker.is_open(HERE, THERE)

    def test_a_host_that_is_there_again_is_for_all(self, breaker, clock):
        fail(breaker, HOST, HERE, outcome=ABSENT)
        clock.now += 10
        assert breaker.admit(HOST, HERE) == 0
        breaker.report(DOWN, HOST, HERE)
        assert breaker.admit(HOST, THERE) == breaker.admit(HOST, HERE) == 0

    def test_who_is_held_back_by_one_is_no_probe_of_the_other(self, breaker, clock):
        fail(breaker, HOST, HERE)
        fail(breaker, HOST, THERE, outcome=ABSENT)
        clock.now += 10
        assert breaker.admit(HOST, THERE) == 0  # the probe of the host
        assert breaker.admit(HOST, HERE) > 0
        breaker.report(FINE, HOST, THERE)
        assert breaker.admit(HOST, HERE) == 0  # the probe of the subscription

    def test_who_waits_for_a_probe_looks_again_soon(self, breaker, clock):
        for _ in range(3):
            clock.now += 40
            fail(breaker, times=1 if breaker.is_open(HERE) else 3)
        clock.now += 40
        assert breaker.admit(HERE) == 0
        assert breaker.admit(HERE) == 10

    def test_attempts_that_were_not_admitted_count_when_they_get_through(self, breaker):
        fail(breaker)
        breaker.report(DOWN, HERE)
        assert breaker.admit(HERE) == 10
        breaker.report(FINE, HERE)
        assert breaker.admit(HERE) == 0

    def test_what_has_no_circuit_is_never_held_back(self, breaker):
        assert breaker.admit() == 0
        assert not breaker.is_open()


def test_memory_is_bounded(breaker):
    hosts = [Host("http", f"{number}.example", 80) for number in range(6)]
    for host in hosts:
        fail(breaker, host, outcome=ABSENT)
    assert [breaker.is_open(host) for host in hosts] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("outcome", "host", "target"),
    [
        (FINE, True, True),
        (DOWN, True, False),
        (ABSENT, False, None),
        (Outcome(kind=Kind.RETRY), None, False),  # nothing was asked of the host
        (Outcome(kind=Kind.RETRY, reached=True), True, False),
        (Outcome(kind=Kind.RETRY, status=429, reached=True), True, None),
        (Outcome(kind=Kind.REJECTED, status=404, reached=True), True, True),
        (Outcome(kind=Kind.REJECTED), None, None),
        (Outcome(kind=Kind.GONE, status=410, reached=True), True, True),
    ],
)
def test_what_an_outcome_tells(outcome, host, target):
    assert (works_after(outcome, HOST), works_after(outcome, HERE)) == (host, target)


@pytest.mark.parametrize(
    ("subscriber", "host"),
    [
        ("https://a.example/x?y", HOST),
        ("trust+https://A.example:443/", HOST),
        ("http://[::1]:81/", Host("http", "::1", 81)),
        ("mailto:a@b.example", None),
        ("http://", None),
        ("http://[", None),
    ],
)
def test_circuits(subscriber, host):
    assert circuits_of("s", subscriber) == (() if host is None else (host, Target("s", subscriber)))
