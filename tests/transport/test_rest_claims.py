"""Claims: create, read, renew, release. Sections 13.1 to 13.5; checklist 15 to 17."""

import pytest

from tests.transport.conftest import NO_BODY, ONE_STORE, Client, assert_problem, bodies_of

CLAIMS = "/v2/queues/q1/claims"
MESSAGES = "/v2/queues/q1/messages"
UNKNOWN_CLAIMS = ["1", "f" * 32, "x" * 300, "%00", "%E2%82%AC"]

#: A term of a claim, its default, and the setting that bounds it. The least is 60.
TERMS = [("ttl", 300, "max_claim_ttl"), ("grace", 60, "max_claim_grace")]


def ttl_and_age(api: Client, id_: str) -> tuple[int, int]:
    message = api.get(f"{MESSAGES}/{id_}").json
    return message["ttl"], message["age"]


# --- create, section 13.1


def test_a_claim_hands_out_the_oldest_free_messages(api, clock):
    ids = api.post_bodies("a", "b", "c", ttl=300)
    clock.advance(5)

    answer = api.post(f"{CLAIMS}?limit=2", {"ttl": 100, "grace": 60})

    path = answer.headers["location"]
    claim_id = path.removeprefix(f"{CLAIMS}/")
    assert (answer.status_code, path) == (201, f"{CLAIMS}/{claim_id}")
    assert answer.json == {
        "messages": [
            {"id": id_, "href": f"{MESSAGES}/{id_}?claim_id={claim_id}", "ttl": 300, "age": 5, "body": body}
            for id_, body in zip(ids[:2], "ab", strict=True)
        ]
    }
    assert bodies_of(api.post(CLAIMS)) == ["c"]


def test_no_message_is_in_two_live_claims(api, clock):
    api.post_bodies(*range(5))

    first = bodies_of(api.post(f"{CLAIMS}?limit=3", {"ttl": 60}))
    clock.advance(30)
    second = bodies_of(api.post(CLAIMS, {"ttl": 60}))
    third = api.post(CLAIMS)
    clock.advance(30)
    fourth = bodies_of(api.post(CLAIMS))

    assert (first, second, third.status_code, fourth) == ([0, 1, 2], [3, 4], 204, [0, 1, 2])


@pytest.mark.parametrize("why", ["missing", "empty", "claimed", "delayed", "expired"])
def test_where_nothing_is_free_there_is_no_claim(api, clock, why):
    """Checklist 16; the queue is not created."""
    if why == "empty":
        api.create_queue("q1")
    elif why != "missing":
        api.post_bodies("a", ttl=60, delay=5 if why == "delayed" else 0)
    if why == "claimed":
        api.claim()
    elif why == "expired":
        clock.advance(60)

    answer = api.post(CLAIMS, {"ttl": 100})

    assert (answer.status_code, "location" in answer.headers) == (204, False)
    assert api.queue_names() == ([] if why == "missing" else ["q1"])


@pytest.mark.parametrize(
    "document", [NO_BODY, {}, {"ttl": None, "grace": None}, {"unknown": ["ignored"], "limit": None}]
)
def test_f18_a_claim_has_default_terms(api, document):
    """Without a body, without members, or with nulls, as python-zaqarclient sends them."""
    [id_] = api.post_bodies("a", ttl=60)

    answer = api.post(CLAIMS, document)

    assert answer.status_code == 201
    assert api.get(answer.headers["location"]).json["ttl"] == 300
    assert ttl_and_age(api, id_) == (360, 0)


def test_a_body_of_length_zero_is_none(api):
    api.post_bodies("a")

    assert api.post(CLAIMS, headers={"Content-Length": "0"}).status_code == 201


def test_the_default_terms_can_be_set(open_api):
    api = open_api(limits={"default_claim_ttl": 100, "default_claim_grace": 200})
    [id_] = api.post_bodies("a", ttl=60)

    claim = api.claim()

    assert api.get(claim.path).json["ttl"] == 100
    assert ttl_and_age(api, id_)[0] == 300


@ONE_STORE
@pytest.mark.parametrize(("term", "_default", "_setting"), TERMS)
@pytest.mark.parametrize(
    ("value", "status"), [(-1, 400), (0, 400), (59, 400), (60, 201), (43200, 201), (43201, 400)]
)
def test_the_terms_of_a_claim_have_bounds(api, term, _default, _setting, value, status):
    api.post_bodies("a")

    answer = api.post(CLAIMS, {term: value})

    assert answer.status_code == status
    if status == 400:
        assert_problem(answer, 400, "Invalid API request")
        assert api.stats() == (1, 0)


@ONE_STORE
@pytest.mark.parametrize(("term", "_default", "setting"), TERMS)
def test_the_greatest_terms_of_a_claim_can_be_set(open_api, term, _default, setting):
    api = open_api(limits={setting: 400})
    api.post_bodies("a")

    assert api.post(CLAIMS, {term: 401}).status_code == 400
    assert api.post(CLAIMS, {term: 400}).status_code == 201


@ONE_STORE
@pytest.mark.parametrize("term", ["ttl", "grace", "limit"])
@pytest.mark.parametrize("value", ["60", "", 60.0, 60.5, [], {}, True])
def test_the_terms_of_a_claim_are_integers(api, term, value):
    api.post_bodies("a")

    assert_problem(api.post(CLAIMS, {term: value}), 400, "Invalid request body")
    assert api.stats() == (1, 0)


def test_a_claim_has_ten_messages_unless_asked_otherwise(api):
    """Checklist 17."""
    api.post_bodies(*range(11))

    assert len(bodies_of(api.post(CLAIMS))) == 10
    assert len(bodies_of(api.post(CLAIMS))) == 1


def test_a_claim_has_at_most_twenty_messages(api):
    api.post_bodies(*range(25))

    assert_problem(api.post(f"{CLAIMS}?limit=21"), 400, "Invalid API request")
    assert len(bodies_of(api.post(f"{CLAIMS}?limit=20"))) == 20


@ONE_STORE
@pytest.mark.parametrize(("limit", "status"), [(0, 400), (1, 201), (20, 201), (21, 400), (-1, 400)])
def test_the_limit_may_stand_in_the_body(api, limit, status):
    """As openstacksdk sends it."""
    api.post_bodies(*range(25))

    answer = api.post(CLAIMS, {"limit": limit})

    assert answer.status_code == status
    if status == 201:
        assert len(bodies_of(answer)) == limit
    else:
        assert_problem(answer, 400, "Invalid API request")


def test_the_limit_of_the_query_comes_before_that_of_the_body(api):
    api.post_bodies(*range(5))

    assert len(bodies_of(api.post(f"{CLAIMS}?limit=1", {"limit": 3}))) == 1


def test_who_posted_a_message_can_claim_it(api):
    api.post_bodies("mine")

    assert bodies_of(api.post(CLAIMS)) == ["mine"]


def test_another_client_of_the_project_can_use_a_claim(api):
    api.post_bodies("a")
    claim = api.claim()
    colleague = api.another()

    assert colleague.get(claim.path).status_code == 200
    assert colleague.patch(claim.path, {}).status_code == 204
    assert colleague.delete(claim.delete_path()).status_code == 204


# --- the lifetime of claimed messages, section 13.2


@pytest.mark.parametrize(
    ("ttl", "grace", "expected"),
    [(777, 60, 837), (777, 83, 860), (121, 82, 203), (60, 90, 120), (120, 60, 120)],
)
def test_a_fresh_message_outlives_its_claim_by_the_grace(api, ttl, grace, expected):
    """A message that would outlive the claim anyway is left alone."""
    [id_] = api.post_bodies("a", ttl=120)

    claim = api.claim(ttl=ttl, grace=grace)

    assert claim.messages[0]["ttl"] == expected
    assert ttl_and_age(api, id_) == (expected, 0)


def test_the_ttl_of_an_older_message_tells_when_it_expires(api, clock):
    [id_] = api.post_bodies("a", ttl=120)
    clock.advance(100)

    api.claim(ttl=60, grace=90)

    assert ttl_and_age(api, id_) == (250, 100)
    clock.advance(149.9)
    assert ttl_and_age(api, id_) == (250, 249)
    clock.advance(0.1)
    assert api.get(f"{MESSAGES}/{id_}").status_code == 404


def test_a_longer_life_stays_when_the_claim_is_released(api):
    [id_] = api.post_bodies("a", ttl=60)
    claim = api.claim(ttl=100, grace=60)

    api.delete(claim.path)

    assert ttl_and_age(api, id_) == (160, 0)
    assert api.listed() == ["a"]


def test_renewing_prolongs_the_life_of_the_messages(api, clock):
    [id_] = api.post_bodies("a", ttl=120)
    claim = api.claim(ttl=60, grace=60)
    clock.advance(50)

    api.patch(claim.path, {"ttl": 100, "grace": 70})

    assert ttl_and_age(api, id_) == (220, 50)


def test_renewing_never_shortens_the_life_of_the_messages(api):
    [id_] = api.post_bodies("a", ttl=60)
    claim = api.claim(ttl=1000, grace=60)

    api.patch(claim.path, {"ttl": 60, "grace": 60})

    assert ttl_and_age(api, id_) == (1060, 0)


# --- read, section 13.3


def test_a_claim_shows_its_messages(api, clock):
    ids = api.post_bodies("a", "b", ttl=300)
    claim = api.claim(ttl=100)
    clock.advance(12.5)

    assert api.get(claim.path).json == {
        "age": 12,
        "ttl": 100,
        "href": claim.path,
        "messages": [
            {"id": id_, "href": f"{MESSAGES}/{id_}?claim_id={claim.id}", "ttl": 300, "age": 12, "body": body}
            for id_, body in zip(ids, "ab", strict=True)
        ],
    }


def test_the_age_of_a_claim_is_never_negative(api, clock):
    api.post_bodies("a")
    claim = api.claim()
    clock.advance(-10)

    assert api.get(claim.path).json["age"] == 0


def test_a_claim_shows_what_is_left_of_its_messages(api):
    api.post_bodies("a", "b", "c")
    claim = api.claim()

    api.delete(claim.delete_path(1))
    assert bodies_of(api.get(claim.path)) == ["a", "c"]

    api.delete(claim.delete_path(0))
    api.delete(claim.delete_path(2))
    answer = api.get(claim.path)
    assert (answer.status_code, answer.json["messages"]) == (200, [])
    assert api.patch(claim.path, {}).status_code == 204


@pytest.mark.parametrize("claim_id", UNKNOWN_CLAIMS)
def test_a_claim_that_is_unknown_is_not_found(api, claim_id):
    """Checklist 16."""
    for queue in ("q1", "nowhere"):
        path = f"/v2/queues/{queue}/claims/{claim_id}"
        assert_problem(api.get(path), 404, "Not found")
        assert_problem(api.patch(path, {"ttl": 60}), 404, "Not found")
        assert api.delete(path).status_code == 204
        api.post_bodies("a")


def test_a_claim_is_not_found_in_another_queue(api):
    api.post_bodies("a")
    api.post_bodies("b", queue="q2")
    foreign = api.claim().path.replace("q1", "q2")

    assert api.get(foreign).status_code == 404
    assert api.patch(foreign, {}).status_code == 404
    assert api.delete(foreign).status_code == 204
    assert (api.stats("q1"), api.stats("q2")) == ((0, 1), (1, 0))


@pytest.mark.parametrize("end", ["expiry", "release"])
def test_a_claim_that_has_ended_is_not_found(api, clock, end):
    """Checklist 15."""
    api.post_bodies("a")
    claim = api.claim(ttl=60)
    if end == "expiry":
        clock.advance(59.9)
        assert api.get(claim.path).json["age"] == 59
        clock.advance(0.1)
    else:
        assert api.delete(claim.path).status_code == 204

    assert_problem(api.get(claim.path), 404, "Not found")
    assert_problem(api.patch(claim.path, {"ttl": 60}), 404, "Not found")
    assert api.delete(claim.path).status_code == 204
    assert_problem(api.delete(claim.delete_path()), 400, "Unable to delete")
    assert bodies_of(api.post(CLAIMS)) == ["a"]


# --- renew, section 13.4


def test_renewing_a_claim_lets_it_begin_anew(api, clock):
    """Checklist 15."""
    api.post_bodies("a")
    claim = api.claim(ttl=60)
    clock.advance(50)

    answer = api.patch(claim.path, {"ttl": 100, "grace": 60, "id": claim.id})

    assert answer.status_code == 204
    assert (api.get(claim.path).json["ttl"], api.get(claim.path).json["age"]) == (100, 0)
    clock.advance(99.9)
    assert api.get(claim.path).status_code == 200
    clock.advance(0.1)
    assert api.get(claim.path).status_code == 404


@pytest.mark.parametrize("document", [{}, {"ttl": None, "grace": None}])
def test_renewing_without_terms_means_the_default_ones(api, document):
    [id_] = api.post_bodies("a", ttl=60)
    claim = api.claim(ttl=60, grace=60)

    assert api.patch(claim.path, document).status_code == 204

    assert api.get(claim.path).json["ttl"] == 300
    assert ttl_and_age(api, id_) == (360, 0)


def test_renewing_needs_no_particular_type_of_body(api):
    api.post_bodies("a")
    claim = api.claim()

    for content_type in (None, "text/plain", "application/json"):
        answer = api.patch(claim.path, {"ttl": 60}, headers={"Content-Type": content_type})
        assert answer.status_code == 204


@ONE_STORE
@pytest.mark.parametrize(("term", "_default", "_setting"), TERMS)
@pytest.mark.parametrize(
    ("value", "status"), [(-1, 400), (59, 400), (60, 204), (43200, 204), (43201, 400), (2**62, 400)]
)
def test_f13_the_terms_of_a_renewal_have_bounds(api, clock, term, _default, _setting, value, status):
    api.post_bodies("a")
    claim = api.claim(ttl=100)
    clock.advance(10)

    answer = api.patch(claim.path, {term: value})

    assert answer.status_code == status
    if status == 400:
        assert_problem(answer, 400, "Invalid API request")
        assert api.get(claim.path).json["age"] == 10


@ONE_STORE
@pytest.mark.parametrize("term", ["ttl", "grace"])
@pytest.mark.parametrize("value", ["60", "", 60.5, [], True])
def test_the_terms_of_a_renewal_are_integers(api, term, value):
    api.post_bodies("a")
    claim = api.claim()

    assert_problem(api.patch(claim.path, {term: value}), 400, "Invalid request body")


# --- release, section 13.5


def test_releasing_frees_the_messages_at_once_in_their_old_places(api):
    api.post_bodies("a", "b", "c")
    claim = api.claim(limit=2)
    api.delete(claim.delete_path(0))
    api.post_bodies("d")

    assert api.delete(claim.path).status_code == 204

    assert api.listed() == ["b", "c", "d"]
    assert bodies_of(api.post(CLAIMS)) == ["b", "c", "d"]
    assert api.delete(claim.path).status_code == 204


def test_a_late_release_does_not_touch_the_next_claim(api, clock):
    api.post_bodies("a")
    slow = api.claim(ttl=60)
    clock.advance(60)
    quick = api.claim(ttl=60)

    assert api.delete(slow.path).status_code == 204

    assert bodies_of(api.get(quick.path)) == ["a"]
    assert api.stats() == (0, 1)
