"""What the benchmarks print and write."""

import json
from dataclasses import replace

import pytest

from bench.conditions import conditions
from bench.report import Figure, save, text
from storage.registry import connect


@pytest.fixture
def found(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/hermod.db")
    yield conditions(store, tmp_path)
    store.close()


def figure(**values):
    return Figure(
        **{"table": "Posts", "load": "post 1", "columns": {"bare, µs": 2.5}, "ratio": 0.75, **values}
    )


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        ({}, ""),
        ({"at_most": 0.8}, "met (<= 0.8)"),
        ({"at_most": 0.7}, "MISSED (<= 0.7)"),
        ({"at_least": 0.7}, "met (>= 0.7)"),
        ({"at_least": 0.8}, "MISSED (>= 0.8)"),
    ],
)
def test_a_figure_tells_whether_its_goal_was_met(goal, verdict):
    assert figure(**goal).verdict == verdict


def test_the_text_states_the_conditions_and_a_table_for_each_subject(found):
    printed = text(
        found, [figure(), figure(load="post 10", columns={"bare, µs": 1234.5}), figure(table="Lists")]
    )

    assert "synchronous full" in printed
    assert printed.count("bare, µs") == 2
    assert "post 10     1,234   0.75" in printed


def test_the_file_holds_conditions_and_figures(found, tmp_path):
    save(tmp_path / "figures.json", found, [figure(at_most=1.2)])

    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["conditions"]["body_size"] == 200
    assert written["figures"][0]["columns"] == {"bare, µs": 2.5}
    assert written["figures"][0]["verdict"] == "met (<= 1.2)"


def test_no_condition_tells_where_the_files_are(found, tmp_path):
    assert str(tmp_path) not in text(found, [])


@pytest.mark.parametrize(("busy", "warned"), [(0.5, False), (3.0, True)])
def test_a_busy_machine_is_pointed_out(found, busy, warned):
    assert ("beware" in text(replace(found, cores=2, busy=busy), [])) is warned
