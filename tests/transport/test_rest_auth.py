"""Who calls and what they may do. Section 6; checklist 26."""

import pytest

from queues.models import Role
from tests.transport.conftest import ADMIN, ENDPOINTS, ONE_STORE, PROJECT, Client, assert_problem

MESSAGES = "/v2/queues/q1/messages"
NOBODY = {"X-Project-ID": None}

# The rules of section 6.3, the role that each asks for, and a request that it guards.
RULES = [
    ("queues:get_all", "GET", "/v2/queues"),
    ("queues:create", "PUT", "/v2/queues/q1"),
    ("queues:get", "GET", "/v2/queues/q1"),
    ("queues:get", "HEAD", "/v2/queues/q1"),
    ("queues:delete", "DELETE", "/v2/queues/q1"),
    ("queues:update", "PATCH", "/v2/queues/q1"),
    ("queues:stats", "GET", "/v2/queues/q1/stats"),
    ("queues:share", "POST", "/v2/queues/q1/share"),
    ("queues:purge", "POST", "/v2/queues/q1/purge"),
    ("messages:get_all", "GET", MESSAGES),
    ("messages:get_all", "GET", f"{MESSAGES}?ids=1"),
    ("messages:create", "POST", MESSAGES),
    ("messages:get", "GET", f"{MESSAGES}/1"),
    ("messages:delete", "DELETE", f"{MESSAGES}/1"),
    ("messages:delete_all", "DELETE", f"{MESSAGES}?ids=1"),
    ("messages:delete_all", "DELETE", f"{MESSAGES}?pop=1"),
    ("claims:create", "POST", "/v2/queues/q1/claims"),
    ("claims:get", "GET", "/v2/queues/q1/claims/1"),
    ("claims:update", "PATCH", "/v2/queues/q1/claims/1"),
    ("claims:delete", "DELETE", "/v2/queues/q1/claims/1"),
    ("ping:get", "GET", "/v2/ping"),
    ("ping:get", "HEAD", "/v2/ping"),
]


@pytest.fixture
def guarded(open_api):
    """A client without a token, of a service that demands one."""
    api = open_api(auth_strategy="token", admin=True, signed_url={"secret_keys": ["a key of the tests"]})
    return api.sending(**NOBODY)


def new_token(
    api: Client, role: Role = Role.MEMBER, project: str = PROJECT, expires: int | None = None
) -> str:
    _, secret = api.service.tokens.create(project, role, expires=expires)
    return secret


def holding(api: Client, role: Role = Role.MEMBER, project: str = PROJECT) -> Client:
    return api.sending(X_Auth_Token=new_token(api, role, project))


def assert_unauthorized(answer):
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"]
    if answer.content:
        assert_problem(answer, 401, "Unauthorized")


# --- tokens


@ONE_STORE
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *ENDPOINTS,
        ("GET", "/v2/nothing"),
        ("GET", "/v2/queues/a%2Fb"),
        ("PUT", "/v1"),
        ("DELETE", "/v2/queues"),
        ("GET", "/v2/queues/b@d"),
    ],
)
def test_without_a_token_nothing_is_told(guarded, method, path):
    """Checklist 26; also of paths that do not exist, and before anything else is looked at."""
    assert_unauthorized(guarded.call(method, path))
    assert_unauthorized(guarded.call(method, path, **{"Client-ID": None, "Accept": "application/xml"}))


@pytest.mark.parametrize(
    "headers", [{"X-Auth-Token": "{}"}, {"Authorization": "Bearer {}"}, {"Authorization": "bearer {}"}]
)
def test_a_token_opens_its_project(guarded, headers):
    secret = new_token(guarded)
    client = guarded.sending(**{name: text.format(secret) for name, text in headers.items()})

    client.create_queue("q1")

    assert client.queue_names() == ["q1"]
    assert holding(guarded, project="red").queue_names() == []


@ONE_STORE
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Auth-Token": ""},
        {"X-Auth-Token": "nonsense"},
        {"X-Auth-Token": "hmd_0000000000000000_" + "x" * 43},
        {"X-Auth-Token": "\u00e9"},
        {"X-Auth-Token": "x" * 4000},
        {"X-Auth-Token": "Bearer {}"},
        {"X-Auth-Token": "{}x"},
        {"X-Auth-Token": "{},{}"},
        {"Authorization": "{}"},
        {"Authorization": "Basic {}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Cookie": "X-Auth-Token={}"},
    ],
)
def test_what_is_no_token_opens_nothing(guarded, headers):
    secret = new_token(guarded)

    assert_unauthorized(
        guarded.get(
            "/v2/queues", headers={name: text.replace("{}", secret) for name, text in headers.items()}
        )
    )


def test_a_token_that_is_almost_right_opens_nothing(guarded):
    secret = new_token(guarded)
    other = new_token(guarded, project="red")
    swapped = "_".join([*secret.split("_")[:2], other.split("_", 2)[2]])
    last = "A" if secret[-1] != "A" else "B"

    for wrong in (swapped, secret[:-1] + last, secret[:-1], secret.upper()):
        assert_unauthorized(guarded.get("/v2/queues", headers={"X-Auth-Token": wrong}))


def test_a_token_expires(guarded, clock):
    secret = new_token(guarded, expires=clock() + 60_000)
    client = guarded.sending(X_Auth_Token=secret)

    clock.advance(59.9)
    assert client.get("/v2/queues").status_code == 200
    clock.advance(0.1)
    assert_unauthorized(client.get("/v2/queues"))


def test_a_token_that_was_revoked_opens_nothing_at_once(guarded):
    token, secret = guarded.service.tokens.create(PROJECT, Role.MEMBER)
    client = guarded.sending(X_Auth_Token=secret)
    assert client.get("/v2/queues").status_code == 200

    guarded.service.tokens.revoke(token.id)

    assert_unauthorized(client.get("/v2/queues"))


@ONE_STORE
@pytest.mark.parametrize("header", ["X-Project-ID", "X-Tenant-ID", "X-Tenant"])
@pytest.mark.parametrize("project", ["red", "", "x" * 300])
def test_the_project_is_that_of_the_token_whatever_else_is_said(guarded, header, project):
    holding(guarded, project="red").create_queue("secret")
    blue = holding(guarded)
    blue.create_queue("q1")

    assert blue.sending(**{header: project}).queue_names() == ["q1"]
    assert blue.get("/v2/queues/secret/stats", headers={header: project}).status_code == 200


@ONE_STORE
@pytest.mark.parametrize(
    "extra",
    [
        {"X-Roles": "admin"},
        {
            "X-Roles": "admin",
            "X-User-Id": "root",
            "X-Identity-Status": "Confirmed",
            "X-Is-Admin-Project": "True",
        },
        {"X-Role": "admin", "X-Domain-Id": "default", "X-Service-Roles": "admin"},
    ],
)
def test_a1_identity_headers_from_outside_do_not_count(guarded, extra):
    assert_problem(holding(guarded).get("/v2/health", headers=extra), 403, "Not authorized")
    assert_unauthorized(guarded.get("/v2/queues", headers={**extra, "X-Project-ID": PROJECT}))


@ONE_STORE
@pytest.mark.parametrize("spec", ["messagecode:123456", "messagecode:", "no-such-kind:1", "", ":"])
def test_a1_no_header_turns_authentication_off(guarded, spec):
    pretending = guarded.sending(EXTRA_SPEC=spec, X_Project_ID=PROJECT, X_Roles="admin")

    assert_unauthorized(pretending.get("/v2/queues"))
    assert_unauthorized(pretending.get("/v2/health"))


def test_a1_the_header_is_accepted_and_does_nothing(guarded, api):
    assert api.get("/v2/queues", headers={"EXTRA-SPEC": "messagecode:123456"}).status_code == 200
    assert holding(guarded).get("/v2/queues", headers={"EXTRA-SPEC": "messagecode:123456"}).status_code == 200


# --- pre-signed URLs where tokens are demanded


def test_a_signed_url_needs_no_token(guarded):
    owner = holding(guarded)
    owner.post_bodies("blue")
    shown = owner.post("/v2/queues/q1/share", {}).json
    signed = {
        "URL-Signature": shown["signature"],
        "URL-Expires": shown["expires"],
        "URL-Methods": "GET",
        "URL-Paths": MESSAGES,
        "X-Project-ID": PROJECT,
    }

    assert guarded.another().get(MESSAGES, headers=signed).json["messages"][0]["body"] == "blue"
    for changed in ({"URL-Signature": "0" * 64}, {"X-Project-ID": "red"}, {"X-Project-ID": None}):
        assert guarded.get(MESSAGES, headers={**signed, **changed}).status_code == 404
    assert guarded.get("/v2/queues", headers=signed).status_code == 404
    assert guarded.delete(f"{MESSAGES}?pop=1", headers={**signed, "X-Roles": "admin"}).status_code == 404


def test_a2_a_bad_signature_is_refused_even_with_a_token(guarded):
    answer = holding(guarded, Role.ADMIN).get("/v2/queues", headers={"URL-Signature": "0" * 64})

    assert (answer.status_code, answer.json) == (404, {"title": "404 Not Found"})


# --- roles and rules


def status_for(guarded: Client, role: Role, method: str, path: str) -> int:
    return holding(guarded, role).call(method, path).status_code


@ONE_STORE
@pytest.mark.parametrize(("_rule", "method", "path"), RULES)
def test_a_reader_reads_and_a_member_does_everything(guarded, _rule, method, path):
    assert (status_for(guarded, Role.READER, method, path) == 403) == (method not in ("GET", "HEAD"))
    assert status_for(guarded, Role.MEMBER, method, path) not in (401, 403)
    assert status_for(guarded, Role.ADMIN, method, path) not in (401, 403)


def test_only_an_admin_sees_health(guarded):
    statuses = [status_for(guarded, role, "GET", "/v2/health") for role in Role]

    assert statuses == [403, 403, 200]


@ONE_STORE
@pytest.mark.parametrize("role", Role)
def test_everybody_with_a_token_sees_the_home_document(guarded, role):
    assert status_for(guarded, role, "GET", "/v2/") == 200


@ONE_STORE
@pytest.mark.parametrize(("rule", "method", "path"), RULES)
def test_every_rule_can_ask_for_another_role(open_api, rule, method, path):
    api = open_api(access={rule: "admin"}, signed_url={"secret_keys": ["a key of the tests"]})

    answer = api.call(method, path)

    assert answer.status_code == 403
    if method != "HEAD":
        assert_problem(answer, 403, "Not authorized")
    assert api.sending(**ADMIN).call(method, path).status_code != 403


def test_a_rule_concerns_nothing_else(open_api):
    api = open_api(access={"queues:create": "admin"})

    assert_problem(api.put("/v2/queues/q1"), 403, "Not authorized")
    assert api.post_bodies("the queue is made all the same")
    assert api.delete("/v2/queues/q1").status_code == 204


def test_who_is_refused_changes_nothing(guarded):
    member, reader = holding(guarded), holding(guarded, Role.READER)
    member.create_queue("q1", {"colour": "red"})
    member.post_bodies("a")

    for method, path in ENDPOINTS:
        if method not in ("GET", "HEAD"):
            assert_problem(reader.call(method, path), 403, "Not authorized")

    assert member.metadata("q1") == {"colour": "red"}
    assert member.listed() == ["a"]


def test_the_first_refusal_of_a_reader_is_the_role_not_the_body(guarded):
    answer = holding(guarded, Role.READER).post(MESSAGES, body=b"{")

    assert_problem(answer, 403, "Not authorized")


# --- logs


def test_a12_logs_tell_neither_bodies_nor_tokens_nor_signatures(guarded, logged):
    owner = holding(guarded)
    secret = str(owner.headers["X-Auth-Token"])

    owner.post_bodies("my secret body", {"password": "hunter2"})
    owner.put("/v2/queues/q2", {"note": "my secret note"})
    owner.post(MESSAGES, body=b'{"messages": "my secret mistake')
    shown = owner.post("/v2/queues/q1/share", {}).json
    guarded.get(MESSAGES, headers={"URL-Signature": shown["signature"], "X-Project-ID": PROJECT})
    guarded.get("/v2/queues", headers={"X-Auth-Token": secret[:-1], "Authorization": f"Bearer {secret}"})

    assert "message_post" in logged()
    for text in ("my secret", "hunter2", secret, secret.split("_", 2)[2], shown["signature"]):
        assert text not in logged()
