"""The command, what is kept of runs that failed, and the list of those that once did."""

import json
import re
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests import servers
from tests.faults import command, kept
from tests.faults.history import History
from tests.faults.nemesis import digest
from tests.faults.report import Report
from tests.faults.run import Options, check, plan, run
from tests.faults.seeds import ONCE_FAILED
from tests.faults.tools import Tools
from tests.faults.world import STORES
from transport import cli_faults

ROOT = Path(__file__).parents[2]
TOOLS = Tools(
    folder=Path("tools"), shim=Path("tools/shim.so")
)  # as where there is a compiler; nothing is made


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(store="redis", seed=7, seconds=90.0, folder=tmp_path / "runs" / "redis-7")


def report_of(options: Options, *, valid: bool) -> Report:
    """Leave a run as it would be if it had been made, with a message that was lost or with none."""
    options.folder.mkdir(parents=True, exist_ok=True)
    history = History(options.folder / "history.jsonl")
    if not valid:
        with history.operation(
            "p", "post", "alpha", "jobs", values=["alpha/a"], key=None, delay=0
        ) as pending:
            pending.end("ok", ids=["0" * 15 + "1" + "f" * 16], status=201)
    history.close()
    (options.folder / "plan.json").write_text("{}")
    report = check(options)
    assert report.valid is valid
    report.write(options.folder)
    return report


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The runs that were wished for; those with an odd seed fail."""
    wished: list[Options] = []

    def instead(options: Options) -> Report:
        wished.append(options)
        return report_of(options, valid=options.seed % 2 == 0)

    monkeypatch.setattr(kept, "run", instead)
    return wished


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command.main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


class TestAFailure:
    def test_is_kept_with_all_that_it_takes_to_make_it_again(
        self, made: list[Options], options: Options, tmp_path: Path
    ) -> None:
        asked = ("--store", "redis", "--seed", 7, "--minutes", 1.5, "--quiet", 0.5, 1.5, "--without", "lag")
        code, said = invoke(*asked, "--folder", tmp_path / "runs", "--keep", tmp_path / "keep")

        assert code == 1
        (folder,) = (tmp_path / "keep").iterdir()
        assert str(folder) in said
        facts = json.loads((folder / "run.json").read_text())
        assert (facts["store"], facts["seed"], facts["without"]) == ("redis", 7, ["lag"])
        assert facts["commit"] == kept.commit()
        assert "total queue: lost: alpha/a of alpha's jobs" in facts["problems"]
        assert {file.name for file in folder.iterdir()} >= {"history.jsonl", "plan.json", "report.txt"}
        assert facts["command"] in said
        code, _ = invoke(*shlex.split(facts["command"])[1:], "--folder", tmp_path, "--keep", tmp_path / "2")
        assert code == 1
        first, again = made
        assert plan(first, TOOLS) == plan(again, TOOLS), "the command draws the same faults"
        assert replace(first, folder=tmp_path) == replace(again, folder=tmp_path)

    def test_can_be_checked_again(self, options: Options, tmp_path: Path) -> None:
        folder = kept.keep(options, report_of(options, valid=False), tmp_path / "keep").folder
        code, said = invoke("--check", folder)
        assert code == 1
        assert "lost: alpha/a of alpha's jobs" in said

    def test_goes_where_the_environment_says(
        self, made: list[Options], options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "there"))
        _, found = kept.attempt(options)
        assert found is not None
        assert found.folder.parent == tmp_path / "there"
        assert invoke("--seed", 9, "--folder", tmp_path / "runs")[0] == 1
        assert len(list((tmp_path / "there").iterdir())) == 2

    def test_or_into_a_folder_that_git_ignores(
        self, made: list[Options], options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv(kept.VARIABLE, raising=False)
        monkeypatch.chdir(tmp_path)
        _, found = kept.attempt(options)
        assert found is not None
        assert found.folder.parent == tmp_path / "faults-failed"
        assert "faults-failed/" in (ROOT / ".gitignore").read_text().splitlines()

    def test_a_service_that_does_not_recover_is_one_too(
        self, options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail(*_: object) -> None:
            raise AssertionError("waited 45 seconds in vain")

        monkeypatch.setattr("tests.faults.run._make", fail)
        report = run(options)
        assert report.problems == ["comes to its end: AssertionError: waited 45 seconds in vain"]
        drawn = json.loads((options.folder / "plan.json").read_text())
        assert len(drawn["periods"]) > 3


def test_a_run_that_was_valid_leaves_nothing_unless_it_is_told_to(
    made: list[Options], tmp_path: Path
) -> None:
    asked = ("--seed", 8, "--folder", tmp_path / "runs", "--keep", tmp_path / "keep")
    assert invoke(*asked)[0] == 0
    assert (made[0].store, made[0].seconds) == ("sqlite", 1800.0)
    assert not made[0].folder.exists()
    assert invoke(*asked, "--leave")[0] == 0
    assert (made[1].folder / "history.jsonl").exists()
    assert not (tmp_path / "keep").exists()


class TestOnceFailed:
    @pytest.mark.parametrize("each", ONCE_FAILED, ids=lambda each: each.options.name)
    def test_a_seed_draws_what_it_drew_when_it_failed(self, each):
        assert digest(plan(each.options, TOOLS)) == each.plan
        assert (ROOT / each.test.partition("::")[0]).exists()
        assert each.found

    def test_the_list_is_on_the_page(self) -> None:
        page = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
        rows = re.findall(rf"^\| ({'|'.join(STORES)}) (\d+)\b", page, re.MULTILINE)
        assert rows == [(each.store, str(each.seed)) for each in ONCE_FAILED]

    def test_all_are_made_again_or_those_of_a_store(self, made: list[Options], tmp_path: Path) -> None:
        where = ("--folder", tmp_path / "runs", "--keep", tmp_path / "keep")
        code, _ = invoke("--once-failed", *where)
        assert [each.name for each in made] == [each.options.name for each in ONCE_FAILED]
        assert code == (1 if any(each.seed % 2 for each in ONCE_FAILED) else 0)
        made.clear()
        invoke("--once-failed", "--store", "redis", *where)
        assert {each.store for each in made} == {"redis"}


class TestTheProgram:
    def test_is_installed(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert project["scripts"]["hermod-faults"] == "transport.cli_faults:main"
        assert project["entry-points"]["hermod.commands"]["faults"] == "tests.faults.command:main"

    @pytest.mark.parametrize(
        ("absent", "message"),
        [
            ("tests.faults.command", "faults is in the repository alone: run it from a checkout"),
            ("pytest", "faults needs the library 'pytest': pip install 'hermod[test]'"),
        ],
    )
    def test_says_what_it_needs(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], absent: str, message: str
    ) -> None:
        monkeypatch.delitem(sys.modules, "tests.faults.command")
        monkeypatch.setitem(sys.modules, absent, None)
        with pytest.raises(SystemExit) as end:
            cli_faults.main()
        assert end.value.code == 2
        assert capsys.readouterr().err.startswith(f"hermod: {message}")

    def test_says_that_there_is_no_server(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("shutil.which", lambda _: None)
        monkeypatch.setattr(servers, "_bundled", lambda *_: None)
        code, said = invoke("--store", "redis", "--folder", tmp_path)
        assert code == 2
        assert "redis-server" in said

    def test_every_flag_is_documented(self) -> None:
        page = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
        flags = [
            flag for option in command.main.params if isinstance(option, click.Option) for flag in option.opts
        ]
        assert sorted(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)) == sorted(flags)


def test_the_numbers_of_a_command_are_those_of_the_run(options: Options) -> None:
    odd = replace(options, seconds=18.0, quiet=(0.5, 1.5))
    words = shlex.split(kept.command(odd))
    assert 60 * float(words[words.index("--minutes") + 1]) == odd.seconds
