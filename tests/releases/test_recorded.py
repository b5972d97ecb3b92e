"""P13: the current tree serves what released versions stored, and answers as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.releases.application import Exchange, application, comparable
from tests.releases.dumps import FILES, load, uri_of
from tests.releases.story import READS, WRITES, Ask, Step, Wait

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/sqlite-answers.json"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    """The folder of a release."""
    found: Path = request.param
    return found


@pytest.fixture(params=FILES)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of store."""
    found: str = request.param
    return found


@pytest.fixture
def answers(release: Path, kind: str) -> dict[str, Any]:
    """What the release answered."""
    found: dict[str, Any] = json.loads((release / f"{kind}-answers.json").read_text())
    return found


def assert_alike(found: list[Exchange], recorded: list[Exchange]) -> None:
    for mine, theirs in zip(comparable(found), comparable(recorded), strict=True):
        assert mine == theirs


def asked(exchanges: list[Exchange], story: list[Step]) -> list[Step]:
    """The story as it was told then: with its requests, in which names stand for ids, and its waits."""
    told = [step for step in story if isinstance(step, Ask)]
    assert len(told) == len(exchanges), "the story belongs to what was recorded: add to a copy of it instead"
    return story


def test_there_is_a_recorded_release() -> None:
    assert VERSIONS


def test_what_a_release_stored_is_served_as_it_served_it(
    tmp_path: Path, release: Path, kind: str, answers: dict[str, Any]
) -> None:
    uri = uri_of(kind, tmp_path)
    load(kind, release / FILES[kind], uri)

    with application(uri, answers["now"]) as app:
        found = app.tell(asked(answers["reads"], READS), dict(answers["names"]))

    assert_alike(found, answers["reads"])


def test_what_a_release_answered_is_still_the_answer(
    tmp_path: Path, kind: str, answers: dict[str, Any]
) -> None:
    with application(uri_of(kind, tmp_path), answers["began"]) as app:
        found = app.tell(asked(answers["writes"], WRITES), {})

    assert_alike(found, answers["writes"])


def test_the_story_has_what_can_be_stored(answers: dict[str, Any]) -> None:
    """Otherwise little would be shown by its being served."""
    reads = {(each["request"]["path"], each["request"]["query"]): each for each in answers["reads"]}
    plain = reads["/v2/queues/plain/messages", "echo=true&include_claimed=true&include_delayed=true&limit=20"]
    assert len(plain["body"]["messages"]) >= 3
    assert reads["/v2/queues/dead/stats", ""]["body"]["messages"]["total"] >= 1
    assert any("subscriptions" in path and each["status"] == 200 for (path, _), each in reads.items())
    assert {each["status"] for each in answers["reads"]} >= {200, 201, 204, 404, 409}
    assert any(isinstance(step, Wait) for step in WRITES)


def test_a_store_of_a_release_stays_what_it_was(release: Path, tmp_path: Path) -> None:
    """Nobody works on the file that is kept."""
    copy = tmp_path / "store.db"
    shutil.copy(release / FILES["sqlite"], copy)
    with application(f"sqlite:///{copy}") as app:
        assert app.answer(Ask(method="GET", path="/v2/queues"), {})["status"] == 200
    assert not list(release.glob("*-wal"))
