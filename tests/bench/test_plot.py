"""Plots are SVG that needs nothing from elsewhere."""

import re
from xml.etree import ElementTree

from bench import plot
from bench.fleet import Result, Score
from bench.rows import Row


def row(name, *, line="", at=None):
    score = Score(operations=1000, messages=1000)
    score.record(number / 1000 for number in range(1, 1001))
    return Row(name=name, result=Result(seconds=1.0, roles={"": score}), line=line, at=at)


def texts(path):
    return {element.text for element in ElementTree.parse(path).iter() if element.text}


def test_latencies_are_drawn_as_far_as_there_were_operations(tmp_path):
    plot.latencies(tmp_path / "a.svg", "post", [row("ours"), row("theirs")])

    drawn = texts(tmp_path / "a.svg")
    assert {"post", "ours", "theirs", "0 %", "90 %", "99 %", "99.9 %", "latency, ms"} <= drawn
    assert "99.99 %" not in drawn
    assert not re.search(r"(src|href)=.(?!#)", (tmp_path / "a.svg").read_text())


def test_growth_is_drawn_where_there_is_some(tmp_path):
    assert not plot.growth(tmp_path / "b.svg", "post", [row("ours")])
    assert not (tmp_path / "b.svg").exists()

    rows = [row(f"{n} connections", line="messages per second", at=n) for n in (1, 8)]
    assert plot.growth(tmp_path / "b.svg", "post", rows)
    assert {"connections", "messages per second", "1", "8"} <= texts(tmp_path / "b.svg")


def test_the_growth_of_several_things_is_drawn_by_their_medians(tmp_path):
    rows = [row(line, line=line, at=n) for line in ("post", "claim") for n in (1_000, 10_000)]

    assert plot.growth(tmp_path / "c.svg", "depth", rows)
    assert {"median, ms", "messages in the queue", "post", "claim", "10,000"} <= texts(tmp_path / "c.svg")
