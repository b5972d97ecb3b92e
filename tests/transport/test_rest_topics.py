"""Topics: declared and described like queues, in a namespace of their own. Section 11; checklist 27."""

import pytest

from tests.transport.conftest import DEFAULTS, ONE_STORE, assert_problem

T1 = "/v2/topics/t1"
PATCH = "application/openstack-messaging-v2.0-json-patch"
THREE = {
    key: DEFAULTS[key]
    for key in ("_max_messages_post_size", "_default_message_ttl", "_default_message_delay")
}


def patch(api, *changes):
    return api.patch(T1, list(changes), headers={"Content-Type": PATCH})


def test_a_topic_is_created_once_and_keeps_its_metadata(api):
    first = api.put(T1, {"colour": "red"})
    again = api.put(T1, {"colour": "blue"})

    assert (first.status_code, first.headers["location"], first.content) == (201, T1, b"")
    assert (again.status_code, again.headers["location"]) == (204, T1)
    assert api.get(T1).json == {**THREE, "colour": "red"}


def test_a_topic_shows_three_defaults_even_where_there_is_none(api):
    assert api.get("/v2/topics/nowhere").json == THREE
    assert api.get("/v2/topics").json == {"topics": [], "links": []}


def test_topics_and_queues_of_one_name_have_nothing_in_common(api):
    api.put(T1, {"kind": "topic"})
    api.put("/v2/queues/t1", {"kind": "queue"})
    api.post("/v2/queues/t1/messages", {"messages": [{"body": 1}]})

    assert api.get(T1).json["kind"] == "topic"
    assert api.get(f"{T1}/stats").json == {"messages": {"free": 0, "claimed": 0, "total": 0}}
    assert api.post(f"{T1}/purge").status_code == 204
    assert api.delete(T1).status_code == 204
    assert api.get("/v2/queues/t1").json["kind"] == "queue"
    assert api.get("/v2/queues/t1/stats").json["messages"]["total"] == 1


def test_topics_are_listed_by_name_with_links_and_filters(api):
    for number in (3, 1, 2):
        api.put(f"/v2/topics/t{number}", {"node": number, "with_count": "true"})

    page = api.get("/v2/topics?limit=2&detailed=true").json
    rest = api.get(page["links"][0]["href"]).json

    assert [topic["href"] for topic in page["topics"]] == ["/v2/topics/t1", "/v2/topics/t2"]
    assert page["topics"][0]["metadata"] == api.get(T1).json
    assert page["links"][0]["href"].startswith("/v2/topics?")
    assert [topic["name"] for topic in rest["topics"]] == ["t3"]
    assert [topic["name"] for topic in api.get("/v2/topics?node=2").json["topics"]] == ["t2"]
    assert [topic["name"] for topic in api.get("/v2/topics?name=3").json["topics"]] == ["t3"]
    assert api.get("/v2/topics?marker=zzz").json == {"topics": [], "links": []}


def test_with_count_is_a_filter_like_any_other_for_topics(api):
    api.put(T1, {"with_count": "true"})
    api.put("/v2/topics/t2")

    found = api.get("/v2/topics?with_count=true").json

    assert [topic["name"] for topic in found["topics"]] == ["t1"]
    assert "count" not in found


def test_the_metadata_of_a_topic_are_patched(api):
    api.put(T1, {"a": 1})

    changed = patch(
        api,
        {"op": "replace", "path": "/metadata/a", "value": 2},
        {"op": "add", "path": "/metadata/_default_message_ttl", "value": 60},
    )

    assert (changed.status_code, changed.json) == (200, {**THREE, "a": 2, "_default_message_ttl": 60})
    assert_problem(patch(api, {"op": "remove", "path": "/metadata/b"}), 409, "Resource conflict")
    assert_problem(patch(api, {"op": "remove", "path": "/a"}), 400, "Invalid request body")
    api.delete(T1)
    assert_problem(patch(api, {"op": "remove", "path": "/metadata/a"}), 404, "Not found")


@ONE_STORE
@pytest.mark.parametrize("body", [b"{", b"[]", b".", b"  ", b'{"_default_message_ttl": 0}'])
def test_a_topic_with_bad_metadata_is_refused(api, body):
    assert api.put(T1, body=body).status_code == 400
    assert api.get("/v2/topics").json["topics"] == []


@ONE_STORE
@pytest.mark.parametrize("name", ["Nice-Bo@t", "x" * 65, "", "n\n"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_bad_name_is_a_bad_topic_identification(api, method, name):
    answer = api.request(method, f"/v2/topics/{name}")

    assert_problem(answer, 400, "Invalid topic identification")


@ONE_STORE
@pytest.mark.parametrize(
    "path", ["/v2/topics/Nice-Boat_2", "/v2/topics/Service.test_topic", f"/v2/topics/{'x' * 64}"]
)
def test_a_good_name_will_do(api, path):
    assert api.put(path).status_code == 201
    assert api.request("HEAD", path).status_code == 200


def test_a_topic_belongs_to_its_project(api):
    api.put(T1)

    other = {"X-Project-ID": "somebody else"}

    assert api.get("/v2/topics", headers=other).json["topics"] == []
    assert api.put(T1, headers=other).status_code == 201


def test_a_topic_is_removed_whether_or_not_it_is_there(api):
    api.put(T1)

    assert [api.delete(T1).status_code, api.delete(T1).status_code] == [204, 204]
    assert api.request("HEAD", T1).status_code == 404


@ONE_STORE
@pytest.mark.parametrize("body", [{}, {"resource_types": ["nonsense"]}, {"resource_types": "messages"}, []])
def test_purging_a_topic_checks_what_is_to_go(api, body):
    assert api.post(f"{T1}/purge", body).status_code == 400


@ONE_STORE
@pytest.mark.parametrize("query", ["limit=0", "limit=21", "limit=x", "detailed=maybe"])
def test_a_listing_with_a_bad_parameter_is_refused(api, query):
    assert api.get(f"/v2/topics?{query}").status_code == 400


@ONE_STORE
@pytest.mark.parametrize("rest", ["messages", "messages/1", "subscriptions", "claims", "share"])
def test_f15_topics_have_no_messages_of_their_own(api, rest):
    assert api.get(f"{T1}/{rest}").status_code == 404
