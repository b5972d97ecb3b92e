"""Events: POST /v2/queues/{q}/events in every mode, each stored once."""

import base64
import json
from typing import Any

import pytest

from tests.boxes import take
from tests.transport.conftest import (
    ONE_STORE,
    PROJECT,
    Answer,
    Client,
    assert_problem,
    ids_of,
)

EVENTS = "/v2/queues/q1/events"
MESSAGES = "/v2/queues/q1/messages"
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
JSON = {"Content-Type": "application/json"}

NOTIFICATION = {
    "message_id": "5c0b0a3e",
    "publisher_id": "compute.host1",
    "event_type": "compute.instance.create.end",
    "priority": "INFO",
    "timestamp": "2026-11-20 21:59:00.123456",
    "payload": {"instance_id": "9f1b", "state": "active"},
}


def event(id_: str = "1", **attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id_, "source": "/s", "type": "t", **attributes}


def post(api: Client, document: Any, headers: dict[str, str] = STRUCTURED, queue: str = "q1") -> Answer:
    return api.post(f"/v2/queues/{queue}/events", document, headers=headers)


def stored(api: Client, queue: str = "q1") -> list[Any]:
    """Return the bodies of the messages of a queue."""
    return api.listed(queue)


def headers_of(event: dict[str, Any], content_type: str | None) -> dict[str, str | None]:
    """Return an event's attributes as headers."""
    return {"Content-Type": content_type, **{f"ce-{name}": str(value) for name, value in event.items()}}


# --- modes


def test_a_structured_event_is_a_message(api):
    found = event(subject="é", data={"a": [1, None]}, datacontenttype="application/json")
    answer = post(api, found)

    assert answer.status_code == 201
    assert set(answer.json) == {"resources"}
    (path,) = answer.json["resources"]
    message = api.get(path).json
    assert message["body"] == found
    assert message["ttl"] == 3600
    assert path == f"{MESSAGES}/{message['id']}"


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b'{"a": 1}', {"data": {"a": 1}}),
        ("application/vnd.x+json; charset=utf-8", b"[1]", {"data": [1]}),
        ("text/plain", "é".encode(), {"data": "é"}),
        ("image/png", b"\x89PNG", {"data_base64": base64.b64encode(b"\x89PNG").decode()}),
        ("application/json", b"", {}),
    ],
)
@ONE_STORE
def test_a_binary_event_is_a_message(api, content_type, body, data):
    answer = api.request("POST", EVENTS, body=body, headers=headers_of(event(), content_type))

    assert answer.status_code == 201, answer.text
    assert stored(api) == [{**event(), "datacontenttype": content_type, **data}]


@ONE_STORE
def test_headers_of_a_binary_event_are_decoded(api):
    headers = headers_of(event(subject="Euro%20%E2%82%AC%20%F0%9F%98%80", ext="7"), "application/json")
    assert api.request("POST", EVENTS, body=b"1", headers=headers).status_code == 201

    (found,) = stored(api)
    assert (found["subject"], found["ext"], found["data"]) == ("Euro € 😀", "7", 1)


def test_a_batch_is_stored_in_its_order(api):
    batch = [event(str(number), data=number) for number in range(25)]
    answer = post(api, batch, BATCH)

    assert answer.status_code == 201
    assert len(set(ids_of(answer))) == 25
    assert [api.get(path).json["body"] for path in answer.json["resources"]] == batch
    assert api.stats() == (25, 0)


def test_an_empty_batch_is_nothing(api):
    answer = post(api, [], BATCH)

    assert (answer.status_code, answer.json) == (201, {"resources": []})
    assert api.stats() == (0, 0)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_a_notification_of_openstack_is_an_event(api, wrapped, many):
    sent: Any = NOTIFICATION
    if wrapped:
        sent = {"oslo.version": "2.0", "oslo.message": json.dumps(NOTIFICATION)}
    assert post(api, [sent] if many else sent, JSON).status_code == 201

    (found,) = stored(api)
    assert found["specversion"] == "1.0"
    assert (found["id"], found["source"]) == ("5c0b0a3e", "/openstack/compute.host1")
    assert found["type"] == "org.openstack.compute.instance.create.end"
    assert (found["subject"], found["priority"]) == ("9f1b", "INFO")
    assert found["data"] == NOTIFICATION["payload"]


def test_the_queue_is_made_and_its_policy_holds(api):
    post(api, event("1"))
    assert api.queue_names() == ["q1"]
    api.create_queue("q2", {"_default_message_ttl": 120, "_default_message_delay": 30})
    answer = post(api, event("1"), queue="q2")

    assert api.get(answer.json["resources"][0]).json["ttl"] == 120
    assert api.post("/v2/queues/q2/claims").status_code == 204


@ONE_STORE
def test_an_event_is_hidden_from_who_posted_it(api):
    post(api, event())

    assert api.get(MESSAGES).json["messages"] == []
    assert len(api.another().get(MESSAGES).json["messages"]) == 1


def test_subscribers_hear_of_events(api):
    api.post("/v2/queues/q1/subscriptions", {"subscriber": "http://h/"})
    post(api, [event("1"), event("2"), event("1")], BATCH)
    post(api, event("2"))
    told = [
        json.loads(notice.body)["id"]
        for batch in take(api.service.deliveries, 10)
        for ticket in batch.tickets
        for notice in ticket.notices
    ]

    assert sorted(told) == ["1", "2"]


# --- once


@pytest.mark.parametrize("claimed", [False, True])
def test_a_repeated_event_is_stored_once(api, claimed):
    first = post(api, event(data=1))
    if claimed:
        api.claim()
    again = post(api, event(data=1))

    assert again.status_code == 201
    assert again.json == first.json
    assert sum(api.stats()) == 1


def test_a_repeated_batch_is_completed(api):
    first = post(api, [event("1"), event("2")], BATCH)
    again = post(api, [event("0"), event("1"), event("2"), event("2"), event("3")], BATCH)

    one, two = ids_of(first)
    assert ids_of(again)[1:4] == [one, two, two]
    assert api.stats() == (4, 0)


def test_an_event_is_the_same_by_its_source_and_id_alone(api):
    """A source that sends an event again may date it anew (CloudEvents 1.0, 3.1.1)."""
    first = post(api, event(time="2026-11-20T21:59:27Z", data=1))
    again = post(api, event(time="2026-11-20T21:59:28Z", data=1))

    assert (again.status_code, again.json) == (201, first.json)
    assert [each["time"] for each in stored(api)] == ["2026-11-20T21:59:27Z"]


def test_an_event_with_an_end_is_the_same_a_moment_later(api, clock):
    found = event(expirytime="2026-11-20T22:59:27Z")
    first = post(api, found)
    clock.advance(10)
    again = post(api, found)

    assert (again.status_code, again.json) == (201, first.json)
    assert api.stats() == (1, 0)


@pytest.mark.parametrize(
    "other", [event("2"), event(source="/other"), {**event("s1"), "source": "/"}, event("1", source="/S")]
)
def test_other_events_are_other_events(api, other):
    post(api, event())
    assert post(api, other).status_code == 201

    assert api.stats() == (2, 0)


def test_queues_and_projects_do_not_share_events(api):
    for client, queue in ((api, "q1"), (api, "q2"), (api.of("red"), "q1")):
        assert post(client, event(), queue=queue).status_code == 201
        assert client.stats(queue) == (1, 0)


def test_a_post_with_the_same_key_is_no_event(api):
    """What a client chooses as a key must not hide an event."""
    post(api, event())
    (id_,) = api.post_messages("q1", {"body": 1})
    assert api.get(f"{MESSAGES}/{id_}").status_code == 200

    assert post(api, event("2")).status_code == 201
    assert api.stats() == (3, 0)


# --- how long


@pytest.mark.parametrize(
    ("end", "ttl"),
    [
        ("2026-11-20T22:01:27Z", 120),
        ("2026-11-20T22:01:26.001Z", 120),
        ("2026-11-20T23:01:27+01:00", 120),
        ("2026-11-20T21:59:28Z", 60),  # shorter than any message lives
        ("2036-11-20T21:59:27Z", 1209600),  # longer than any message lives
    ],
)
@ONE_STORE
def test_an_event_lasts_until_its_end(api, end, ttl):
    answer = post(api, event(expirytime=end))

    assert api.get(answer.json["resources"][0]).json["ttl"] == ttl


@pytest.mark.parametrize("end", ["2026-11-20T21:59:27Z", "2026-11-20T21:59:26.999Z", "1970-01-01T00:00:00Z"])
@ONE_STORE
def test_an_event_that_is_over_is_dropped(api, end):
    answer = post(api, [event("1", expirytime=end), event("2")], BATCH)

    assert answer.status_code == 201
    assert [each["id"] for each in stored(api)] == ["2"]
    assert len(answer.json["resources"]) == 1
    assert post(api, event("3", expirytime=end)).json == {"resources": []}


# --- what is refused


BAD: list[tuple[dict[str, Any], bytes]] = [
    (STRUCTURED, b""),
    (STRUCTURED, b"{"),
    (STRUCTURED, b"[]"),
    (STRUCTURED, b"\xff"),
    (STRUCTURED, json.dumps(event(data=1, data_base64="AA==")).encode()),
    (STRUCTURED, json.dumps(event(data_base64="%")).encode()),
    (STRUCTURED, json.dumps({**event(), "specversion": "0.3"}).encode()),
    (STRUCTURED, json.dumps({**event(), "id": ""}).encode()),
    (STRUCTURED, json.dumps({**event(), "id": 7}).encode()),
    (STRUCTURED, json.dumps(event(time="yesterday")).encode()),
    (STRUCTURED, json.dumps(event(Upper=1)).encode()),
    (STRUCTURED, json.dumps(event(expirytime="soon")).encode()),
    *((STRUCTURED, json.dumps({k: v for k, v in event().items() if k != name}).encode()) for name in event()),
    (BATCH, b"{}"),
    (BATCH, json.dumps([event("1"), {"id": "2"}]).encode()),
    (BATCH, json.dumps([event("1"), 7]).encode()),
    (BATCH, json.dumps([event(str(number)) for number in range(1001)]).encode()),
    ({"Content-Type": "application/cloudevents+xml"}, b"<event/>"),
    ({"Content-Type": "application/cloudevents-batch+avro"}, b""),
    (JSON, b"{}"),
    (JSON, b'{"event_type": "x"}'),
    (JSON, json.dumps([NOTIFICATION, {}]).encode()),
    ({"Content-Type": "text/plain"}, b"hello"),
    ({"Content-Type": None}, b"hello"),
    (headers_of({k: v for k, v in event().items() if k != "id"}, "application/json"), b"1"),
    (headers_of(event(), "application/json"), b"{"),
    (headers_of(event(subject="%zz"), "application/json"), b"1"),
    ({**headers_of(event(), "application/json"), "ce-datacontenttype": "text/plain"}, b"1"),
]


@pytest.mark.parametrize(("headers", "body"), BAD)
@ONE_STORE
def test_what_is_no_event_is_refused_and_nothing_stored(api, headers, body):
    answer = api.request("POST", EVENTS, body=body, headers=headers)

    assert_problem(answer, 400, "Invalid API request")
    assert api.stats() == (0, 0)
    assert api.queue_names() == []


@ONE_STORE
def test_a_form_is_refused(api):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert_problem(api.request("POST", EVENTS, body=b"a=1", headers=headers), 400, "Invalid Content-Type")


@ONE_STORE
def test_a_post_has_a_greatest_size(api):
    most = 262144
    for size, status in ((most, 201), (most + 1, 400)):
        found = event(str(size), data="")
        # The document that is stored is compact, so what arrives is as large as it can be.
        text = json.dumps(found, separators=(",", ":"))
        body = text[:-2] + "a" * (size - len(text)) + text[-2:]
        assert api.request("POST", EVENTS, body=body.encode(), headers=STRUCTURED).status_code == status
    assert api.stats() == (1, 0)


@ONE_STORE
def test_an_event_that_is_too_large_when_it_is_written_out_is_refused_before_any_is_stored(api):
    api.create_queue("q1", {"_max_messages_post_size": 400})
    small = headers_of(event(), "application/octet-stream")
    assert api.request("POST", EVENTS, body=b"x" * 100, headers=small).status_code == 201
    answer = api.request("POST", EVENTS, body=b"x" * 399, headers={**small, "ce-id": "2"})

    assert_problem(answer, 400, "Invalid API request")
    assert api.stats() == (1, 0)


@ONE_STORE
def test_readers_post_no_events(api):
    assert_problem(post(api.sending(X_Roles="reader"), event()), 403, "Not authorized")


@ONE_STORE
def test_only_a_post_is_allowed(api):
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert api.request(method, EVENTS).status_code == 405


@ONE_STORE
def test_an_event_of_another_project_needs_its_signature(open_api):
    """A signed URL for messages opens no events."""
    owner = open_api(signed_url={"secret_keys": ["a key of the tests"]})
    shown = owner.post("/v2/queues/q1/share", {"methods": ["POST"]}).json
    holder = owner.another().sending(
        URL_Signature=shown["signature"],
        URL_Expires=shown["expires"],
        URL_Methods="POST",
        URL_Paths=",".join(shown["paths"]),
    )

    assert holder.headers["X-Project-ID"] == PROJECT
    assert holder.post(MESSAGES, {"messages": [{"body": 1}]}).status_code == 201
    assert post(holder, event()).status_code == 404


@ONE_STORE
def test_encrypted_queues_take_events(open_api, driver):
    key = "k1:" + base64.b64encode(b"k" * 32).decode()
    api = open_api(encryption={"keys": [key]})
    api.create_queue("q1", {"_enable_encrypt_messages": True})
    for _ in range(2):
        assert post(api, event(data="secret")).status_code == 201

    assert [each["data"] for each in stored(api)] == ["secret"]


@ONE_STORE
def test_a_batch_that_failed_half_way_is_completed_by_a_repeat(api, driver):
    batch = [event(str(number)) for number in range(5)]
    posts: list[int] = []
    real = driver.messages.post

    def fail_at_the_third(*arguments: Any, **named: Any) -> Any:
        posts.append(1)
        if len(posts) == 3:
            driver.break_("post")
        return real(*arguments, **named)

    driver.messages.post = fail_at_the_third
    assert post(api, batch, BATCH).status_code == 503
    driver.mend()
    answer = post(api, batch, BATCH)

    assert answer.status_code == 201
    assert [each["id"] for each in stored(api)] == ["0", "1", "2", "3", "4"]
