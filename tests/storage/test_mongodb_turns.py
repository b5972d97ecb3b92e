"""Processes of a machine take turns at a queue of MongoDB's, and none waits for long."""

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from queues.models import Address
from storage import mongodb_turns
from storage.mongodb_turns import MongoTurns
from tests.servers import eventually

QUEUE, OTHER = Address(project="p", queue="q"), Address(project="p", queue="other")

#: Waits for the turn, says that it has it, and keeps it until it is told to go on; the arguments are the folder and the
#: patience.
HOLDER = """
import sys
from pathlib import Path
from queues.models import Address
from storage import mongodb_turns

mongodb_turns._PATIENCE = float(sys.argv[2])
turns = mongodb_turns.MongoTurns("store", Path(sys.argv[1]))
with turns.turn(Address(project="p", queue="q")) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
print("over", flush=True)
sys.stdin.readline()
"""


@contextmanager
def waiting(folder):
    """Run a process that waits for the turn."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), "10"], stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def holder(folder):
    """Run a process that has the turn."""
    with waiting(folder) as process:
        assert process.stdout.readline() == "True\n"
        yield process


def has_turn(turns, address=QUEUE):
    with turns.turn(address) as mine:
        return mine


@pytest.fixture
def turns(tmp_path):
    return MongoTurns("store", tmp_path)


def test_who_waits_in_vain_goes_on_and_does_not_wait_again(turns, tmp_path, monkeypatch):
    looks: list[float] = []
    monkeypatch.setattr("storage.mongodb_turns.time.sleep", looks.append)
    with holder(tmp_path):
        assert not has_turn(turns)
        waited = len(looks)
        assert not has_turn(turns)

    assert waited > 0
    assert len(looks) == waited


def test_a_queue_does_not_wait_for_another_nor_a_store_for_another(turns, tmp_path):
    with holder(tmp_path):
        assert has_turn(turns, OTHER)
        assert has_turn(MongoTurns("another", tmp_path))


def test_the_turn_goes_on_when_it_is_over(turns, tmp_path, monkeypatch):
    monkeypatch.setattr(mongodb_turns, "_PATIENCE", 10.0)
    with holder(tmp_path) as process:
        process.stdin.write("\n")
        process.stdin.flush()

        assert has_turn(turns)


def test_a_process_that_is_killed_has_no_turn(turns, tmp_path, monkeypatch):
    monkeypatch.setattr(mongodb_turns, "_PATIENCE", 10.0)
    with holder(tmp_path) as process:
        process.kill()

        assert has_turn(turns)


def test_who_comes_again_lets_those_go_first_who_waited(turns, tmp_path):
    """So two processes that always want the turn have it one after the other."""
    place = turns._place(QUEUE)
    with ExitStack() as stack:
        with turns.turn(QUEUE) as mine:
            assert mine
            process = stack.enter_context(waiting(tmp_path))
            eventually(lambda: not turns._lock(place, 0.0) or turns._unlock(place))  # it is the next one

        assert not has_turn(turns)
        assert process.stdout.readline() == "True\n"


def test_without_a_file_there_are_no_turns(tmp_path):
    assert not has_turn(MongoTurns("store", tmp_path / "absent"))


def test_a_file_that_has_another_name_too_is_not_used(tmp_path):
    precious = tmp_path / "hermod.db"
    precious.touch()
    os.link(precious, tmp_path / f"hermod-turns-{os.getuid()}")
    assert not has_turn(MongoTurns("store", tmp_path))
