"""The commands on pools and flavors: what scripts rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import pytest
from click.testing import Result

from queues.models import Address, NewMessage
from tests import servers
from tests.transport.test_cli import (  # noqa: F401 - fixtures
    _in_an_empty_folder,
    _log_as_before,
    hermod,
    said,
)
from transport.service import Service
from transport.settings import Settings
from transport.wiring import open_service

STORE = "sqlite:///control.db"
ONE, TWO = "sqlite:///one.db", "sqlite:///two.db"
SECRET = "hunter2"


def run(*arguments: str, pooling: str = "true", store: str = STORE) -> Result:
    return hermod(*arguments, "--store", store, HERMOD_POOLING=pooling)


def lines(*arguments: str) -> list[str]:
    """Run a command that must succeed, and return what it printed."""
    result = run(*arguments)
    assert (result.exit_code, said(result)) == (0, []), result.output
    return result.stdout.splitlines()


@contextmanager
def service() -> Iterator[Service]:
    with closing(open_service(Settings(store=STORE, pooling=True))) as opened:
        yield opened


@pytest.fixture
def pools() -> None:
    """There are the pools one, which new queues go to, and two."""
    lines("pool", "add", "one", ONE)
    lines("pool", "add", "two", TWO, "--weight", "0")


@pytest.fixture
def filled(pools: None) -> None:
    """There are three queues in one, with six messages, and room in two."""
    with service() as opened:
        for number in (1, 2, 3):
            messages = [NewMessage(body=b"1", ttl=3600)] * number
            opened.queues.append(Address(project="p", queue=f"q{number}"), messages)
    lines("pool", "set", "two", "--weight", "1")


# --- pools


def test_a_pool_is_added_listed_and_removed(pools):
    assert lines("pool", "list") == [
        f"one  weight 1  flavor -  open  {ONE}",
        f"two  weight 0  flavor -  open  {TWO}",
    ]
    assert lines("pool", "remove", "one") == []
    assert lines("pool", "remove", "one") == []
    assert lines("pool", "list") == [f"two  weight 0  flavor -  open  {TWO}"]


def test_a_pool_is_shown_with_its_options(filled):
    lines("pool", "set", "one", "--option", "timeout=2.5", "--option", "name=x y", "--option", "n=null")

    assert lines("pool", "show", "one") == [
        f"one  weight 1  flavor -  open  {ONE}",
        "  option timeout: 2.5",
        "  option name: x y",
        "  option n: None",
        "  queues: 3",
    ]


def test_a_pool_is_changed(pools):
    changed = lines("pool", "set", "one", "--weight", "7", "--flavor", "gold", "--uri", "sqlite:///three.db")

    assert changed == ["one  weight 7  flavor gold  open  sqlite:///three.db"]
    assert lines("pool", "set", "one", "--flavor", "") == [
        "one  weight 7  flavor -  open  sqlite:///three.db"
    ]
    assert lines("pool", "list")[0] == "one  weight 7  flavor -  open  sqlite:///three.db"


def test_a_pool_is_added_with_everything():
    lines("pool", "add", "one", ONE, "--weight", "3", "--flavor", "gold", "--option", "timeout=1")

    assert lines("pool", "show", "one") == [
        f"one  weight 3  flavor gold  open  {ONE}",
        "  option timeout: 1",
        "  queues: 0",
    ]


def test_a_password_is_hidden(tmp_path):
    process = servers._redis("--requirepass", SECRET)
    process.start()
    try:
        uri = f"redis://:{SECRET}@127.0.0.1:{process.port}/0"
        servers.eventually(lambda: run("pool", "add", "r", uri).exit_code == 0)
        shown = [
            *lines("pool", "list"),
            *lines("pool", "show", "r"),
            *lines("pool", "set", "r", "--weight", "2"),
        ]
    finally:
        process.stop()
    assert SECRET not in "".join(shown)
    assert shown[0].endswith(f"redis://:***@127.0.0.1:{process.port}/0")


def test_a_password_is_hidden_where_it_cannot_be_used():
    result = run("pool", "add", "r", f"redis://me:{SECRET}@127.0.0.1:1/0", "--option", "timeout=1")

    assert result.exit_code == 2
    assert len(said(result)) == 1
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["pool", "add", "one"], "URI"),
        (["pool", "add"], "NAME"),
        (["pool", "add", "b@d", ONE], "name"),
        (["pool", "add", "x", ONE, "--weight", "-1"], "weight"),
        (["pool", "add", "x", ONE, "--weight", "much"], "weight"),
        (["pool", "add", "x", ONE, "--option", "x"], "KEY=VALUE"),
        (["pool", "add", "x", ONE, "--option", "timeout=0"], "timeout"),
        (["pool", "add", "x", "floppy:///a"], "floppy"),
        (["pool", "add", "x", "memory:"], "memory"),
        (["pool", "set", "one", "--weight", str(2**32)], "weight"),
        (["pool", "drain"], "NAME"),
        (["pool", "frobnicate"], "frobnicate"),
        (["flavor", "add", "gold", "one"], "project"),
        (["flavor", "add", "gold", "--project", "p"], "POOL"),
        (["flavor", "list"], "project"),
    ],
    ids=" ".join,
)
def test_wrong_use(pools, arguments, word):
    result = run(*arguments)

    assert result.exit_code == 2
    assert word in " ".join(said(result))
    assert len(lines("pool", "list")) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pool", "show", "nowhere"], "There is no such pool."),
        (["pool", "set", "nowhere", "--weight", "1"], "There is no such pool."),
        (["pool", "drain", "nowhere"], "There is no such pool."),
        (["pool", "drain", "nowhere", "--status"], "There is no such pool."),
        (["pool", "drain", "nowhere", "--stop"], "There is no such pool."),
        (["pool", "add", "other", ONE], "The pool one has this store."),
        (["flavor", "show", "gold", "--project", "p"], "Flavor gold does not exist"),
        (["flavor", "add", "gold", "nowhere", "--project", "p"], "Pool nowhere does not exist"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done(pools, arguments, sentence):
    result = run(*arguments)

    assert result.exit_code == 1
    assert said(result) == [f"hermod: {sentence}"]


def test_a_pool_with_queues_is_not_removed(filled):
    result = run("pool", "remove", "one")

    assert result.exit_code == 1
    assert said(result) == ["hermod: Queues live in this pool; drain it first."]
    assert lines("pool", "list")[0] == f"one  weight 1  flavor -  open  {ONE}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["pool", "list"],
        ["pool", "add", "one", ONE],
        ["pool", "set", "one", "--weight", "1"],
        ["pool", "show", "one"],
        ["pool", "drain", "one"],
        ["pool", "remove", "one"],
        ["flavor", "list", "--project", "p"],
        ["flavor", "add", "gold", "one", "--project", "p"],
        ["flavor", "show", "gold", "--project", "p"],
        ["flavor", "remove", "gold", "--project", "p"],
    ],
    ids=" ".join,
)
def test_without_pooling_there_are_no_pools(arguments):
    result = run(*arguments, pooling="false")

    assert result.exit_code == 2
    assert "pooling" in said(result)[0]
    assert len(said(result)) == 1


def test_the_records_must_be_in_a_store_that_others_see():
    result = run("pool", "list", store="memory:")

    assert result.exit_code == 2
    assert "memory:" in said(result)[0]


def test_a_store_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")

    result = run("pool", "list", store="sqlite:///file/x.db")

    assert result.exit_code == 1
    assert len(said(result)) == 1


# --- drain


def test_a_drain_is_followed_to_its_end(filled):
    printed = lines("pool", "drain", "one")

    assert printed[-1].startswith("one: drained  0 queues left  3 moved  6 messages  ")
    assert re.fullmatch(r"one: \w+  \d queues left  \d moved  \d messages  \d+/s", printed[0])
    assert lines("pool", "list")[0] == f"one  weight 1  flavor -  draining  {ONE}"
    assert lines("pool", "show", "two")[-1] == "  queues: 3"
    assert lines("pool", "remove", "one") == []
    with service() as opened:
        totals = [opened.queues.stats(Address(project="p", queue=f"q{n}"))[0].total for n in (1, 2, 3)]
    assert totals == [1, 2, 3]


def test_a_drain_can_be_left_to_the_janitor(filled):
    begun = lines("pool", "drain", "one", "--detach")
    assert begun == ["one: draining  3 queues left  0 moved  0 messages  0/s"]
    assert lines("pool", "drain", "one", "--status") == begun

    with service() as opened:
        assert opened.moving.run(Event())

    (done,) = lines("pool", "drain", "one", "--status")
    assert done.startswith("one: drained  0 queues left  3 moved  6 messages  ")


def test_a_drain_can_be_stopped(filled):
    lines("pool", "drain", "one", "--detach")

    stopped = lines("pool", "drain", "one", "--stop")

    assert stopped == ["one: open  3 queues left  0 moved  0 messages  0/s"]
    assert lines("pool", "list")[0] == f"one  weight 1  flavor -  open  {ONE}"


def test_the_status_of_a_pool_that_was_never_drained(filled):
    assert lines("pool", "drain", "one", "--status") == ["one: open  3 queues left  0 moved  0 messages  0/s"]


def test_a_drain_says_that_there_is_nowhere_to_go(filled):
    lines("pool", "set", "two", "--weight", "0")
    lines("pool", "drain", "one", "--detach")
    with service() as opened:
        opened.moving.run(Event())

    (line,) = lines("pool", "drain", "one", "--status")

    assert "problem: No pool can take this queue" in line


def test_an_empty_pool_is_drained_at_once(pools):
    assert lines("pool", "drain", "two") == ["two: drained  0 queues left  0 moved  0 messages  0/s"]


# --- flavors


def test_a_flavor_is_added_listed_shown_and_removed(pools):
    assert lines("flavor", "add", "gold", "one", "two", "--project", "p") == []
    assert lines("flavor", "list", "--project", "p") == ["gold  one two"]
    assert lines("flavor", "list", "--project", "other") == []
    shown = lines("flavor", "show", "gold", "--project", "p")
    assert shown == ["gold  one two", "  capabilities: FIFO, CLAIMS, DURABILITY, AOD"]
    assert lines("pool", "list")[0] == f"one  weight 1  flavor gold  open  {ONE}"

    assert lines("flavor", "remove", "gold", "--project", "p") == []
    assert lines("flavor", "remove", "gold", "--project", "p") == []
    assert lines("flavor", "list", "--project", "p") == []
    assert lines("pool", "list")[0] == f"one  weight 1  flavor -  open  {ONE}"


def test_all_flavors_are_listed(pools):
    for number in range(25):
        lines("flavor", "add", f"f{number:02}", "one", "--project", "p")

    listed = lines("flavor", "list", "--project", "p")

    assert [line.split()[0] for line in listed] == [f"f{number:02}" for number in range(25)]
    assert listed[-1] == "f24  one"
    assert listed[0] == "f00"


def test_the_last_pool_of_a_flavor_stays(pools):
    lines("flavor", "add", "gold", "one", "--project", "p")

    result = run("pool", "remove", "one")

    assert result.exit_code == 1
    assert said(result) == ["hermod: This is the only pool of its flavor; take it out of the flavor first."]


def test_check_reports_every_pool(pools, tmp_path):
    result = run("check")

    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("pool ")] == [
        "pool (default): sqlite",
        "pool one: sqlite",
        "pool two: sqlite",
    ]
    for file in Path(tmp_path).glob("one.db*"):
        file.unlink()
    (tmp_path / "one.db").write_text("this is no database, and long enough to be looked at " * 100)
    assert run("check").exit_code == 1
