"""Subscriptions: making, showing, changing and confirming them. Sections 14 and 15.4; checklist 18 to 20."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queues.models import Address, DeliveryCounts, Notice, PendingDelivery
from tests.boxes import take
from tests.transport.conftest import (
    ANOTHER_CLIENT,
    ONE_STORE,
    POOLS,
    PROJECT,
    START,
    WITHOUT_POOLS,
    Answer,
    Client,
    OpenApi,
    assert_problem,
    next_link,
    pages,
)

HOOK = "http://hook.example.org/one"
SUBSCRIPTIONS = "/v2/queues/q1/subscriptions"
UNKNOWN = "0123456789abcdef01234567"
YEAR_9999 = 253_402_300_799  # s; its end
SIGNED = {"signed_url": {"secret_keys": ["a key of the tests"]}}
ASKING = {
    **SIGNED,
    "notifier": {
        "require_confirmation": True,
        "public_url": "https://rest.example.org",
        "websocket_url": "wss://socket.example.org",
    },
}


def subscribe(api: Client, subscriber: str = HOOK, *, queue: str = "q1", **members: Any) -> str:
    """Subscribe somebody and return the id."""
    answer = api.post(f"/v2/queues/{queue}/subscriptions", {"subscriber": subscriber, **members})
    assert answer.status_code == 201, answer.text
    return str(answer.json["subscription_id"])


def path_of(id_: str, *, queue: str = "q1") -> str:
    return f"/v2/queues/{queue}/subscriptions/{id_}"


def listed(api: Client, query: str = "limit=20", *, queue: str = "q1") -> list[str]:
    """Return the ids that a listing shows."""
    answer = api.get(f"/v2/queues/{queue}/subscriptions?{query}")
    assert answer.status_code == 200
    return [each["id"] for each in answer.json["subscriptions"]]


def shown(api: Client, id_: str) -> dict[str, Any]:
    answer = api.get(path_of(id_))
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def confirm(api: Client, id_: str, confirmed: bool = True) -> None:
    assert api.put(f"{path_of(id_)}/confirm", {"confirmed": confirmed}).status_code == 204


def assert_refused(answer: Answer, description: str = "") -> None:
    assert_problem(answer, 400, "Invalid API request")
    assert description in answer.json["description"]


# --- making, section 14.3


def test_a_subscription_is_made_and_shown(api):
    answer = api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "ttl": 600, "options": {"a": 1}})

    assert answer.status_code == 201
    assert answer.headers["location"] == SUBSCRIPTIONS
    assert list(answer.json) == ["subscription_id"]
    id_ = answer.json["subscription_id"]
    assert re.fullmatch("[0-9a-f]{24}", id_)
    found = api.get(path_of(id_))
    assert found.json == {
        "id": id_,
        "source": "q1",
        "subscriber": HOOK,
        "ttl": 600,
        "age": 0,
        "options": {"a": 1},
        "confirmed": False,
    }
    assert api.get(SUBSCRIPTIONS).json["subscriptions"] == [found.json]


def test_only_a_subscriber_is_needed_and_other_members_are_ignored(api):
    found = shown(api, subscribe(api, confirmed=True, id="x", source="q2", age=7))

    assert found["ttl"] == 3600
    assert found["options"] == {}
    assert found["confirmed"] is False
    assert (found["source"], found["age"]) == ("q1", 0)


def test_the_queue_is_made(api):
    subscribe(api)

    assert api.queue_names() == ["q1"]
    assert api.put("/v2/queues/q1").status_code == 204


@pytest.mark.parametrize("body", [{"subscriber": 7}, {"subscriber": HOOK, "ttl": 1}, {}, []])
def test_f3_a_request_that_is_refused_makes_no_queue(api, body):
    assert_refused(api.post(SUBSCRIPTIONS, body))

    assert api.queue_names() == []


@pytest.mark.parametrize(
    "subscriber",
    [
        "http://h/",
        "https://h:8443/a/b?c=d#e",
        "http://[::1]:80/",
        "mailto:aa@example.com",
        "mailto:aa@example.com?Subject=Hi",
        "http://h/" + "a" * (2048 - 9),
    ],
)
@ONE_STORE
def test_every_scheme_of_the_protocol_can_be_subscribed(api, subscriber):
    assert shown(api, subscribe(api, subscriber))["subscriber"] == subscriber


@pytest.mark.parametrize("body", [{}, {"ttl": 60}, {"Subscriber": HOOK}])
@ONE_STORE
def test_a_subscriber_is_needed(api, body):
    assert_refused(api.post(SUBSCRIPTIONS, body), "Missing parameter")


@ONE_STORE
def test_a_body_is_needed(api):
    assert_refused(api.post(SUBSCRIPTIONS), "Missing parameter")


@pytest.mark.parametrize(
    "subscriber",
    [
        "fake",
        "email://fake",
        "ftp://h/",
        "javascript:x",
        "//h/x",
        "h",
        "trust+http://h/",
        "trust+https://h/x",
    ],
)
@ONE_STORE
def test_other_schemes_are_refused(api, subscriber):
    assert_refused(api.post(SUBSCRIPTIONS, {"subscriber": subscriber}), "must be supported in the list")


@pytest.mark.parametrize(
    "subscriber",
    [
        *("", None, 7, True, [], [HOOK], {}),
        *("http:", "http://", "http:///path", "https:h", "http://:80/", "trust+http://"),
        *("http://user@h/", "http://user:secret@h/", "http://h:port/", "http://h:99999/", "http://[::1/"),
        *("http://h/a b", "http://h/\n", "http://h/\x00", "http://h/\x7f", "http://h/" + "a" * 2040),
    ],
)
@ONE_STORE
def test_what_is_no_subscriber_is_refused(api, subscriber):
    assert_refused(api.post(SUBSCRIPTIONS, {"subscriber": subscriber}))
    assert api.get(SUBSCRIPTIONS).json["subscriptions"] == []


@pytest.mark.parametrize("ttl", ["60", "", None, 60.0, True, [], {}])
@ONE_STORE
def test_a_ttl_is_an_integer(api, ttl):
    assert_refused(api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "ttl": ttl}), "must be an integer")


@pytest.mark.parametrize("ttl", [59, 0, -1, YEAR_9999 - START // 1000 + 1, 99999999999999999])
@ONE_STORE
def test_a_ttl_has_bounds(api, ttl):
    assert_refused(api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "ttl": ttl}))


@pytest.mark.parametrize("ttl", [60, YEAR_9999 - START // 1000])
@ONE_STORE
def test_a_ttl_at_its_bounds_is_fine(api, ttl):
    assert shown(api, subscribe(api, ttl=ttl))["ttl"] == ttl


@pytest.mark.parametrize("options", [None, [], "", "a", 1, 0, False])
@ONE_STORE
def test_options_are_an_object(api, options):
    body = {"subscriber": HOOK, "options": options}

    assert_refused(api.post(SUBSCRIPTIONS, body), "must be a dict")


@pytest.mark.parametrize("body", [[], [{"subscriber": HOOK}], "text", 1, None])
@ONE_STORE
def test_a_body_that_is_no_object_is_refused(api, body):
    assert_refused(api.post(SUBSCRIPTIONS, body))


@pytest.mark.parametrize("body", [b"{", b"[", b"{'a': 1}", b"\xff", b'{"options": {"a": 1e999}}'])
@ONE_STORE
def test_a_body_that_is_no_json_is_refused(api, body):
    id_ = subscribe(api)
    for method, path in (
        ("POST", SUBSCRIPTIONS),
        ("PATCH", path_of(id_)),
        ("PUT", f"{path_of(id_)}/confirm"),
    ):
        answer = api.request(method, path, body=body)
        assert answer.status_code == 400
        if body != b'{"options": {"a": 1e999}}':
            assert "body could not be parsed" in answer.json["description"]


@ONE_STORE
def test_the_default_ttl_is_a_setting(open_api):
    api = open_api(limits={"default_subscription_ttl": 7200})

    assert shown(api, subscribe(api))["ttl"] == 7200


def test_a_subscriber_may_have_subscriptions_of_several_queues(api):
    one, two = subscribe(api), subscribe(api, queue="q2")

    assert one != two
    assert (listed(api), listed(api, queue="q2")) == ([one], [two])


# --- options


@pytest.mark.parametrize(
    "options",
    [
        {"post_headers": {"X-One": "1"}},
        {"post_data": '{"params": {"message": "$zaqar_message$"}}'},
        {"from": "a@example.org", "subject": "News"},
        {"format": "zaqar"},
        {"format": "cloudevents-structured"},
        {"format": "cloudevents-binary"},
        {"_retry_policy": {"retries_with_no_delay": 1}},
        {"_retry_policy": {"delays": [1, 2, 3]}},
        {"filter": {"exact": {"type": "t"}}},
        {"filter": [{"prefix": {"type": "com."}}, {"not": {"suffix": {"/a/b": "x"}}}]},
        {"anything": {"else": [1, None, "é"]}},
    ],
)
@ONE_STORE
def test_options_are_kept_as_they_are(api, options):
    assert shown(api, subscribe(api, options=options))["options"] == options


BAD_OPTIONS: list[dict[str, Any]] = [
    {"post_headers": []},
    {"post_headers": "X: 1"},
    {"post_headers": {"X-One": 1}},
    {"post_headers": {"X-One": None}},
    {"post_data": {"a": 1}},
    {"post_data": 7},
    {"from": ["a@example.org"]},
    {"subject": 7},
    {"format": "xml"},
    {"format": ["zaqar"]},
    {"format": {}},
    {"_retry_policy": {"retries_with_no_delay": "3"}},
    {"_retry_policy": {"minimum_delay": 25, "maximum_delay": 30}},
    {"_retry_policy": {"retry_backoff_function": "quick"}},
    {"_retry_policy": {"ignore_subscription_override": "yes"}},
    {"_retry_policy": {"delays": [-1]}},
    {"_retry_policy": [1]},
    {"_retry_policy": "often"},
    {"filter": {"like": {"type": "t"}}},
    {"filter": {"exact": {}}},
    {"filter": "type == t"},
    {"filter": {"sql": "type = 't'"}},
]


@pytest.mark.parametrize("options", BAD_OPTIONS)
@ONE_STORE
def test_options_that_mean_something_are_checked(api, options):
    assert_refused(api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "options": options}))

    id_ = subscribe(api, options={"a": 1})
    assert_refused(api.patch(path_of(id_), {"options": options}))
    assert shown(api, id_)["options"] == {"a": 1}


@pytest.mark.parametrize("trust", ["5a3b", "", None])
def test_a5_nobody_brings_a_trust(api, trust):
    """Whoever could name a trust would get the tokens of whom it belongs to."""
    options = {"trust_id": trust}
    assert_refused(api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "options": options}), "trust_id")

    id_ = subscribe(api, HOOK)
    assert_refused(api.patch(path_of(id_), {"options": options}), "trust_id")
    assert shown(api, id_)["options"] == {}


# --- the same subscriber again, section 14.3


def test_an_unconfirmed_duplicate_is_the_one_there_is(api):
    first = subscribe(api, ttl=600, options={"a": 1})
    answer = api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "ttl": 1200, "options": {"b": 2}})

    assert answer.status_code == 201
    assert answer.json == {"subscription_id": first}
    assert answer.headers["location"] == SUBSCRIPTIONS
    assert listed(api) == [first]
    found = shown(api, first)
    assert (found["ttl"], found["options"]) == (600, {"a": 1})


def test_a_confirmed_duplicate_is_a_conflict(api):
    first = subscribe(api, ttl=600)
    confirm(api, first)
    answer = api.post(SUBSCRIPTIONS, {"subscriber": HOOK, "ttl": 1200})

    assert_problem(answer, 409, "Resource conflict")
    assert answer.headers["location"] == SUBSCRIPTIONS
    assert listed(api) == [first]
    assert shown(api, first)["ttl"] == 600


def test_who_takes_the_confirmation_back_is_no_conflict(api):
    first = subscribe(api)
    confirm(api, first)
    confirm(api, first, False)

    assert subscribe(api) == first


def test_a_subscriber_is_compared_exactly(api):
    ids = {subscribe(api, uri) for uri in (HOOK, HOOK.upper().replace("HTTP:", "http:"), HOOK + "/")}

    assert len(ids) == 3


def test_a_deleted_subscriber_can_come_again(api):
    first = subscribe(api)
    confirm(api, first)
    api.delete(path_of(first))

    second = subscribe(api)
    assert second != first
    assert shown(api, second)["confirmed"] is False


def test_b12_an_expired_duplicate_is_in_nobodys_way(api, clock):
    for _ in range(3):
        id_ = subscribe(api, ttl=60)
        confirm(api, id_)
        clock.advance(60)
        again = subscribe(api, ttl=60)
        assert again != id_
        assert listed(api) == [again]
        clock.advance(60)


def test_many_at_once_get_one_subscription(api):
    with ThreadPoolExecutor(4) as threads:
        ids = set(threads.map(lambda _: subscribe(api), range(12)))

    assert listed(api) == sorted(ids)
    assert len(ids) == 1


# --- one, sections 14.1 and 14.4


def test_an_age_counts_from_the_beginning(api, clock):
    id_ = subscribe(api)
    clock.advance(59.9)

    assert shown(api, id_)["age"] == 59
    assert api.get(SUBSCRIPTIONS).json["subscriptions"][0]["age"] == 59


def test_a_subscription_ends(api, clock):
    brief, long = subscribe(api, ttl=60), subscribe(api, HOOK + "/long", ttl=120)
    clock.advance(59.999)
    assert listed(api) == sorted([brief, long])
    clock.advance(0.001)

    assert_problem(api.get(path_of(brief)), 404, "Not found")
    assert_problem(api.patch(path_of(brief), {"ttl": 60}), 404, "Not found")
    assert_problem(api.put(f"{path_of(brief)}/confirm", {"confirmed": True}), 404, "Not found")
    assert api.delete(path_of(brief)).status_code == 204
    assert listed(api) == [long]


@pytest.mark.parametrize("id_", [UNKNOWN, "x", "a.b", "%00", "é", "0" * 300])
@ONE_STORE
def test_an_unknown_id_is_not_found(api, id_):
    api.create_queue()

    assert_problem(api.get(path_of(id_)), 404, "Not found")
    assert_problem(api.patch(path_of(id_), {"ttl": 60}), 404, "Not found")
    assert_problem(api.put(f"{path_of(id_)}/confirm", {"confirmed": True}), 404, "Not found")
    assert api.delete(path_of(id_)).status_code == 204


def test_a_subscription_is_deleted(api):
    one, two = subscribe(api), subscribe(api, HOOK + "/two")
    for _ in range(2):
        assert api.delete(path_of(one)).status_code == 204

    assert_problem(api.get(path_of(one)), 404, "Not found")
    assert listed(api) == [two]


def assert_out_of_reach(stranger: Client, path: str) -> None:
    """What belongs to another queue, or another project, is not there."""
    assert_problem(stranger.get(path), 404, "Not found")
    assert_problem(stranger.patch(path, {"ttl": 600, "subscriber": "http://evil/"}), 404, "Not found")
    assert_problem(stranger.put(f"{path}/confirm", {"confirmed": True}), 404, "Not found")
    for part in ("status", "failed"):
        assert_problem(stranger.get(f"{path}/{part}"), 404, "Not found")
    assert_problem(stranger.post(f"{path}/replay", {"ids": ["1"]}), 404, "Not found")
    assert stranger.delete(path).status_code == 204


def test_c12_an_id_of_another_queue_is_not_found(api):
    id_ = subscribe(api)
    before = shown(api, id_)
    api.create_queue("q2")
    assert_out_of_reach(api, path_of(id_, queue="q2"))

    assert shown(api, id_) == before
    assert listed(api, queue="q2") == []


def test_a3_an_id_of_another_project_is_not_found(api):
    id_ = subscribe(api)
    before = shown(api, id_)
    assert_out_of_reach(api.of("red"), path_of(id_))
    assert_out_of_reach(api.of(f"{PROJECT}x"), path_of(id_))

    assert shown(api, id_) == before
    assert listed(api.of("red")) == []


def test_a4_names_that_look_alike_when_joined_share_nothing(api):
    one = api.of("a.b").post("/v2/queues/c/subscriptions", {"subscriber": HOOK})
    two = api.of("a").post("/v2/queues/b.c/subscriptions", {"subscriber": HOOK})

    assert one.json != two.json
    assert listed(api.of("a.b"), queue="c") == [one.json["subscription_id"]]


# --- changing, section 14.4


def test_a_subscription_is_changed(api):
    id_ = subscribe(api, ttl=600, options={"a": 1})
    answer = api.patch(path_of(id_), {"subscriber": HOOK + "/new", "ttl": 900, "options": {"b": 2}})

    assert answer.status_code == 204
    assert answer.headers["location"] == path_of(id_)
    assert shown(api, id_) == {
        "id": id_,
        "source": "q1",
        "subscriber": HOOK + "/new",
        "ttl": 900,
        "age": 0,
        "options": {"b": 2},
        "confirmed": False,
    }
    assert listed(api) == [id_]


@pytest.mark.parametrize(
    "change", [{"subscriber": HOOK + "/new"}, {"ttl": 900}, {"options": {"b": 2}}, {"options": {}}]
)
def test_what_is_not_changed_stays(api, change):
    id_ = subscribe(api, ttl=600, options={"a": 1})
    before = shown(api, id_)
    assert api.patch(path_of(id_), {**change, "unknown": 1}).status_code == 204

    assert shown(api, id_) == {**before, **change}


def test_a_new_ttl_begins_anew(api, clock):
    id_ = subscribe(api, ttl=60)
    clock.advance(50)
    assert api.patch(path_of(id_), {"ttl": 60}).status_code == 204
    assert shown(api, id_)["age"] == 0
    clock.advance(59)

    assert shown(api, id_)["age"] == 59
    clock.advance(1)
    assert_problem(api.get(path_of(id_)), 404, "Not found")


def test_other_changes_do_not_prolong_its_life(api, clock):
    id_ = subscribe(api, ttl=60)
    clock.advance(50)
    api.patch(path_of(id_), {"options": {"a": 1}, "subscriber": HOOK + "/new"})
    confirm(api, id_)
    assert shown(api, id_)["age"] == 50
    clock.advance(10)

    assert_problem(api.get(path_of(id_)), 404, "Not found")


@pytest.mark.parametrize("change", [{}, {"unknown": 1}, {"confirmed": True}, {"id": "x", "age": 1}])
@ONE_STORE
def test_a_change_of_nothing_is_refused(api, change):
    id_ = subscribe(api)
    for path in (path_of(id_), path_of(UNKNOWN)):
        answer = api.patch(path, change)
        assert_refused(answer, "Unable to update subscription")
        assert "{subscription_id}" not in answer.text
    assert shown(api, id_)["confirmed"] is False


@ONE_STORE
def test_an_empty_change_is_refused(api):
    answer = api.patch(path_of(subscribe(api)))

    assert_refused(answer)
    assert "{subscription_id}" not in answer.text


@pytest.mark.parametrize("change", [[], [{"ttl": 60}], ["subscriber"]])
@ONE_STORE
def test_a_change_is_an_object(api, change):
    answer = api.patch(path_of(subscribe(api)), change)

    assert answer.status_code == 400
    assert answer.json["description"] == "Subscriptions must be a dict."


@pytest.mark.parametrize(
    ("change", "description"),
    [
        ({"ttl": "60"}, "must be an integer"),
        ({"ttl": 59}, ""),
        ({"ttl": None}, "must be an integer"),
        ({"ttl": 99999999999999999}, ""),
        ({"subscriber": "fake"}, "must be supported in the list"),
        ({"subscriber": None}, ""),
        ({"options": []}, "must be a dict"),
        ({"options": None}, "must be a dict"),
        ({"ttl": 600, "options": 1}, "must be a dict"),
    ],
)
@ONE_STORE
def test_a_change_is_checked_before_anything_else(api, change, description):
    id_ = subscribe(api)
    before = shown(api, id_)
    for path in (path_of(id_), path_of(UNKNOWN)):
        assert_refused(api.patch(path, change), description)
    assert shown(api, id_) == before


def test_a_subscriber_that_is_there_is_a_conflict(api):
    one, two = subscribe(api, ttl=600), subscribe(api, HOOK + "/two")
    before = shown(api, two)
    for confirmed in (False, True):
        confirm(api, one, confirmed)
        assert_problem(
            api.patch(path_of(two), {"subscriber": HOOK, "ttl": 900, "options": {"a": 1}}),
            409,
            "Resource conflict",
        )
        assert shown(api, two) == before


def test_who_keeps_its_subscriber_is_in_its_own_way_never(api):
    id_ = subscribe(api)
    confirm(api, id_)
    assert api.patch(path_of(id_), {"subscriber": HOOK, "options": {"a": 1}}).status_code == 204

    found = shown(api, id_)
    assert (found["options"], found["confirmed"]) == ({"a": 1}, True)


def test_a_subscriber_that_was_left_is_free(api):
    one = subscribe(api)
    confirm(api, one)
    api.patch(path_of(one), {"subscriber": HOOK + "/new"})
    two = subscribe(api)

    assert two != one
    assert_problem(api.patch(path_of(two), {"subscriber": HOOK + "/new"}), 409, "Resource conflict")
    assert api.patch(path_of(one), {"subscriber": HOOK + "/third"}).status_code == 204
    assert api.patch(path_of(two), {"subscriber": HOOK + "/new"}).status_code == 204


def test_b12_an_expired_subscriber_is_no_conflict(api, clock):
    subscribe(api, ttl=60)
    two = subscribe(api, HOOK + "/two")
    clock.advance(60)

    assert api.patch(path_of(two), {"subscriber": HOOK}).status_code == 204
    assert shown(api, two)["subscriber"] == HOOK


def test_e10_another_subscriber_has_to_confirm_again(api):
    id_ = subscribe(api)
    confirm(api, id_)
    api.patch(path_of(id_), {"subscriber": "http://victim.example.org/"})

    assert shown(api, id_)["confirmed"] is False


# --- confirming, section 14.5


def test_a_subscription_is_confirmed_and_taken_back(api):
    id_ = subscribe(api)
    for confirmed in (True, True, False, False, True):
        answer = api.put(f"{path_of(id_)}/confirm", {"confirmed": confirmed})
        assert answer.status_code == 204
        assert answer.headers["location"] == f"{path_of(id_)}/confirm"
        assert shown(api, id_)["confirmed"] is confirmed


@pytest.mark.parametrize(
    "body",
    [{}, {"confirmed": None}, {"confirmed": 1}, {"confirmed": "true"}, {"confirmed": []}, [], [True], True],
)
@ONE_STORE
def test_a_confirmation_is_true_or_false(api, body):
    id_ = subscribe(api)
    confirm(api, id_)
    for path in (path_of(id_), path_of(UNKNOWN)):
        answer = api.put(f"{path}/confirm", body)
        assert answer.status_code == 400
        assert answer.json["description"] == "The 'confirmed' should be boolean."
    assert shown(api, id_)["confirmed"] is True


@ONE_STORE
def test_a_confirmation_has_a_body(api):
    answer = api.put(f"{path_of(subscribe(api))}/confirm")

    assert answer.status_code == 400
    assert answer.json["description"] == "The 'confirmed' should be boolean."


@ONE_STORE
def test_an_extra_spec_changes_nothing(api):
    id_ = subscribe(api)
    answer = api.put(
        f"{path_of(id_)}/confirm", {"confirmed": True}, headers={"EXTRA-SPEC": "messagecode:123456"}
    )

    assert answer.status_code == 204
    assert shown(api, id_)["confirmed"] is True


@ONE_STORE
def test_a_confirmation_is_put_and_not_posted(api):
    assert api.post(f"{path_of(subscribe(api))}/confirm", {"confirmed": True}).status_code == 405


# --- listing, section 14.2


def test_no_subscriptions_are_an_empty_list(api):
    for _ in range(2):
        answer = api.get(SUBSCRIPTIONS)
        assert answer.status_code == 200
        assert answer.json["subscriptions"] == []
        api.create_queue(f"q{len(api.queue_names())}")
    assert api.queue_names() == ["q0", "q1"]


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 15), (5, [5] * 3), (10, [10, 5]), (15, [15])])
@ONE_STORE
def test_subscriptions_come_page_by_page(api, limit, sizes):
    ids = sorted(subscribe(api, f"{HOOK}/{number}") for number in range(15))
    found = [page.json["subscriptions"] for page in pages(api, f"{SUBSCRIPTIONS}?limit={limit}")]

    assert [len(page) for page in found if page] == sizes
    assert [each["id"] for page in found for each in page] == ids


def test_a_page_has_ten_and_a_link(api):
    ids = sorted(subscribe(api, f"{HOOK}/{number}") for number in range(11))
    page = api.get(SUBSCRIPTIONS)

    assert [each["id"] for each in page.json["subscriptions"]] == ids[:10]
    assert next_link(page) == f"{SUBSCRIPTIONS}?marker={ids[9]}"
    after = api.get(next_link(page))
    assert [each["id"] for each in after.json["subscriptions"]] == ids[10:]
    assert api.get(next_link(after)).json["subscriptions"] == []


@ONE_STORE
def test_a_link_keeps_the_limit(api):
    id_ = subscribe(api)

    assert next_link(api.get(f"{SUBSCRIPTIONS}?limit=1")) == f"{SUBSCRIPTIONS}?limit=1&marker={id_}"


@pytest.mark.parametrize("limit", ["0", "21", "-1", "x", "1.5"])
@ONE_STORE
def test_a_limit_has_bounds(api, limit):
    assert api.get(f"{SUBSCRIPTIONS}?limit={limit}").status_code == 400


@ONE_STORE
def test_a_marker_need_not_exist(api):
    id_ = subscribe(api)

    assert listed(api, "marker=0") == [id_]
    assert listed(api, "marker=zzz") == []
    assert listed(api, "marker=&detailed=true") == [id_]


def test_expired_ones_do_not_count_for_a_page(api, clock):
    for number in range(12):
        subscribe(api, f"{HOOK}/brief/{number}", ttl=60)
    lasting = sorted(subscribe(api, f"{HOOK}/{number}") for number in range(3))
    clock.advance(60)

    assert listed(api, "limit=2") == lasting[:2]
    assert listed(api, f"limit=2&marker={lasting[1]}") == lasting[2:]


# --- with their queue, sections 10.5 and 10.8


def test_subscriptions_outlive_their_queue(api, clock):
    id_ = subscribe(api, ttl=600)
    confirm(api, id_)
    before = shown(api, id_)
    assert api.delete("/v2/queues/q1").status_code == 204

    assert api.queue_names() == []
    assert shown(api, id_) == before
    assert listed(api) == [id_]
    assert api.patch(path_of(id_), {"options": {"a": 1}}).status_code == 204
    confirm(api, id_, False)
    clock.advance(600)
    assert listed(api) == []


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (None, 0),
        ({"resource_types": ["messages", "subscriptions"]}, 0),
        ({"resource_types": ["subscriptions"]}, 0),
        ({"resource_types": ["messages"]}, 15),
        ({"resource_types": []}, 15),
    ],
)
def test_f8_a_purge_takes_all_subscriptions_or_none(api, body, left):
    ids = [subscribe(api, f"{HOOK}/{number}") for number in range(15)]
    subscribe(api, queue="q2")
    confirm(api, ids[0])
    answer = api.post("/v2/queues/q1/purge") if body is None else api.post("/v2/queues/q1/purge", body)

    assert answer.status_code == 204
    assert len(listed(api)) == left
    assert api.get(path_of(ids[0])).status_code == (200 if left else 404)
    assert len(listed(api, queue="q2")) == 1
    if not left:
        assert subscribe(api, f"{HOOK}/0") != ids[0]


def test_posts_go_on_as_subscribers_come_and_go(api):
    api.create_queue()
    bodies: list[int] = []

    def post() -> None:
        bodies.append(len(bodies))
        api.post_bodies(bodies[-1])

    post()
    one = subscribe(api)
    post()
    two = subscribe(api, HOOK + "/two")
    api.delete(path_of(one))
    post()
    api.delete(path_of(two))
    post()
    subscribe(api)
    api.post("/v2/queues/q1/purge", {"resource_types": ["subscriptions"]})
    post()
    subscribe(api)
    api.delete("/v2/queues/q1")
    bodies.clear()
    post()
    post()

    assert api.listed() == bodies


# --- roles, section 6.3


@ONE_STORE
def test_readers_read_only(api):
    id_ = subscribe(api)
    reader = api.sending(X_Roles="reader")

    assert listed(reader) == [id_]
    assert reader.get(path_of(id_)).status_code == 200
    assert reader.get(f"{path_of(id_)}/failed").status_code == 200
    for answer in (
        reader.post(SUBSCRIPTIONS, {"subscriber": HOOK}),
        reader.patch(path_of(id_), {"ttl": 60}),
        reader.delete(path_of(id_)),
        reader.put(f"{path_of(id_)}/confirm", {"confirmed": True}),
        reader.get(f"{path_of(id_)}/status"),
        reader.post(f"{path_of(id_)}/replay", {"ids": []}),
    ):
        assert_problem(answer, 403, "Not authorized")
    assert shown(api, id_)["ttl"] == 3600


@WITHOUT_POOLS
def test_a_store_that_fails_is_503(api, driver):
    id_ = subscribe(api)
    driver.break_()
    for answer in (
        api.get(SUBSCRIPTIONS),
        api.post(SUBSCRIPTIONS, {"subscriber": HOOK}),
        api.get(path_of(id_)),
        api.patch(path_of(id_), {"ttl": 60}),
        api.delete(path_of(id_)),
        api.put(f"{path_of(id_)}/confirm", {"confirmed": True}),
    ):
        assert_problem(answer, 503, "Service temporarily unavailable")


@pytest.mark.parametrize("method", ["insert", "subscribe"])
@WITHOUT_POOLS
def test_a_subscription_that_failed_half_way_can_be_made_again(api, driver, method):
    api.create_queue()
    driver.break_(method)
    assert api.post(SUBSCRIPTIONS, {"subscriber": HOOK}).status_code == 503
    driver.mend()

    id_ = subscribe(api)
    assert listed(api) == [id_]


# --- what Hermod adds: status, failed, replay


def give_up(api: Client, id_: str, number: int, *, queue: str = "q1") -> None:
    """Let a delivery be given up."""
    api.service.deliveries.bury(
        PendingDelivery(
            notice=Notice(id=f"msg_{number}", body=b'{"n": %d}' % number, ttl=300),
            address=Address(project=PROJECT, queue=queue),
            subscription_id=id_,
            attempt=3,
            posted=START,
        )
    )


def failed(api: Client, id_: str, query: str = "") -> list[Any]:
    """Return the bodies of what was given up."""
    answer = api.get(f"{path_of(id_)}/failed{query}")
    assert answer.status_code == 200
    return [each["body"]["n"] for each in answer.json["deliveries"]]


def pending(api: Client) -> list[PendingDelivery]:
    """Take what waits to be delivered."""
    service = api.service.deliveries
    batches = take(service)
    for batch in batches:
        service.settle(batch, [each.id for each in batch.pending])
    return [each for batch in batches for each in batch.pending]


def test_a_status_tells_how_it_goes(api):
    id_ = subscribe(api)
    assert api.get(f"{path_of(id_)}/status").json == {
        "id": id_,
        "state": "active",
        "reason": None,
        "delivered": 0,
        "failed_attempts": 0,
        "dead_lettered": 0,
        "filtered": 0,
        "last_error": None,
        "attempts": [],
        "signing_secrets": [],
        "public_keys": [],
    }

    address = Address(project=PROJECT, queue="q1")
    api.service.deliveries.note(address, id_, DeliveryCounts(delivered=2, failed=1, last_error="no"))
    api.service.deliveries.note(address, id_, DeliveryCounts(dead=1, filtered=4))
    status = api.get(f"{path_of(id_)}/status").json
    assert (status["delivered"], status["failed_attempts"], status["dead_lettered"]) == (2, 1, 1)
    assert (status["filtered"], status["last_error"]) == (4, "no")


def test_a_subscription_that_was_disabled_says_why_until_it_is_changed(api):
    id_ = subscribe(api)
    api.service.subscriptions.disable(Address(project=PROJECT, queue="q1"), id_, "gone for good")
    status = api.get(f"{path_of(id_)}/status").json
    assert (status["state"], status["reason"]) == ("disabled", "gone for good")

    api.patch(path_of(id_), {"ttl": 600})
    status = api.get(f"{path_of(id_)}/status").json
    assert (status["state"], status["reason"]) == ("active", None)


@ONE_STORE
def test_a_subscription_that_waits_says_so(open_api):
    api = open_api(**ASKING)
    id_ = subscribe(api)
    assert api.get(f"{path_of(id_)}/status").json["state"] == "unconfirmed"
    confirm(api, id_)

    assert api.get(f"{path_of(id_)}/status").json["state"] == "active"


def test_what_was_given_up_is_listed_page_by_page(api, clock):
    id_ = subscribe(api)
    assert api.get(f"{path_of(id_)}/failed").json == {"deliveries": [], "links": []}
    for number in range(3):
        give_up(api, id_, number)
        clock.advance(1)

    page = api.get(f"{path_of(id_)}/failed?limit=2")
    first = page.json["deliveries"][0]
    assert first == {
        "id": first["id"],
        "webhook_id": "msg_0",
        "failed_at": "2026-11-20T21:59:27Z",
        "posted_at": "2026-11-20T21:59:27Z",
        "attempts": 3,
        "body": {"n": 0},
    }
    assert [each["body"]["n"] for each in page.json["deliveries"]] == [0, 1]
    after = api.get(next_link(page))
    assert [each["body"]["n"] for each in after.json["deliveries"]] == [2]
    assert failed(api, id_, "?limit=20") == [0, 1, 2]
    assert api.get(f"{path_of(id_)}/failed?limit=21").status_code == 400


def test_what_was_given_up_is_sent_again_by_id(api):
    id_ = subscribe(api)
    for number in range(3):
        give_up(api, id_, number)
    ids = [each["id"] for each in api.get(f"{path_of(id_)}/failed").json["deliveries"]]
    answer = api.post(f"{path_of(id_)}/replay", {"ids": [ids[0], ids[2], "unknown"]})

    assert (answer.status_code, answer.json) == (202, {"replayed": 2})
    assert failed(api, id_) == [1]
    again = pending(api)
    assert sorted(each.notice.id for each in again) == ["msg_0", "msg_2"]
    assert [each.attempt for each in again] == [1, 1]
    assert {each.subscription_id for each in again} == {id_}


def test_what_was_given_up_is_sent_again_by_time(api, clock):
    id_ = subscribe(api)
    for number in range(3):
        give_up(api, id_, number)
        clock.advance(60)
    answer = api.post(f"{path_of(id_)}/replay", {"since": "2026-11-20T22:00:27Z"})

    assert answer.json == {"replayed": 2}
    assert failed(api, id_) == [0]
    assert api.post(f"{path_of(id_)}/replay", {"since": "2026-11-20T21:59:27"}).json == {"replayed": 1}
    assert len(pending(api)) == 3


@pytest.mark.parametrize(
    "wish",
    [{}, {"ids": ["1"], "since": "2026-11-20"}, {"since": "yesterday"}, {"ids": "1"}, {"since": 5}, []],
)
@ONE_STORE
def test_a_replay_says_what(api, wish):
    assert api.post(f"{path_of(subscribe(api))}/replay", wish).status_code == 400


def test_what_was_sent_again_can_be_given_up_again(api, clock):
    id_ = subscribe(api)
    give_up(api, id_, 0)
    for _ in range(2):
        clock.advance(1)
        api.post(f"{path_of(id_)}/replay", {"since": "2026-11-20T00:00:00Z"})
        assert failed(api, id_) == []
        (again,) = pending(api)
        for _ in range(2):  # the second time after a crash
            api.service.deliveries.bury(again)
        assert failed(api, id_) == [0]


@pytest.mark.parametrize("how", ["delete", "purge"])
def test_what_is_known_of_a_subscription_goes_with_it(api, driver, how):
    id_, other = subscribe(api), subscribe(api, HOOK + "/two")
    address = Address(project=PROJECT, queue="q1")
    for each in (id_, other):
        give_up(api, each, 0)
        api.service.deliveries.note(address, each, DeliveryCounts(delivered=1))
    if how == "delete":
        api.delete(path_of(id_))
        assert failed(api, other) == [0]
        assert api.service.deliveries.counts(address, other).delivered == 1
    else:
        api.post("/v2/queues/q1/purge", {"resource_types": ["subscriptions"]})

    assert api.service.deliveries.counts(address, id_) == DeliveryCounts()
    assert api.service.deliveries.dead(address, id_) == []


# --- confirmation messages, section 15.4


@pytest.fixture
def asking(open_api: OpenApi) -> Client:
    """A client of a service that asks subscribers to confirm."""
    return open_api(**ASKING)


def asked(api: Client) -> list[dict[str, Any]]:
    """Take the messages to subscribers that wait."""
    return [json.loads(each.payload) for each in pending(api) if each.payload is not None]


@ONE_STORE
def test_e10_a_subscriber_is_asked(asking):
    id_ = subscribe(asking, ttl=600)
    (message,) = asked(asking)

    path = f"{path_of(id_)}/confirm"
    assert "q1" in message.pop("Message")
    assert re.fullmatch("[0-9a-f]{64}", message.pop("URL-Signature"))
    assert message == {
        "Message_Type": "SubscriptionConfirmation",
        "WSGISubscribeURL": f"https://rest.example.org{path}",
        "WebSocketSubscribeURL": f"wss://socket.example.org{path}",
        "URL-Methods": "PUT",
        "URL-Paths": path,
        "X-Project-ID": PROJECT,
        "URL-Expires": "2026-11-20T22:09:27",
        "SubscribeBody": {"confirmed": True},
        "UnsubscribeBody": {"confirmed": False},
        "queue_name": "q1",
    }


@ONE_STORE
def test_urls_are_there_where_they_are_known(open_api):
    api = open_api(**SIGNED, notifier={"require_confirmation": True})
    subscribe(api)
    (message,) = asked(api)

    assert not {"WSGISubscribeURL", "WebSocketSubscribeURL"} & set(message)


@pytest.mark.parametrize("settings", [{}, SIGNED])
@ONE_STORE
def test_nobody_is_asked_without_need(open_api, settings):
    api = open_api(**settings)
    id_ = subscribe(api)
    confirm(api, id_, False)

    assert asked(api) == []


def bearer(api: Client, message: dict[str, Any]) -> Client:
    """Return a client that has nothing but what a subscriber was sent."""
    headers = {
        name: message[name]
        for name in ("URL-Signature", "URL-Methods", "URL-Paths", "URL-Expires", "X-Project-ID")
    }
    return Client(
        service=api.service,
        app=api.app,
        headers={**headers, "Client-ID": ANOTHER_CLIENT, "Content-Type": "application/json"},
    )


@pytest.mark.parametrize("strategy", ["none", "token"])
@ONE_STORE
def test_a_subscriber_confirms_with_what_it_was_sent(open_api, strategy):
    owner = open_api(**ASKING)
    id_ = subscribe(owner)
    (message,) = asked(owner)
    api = open_api(**ASKING, auth_strategy=strategy)
    subscriber = bearer(api, message)
    path = message["URL-Paths"]

    assert subscriber.put(path, message["SubscribeBody"]).status_code == 204
    assert shown(owner, id_)["confirmed"] is True
    assert subscriber.put(path, message["UnsubscribeBody"]).status_code == 204
    assert shown(owner, id_)["confirmed"] is False


@ONE_STORE
def test_e13_what_a_subscriber_was_sent_opens_nothing_else(asking, clock):
    id_, other = subscribe(asking, ttl=600), subscribe(asking, HOOK + "/two")
    message = next(each for each in asked(asking) if id_ in each["URL-Paths"])
    subscriber = bearer(asking, message)
    for answer in (
        subscriber.get(path_of(id_)),
        subscriber.delete(path_of(id_)),
        subscriber.patch(path_of(id_), {"ttl": 60}),
        subscriber.get(message["URL-Paths"]),
        subscriber.put(f"{path_of(other)}/confirm", {"confirmed": True}),
        subscriber.of("red").put(message["URL-Paths"], {"confirmed": True}),
        subscriber.get(SUBSCRIPTIONS),
    ):
        assert answer.status_code == 404
    assert shown(asking, other)["confirmed"] is False
    clock.advance(600)
    assert subscriber.put(message["URL-Paths"], {"confirmed": True}).status_code == 404


@ONE_STORE
def test_e10_a_subscriber_is_asked_again_at_most_once_a_minute(asking, clock):
    id_ = subscribe(asking)
    assert len(asked(asking)) == 1
    for _ in range(3):
        assert subscribe(asking) == id_
    clock.advance(59.999)
    subscribe(asking)
    assert asked(asking) == []
    clock.advance(0.001)
    subscribe(asking)
    subscribe(asking)

    (message,) = asked(asking)
    assert id_ in message["URL-Paths"]


@ONE_STORE
def test_e10_whoever_keeps_changing_a_subscriber_asks_nobody_twice_in_a_minute(asking, clock):
    """Somebody who has a subscription must not be able to have others bombarded."""
    id_ = subscribe(asking, HOOK)
    for _ in range(5):
        for subscriber in ("http://victim.example.org/", HOOK):
            asking.patch(path_of(id_), {"subscriber": subscriber})
            asking.delete(path_of(id_))
            id_ = subscribe(asking, subscriber)

    assert len(asked(asking)) <= 2


@ONE_STORE
def test_another_subscriber_is_asked(asking, clock):
    id_ = subscribe(asking)
    confirm(asking, id_)
    asked(asking)
    clock.advance(60)
    asking.patch(path_of(id_), {"options": {"a": 1}, "subscriber": HOOK})
    assert asked(asking) == []
    asking.patch(path_of(id_), {"subscriber": HOOK + "/new"})

    (message,) = asked(asking)
    assert message["Message_Type"] == "SubscriptionConfirmation"


@ONE_STORE
def test_e13_who_unsubscribes_is_told(asking, clock):
    id_ = subscribe(asking, ttl=600)
    confirm(asking, id_)
    asked(asking)
    clock.advance(60)
    confirm(asking, id_, False)

    (message,) = asked(asking)
    assert message["Message_Type"] == "UnsubscribeConfirmation"
    assert "q1" in message["Message"]
    assert message["URL-Expires"] == "2026-11-20T23:00:27"  # after the default ttl, not its own
    assert message["URL-Paths"] == f"{path_of(id_)}/confirm"
    assert message["SubscribeBody"] == {"confirmed": True}


# --- pools


@POOLS
def test_subscribers_of_a_queue_in_a_pool_get_its_tickets(api):
    for queue in ("q1", "q2"):
        subscribe(api, queue=queue)
        api.post_bodies(queue, queue=queue)
    found = [
        (ticket.address.queue, batch.pool)
        for batch in take(api.service.deliveries, 10)
        for ticket in batch.tickets
    ]

    assert sorted(queue for queue, _ in found) == ["q1", "q2"]
    assert "" not in {pool for _, pool in found}
