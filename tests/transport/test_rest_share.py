"""Pre-signed URLs: asking for them and using them. Section 7; checklist 21."""

import hashlib
import hmac

import pytest
from pydantic import SecretStr

from tests.transport.conftest import (
    CLIENT,
    ONE_STORE,
    PROJECT,
    Client,
    assert_problem,
    bodies_of,
)
from transport.settings import SignedUrlSettings

pytestmark = ONE_STORE

SHARE = "/v2/queues/q1/share"
MESSAGES = "/v2/queues/q1/messages"
CLAIMS = "/v2/queues/q1/claims"
LATER = "2026-11-21T10:00:00"
EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]
OLD, NEW = "old key of the tests", "new key of the tests"


@pytest.fixture
def owner(open_api):
    """A client of a service that signs."""
    return open_api(signed_url={"secret_keys": ["a key of the tests"]})


def holder(owner: Client, **wish: object) -> Client:
    """Sign what is wished for, and return a client that shows the signature and is nobody else."""
    shown = owner.post(SHARE, wish).json
    return owner.another().sending(
        URL_Signature=shown["signature"],
        URL_Expires=shown["expires"],
        URL_Methods=",".join(shown["methods"]),
        URL_Paths=",".join(shown["paths"]),
    )


def hand_signed(
    client: Client, *, paths: str, methods: str, expires: str = LATER, project: str = PROJECT
) -> Client:
    """Sign by hand what the service itself would not."""
    separator = "\\n"  # as the protocol has it: not a newline
    message = separator.join((paths, methods, project, expires))
    signature = hmac.new(b"a key of the tests", message.encode(), hashlib.sha256).hexdigest()
    return client.sending(
        URL_Signature=signature,
        URL_Paths=paths,
        URL_Methods=methods,
        URL_Expires=expires,
        X_Project_ID=project,
    )


def assert_not_found(answer):
    assert (answer.status_code, answer.json) == (404, {"title": "404 Not Found"})


# --- asking, section 7.1


def test_a_signed_url_is_for_reading_messages_for_a_day_unless_asked_otherwise(owner):
    answer = owner.post(SHARE, {})

    assert answer.status_code == 200
    signature = answer.json["signature"]
    assert answer.json == {
        "project": PROJECT,
        "paths": [MESSAGES],
        "methods": ["GET"],
        "expires": "2026-11-21T21:59:27",
        "signature": signature,
    }
    assert len(signature) == 64
    assert set(signature) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "wish", [{"paths": [], "methods": [], "expires": None}, {"paths": None, "methods": None}]
)
def test_what_is_empty_is_not_asked_for(owner, wish):
    assert owner.post(SHARE, wish).json == owner.post(SHARE, {}).json


def test_the_signature_is_the_one_of_the_protocol(open_api):
    # Its example has a key that no settings let through.
    owner = open_api(signed_url=SignedUrlSettings.model_construct(secret_keys=(SecretStr("test"),)))
    wish = {"methods": ["GET", "POST", "DELETE"], "expires": "2100-01-01T00:00:00"}

    answer = owner.of("proj1").post(SHARE, wish)

    assert answer.json["methods"] == ["DELETE", "GET", "POST"]
    assert answer.json["signature"] == "5bccbdc892f63f887406e6d54cddce08e6639572db8b0c73c4b365c260368e3e"


def test_paths_and_methods_are_sorted(owner):
    wish = {"paths": ["subscriptions", "messages", "claims"], "methods": ["PUT", "GET", "DELETE", "GET"]}

    shared = owner.post(SHARE, wish).json

    assert shared["paths"] == [CLAIMS, MESSAGES, "/v2/queues/q1/subscriptions"]
    assert shared["methods"] == ["DELETE", "GET", "GET", "PUT"]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("2026-11-20T22:00:27", "2026-11-20T22:00:27"),
        ("2026-11-20T22:00:27.986693", "2026-11-20T22:00:27"),
        ("2026-11-20T22:00:27Z", "2026-11-20T22:00:27"),
        ("2026-11-20T23:00:27+01:00", "2026-11-20T22:00:27"),
        ("2026-11-20T20:30:27-01:30", "2026-11-20T22:00:27"),
        ("2100-02-28 00:00:00", "2100-02-28T00:00:00"),
    ],
)
def test_the_expiry_is_written_in_utc_without_fractions(owner, asked, answered):
    assert owner.post(SHARE, {"expires": asked}).json["expires"] == answered


@pytest.mark.parametrize(
    "wish",
    [
        {"paths": ["stats"]},
        {"paths": ["messages", "purge"]},
        {"paths": ["/v2/queues/q2/messages"]},
        {"paths": [""]},
        {"paths": [5]},
        {"paths": [["messages"]]},
        {"paths": "messages"},
        {"paths": {"messages": 1}},
        {"paths": 5},
        {"methods": "GET"},
        {"methods": {"GET": 1}},
        {"methods": 5},
        {"methods": [5]},
        {"methods": [None]},
        {"expires": 5},
        {"expires": 4102444800},
        {"expires": "4102444800"},
        {"expires": "20991231"},
        {"expires": "soon"},
        {"expires": ""},
        {"expires": []},
        {"expires": True},
        {"expires": "2100-02-30T00:00:00"},
        {"expires": "2026-11-20T21:59:27"},
        {"expires": "2026-11-20T21:59:26"},
        {"expires": "1990-01-01T00:00:00"},
        {"expires": "0001-01-01T00:00:00+23:59"},
        {"expires": "9999-12-31T23:59:59-23:59"},
        {"unknown": 1},
        {"project": "red"},
        {"path": ["messages"]},
    ],
)
def test_a_wish_that_breaks_the_rules_is_refused(owner, wish):
    assert owner.post(SHARE, wish).status_code == 400


@pytest.mark.parametrize("method", ["FETCH", "get", "GET,DELETE", "", "*", "GET\n"])
def test_a8_methods_are_methods_of_http(owner, method):
    assert owner.post(SHARE, {"methods": [method]}).status_code == 400


@pytest.mark.parametrize("document", [[], ["messages"], "messages", 5, None])
def test_f1_a_wish_is_an_object(owner, document):
    assert_problem(owner.post(SHARE, document), 400, "Invalid request body")


def test_a_wish_needs_a_body(owner):
    assert_problem(owner.post(SHARE), 400, "Invalid request body")


def test_a_service_without_a_key_signs_nothing(api):
    assert_problem(api.post(SHARE, {}), 400, "Invalid API request")


def test_signing_makes_no_queue(owner):
    owner.post(SHARE, {})

    assert owner.queue_names() == []


# --- using, section 7.3


def test_the_holder_does_what_was_signed(owner):
    owner.post_bodies("a", "b", "c", "d")
    guest = holder(owner, methods=["GET", "POST", "DELETE"])

    assert bodies_of(guest.get(f"{MESSAGES}?limit=20")) == ["a", "b", "c", "d"]
    [id_] = guest.post_bodies("e")
    assert guest.get(f"{MESSAGES}/{id_}").json["body"] == "e"
    assert guest.delete(f"{MESSAGES}/{id_}").status_code == 204
    assert bodies_of(guest.delete(f"{MESSAGES}?pop=2")) == ["a", "b"]
    assert owner.listed() == ["c", "d"]


def test_each_signed_path_can_be_used(owner):
    owner.post_bodies("a")
    guest = holder(owner, paths=["messages", "claims"], methods=["POST", "GET", "DELETE", "PATCH"])

    claim = guest.claim()

    assert guest.get(claim.path).status_code == 200
    assert guest.patch(claim.path, {}).status_code == 204
    assert guest.delete(claim.delete_path()).status_code == 204
    assert guest.delete(claim.path).status_code == 204


def test_the_order_of_what_is_shown_does_not_matter(owner):
    guest = holder(owner, paths=["messages", "claims"], methods=["GET", "DELETE"])

    turned = guest.sending(URL_Paths=f"{MESSAGES},{CLAIMS}", URL_Methods="GET,DELETE")

    assert turned.get(MESSAGES).status_code == 200


def test_an_expiry_with_a_z_is_the_same(owner):
    guest = holder(owner)

    assert guest.sending(URL_Expires=f"{guest.headers['URL-Expires']}Z").get(MESSAGES).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"URL_Signature": "0" * 64},
        {"URL_Signature": ""},
        {"URL_Signature": "\u00e9"},
        {"URL_Expires": "2026-11-22T00:00:00"},
        {"URL_Expires": "later"},
        {"URL_Expires": None},
        {"URL_Methods": "GET,DELETE"},
        {"URL_Methods": ""},
        {"URL_Methods": None},
        {"URL_Paths": f"{MESSAGES},{CLAIMS}"},
        {"URL_Paths": "/v2"},
        {"URL_Paths": ""},
        {"URL_Paths": None},
        {"X_Project_ID": "red"},
        {"X_Project_ID": None},
        {"X_Project_ID": ""},
        {"X_Project_ID": None, "X_Tenant_ID": "red"},
    ],
)
def test_what_is_shown_must_be_what_was_signed(owner, changed):
    owner.post_bodies("a")
    guest = holder(owner)
    assert guest.get(MESSAGES).status_code == 200

    assert_not_found(guest.sending(**changed).get(MESSAGES))


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "HEAD"])
def test_a_method_that_was_not_signed_is_not_found(owner, method):
    guest = holder(owner)

    assert guest.request(method, f"{MESSAGES}?pop=1").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        CLAIMS + "/1",
        "/v2/queues/q1",
        "/v2/queues",
        "/v2/queues/q1/stats",
        "/v2/queues/q10/messages",
        "/v2/queues/q2/messages",
        "/v2/queues/q1/messages2",
        "/v2/ping",
        "/v2/",
        "/v2/nothing",
    ],
)
def test_a_path_that_was_not_signed_is_not_found(owner, path):
    owner.create_queue("q2")

    assert_not_found(holder(owner).get(path))


def test_a7_a_signed_path_is_no_pattern(owner):
    """Neither an expression that is searched for, nor a beginning that is none of a path's own parts."""
    for queue in ("q.1", "qx1", "q"):
        owner.create_queue(queue)

    assert (
        hand_signed(owner, paths="/v2/queues/q.1/messages", methods="GET")
        .get("/v2/queues/q.1/messages")
        .status_code
        == 200
    )
    assert_not_found(
        hand_signed(owner, paths="/v2/queues/q.1/messages", methods="GET").get("/v2/queues/qx1/messages")
    )
    for pattern in ("", "/", ".*", "/v2/queues/.*", "messages", "/v2/queues/q.?1?/messages", "/v2/queues/q,"):
        assert_not_found(hand_signed(owner, paths=pattern, methods="GET").get("/v2/queues/q/messages"))


def test_a_signed_url_expires(owner, clock):
    guest = holder(owner, expires="2026-11-20T22:00:27")
    clock.advance(59.9)
    assert guest.get(MESSAGES).status_code == 200
    clock.advance(0.1)

    assert_not_found(guest.get(MESSAGES))


def test_a8_keys_can_be_changed_one_after_the_other(open_api):
    before, while_, after = (
        open_api(signed_url={"secret_keys": keys}) for keys in ([OLD], [NEW, OLD], [NEW])
    )
    old, new = holder(before), holder(while_)

    def works(guest: Client, api: Client) -> bool:
        return (
            Client(service=api.service, app=api.app, headers=guest.headers).get(MESSAGES).status_code == 200
        )

    assert [works(old, api) for api in (before, while_, after)] == [True, True, False]
    assert [works(new, api) for api in (before, while_, after)] == [False, True, True]


def test_a_service_without_a_key_verifies_nothing(api):
    empty_key = hmac.new(b"", b"", hashlib.sha256).hexdigest()

    assert_not_found(
        hand_signed(api, paths=MESSAGES, methods="GET").sending(URL_Signature=empty_key).get(MESSAGES)
    )
    assert_not_found(hand_signed(api, paths=MESSAGES, methods="GET").get(MESSAGES))


def test_the_holder_still_needs_a_client_id(owner):
    guest = holder(owner)

    assert_problem(guest.sending(Client_ID=None).get(MESSAGES), 400, "Missing header value")
    assert_problem(guest.sending(Client_ID="x").get(MESSAGES), 400, "Wrong UUID value")


def test_a2_the_holder_has_no_roles(open_api):
    owner = open_api(
        signed_url={"secret_keys": ["a key of the tests"]}, access={"messages:get_all": "admin"}, admin=True
    )
    guest = holder(owner, methods=EVERY_METHOD)

    assert_problem(guest.sending(X_Roles="admin").get(MESSAGES), 403, "Not authorized")
    assert guest.sending(X_Roles="reader").post(MESSAGES, {"messages": [{"body": 1}]}).status_code == 201


def test_the_holder_sees_the_project_that_signed_and_no_other(open_api):
    owner = open_api(signed_url={"secret_keys": ["a key of the tests"]})
    owner.of("red").post_bodies("red")
    owner.post_bodies("blue")

    guest = holder(owner).sending(X_Tenant_ID="red")

    assert bodies_of(guest.get(MESSAGES)) == ["blue"]
    assert guest.headers["Client-ID"] != CLIENT


def test_no_project_can_sign_for_another_one(owner):
    """The parts of what is signed are joined by a backslash and an n, which a project may have too."""
    for project in (f"GET\\n{PROJECT}", f"{PROJECT}\\n{LATER}", "\\n"):
        answer = owner.of(project).post(SHARE, {})
        assert answer.status_code == 400
