"""Deleting messages, one, several, or by taking them out. Sections 12.6 to 12.8; checklist 10, 11, 13, 14."""

from collections.abc import Sequence

import pytest

from tests.transport.conftest import ONE_STORE, assert_problem, bodies_of

MESSAGES = "/v2/queues/q1/messages"


@pytest.fixture
def strict(open_api):
    """A client of a service that deletes by ids only for those who name the claims."""
    return open_api(wire={"message_delete_with_claim_id": True})


def by_ids(*ids: str, **more: Sequence[str]) -> str:
    parameters = {"ids": ids, **more}
    return f"{MESSAGES}?" + "&".join(f"{name}={','.join(values)}" for name, values in parameters.items())


# --- one message, section 12.6


@pytest.mark.parametrize("query", ["", "?claim_id=", "?claim_id=invalid"])
@pytest.mark.parametrize("id_", ["1", "f" * 32, "%00", "x" * 300])
def test_deleting_what_does_not_exist_succeeds(api, id_, query):
    assert api.delete(f"{MESSAGES}/{id_}{query}").status_code == 204
    api.post_bodies("a")
    assert api.delete(f"{MESSAGES}/{id_}{query}").status_code == 204
    assert api.listed() == ["a"]


@pytest.mark.parametrize("query", ["", "?claim_id="])
def test_a_free_message_is_deleted_at_once(api, query):
    """Checklist 10: deleting it again succeeds too."""
    first, _ = api.post_bodies("a", "b")

    assert [api.delete(f"{MESSAGES}/{first}{query}").status_code for _ in range(2)] == [204, 204]
    assert api.listed() == ["b"]
    assert api.get(by_ids(first)).status_code == 404


@pytest.mark.parametrize("kind", ["invalid", "released", "expired", "of another message", "of another queue"])
def test_a_free_message_is_not_deleted_with_a_claim(api, clock, kind):
    """Checklist 14."""
    [id_] = api.post_bodies("a")
    claim_id = "invalid"
    if kind in ("released", "expired"):
        claim_id = api.claim(ttl=60).id
        _ = api.delete(f"/v2/queues/q1/claims/{claim_id}") if kind == "released" else clock.advance(60)
    elif kind == "of another message":
        claim_id = api.claim().id
        [id_] = api.post_bodies("b")
    elif kind == "of another queue":
        api.post_bodies("c", queue="q2")
        claim_id = api.claim("q2").id

    assert_problem(api.delete(f"{MESSAGES}/{id_}?claim_id={claim_id}"), 400, "Unable to delete")
    assert api.get(f"{MESSAGES}/{id_}").status_code == 200


def test_a_claimed_message_is_deleted_by_the_holder_of_the_claim_only(api):
    """Checklist 15."""
    mine, _ = api.post_bodies("mine", "other")
    path = f"{MESSAGES}/{mine}"
    claim, other = api.claim(limit=1), api.claim(limit=1)

    assert_problem(api.delete(path), 403, "Unable to delete")
    assert_problem(api.delete(f"{path}?claim_id={other.id}"), 403, "Unable to delete")
    assert_problem(api.delete(f"{path}?claim_id=invalid"), 400, "Unable to delete")
    assert_problem(api.delete(f"{path}?claim_id={'f' * 32}"), 400, "Unable to delete")
    assert api.get(path).status_code == 200

    assert api.delete(f"{path}?claim_id={claim.id}").status_code == 204
    assert api.get(path).status_code == 404
    assert api.delete(f"{path}?claim_id={claim.id}").status_code == 204


def test_a_slow_worker_cannot_delete_what_another_has_claimed_since(api, clock):
    api.post_bodies("a")
    slow = api.claim(ttl=60)
    clock.advance(60)
    quick = api.claim(ttl=60)

    assert_problem(api.delete(slow.delete_path()), 400, "Unable to delete")
    assert_problem(api.delete(slow.delete_path().partition("?")[0]), 403, "Unable to delete")
    assert api.delete(quick.delete_path()).status_code == 204


def test_a_message_whose_claim_has_expired_is_free(api, clock):
    api.post_bodies("a")
    stale = api.claim(ttl=60)
    clock.advance(60)

    assert api.delete(stale.delete_path()).status_code == 400
    assert api.delete(stale.delete_path().partition("?")[0]).status_code == 204
    assert api.listed() == []


# --- several messages, section 12.7


@pytest.mark.parametrize("separator", [",", "&ids="])
def test_several_messages_are_deleted_by_their_ids(api, separator):
    ids = api.post_bodies("a", "b", "c")

    for _ in range(2):
        assert api.delete(f"{MESSAGES}?ids={separator.join(ids[:2])}").status_code == 204
        assert api.listed() == ["c"]


@pytest.mark.parametrize("ids", ["f" * 32, "1,2,x", "%00,%F0%9F%92%A9", "a,a,a"])
def test_ids_that_are_unknown_do_not_matter(api, ids):
    assert api.delete(f"{MESSAGES}?ids={ids}").status_code == 204
    [known] = api.post_bodies("a")
    assert api.delete(f"{MESSAGES}?ids={ids},{known}").status_code == 204
    assert api.listed() == []


@ONE_STORE
@pytest.mark.parametrize("query", ["", "?ids=", "?pop=", "?ids=&pop=", "?limit=5"])
def test_a_delete_says_what_is_to_be_deleted(api, query):
    """Checklist 10."""
    api.post_bodies("a")

    assert_problem(api.delete(f"{MESSAGES}{query}"), 400, "Invalid API request")
    assert api.listed() == ["a"]


def test_a_delete_is_by_ids_or_by_number(api):
    [id_] = api.post_bodies("a")

    assert_problem(api.delete(f"{MESSAGES}?ids={id_}&pop=1"), 400, "Invalid API request")
    assert api.listed() == ["a"]


@pytest.mark.parametrize(("count", "status"), [(20, 204), (21, 400), (22, 400)])
def test_at_most_twenty_messages_are_deleted_by_ids(api, count, status):
    """Checklist 10."""
    ids = api.post_bodies(*range(22))

    assert api.delete(by_ids(*ids[:count])).status_code == status
    assert api.stats() == ((22 - count, 0) if status == 204 else (22, 0))


def test_a_repeated_id_counts_each_time(api):
    [id_] = api.post_bodies("a")

    assert_problem(api.delete(by_ids(*[id_] * 21)), 400, "Invalid API request")
    assert api.delete(by_ids(*[id_] * 20)).status_code == 204


def test_f7_claims_do_not_matter_by_default(api):
    ids = api.post_bodies("a", "b")
    api.claim(limit=1)

    assert api.delete(by_ids(*ids, claim_ids=["nonsense"])).status_code == 204
    assert api.stats() == (0, 0)


def test_a_claim_that_has_lost_its_messages_lives_on(api):
    ids = api.post_bodies("a", "b", "c")
    claim = api.claim(limit=2)
    api.delete(by_ids(ids[0], ids[2]))

    assert bodies_of(api.get(claim.path)) == ["b"]
    assert api.stats() == (0, 1)


# --- several messages where claims have to be named, checklist 11


def test_with_the_rule_the_claims_have_to_be_named(strict):
    ids = strict.post_bodies("a", "b")

    assert_problem(strict.delete(by_ids(*ids)), 400, "Invalid API request")
    assert_problem(strict.delete(by_ids(*ids, claim_ids=[""])), 400, "Invalid API request")
    assert_problem(strict.delete(f"{MESSAGES}?claim_ids=x"), 400, "Invalid API request")
    assert strict.stats() == (2, 0)


@pytest.mark.parametrize("form", ["{}", "{},{},{},{},{},", "{}&claim_ids={}", ",nonsense,{}"])
def test_with_the_rule_the_holder_of_the_claim_deletes(strict, form):
    ids = strict.post_bodies("a", "b")
    claim = strict.claim()

    path = f"{MESSAGES}?ids={','.join(ids)}&claim_ids={form.replace('{}', claim.id)}"

    assert strict.delete(path).status_code == 204
    assert strict.stats() == (0, 0)


def test_with_the_rule_several_claims_can_be_named(strict):
    ids = strict.post_bodies("a", "b", "c")
    claims = [strict.claim(limit=1).id for _ in range(2)]

    assert strict.delete(by_ids(*ids, claim_ids=claims)).status_code == 204
    assert strict.stats() == (0, 0)


def test_f7_with_the_rule_every_claimed_message_must_be_covered(strict):
    ids = strict.post_bodies("a", "b", "c")
    first, _ = strict.claim(limit=1), strict.claim(limit=1)

    for claim_ids in ([first.id], ["nonsense"]):
        assert_problem(strict.delete(by_ids(*ids, claim_ids=claim_ids)), 403, "Unable to delete")
        assert strict.stats() == (1, 2)


def test_with_the_rule_a_free_message_needs_no_claim(strict):
    ids = strict.post_bodies("a", "b")

    assert strict.delete(by_ids(*ids, claim_ids=["nonsense"])).status_code == 204
    assert strict.stats() == (0, 0)


def test_with_the_rule_a_claim_that_has_expired_is_none(strict, clock):
    ids = strict.post_bodies("a")
    stale = strict.claim(ttl=60)
    clock.advance(60)
    strict.claim()

    assert_problem(strict.delete(by_ids(*ids, claim_ids=[stale.id])), 403, "Unable to delete")


def test_the_rule_is_about_several_messages_only(strict):
    [id_, _] = strict.post_bodies("a", "b")

    assert strict.delete(f"{MESSAGES}/{id_}").status_code == 204
    assert bodies_of(strict.delete(f"{MESSAGES}?pop=1")) == ["b"]


# --- pop, section 12.8; checklist 13


def test_messages_are_taken_out_from_the_front(api):
    api.post_bodies(*range(15))

    assert bodies_of(api.delete(f"{MESSAGES}?pop=1")) == [0]
    assert bodies_of(api.delete(f"{MESSAGES}?pop=2")) == [1, 2]
    assert bodies_of(api.delete(f"{MESSAGES}?pop=10")) == list(range(3, 13))
    assert bodies_of(api.delete(f"{MESSAGES}?pop=20")) == [13, 14]
    assert api.stats() == (0, 0)


@pytest.mark.parametrize("created", [True, False])
def test_nothing_can_be_taken_out_of_an_empty_queue(api, created):
    if created:
        api.create_queue("q1")

    answer = api.delete(f"{MESSAGES}?pop=5")

    assert (answer.status_code, answer.json) == (200, {"messages": []})
    assert api.queue_names() == (["q1"] if created else [])


def test_what_is_taken_out_shows_these_members(api, clock):
    [id_] = api.post_bodies({"any": "json"}, ttl=300)
    clock.advance(42)

    assert api.delete(f"{MESSAGES}?pop=1").json == {
        "messages": [
            {
                "id": id_,
                "ttl": 300,
                "age": 42,
                "body": {"any": "json"},
                "claim_id": None,
                "claim_count": 0,
            }
        ]
    }
    assert api.get(f"{MESSAGES}/{id_}").status_code == 404


def test_only_what_could_be_claimed_is_taken_out(api, clock):
    api.post_bodies("expired", ttl=60)
    clock.advance(60)
    api.post_bodies("claimed")
    claim = api.claim()
    api.post_bodies("delayed", delay=30)
    api.post_bodies("free")

    assert bodies_of(api.delete(f"{MESSAGES}?pop=20")) == ["free"]
    clock.advance(30)
    api.delete(claim.path)
    assert bodies_of(api.delete(f"{MESSAGES}?pop=20")) == ["claimed", "delayed"]


def test_a_smaller_greatest_number_is_heeded(open_api):
    api = open_api(limits={"max_messages_per_claim_or_pop": 5})

    assert api.delete(f"{MESSAGES}?pop=5").status_code == 200
    assert_problem(api.delete(f"{MESSAGES}?pop=6"), 400, "Invalid API request")
