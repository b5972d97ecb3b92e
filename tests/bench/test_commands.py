"""`hermod bench`: it is documented, it runs against a URL, and it says so where it is not there."""

import json
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.commands import bench
from bench.commands_run import WORKLOADS
from bench.goals import GOALS
from bench.services import serving
from tests import servers
from transport.cli import hermod

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "bench.md").read_text(encoding="utf-8")


def section(name):
    found = re.search(rf"^## hermod bench {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading for {name}"
    return found[1]


def flags(command):
    return {
        flag
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("name", bench.commands)
def test_every_command_is_documented_with_all_its_flags_and_no_others(name):
    documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section(name)))

    assert documented == flags(bench.commands[name])


def test_every_workload_is_documented():
    assert set(re.findall(r"^\| `([a-z][a-z-]*)` \|", section("run"), re.MULTILINE)) == set(WORKLOADS)


@pytest.fixture(scope="module")
def url():
    with serving("bench.canned") as (url, _):
        yield url


def run(*arguments):
    short = ("--processes", "1", "--connections", "2", "--seconds", "0.2", "--warm-up", "0", "--stock", "10")
    return CliRunner().invoke(hermod, ["bench", "run", *arguments, *short, "--no-ceiling"])


def test_requests_are_sent_to_any_url(url, tmp_path):
    result = run("mixed", "--url", url, "--json", f"{tmp_path}/a.json", "--plot", f"{tmp_path}/a.svg")

    assert result.exit_code == 0, result.output
    assert f"service {url}" in result.stdout
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["mixed", "mixed: post", "mixed: claim + delete"]
    assert all(row["operations"] and not row["errors"] for row in written["rows"])
    assert written["conditions"]["setup"]["workload"] == "mixed"
    assert "svg" in (tmp_path / "a.svg").read_text()

    compared = CliRunner().invoke(hermod, ["bench", "compare", *[f"{tmp_path}/a.json"] * 2])
    assert "mixed: post" in compared.stdout


def test_a_rate_and_several_numbers_of_connections(url, tmp_path):
    result = run(
        *("post", "--url", url, "--rate", "50", "--connections", "1", "--token", "secret"),
        *("--plot", f"{tmp_path}/a.svg"),
    )

    assert result.exit_code == 0, result.output
    assert "post, 1 connections" in result.stdout
    assert "post, 2 connections" in result.stdout
    assert "open, 50 due per second" in result.stdout
    assert "secret" not in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a-latencies.svg"}


def test_a_service_that_does_not_answer_is_told_in_a_line():
    result = run("post", "--url", "http://127.0.0.1:9")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("required", ["", "redis"])
def test_a_store_that_is_not_to_be_had_is_told_in_its_rows(monkeypatch, required):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(servers, "_bundled", lambda *_: None)
    monkeypatch.setenv("HERMOD_TEST_REQUIRE", required)

    result = CliRunner().invoke(hermod, ["bench", "goals", "--store", "redis"])

    assert result.exit_code == 0, result.output
    assert result.stdout.count("could not run: ") == len(GOALS["redis"])
    assert "redis-server" in result.stdout


def test_without_a_checkout_the_command_says_what_it_needs(monkeypatch):
    monkeypatch.delitem(sys.modules, "bench.commands")
    monkeypatch.setitem(sys.modules, "bench", None)

    result = CliRunner().invoke(hermod, ["bench", "goals"])

    assert result.exit_code == 1
    assert "run it from a checkout" in result.stderr


def test_workloads_runs_every_workload_for_a_moment(monkeypatch):
    wished = []

    def instead(**wish):
        wished.append((wish["workload"], wish["store"], wish["seconds"], wish["connections"]))

    monkeypatch.setattr(bench.commands["run"], "callback", instead)
    result = CliRunner().invoke(bench, ["workloads", "--store", "redis", "--seconds", "0.5"])

    assert result.exit_code == 0, result.output
    assert wished == [(workload, "redis", 0.5, (8,)) for workload in WORKLOADS]
