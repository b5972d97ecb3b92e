"""What has changed from one file to another."""

from bench.compare import text
from bench.fleet import Result, Score
from bench.rows import Row, document


def row(name, messages):
    score = Score(operations=messages, messages=messages)
    score.record([0.001] * messages)
    return document(Row(name=name, result=Result(seconds=2.0, roles={"": score})))


def file(*rows, figures=(), **conditions):
    return {"conditions": conditions, "rows": rows, "figures": figures}


def figure(ratio, **columns):
    return {"table": "Depth", "load": "post 1", "columns": columns, "ratio": ratio}


def line(printed, *words):
    (found,) = (each for each in printed.splitlines() if all(word in each for word in words))
    return found.split()


def test_rows_of_the_same_name_are_compared():
    printed = text(file(row("post", 100)), file(row("post", 150)))

    assert line(printed, "messages/s")[-3:] == ["50", "75", "1.50"]
    assert line(printed, "p99")[-3:] == ["1.00", "1.00", "1.00"]


def test_figures_are_compared_too():
    printed = text(
        file(figures=[figure(1.0, small=10.0, steps=None)]),
        file(figures=[figure(1.2, small=5.0, steps=None)]),
    )

    assert line(printed, "small")[-1] == "0.50"
    assert line(printed, "ratio", "Depth")[-1] == "1.20"
    assert "steps" not in printed


def test_conditions_that_differ_are_pointed_out_but_those_that_always_do():
    before = file(row("post", 1), cores=2, date="yesterday", store={"synchronous": "full"})
    after = file(row("post", 1), cores=2, date="today", store={"synchronous": "normal"})

    printed = text(before, after)

    assert "store, synchronous: full before, normal after" in printed
    assert "date" not in printed
    assert "cores" not in printed


def test_what_is_in_one_of_them_only_is_named():
    printed = text(file(row("post", 1), row("old", 1)), file(row("post", 1), row("new", 1)))

    assert "In one of them only: new, old" in printed
    assert text(file(), file()) == "There is nothing in both of them."
