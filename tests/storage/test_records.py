"""Records: compare-and-set, pages in byte order, nothing shared with the caller."""

from contextlib import closing

import pytest

from queues import versions
from queues.models import Record
from storage.registry import connect
from tests.storage.variants import over_drivers

NAMES = [
    "",
    "%",
    "*",
    "A",
    "B.",
    "_",
    "a",
    "a.b",
    "a.b.c",
    "a:b",
    "a\x00b",
    "b",
    "queues_set",
    "z" * 300,
    "\xe9",
    "\uffff",
    "\U0001f600",
]


pytestmark = over_drivers


@pytest.fixture
def records(driver):
    return driver.records


def record(name="name", *, kind="queue", scope="project", revision=0, v=1, **data):
    return Record(kind=kind, scope=scope, name=name, data=data, v=v, revision=revision)


def names(page):
    return [found.name for found in page]


def test_a_record_is_stored_at_its_own_revision(records, monkeypatch):
    monkeypatch.setattr(versions, "RECORD_VERSION", 3)
    assert records.insert(record(v=3, revision=7, a=1))

    assert records.fetch("queue", "project", "name") == record(v=3, revision=7, a=1)


def test_a_name_is_taken_once(records):
    assert records.insert(record(a=1))
    assert not records.insert(record(a=2))

    assert records.fetch("queue", "project", "name") == record(a=1)


@pytest.mark.parametrize(
    ("kind", "scope", "name"),
    [
        ("queue", "project", "other"),
        ("queue", "other", "name"),
        ("pool", "project", "name"),
        ("queue", "", "name"),
        ("", "", ""),
    ],
)
def test_kind_scope_and_name_together_are_the_identity(records, kind, scope, name):
    records.insert(record(a=1))

    assert records.fetch(kind, scope, name) is None
    assert not records.remove(kind, scope, name)
    assert records.insert(record(name, kind=kind, scope=scope, a=2))
    assert records.fetch("queue", "project", "name") == record(a=1)
    assert records.fetch(kind, scope, name) == record(name, kind=kind, scope=scope, a=2)


def test_data_are_kept_with_all_their_json(records):
    data = {
        "a.b": {"$c": [1, -1.5, None, True, "\N{SNOWMAN}", {"": []}]},
        "big": 2**63 - 1,
        "small": -(2**63),
        "z": 1,
        "a": 2,
        "\x00": "\x00",
    }
    records.insert(record(data=data))

    found = records.fetch("queue", "project", "name")
    assert found.data == {"data": data}
    assert list(found.data["data"]) == list(data)
    assert found.data["data"]["a.b"]["$c"][3] is True


def test_replace_stores_the_next_revision(records, monkeypatch):
    monkeypatch.setattr(versions, "RECORD_VERSION", 3)
    records.insert(record(a=1))

    assert records.replace(record(a=2, revision=0, v=2))
    assert records.fetch("queue", "project", "name") == record(a=2, revision=1, v=2)
    assert records.replace(record(revision=1))
    assert records.fetch("queue", "project", "name") == record(revision=2)


@pytest.mark.parametrize("revision", [-1, 0, 2, 3])
def test_d9_replace_refuses_any_revision_but_the_stored_one(records, revision):
    records.insert(record(a=1))
    records.replace(record(a=2, revision=0))

    assert not records.replace(record(a=3, revision=revision))

    assert records.fetch("queue", "project", "name") == record(a=2, revision=1)


def test_what_does_not_exist_is_not_replaced(records):
    assert not records.replace(record(a=1))
    assert records.fetch("queue", "project", "name") is None


def test_remove_tells_whether_there_was_something(records):
    records.insert(record(a=1))

    assert records.remove("queue", "project", "name")
    assert not records.remove("queue", "project", "name")
    assert records.fetch("queue", "project", "name") is None
    assert records.insert(record(a=2))
    assert records.fetch("queue", "project", "name") == record(a=2)


def test_listings_are_in_byte_order_whatever_the_order_of_storing(records):
    for name in reversed(NAMES[1:]):
        assert records.insert(record(name))

    assert names(records.scan("queue", "project", limit=100)) == sorted(NAMES[1:], key=str.encode)
    for name in NAMES[1:]:
        assert records.fetch("queue", "project", name) == record(name)


def test_pages_follow_each_other_without_gap_or_repeat(records):
    for name in NAMES[1:]:
        records.insert(record(name))
    seen: list[str] = []

    while page := records.scan("queue", "project", after=seen[-1] if seen else "", limit=3):
        assert len(page) <= 3
        seen += names(page)

    assert seen == sorted(NAMES[1:], key=str.encode)


def test_fifteen_records_are_a_page_of_ten_and_one_of_five(records):
    for number in range(15):
        records.insert(record(f"{number:02}", scope="one"))
        records.insert(record(f"{number:02}", scope="two"))

    first = records.scan("queue", "one", limit=10)
    second = records.scan("queue", "one", after=first[-1].name, limit=10)
    assert (len(first), len(second)) == (10, 5)
    assert records.scan("queue", "one", after="14", limit=10) == []
    assert {found.scope for found in (*first, *second)} == {"one"}


def test_a_page_can_begin_behind_a_name_that_does_not_exist(records):
    for name in ("a", "c"):
        records.insert(record(name))

    assert names(records.scan("queue", "project", after="b", limit=10)) == ["c"]


def test_listings_and_counts_stay_within_kind_and_scope(records):
    for scope in ("a", "a.", "a.b", "A", "", "\xe9"):
        for name in ("x", "b.x"):
            records.insert(record(name, scope=scope))
            records.insert(record(name, scope=scope, kind="pool", other=True))

    for scope in ("a", "a.", "a.b", "A", "", "\xe9"):
        assert records.scan("queue", scope, limit=10) == [
            record("b.x", scope=scope),
            record("x", scope=scope),
        ]
        assert records.count("queue", scope) == 2
    assert records.count("queue", "b") == 0
    assert records.count("nothing", "a") == 0


def test_count_follows_every_change(records):
    for name in ("a", "b"):
        records.insert(record(name))
    records.insert(record("b"))
    records.replace(record("a", x=1))
    assert records.count("queue", "project") == 2
    records.remove("queue", "project", "a")
    assert records.count("queue", "project") == 1


def test_nothing_that_the_caller_holds_is_shared_with_the_store(records):
    mine = record(a={"b": [1]})
    records.insert(mine)
    mine.data["a"]["b"].append(2)
    fetched = records.fetch("queue", "project", "name")
    fetched.data["a"]["b"].append(3)
    records.scan("queue", "project", limit=1)[0].data["a"]["b"].append(4)
    assert records.fetch("queue", "project", "name") == record(a={"b": [1]})

    newer = record(a={"b": [5]})
    records.replace(newer)
    newer.data["a"]["b"].append(6)
    assert records.fetch("queue", "project", "name") == record(a={"b": [5]}, revision=1)


def test_records_have_nothing_to_do_with_messages(records, queue):
    queue.post("a")
    records.insert(record(queue.address.queue, scope=queue.address.project))
    queue.drop()

    assert records.count("queue", queue.address.project) == 1
    assert records.remove("queue", queue.address.project, queue.address.queue)


def test_each_store_is_its_own(variant, tmp_path, records):
    records.insert(record(a=1))
    (tmp_path / "elsewhere").mkdir()

    with closing(connect(variant.uri(tmp_path / "elsewhere"))) as other:
        assert other.records.fetch("queue", "project", "name") is None
        assert other.records.insert(record(a=2))

    assert records.fetch("queue", "project", "name") == record(a=1)
