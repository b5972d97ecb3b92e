"""Goals are judged by what was measured beside them, in the same run."""

from bench import contest, goals
from bench.contest import DEEP, LUA_APP, SERVICE, Effort, Measured
from bench.fleet import Result, Score
from bench.report import Figure
from bench.rows import Row
from bench.usage import Usage


def row(*slices, cpu=1.0):
    scores = {"": Score(operations=1, messages=1000)}
    used = {"server": Usage(cpu=cpu)}
    return Row(name="", result=Result(seconds=1.0, roles=scores, used=used), slices=slices)


def measured(trials, *depth):
    figures = [Figure(table="", load=f"load {ratio}", columns={}, ratio=ratio) for ratio in depth]
    return Measured(conditions=None, trials=trials, depth=figures)  # type: ignore[arg-type]


def judge(goal, trials=None, *depth):
    words, _, met = goal.judge(measured(trials or {}, *depth))
    return met, words


SHARE = goals.Share(load="post of 1", share=0.5, of="bare")
RATE = goals.Rate(load="post of 1", rate=3_000, given=5_000)


def test_a_share_is_that_of_slices_next_to_each_other():
    # The machine was half as fast in the second round, for both.
    trials = {"post of 1": {SERVICE: row(600, 300, 630), "bare": row(1000, 500, 1050, cpu=0.25)}}

    assert judge(SHARE, trials) == (True, "60% (600 of 1,000/s; 25% by cpu)")


def test_a_share_that_is_too_small_is_missed():
    trials = {"post of 1": {SERVICE: row(490), "bare": row(1000)}}

    assert judge(SHARE, trials)[0] is False


def test_a_rate_is_less_where_the_machine_is_slower():
    def trials(ours, app):
        return {"post of 1": {SERVICE: row(ours), LUA_APP: row(app)}}

    assert judge(RATE, trials(3_000, 5_000))[0] is True
    assert judge(RATE, trials(2_999, 5_000)) == (False, "2,999/s")
    assert judge(RATE, trials(2_999, 9_000))[0] is False
    assert judge(RATE, trials(600, 1_000)) == (
        True,
        "600/s, where that reached 1,000 and 600 are as good",
    )
    assert judge(RATE, trials(599, 1_000))[0] is False


def test_the_dearest_operation_counts_on_a_deep_queue():
    goal = goals.Depth(deep=1000)

    assert judge(goal, None, 1.0, 1.2, 0.9) == (True, "1.20 (load 1.2)")
    assert judge(goal, None, 1.0, 1.21)[0] is False
    assert judge(goal)[0] is None


def test_a_store_that_is_not_there_says_so_in_every_row():
    found: dict[str, Measured | str] = {"redis": "could not run: no redis"}

    outcomes = goals.judged("redis", found["redis"])
    assert len(outcomes) == len(goals.GOALS["redis"])
    assert {each.verdict for each in outcomes} == {"not judged"}
    assert goals.text(found).count("could not run: no redis") == len(outcomes)
    assert goals.documents(found)["rows"] == []


def test_every_goal_names_what_is_measured():
    for store, wanted in goals.GOALS.items():
        for goal in wanted:
            if isinstance(goal, goals.Depth):
                assert goal.deep == DEEP[store]
                continue
            load = contest.LOADS[goal.load].name
            if isinstance(goal, goals.Share):
                assert goal.of in (*contest.BARE[store][load], LUA_APP)


def test_a_store_is_measured_in_all_respects():
    effort = Effort(seconds=0.2, slices=1, rounds=2, deep={"sqlite": 2_000})

    found = contest.measure("sqlite", effort)

    for load, trials in found.trials.items():
        apps = [contest.APP, *([contest.COMMIT_APP] if load == "post of 1" else [])]
        assert list(trials) == [SERVICE, *apps, "sqlite3"]
        assert all(row.result.messages and not row.result.errors for row in trials.values())
    assert all(each.met is not None for each in goals.judged("sqlite", found))
    assert "purge" not in {figure.load for figure in found.depth}
    document = goals.documents({"sqlite": found})
    assert {each["name"] for each in document["rows"]} >= {"sqlite, post of 1, Hermod"}
    assert "claim 10 + delete 10, sqlite" in contest.text("sqlite", found)
