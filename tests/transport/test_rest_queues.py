"""Queues: create, describe, list, remove. Section 10; checklist 1 to 6 and 8."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tests.transport.conftest import DEFAULTS, ONE_STORE, Answer, assert_problem, next_link, pages

Q1 = "/v2/queues/q1"


def names(answer: Answer) -> list[str]:
    return [queue["name"] for queue in answer.json["queues"]]


def query_of(link: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(link).query, keep_blank_values=True)


@pytest.fixture
def three(api):
    """A client of a project with the queues q1, q2 and q3."""
    api.create_queue("q1", {"node": 31, "colour": "red"})
    api.create_queue("q2", {"node": 32, "colour": "red", "_max_messages_post_size": 2000})
    api.create_queue("q3", {"node": 33, "colour": "blue", "ünï": "ç d&e{f}"})
    return api


# --- create, section 10.2


def test_a_queue_is_created_once(api):
    """Checklist 1."""
    first = api.put(Q1, {"colour": "red"})
    again = api.put(Q1, {"colour": "blue"})

    assert (first.status_code, first.headers["location"], first.content) == (201, Q1, b"")
    assert (again.status_code, again.headers["location"]) == (204, Q1)


def test_f5_creating_a_queue_again_leaves_its_metadata_alone(api):
    api.put(Q1, {"colour": "red"})
    api.put(Q1, {"colour": "blue", "size": 5})

    assert api.metadata("q1") == {"colour": "red"}


def test_creating_a_queue_again_still_needs_a_good_body(api):
    api.create_queue("q1")

    assert_problem(api.put(Q1, {"_default_message_ttl": 0}), 400, "Invalid API request")
    assert_problem(api.put(Q1, body=b"{"), 400, "Invalid request body")


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}])
def test_a_queue_can_be_created_without_a_body(api, headers):
    """Checklist 6."""
    assert api.put(Q1, headers=headers).status_code == 201
    assert api.put(Q1, headers=headers).status_code == 204
    assert api.get(Q1).json == DEFAULTS


@ONE_STORE
@pytest.mark.parametrize(("excess", "status"), [(0, 201), (1, 400), (10_000, 400)])
@pytest.mark.parametrize("filler", ["x", " "])
def test_metadata_have_a_greatest_size(api, filler, excess, status):
    """Checklist 6; blanks count."""
    frame = b'{"x": "%s"}' if filler == "x" else b'{"x": 1%s}'
    room = 65536 + excess - len(frame % b"")

    answer = api.put(Q1, body=frame % (filler.encode() * room))

    assert answer.status_code == status
    assert api.queue_names() == (["q1"] if status == 201 else [])


def test_the_greatest_size_of_metadata_can_be_set(open_api):
    api = open_api(limits={"max_queue_metadata": 10})

    assert api.put(Q1, body=b'{"abc": 1}').status_code == 201
    assert_problem(api.put("/v2/queues/q2", body=b'{"abcd": 1}'), 400, "Invalid API request")


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "q1", "id": "q1", "description": "made by an SDK"},
        {"": {"": [None, True, 0.5, "\u0000", "\u00e9", "\U0001f426"]}},
        {"a.b": 1, "$c": 2, "$set": {"d.e": {}}, "_ttl": 5, "_undefined": [], "__proto__": {}},
        {"great": 2**63 - 1, "small": -(2**63)},
        {"z": 1, "a": {"z": 1, "a": 2}, "m": 3},
    ],
)
def test_what_is_not_reserved_comes_back_as_it_was(api, metadata):
    """Section 5: names, numbers and the order of the keys."""
    api.create_queue("q1", metadata)

    shown = api.get(Q1).json

    assert list(shown.items())[: len(metadata)] == list(metadata.items())
    assert shown == {**metadata, **DEFAULTS}


def test_the_last_of_equal_keys_wins(api):
    api.put(Q1, body=b'{"a": 1, "a": 2}')

    assert api.metadata("q1") == {"a": 2}


# --- describe, section 10.3


def test_a_queue_shows_what_is_stored_and_seven_defaults(api):
    """Checklist 2."""
    api.create_queue("q1", {"colour": "red", "_default_message_ttl": 60})

    answer = api.get(Q1)

    assert answer.status_code == 200
    assert answer.json == {**DEFAULTS, "colour": "red", "_default_message_ttl": 60}


def test_f4_a_queue_that_does_not_exist_shows_the_defaults(api):
    answer = api.get("/v2/queues/nowhere")

    assert (answer.status_code, answer.json) == (200, DEFAULTS)
    assert api.queue_names() == []


def test_reserved_attributes_that_are_unset_or_zero_show_their_defaults(api):
    api.create_queue("q1", {**dict.fromkeys(DEFAULTS), "_default_message_delay": 0})

    assert api.get(Q1).json == DEFAULTS


def test_the_defaults_shown_are_those_of_the_settings(open_api):
    limits = {"default_message_ttl": 100, "default_message_delay": 7, "max_messages_post_size": 4096}

    shown = open_api(limits=limits).get(Q1).json

    assert shown == {
        **DEFAULTS,
        "_default_message_ttl": 100,
        "_default_message_delay": 7,
        "_max_messages_post_size": 4096,
    }


# --- remove, section 10.5


def test_a_queue_is_removed_with_all_that_is_in_it(api):
    api.create_queue("q1", {"colour": "red"})
    ids = api.post_bodies("a", "b", "c")
    taken = api.claim("q1", limit=1)

    assert api.delete(Q1).status_code == 204

    assert api.queue_names() == []
    assert api.get(Q1).json == DEFAULTS
    assert api.stats("q1") == (0, 0)
    assert api.get(taken.path).status_code == 404
    assert [api.get(f"{Q1}/messages/{id_}").status_code for id_ in ids] == [404, 404, 404]


def test_a_queue_that_does_not_exist_can_be_removed(api):
    assert api.delete(Q1).status_code == 204
    api.create_queue("q1")
    assert [api.delete(Q1).status_code for _ in range(2)] == [204, 204]


def test_a_new_queue_of_the_same_name_knows_nothing_of_the_old_one(api):
    api.create_queue("q1", {"colour": "red"})
    [old] = api.post_bodies("old")
    api.delete(Q1)

    api.create_queue("q1")
    [new] = api.post_bodies("new")

    assert api.metadata("q1") == {}
    assert api.listed("q1") == ["new"]
    assert old != new
    assert api.get(f"{Q1}/messages/{old}").status_code == 404
    assert api.delete(f"{Q1}/messages/{old}").status_code == 204
    assert api.listed("q1") == ["new"]
    assert api.listed("q1", f"echo=true&marker={old}") == []


# --- projects, section 2.2


def test_the_same_name_in_two_projects_is_two_queues(api):
    red = api.of("red")
    api.create_queue("q1", {"of": "blue"})
    red.create_queue("q1", {"of": "red"})
    api.post_bodies("blue message")

    assert (api.metadata("q1"), red.metadata("q1")) == ({"of": "blue"}, {"of": "red"})
    assert (api.stats("q1"), red.stats("q1")) == ((1, 0), (0, 0))
    red.delete(Q1)
    assert api.queue_names() == ["q1"]
    assert api.listed("q1") == ["blue message"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a.b", "c"), ("a", "b.c")),
        (("a", "q.messages"), ("a.q", "messages")),
        (("a/b", "c"), ("a", "b_c")),
        (("a", "queues_set"), ("a", "q")),
        (("a\\n", "c"), ("a", "n")),
        (("A", "Q"), ("a", "q")),
    ],
)
def test_a4_no_names_of_projects_and_queues_run_into_each_other(api, one, other):
    (project, queue), (other_project, other_queue) = one, other
    mine, theirs = api.of(project), api.of(other_project)
    mine.create_queue(queue, {"of": "mine"})
    mine.post_bodies("mine", queue=queue)

    theirs.create_queue(other_queue, {"of": "theirs"})
    theirs.post_bodies("theirs", queue=other_queue)

    assert (mine.listed(queue), theirs.listed(other_queue)) == (["mine"], ["theirs"])
    assert (mine.metadata(queue), theirs.metadata(other_queue)) == ({"of": "mine"}, {"of": "theirs"})
    theirs.delete(f"/v2/queues/{other_queue}")
    assert mine.listed(queue) == ["mine"]
    assert queue in mine.queue_names()


# --- list, section 10.1; checklist 8


def test_a_project_without_queues_has_an_empty_list(api):
    answer = api.get("/v2/queues")

    assert (answer.status_code, answer.json) == (200, {"queues": [], "links": []})


def test_queues_are_listed_by_name_in_byte_order(api):
    for name in ("b", "a", "_", "B", "a.b", "a-b", "0", "ab"):
        api.create_queue(name)

    answer = api.get("/v2/queues")

    expected = ["0", "B", "_", "a", "a-b", "a.b", "ab", "b"]
    assert answer.json["queues"] == [{"name": name, "href": f"/v2/queues/{name}"} for name in expected]


def test_a_list_shows_the_queues_of_one_project(three):
    three.of("red").create_queue("q4")

    assert three.queue_names() == ["q1", "q2", "q3"]
    assert three.of("red").queue_names() == ["q4"]
    assert three.of("green").queue_names() == []


def test_a_detailed_list_shows_what_each_queue_shows(three):
    listed = three.get("/v2/queues?detailed=true").json["queues"]

    assert {queue["name"]: queue["metadata"] for queue in listed} == {
        name: three.get(f"/v2/queues/{name}").json for name in ("q1", "q2", "q3")
    }
    assert all(set(queue) == {"name", "href", "metadata"} for queue in listed)


def test_ten_queues_are_listed_unless_asked_otherwise(api):
    """Checklist 17."""
    for number in range(11):
        api.create_queue(f"q{number:02}")

    assert len(names(api.get("/v2/queues"))) == 10
    assert len(names(api.get("/v2/queues?limit="))) == 10
    assert len(names(api.get("/v2/queues?limit=20"))) == 11
    assert names(api.get("/v2/queues?limit=1")) == ["q00"]


def test_a_smaller_greatest_page_is_heeded(open_api):
    api = open_api(limits={"max_queues_per_page": 5})

    assert api.get("/v2/queues?limit=5").status_code == 200
    assert_problem(api.get("/v2/queues?limit=6"), 400, "Invalid API request")


def test_the_links_lead_through_all_queues(api):
    """Section 4.3: there is a link even on the last page, none on an empty one."""
    for number in range(10):
        api.create_queue(f"q{number}")

    found = [names(page) for page in pages(api, "/v2/queues?limit=3")]

    assert found == [["q0", "q1", "q2"], ["q3", "q4", "q5"], ["q6", "q7", "q8"], ["q9"], []]


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("q1", ["q2", "q3"]),
        ("q2.5", ["q3"]),
        ("a", ["q1", "q2", "q3"]),
        ("zzz", []),
        ("%C3%A9", []),
        ("", ["q1", "q2", "q3"]),
    ],
)
def test_a_list_begins_behind_the_marker_whether_it_exists_or_not(three, marker, expected):
    answer = three.get(f"/v2/queues?marker={marker}")

    assert (answer.status_code, names(answer)) == (200, expected)


@ONE_STORE
def test_the_link_repeats_what_was_asked(three):
    link = next_link(three.get("/v2/queues?detailed=True&limit=2&with_count=1&name=q"))

    assert link.startswith("/v2/queues?")
    assert query_of(link) == {
        "marker": ["q2"],
        "limit": ["2"],
        "detailed": ["true"],
        "with_count": ["true"],
        "name": ["q"],
    }


def test_f9_the_link_keeps_the_filters(three):
    first = three.get("/v2/queues?colour=red&limit=1")
    second = three.get(next_link(first))
    third = three.get(next_link(second))

    assert [names(first), names(second), names(third)] == [["q1"], ["q2"], []]
    assert query_of(next_link(first))["colour"] == ["red"]


@ONE_STORE
def test_a_link_can_be_used_as_it_is_whatever_is_in_it(three):
    """python-zaqarclient formats the link as a template, so it has no braces."""
    three.create_queue("q4", {"ünï": "ç d&e{f}"})

    link = next_link(three.get("/v2/queues?%C3%BCn%C3%AF=%C3%A7+d%26e%7Bf%7D&limit=1"))

    assert link.isascii()
    assert not set(link) & set(" {}")
    assert names(three.get(link)) == ["q4"]


@ONE_STORE
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q", ["q1", "q2", "q3"]),
        ("2", ["q2"]),
        ("q2", ["q2"]),
        ("Q", []),
        ("2q", []),
        ("%5Eq", []),
        ("q.", []),
        (".*", []),
        ("", ["q1", "q2", "q3"]),
    ],
)
def test_a_list_can_be_limited_to_names_that_contain_a_text(three, text, expected):
    assert names(three.get(f"/v2/queues?name={text}")) == expected


@pytest.mark.parametrize("text", ["x%7C", "%7C", "(", "[", ".*", "%25", "q%00", "'", "*", "_", "%5C"])
def test_a13_the_text_of_a_name_is_no_pattern(three, text):
    three.of("cyan").create_queue("theirs")

    assert names(three.get(f"/v2/queues?name={text}")) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("node=32", ["q2"]),
        ("node=34", []),
        ("colour=red", ["q1", "q2"]),
        ("colour=red&node=32", ["q2"]),
        ("colour=blue&node=32", []),
        ("colour=red&name=1", ["q1"]),
        ("_max_messages_post_size=2000", ["q2"]),
        ("nothing=1", []),
        ("colour=32", []),
        ("%C3%BCn%C3%AF=%C3%A7+d%26e%7Bf%7D", ["q3"]),
    ],
)
def test_a_list_can_be_limited_to_metadata(three, query, expected):
    assert names(three.get(f"/v2/queues?{query}")) == expected


def test_a_filter_does_not_see_defaults(three):
    assert names(three.get("/v2/queues?_default_message_ttl=3600")) == []


def test_f1_a_filter_that_is_repeated_is_refused(three):
    for query in ("node=31&node=32", "colour=red&colour=red"):
        assert three.get(f"/v2/queues?{query}").status_code == 400


def test_a_filtered_page_is_full_if_there_are_enough(api):
    for number in range(30):
        api.create_queue(f"q{number:02}", {"odd": number % 2})

    page = api.get("/v2/queues?odd=1&limit=10")

    assert names(page) == [f"q{number:02}" for number in range(1, 20, 2)]
    assert names(api.get(next_link(page))) == [f"q{number:02}" for number in range(21, 30, 2)]


@ONE_STORE
@pytest.mark.parametrize(
    "query", ["", "&limit=1", "&marker=q2", "&marker=zzz", "&name=2", "&colour=blue", "&detailed=true"]
)
def test_f9_the_count_is_of_all_queues_whatever_is_shown(three, query):
    assert three.get(f"/v2/queues?with_count=true{query}").json["count"] == 3


@ONE_STORE
@pytest.mark.parametrize("query", ["", "?with_count=false", "?with_count="])
def test_queues_are_counted_only_when_asked(three, query):
    assert "count" not in three.get(f"/v2/queues{query}").json


def test_a_count_of_none_is_left_out(api):
    assert api.get("/v2/queues?with_count=true").json == {"queues": [], "links": []}
