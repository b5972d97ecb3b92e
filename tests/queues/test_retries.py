from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues.errors import Invalid
from queues.retries import LONGEST_DELAY, MOST_RETRIES, RetryPolicy, jitter, parse, policy_for

LINEAR = [5, 10, 15, 20, 25]
OURS = {"delays": [1]}
THEIRS = {"delays": [2]}
FIXED = {"ignore_subscription_override": True}


def only_the_series(function: str, low: int, high: int) -> list[int]:
    policy = parse(
        {
            "retries_with_no_delay": 0,
            "minimum_delay_retries": 0,
            "minimum_delay": low,
            "maximum_delay": high,
            "maximum_delay_retries": 0,
            "retry_backoff_function": function,
        }
    )
    return list(policy.delays())


class TestSeries:
    @pytest.mark.parametrize(
        ("function", "low", "high", "series"),
        [
            ("exponential", 10, 60, [10, 12, 14, 18, 22, 27, 33, 40, 49, 60]),
            ("geometric", 20, 80, [20, 22, 25, 29, 33, 37, 42, 48, 54, 62, 70, 80]),
            ("arithmetic", 30, 100, [30, 30, 32, 34, 37, 41, 46, 51, 57, 64, 72, 80, 90, 100]),
            ("linear", 5, 30, LINEAR),
            ("geometric", 5, 30, [5, 7, 12, 19, 30]),
            ("exponential", 5, 30, [5, 7, 12, 19, 30]),
            ("arithmetic", 5, 30, [5, 7, 12, 20, 30]),
        ],
    )
    def test_the_vectors_of_the_protocol(self, function, low, high, series):
        assert only_the_series(function, low, high) == series

    @pytest.mark.parametrize("function", ["linear", "arithmetic", "geometric", "exponential"])
    @given(low=st.integers(0, 10**30), spread=st.integers(10, 10**30))
    def test_e12_it_stays_between_the_delays_for_all_numbers(self, function, low, spread):
        series = only_the_series(function, low, low + spread)
        assert len(series) <= MOST_RETRIES
        assert series == sorted(series)
        # Powers of floating-point numbers may be off by one second once they are cut.
        assert all(min(low, LONGEST_DELAY) - 1 <= wait <= min(low + spread, LONGEST_DELAY) for wait in series)


class TestPhases:
    def test_the_defaults(self):
        waits = [0, 0, 0, 5, 5, 5, *LINEAR, 30, 30, 30]
        assert list(parse({}).delays()) == waits
        assert parse(None) == parse({}) == parse({"minimum_delay": None, "unknown": "ignored"})

    def test_each_wait_follows_the_attempt_that_failed(self):
        policy = parse({"delays": [0, 5, 300]})
        assert [policy.next_delay(attempt) for attempt in (1, 2, 3, 4, 5)] == [0, 5, 300, None, None]

    def test_attempts_are_counted_from_one(self):
        with pytest.raises(ValueError, match="counted from 1"):
            parse({}).next_delay(0)

    def test_no_retries_at_all(self):
        assert parse({"delays": []}).next_delay(1) is None

    def test_an_endless_policy_ends(self):
        policy = parse({"retries_with_no_delay": 10**18, "maximum_delay": 10**400})
        assert policy.next_delay(MOST_RETRIES) == 0
        assert policy.next_delay(MOST_RETRIES + 1) is None


class TestPrecedence:
    @pytest.mark.parametrize(
        ("queue", "subscription", "waits"),
        [
            (OURS, THEIRS, (2,)),
            (OURS, None, (1,)),
            (OURS, {}, (1,)),
            (None, THEIRS, (2,)),
            (None, None, parse({}).waits),
            (OURS | FIXED, THEIRS, (1,)),
            (OURS, THEIRS | FIXED, (1,)),
            (None, THEIRS | FIXED, parse({}).waits),
            (OURS | {"ignore_subscription_override": None}, THEIRS, (2,)),
        ],
    )
    def test_which_policy_counts(self, queue, subscription, waits):
        assert policy_for(queue, subscription) == RetryPolicy(waits=waits)


class TestValidation:
    @pytest.mark.parametrize(
        ("document", "named"),
        [
            ([], "must be an object"),
            ("linear", "must be an object"),
            ({"retries_with_no_delay": -1}, "retries_with_no_delay must"),
            ({"minimum_delay_retries": "3"}, "minimum_delay_retries must"),
            ({"maximum_delay_retries": True}, "maximum_delay_retries must"),
            ({"minimum_delay": 1.5}, "minimum_delay must"),
            ({"maximum_delay": {}}, "maximum_delay must"),
            ({"maximum_delay": 14}, "at least 10 seconds more"),
            ({"minimum_delay": 21}, "at least 10 seconds more"),
            ({"retry_backoff_function": "cubic"}, "linear, arithmetic, geometric, exponential"),
            ({"retry_backoff_function": []}, "linear, arithmetic, geometric, exponential"),
            ({"ignore_subscription_override": 1}, "ignore_subscription_override must"),
            ({"delays": 5}, "delays must be a list"),
            ({"delays": [5, -1]}, "delays must be a list"),
            ({"delays": [5, 1.0]}, "delays must be a list"),
            ({"delays": [False]}, "delays must be a list"),
            ({"delays": [LONGEST_DELAY + 1]}, "delays must be a list"),
            ({"delays": [0] * (MOST_RETRIES + 1)}, "at most"),
        ],
    )
    def test_the_answer_names_what_is_wrong(self, document, named):
        with pytest.raises(Invalid, match=named):
            parse(document)


class TestJitter:
    @given(delay=st.integers(0, LONGEST_DELAY), seed=st.integers())
    def test_it_stays_within_a_fifth(self, delay, seed):
        assert delay * 0.79 <= jitter(delay, Random(seed)) <= delay * 1.21

    def test_at_once_stays_at_once(self):
        assert jitter(0, Random(1)) == 0

    def test_it_varies(self):
        random = Random(1)
        assert len({jitter(100, random) for _ in range(50)}) > 40
