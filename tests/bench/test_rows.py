"""The arithmetic of results: shares of connections, percentiles, time per message."""

from array import array
from collections import Counter

import pytest

from bench.client import Count, Tally
from bench.fleet import Result, Score, merged, shares
from bench.rows import Row, at, by_role, cpu_each, document, latencies_of, rate, text
from bench.usage import Usage


def tally(name="post", latencies=(), **values):
    return Tally(counts={name: Count(latencies=array("d", latencies), **values)}, cpu=0.5, memory=100)


@pytest.mark.parametrize(
    ("connections", "processes", "parts"),
    [(8, 2, [4, 4]), (7, 2, [3, 4]), (1, 2, [1]), (3, 5, [1, 1, 1])],
)
def test_every_connection_belongs_to_one_process(connections, processes, parts):
    found = shares(connections, processes)

    assert sorted(map(len, found)) == parts
    assert sorted(number for share in found for number in share) == list(range(connections))


def test_processes_are_added_up():
    first = tally(latencies=[0.001] * 90, operations=90, messages=900)
    second = tally(latencies=[0.1] * 10, operations=10, messages=100, empty=3)
    second.errors["broken"] += 2

    result = merged([first, second], 2.0, {"server": Usage(cpu=3.0, memory=7)})

    assert (result.operations, result.messages, result.rate) == (100, 1000, 500)
    assert result.errors == {"broken": 2}
    assert result.roles["post"].empty == 3
    assert at(latencies_of(result), 50) == pytest.approx(1, rel=0.001)
    assert at(latencies_of(result), 90) == pytest.approx(1, rel=0.001)
    assert at(latencies_of(result), 99) == pytest.approx(100, rel=0.001)
    assert cpu_each(result, "client") == pytest.approx(1000)
    assert cpu_each(result, "server") == pytest.approx(3000)
    assert cpu_each(result) == pytest.approx(4000)
    assert cpu_each(result, "store") is None
    assert result.used["client"].memory == 200


def test_slices_are_added_up_and_the_rate_is_that_of_the_middle_one():
    whole = Result()
    for messages in (100, 400, 200):
        part = merged([tally(latencies=[0.01], operations=1, messages=messages)], 1.0, {})
        whole.add(part)
    row = Row(name="a", result=whole, slices=[100, 400, 200])

    assert rate(row) == 200
    assert whole.rate == pytest.approx(700 / 3)
    assert whole.used["client"].cpu == pytest.approx(1.5)


def test_nothing_at_all_is_a_row_too():
    row = Row(name="nothing", result=Result(seconds=1.0, roles={"post": Score()}))

    assert "nothing" in text([row])
    assert document(row)["messages_per_second"] == 0


def test_a_row_tells_of_errors_and_of_what_was_not_there():
    result = Result(seconds=1.0, roles={"a": Score(empty=5)}, errors=Counter({"broken": 2}))

    printed = text([Row(name="claims", result=result)])

    assert "claims: 2 times: broken" in printed
    assert "claims: found nothing 5 times" in printed


def test_roles_have_rows_of_their_own_where_there_are_several():
    def row(*roles):
        scores = {role: Score(operations=1, messages=number) for number, role in enumerate(roles)}
        return Row(name="mixed", result=Result(seconds=1.0, roles=scores))

    assert [each.name for each in by_role(row("post"))] == ["mixed"]
    assert [each.name for each in by_role(row("post", "take"))] == ["mixed", "mixed: post", "mixed: take"]
    assert [each.result.messages for each in by_role(row("post", "take"))] == [1, 0, 1]
