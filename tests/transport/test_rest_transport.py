"""What holds for every path: headers, content types, unknown paths and methods, query strings, the mount."""

import uuid

import pytest

from tests.transport.conftest import (
    ADMIN,
    CLIENT,
    ENDPOINTS,
    ONE_STORE,
    PROJECT,
    assert_problem,
    bodies_of,
    next_link,
)

pytestmark = ONE_STORE

HEX = uuid.UUID(CLIENT).hex
METHODS = {
    "/v2/": "GET",
    "/v2/ping": "GET, HEAD",
    "/v2/health": "GET",
    "/v2/queues": "GET",
    "/v2/queues/q1": "DELETE, GET, HEAD, PATCH, PUT",
    "/v2/queues/q1/stats": "GET",
    "/v2/queues/q1/purge": "POST",
    "/v2/queues/q1/share": "POST",
    "/v2/queues/q1/messages": "DELETE, GET, POST",
    "/v2/queues/q1/messages/1": "DELETE, GET",
    "/v2/queues/q1/claims": "POST",
    "/v2/queues/q1/claims/1": "DELETE, GET, PATCH",
}
NAMED = [endpoint for endpoint in ENDPOINTS if "/q1" in endpoint[1]]
WITH_BODIES = [(method, path) for method, path in ENDPOINTS if method not in ("GET", "HEAD")]
UNKNOWN_PATHS = [
    "/v1",
    "/v1.1/queues",
    "/v3/queues",
    "/queues",
    "/v2/nothing",
    "/v2/ping/",
    "/v2//queues",
    "/v2/queues/q1/",
    "/v2/queues/q1/nothing",
    "/v2/queues/q1/messages/1/",
    "/v2/queues/q1/claims/1/",
    "/v2/queues/q1/stats/",
    "/v2/queues/q1%2Fstats%2F",
    "/v2/queues/a%2Fb",
    "/v2/queues/a%2Fb/messages",
]


# --- Client-ID, section 2.1


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_a_request_without_client_id_is_refused(full_api, method, path):
    answer = full_api.call(method, path, **{"Client-ID": None})

    assert answer.status_code == 400
    if method != "HEAD":
        assert_problem(answer, 400, "Missing header value")
        assert "Client-Id" in answer.json["description"]


@pytest.mark.parametrize(
    "client_id",
    [
        "",
        "0xdeadbeef",
        "textid",
        CLIENT[:-1],
        CLIENT + "0",
        HEX[:-1] + "g",
        HEX[:-1] + "\u00e9",
        "{}",
        "urn:uuid:",
    ],
)
def test_a_client_id_that_is_no_uuid_is_refused(api, client_id):
    answer = api.get("/v2/queues", headers={"Client-ID": client_id})

    assert_problem(answer, 400, "Wrong UUID value")


@pytest.mark.parametrize(
    "spelling",
    [CLIENT, CLIENT.upper(), HEX, HEX.upper(), f"{{{CLIENT}}}", f"urn:uuid:{CLIENT}", f"{HEX[:3]}-{HEX[3:]}"],
)
def test_all_spellings_of_a_uuid_are_one_client(api, spelling):
    api.post_bodies("mine")

    own = api.get("/v2/queues/q1/messages", headers={"Client-ID": spelling})
    others = api.another().get("/v2/queues/q1/messages")

    assert bodies_of(own) == []
    assert bodies_of(others) == ["mine"]


@pytest.mark.parametrize(
    ("length", "status"), [(0, 400), (9, 400), (10, 200), (35, 200), (36, 200), (37, 400)]
)
def test_without_the_uuid_rule_only_the_length_of_a_client_id_counts(open_api, length, status):
    api = open_api(wire={"client_id_uuid_safe": "off"})

    answer = api.get("/v2/queues", headers={"Client-ID": "x" * length})

    assert answer.status_code == status
    if status == 400:
        assert_problem(answer, 400, "Wrong UUID value")


def test_the_permitted_lengths_of_a_client_id_can_be_set(open_api):
    wire = {"client_id_uuid_safe": "off", "min_length_client_id": 3, "max_length_client_id": 4}
    api = open_api(wire=wire)

    answers = [api.get("/v2/queues", headers={"Client-ID": "x" * length}) for length in (2, 3, 4, 5)]

    assert [answer.status_code for answer in answers] == [400, 200, 200, 400]


# --- X-Project-ID, section 2.2; checklist 4


@pytest.mark.parametrize(
    ("project", "title"), [(None, "Project-Id Missing"), ("", "Empty project header not allowed")]
)
@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_a_request_without_project_is_refused(full_api, method, path, project, title):
    answer = full_api.call(method, path, **{"X-Project-ID": project})

    assert answer.status_code == 400
    if method != "HEAD":
        assert_problem(answer, 400, title)


@pytest.mark.parametrize("legacy", ["X-Tenant-ID", "X-Tenant"])
def test_older_names_of_the_project_header_will_do(api, legacy):
    api.create_queue("blue-queue")

    answer = api.get("/v2/queues", headers={"X-Project-ID": None, legacy: PROJECT})

    assert [queue["name"] for queue in answer.json["queues"]] == ["blue-queue"]


def test_the_newer_name_of_the_project_header_wins(api):
    api.create_queue("blue-queue")

    answer = api.get("/v2/queues", headers={"X-Tenant-ID": "red", "X-Tenant": "red"})

    assert [queue["name"] for queue in answer.json["queues"]] == ["blue-queue"]


@pytest.mark.parametrize("project", ["with some blanks", "x" * 256, "a.b/c?d=e,{f}", "'; --", "0"])
def test_a_project_may_be_called_almost_anything(api, project):
    tenant = api.of(project)

    tenant.create_queue("q1")
    tenant.post_bodies("hello")

    assert tenant.queue_names() == ["q1"]
    assert tenant.listed() == ["hello"]
    assert tenant.delete("/v2/queues/q1").status_code == 204


@pytest.mark.parametrize(("method", "path"), NAMED)
def test_a_project_longer_than_256_characters_is_refused_where_there_is_a_queue(full_api, method, path):
    answer = full_api.call(method, path, **{"X-Project-ID": "x" * 257})

    assert answer.status_code == 400
    if method != "HEAD":
        assert_problem(answer, 400, "Invalid queue identification")


@pytest.mark.parametrize(("path", "status"), [("/v2/queues", 200), ("/v2/ping", 204), ("/v2/", 200)])
def test_the_length_of_a_project_matters_nowhere_else(api, path, status):
    assert api.of("x" * 257).get(path).status_code == status


# --- queue names, section 2.3; checklist 5


@pytest.mark.parametrize(
    "name", ["Nice-Boat_2", "Service.test_queue", "x" * 64, "a", "-", "_", ".", "..", "queues_set", "0"]
)
def test_a_queue_name_has_letters_digits_underscores_hyphens_and_full_stops(api, name):
    answer = api.put(f"/v2/queues/{name}")

    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/queues/{name}")
    assert api.queue_names() == [name]


BAD_NAMES = [
    "Nice-Bo@t",
    "x" * 65,
    "a%20b",
    "a,b",
    "a:b",
    "%C3%A9t%C3%A9",
    "%E6%B1%89",
    "%FF",
    "a%00",
    "a%0D%0A",
]


@pytest.mark.parametrize(("method", "path"), NAMED)
@pytest.mark.parametrize("name", ["Nice-Bo@t", "%C3%A9t%C3%A9", "x" * 65])
def test_a_bad_queue_name_is_refused_by_every_operation(full_api, method, path, name):
    answer = full_api.call(method, path.replace("q1", name))

    assert answer.status_code == 400
    if method != "HEAD":
        assert_problem(answer, 400, "Invalid queue identification")


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_bad_queue_name_is_refused(api, method, name):
    assert_problem(api.request(method, f"/v2/queues/{name}"), 400, "Invalid queue identification")


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_f17_a_newline_behind_a_queue_name_is_refused(api, method):
    assert_problem(api.request(method, "/v2/queues/q1%0A"), 400, "Invalid queue identification")


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_a_queue_without_a_name_is_refused(api, method):
    """`/v2/queues/` is the path of a queue with an empty name, section 1."""
    assert_problem(api.request(method, "/v2/queues/"), 400, "Invalid queue identification")


# --- Accept, section 2.5; checklist 22


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize("accept", ["application/xml", "application/json;q=0"])
def test_who_does_not_accept_json_gets_nothing(full_api, method, path, accept):
    assert full_api.call(method, path, Accept=accept).status_code == 406


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/*",
        "application/json",
        "application/json; charset=utf-8",
        "text/html, application/xml;q=0.9, */*;q=0.8",
        "application/xml, application/json;q=0.1",
    ],
)
def test_who_accepts_json_among_others_gets_it(api, accept):
    answer = api.get("/v2/queues", headers={"Accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


def test_accept_is_looked_at_before_the_body(api):
    answer = api.post("/v2/queues/q1/messages", body=b"{", headers={"Accept": "application/xml"})

    assert answer.status_code == 406


# --- Content-Type, section 2.5; checklist 22

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(("method", "path"), WITH_BODIES)
@pytest.mark.parametrize("content_type", [FORM, FORM.upper()])
def test_a_body_that_says_it_is_a_form_is_refused(full_api, method, path, content_type):
    answer = full_api.request(method, path, body=b"{}", headers={"Content-Type": content_type})

    assert_problem(answer, 400, "Invalid Content-Type")


def test_a_form_without_a_body_is_accepted(api):
    assert api.put("/v2/queues/q1", headers={"Content-Type": FORM}).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "text/plain", "application/xml", "nonsense", f"{FORM}; charset=utf-8"],
)
def test_any_other_type_of_body_is_taken_for_json(api, content_type):
    answer = api.post(
        "/v2/queues/q1/messages", {"messages": [{"body": 1}]}, headers={"Content-Type": content_type}
    )

    assert answer.status_code == 201


@pytest.mark.parametrize(("method", "path"), [each for each in ENDPOINTS if each[0] == "GET"])
@pytest.mark.parametrize("body", [b'{"resource_types": 5}', b"{", b"\xff"])
def test_the_body_of_a_get_is_ignored(full_api, method, path, body):
    assert full_api.get(path, body=body).status_code == full_api.get(path).status_code


# --- other headers, section 2.6


@pytest.mark.parametrize(
    "headers",
    [
        {"Location": "somewhere"},
        {"X-Auth-Token": "notused"},
        {"X-Trace-Info": "x", "X-Trace-HMAC": "x", "OpenStack-API-Version": "messaging 2"},
        {"EXTRA-SPEC": "messagecode:123456"},
        {"EXTRA-SPEC": "no-such-kind:1"},
        {"If-None-Match": "*", "Range": "bytes=0-1", "If-Modified-Since": "never"},
        {"URL-Expires": "2000-01-01T00:00:00", "URL-Methods": "GET", "URL-Paths": "/"},
    ],
)
def test_headers_that_do_not_matter_are_ignored(api, headers):
    api.create_queue("q1")

    answer = api.get("/v2/queues", headers=headers)

    assert [queue["name"] for queue in answer.json["queues"]] == ["q1"]


def test_the_request_id_is_another_one_each_time(api):
    ids = {api.get("/v2/queues").headers["x-openstack-request-id"] for _ in range(5)}

    assert len(ids) == 5


# --- unknown paths and methods, section 1


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "OPTIONS"])
def test_an_unknown_path_is_not_found_whatever_the_headers(full_api, path, method):
    for client in (full_api, full_api.sending(**{"Client-ID": None, "X-Project-ID": None})):
        answer = client.request(method, path)

        assert (answer.status_code, answer.json) == (404, {"title": "404 Not Found"})


@pytest.mark.parametrize("path", ["/v2/queues/q1/messages/", "/v2/queues/q1/claims/"])
def test_an_empty_id_is_the_id_of_nothing(api, path):
    api.post_bodies("hello")

    assert_problem(api.get(path), 404, "Not found")
    assert api.delete(path).status_code == 204
    assert api.listed() == ["hello"]


@pytest.mark.parametrize(("path", "methods"), METHODS.items())
def test_a_method_that_a_path_does_not_know_is_not_allowed(full_api, path, methods):
    for method in {"GET", "PUT", "POST", "PATCH", "DELETE"} - set(methods.split(", ")):
        answer = full_api.request(method, path)

        assert (answer.status_code, answer.json) == (405, {"title": "405 Method Not Allowed"})
        assert answer.headers["allow"] == f"{methods}, OPTIONS"


def test_the_headers_are_checked_before_the_method(api):
    assert_problem(api.post("/v2/queues", headers={"Client-ID": None}), 400, "Missing header value")
    assert_problem(api.post("/v2/queues/b@d"), 400, "Invalid queue identification")


@pytest.mark.parametrize(("path", "methods"), METHODS.items())
def test_options_tells_the_methods_to_anybody(full_api, path, methods):
    nobody = full_api.sending(**{"Client-ID": None, "X-Project-ID": None})

    answer = nobody.request("OPTIONS", path)

    assert (answer.status_code, answer.headers["allow"], answer.content) == (200, methods, b"")


@pytest.mark.parametrize("path", [path for path, methods in METHODS.items() if "HEAD" not in methods])
def test_head_is_not_allowed_elsewhere(full_api, path):
    assert full_api.head(path).status_code == 405


def test_f16_head_tells_whether_a_queue_exists(api):
    api.create_queue("q1")

    assert api.head("/v2/queues/q1").status_code == 200
    assert api.head("/v2/queues/q2").status_code == 404
    assert api.of("red").head("/v2/queues/q1").status_code == 404
    assert api.queue_names() == ["q1"]


# --- the order of the checks, section 1


def test_the_first_check_that_fails_answers(open_api, driver):
    """Everything is wrong with this request; one mistake after the other is mended."""
    api = open_api(access={"messages:create": "admin"})
    wrong = {"URL-Signature": "x", "Content-Type": FORM, "Accept": "text/html", "Client-ID": None}
    api = api.sending(**wrong, **{"X-Project-ID": None})
    bad, good = "/v2/queues/b@d/messages", "/v2/queues/q1/messages"
    driver.break_()

    def refused(method: str = "PATCH", path: str = bad, body: bytes = b"{") -> tuple[int, str | None]:
        answer = api.request(method, path, body=body)
        return answer.status_code, answer.json["title"] if answer.content else None

    assert refused() == (404, "404 Not Found")
    api = api.sending(**{"URL-Signature": None})
    assert refused() == (400, "Invalid Content-Type")
    api = api.sending(**{"Content-Type": None})
    assert refused()[0] == 406
    api = api.sending(Accept=None)
    assert refused() == (400, "Missing header value")
    api = api.sending(**{"Client-ID": CLIENT})
    assert refused() == (400, "Project-Id Missing")
    api = api.sending(**{"X-Project-ID": PROJECT})
    assert refused() == (400, "Invalid queue identification")
    assert refused(path=good) == (405, "405 Method Not Allowed")
    assert refused("POST", good) == (403, "Not authorized")
    api = api.sending(**ADMIN)
    driver.mend()
    assert refused("POST", good) == (400, "Invalid request body")
    driver.break_()
    assert refused("POST", good, b'{"messages": [{"body": 1}]}')[0] == 503


# --- query strings, section 4

BOOLEANS = [
    "/v2/queues?detailed={}",
    "/v2/queues?with_count={}",
    "/v2/queues/q1/messages?echo={}",
    "/v2/queues/q1/messages?include_claimed={}",
    "/v2/queues/q1/messages?include_delayed={}",
]
LIMITS = [
    ("GET", "/v2/queues?limit={}"),
    ("GET", "/v2/queues/q1/messages?limit={}"),
    ("POST", "/v2/queues/q1/claims?limit={}"),
    ("DELETE", "/v2/queues/q1/messages?pop={}"),
]


@pytest.mark.parametrize("path", BOOLEANS)
def test_a_boolean_has_some_spellings(api, path):
    accepted = ["true", "True", "t", "yes", "y", "1", "on", "false", "False", "f", "no", "n", "0", "off"]

    statuses = {word: api.get(path.format(word)).status_code for word in accepted}

    assert statuses == dict.fromkeys(accepted, 200)


@pytest.mark.parametrize("path", BOOLEANS)
@pytest.mark.parametrize("word", ["maybe", "2", "-1", "tru", "null", "%00", "%F0%9F%92%A9"])
def test_a_boolean_that_is_none_is_refused(api, path, word):
    assert_problem(api.get(path.format(word)), 400, "Invalid parameter")


@pytest.mark.parametrize(("method", "path"), LIMITS)
@pytest.mark.parametrize(
    "word", ["ten", "1.0", "1e1", "0x1", "1_0", "1,2", "%D9%A1", "%00", "--1", "1;", "true"]
)
def test_a_number_that_is_none_is_refused(api, method, path, word):
    assert_problem(api.request(method, path.format(word)), 400, "Invalid parameter")


@pytest.mark.parametrize(("method", "path"), LIMITS)
@pytest.mark.parametrize("number", ["0", "-1", "21", "1000000"])
def test_a_limit_out_of_range_is_refused(api, method, path, number):
    """Checklist 8, 13; never lowered in silence, section 4.1."""
    assert_problem(api.request(method, path.format(number)), 400, "Invalid API request")


@pytest.mark.parametrize(("method", "path"), LIMITS)
@pytest.mark.parametrize("number", ["1", "20", "020"])
def test_a_limit_in_range_is_accepted(api, method, path, number):
    assert api.request(method, path.format(number)).status_code in (200, 204)


@pytest.mark.parametrize("path", [*BOOLEANS, *(path for method, path in LIMITS if method == "GET")])
def test_a_parameter_without_a_value_is_as_good_as_none(api, path):
    for suffix in (path.format(""), path.partition("=")[0]):
        assert api.get(suffix).status_code == 200


def test_one_value_of_a_repeated_parameter_is_used(api):
    api.post_bodies(*range(5))

    assert len(api.listed(query="echo=true&limit=2&limit=2")) == 2


def test_unknown_parameters_are_ignored(api):
    api.post_bodies("hello")

    assert api.listed(query="echo=true&colour=blue&colour=red&%FF=%FF") == ["hello"]
    assert api.post("/v2/queues/q1/claims?colour=blue").status_code == 201


# --- the mount, section 1


def test_a_mounted_application_answers_the_same_paths(open_api):
    """Checklist 24; the tests of the protocol mount the application under `messaging`."""
    api = open_api(signed_url={"secret_keys": ["a key of the tests"]}, admin=True)
    mounted = type(api)(service=api.service, app=api.app, headers=api.headers, mount="/messaging")

    assert mounted.put("/v2/queues/q1").headers["location"] == "/v2/queues/q1"
    posted = mounted.post("/v2/queues/q1/messages", {"messages": [{"body": 1}]})
    assert posted.headers["location"].startswith("/v2/queues/q1/messages?ids=")
    assert posted.json["resources"][0].startswith("/v2/queues/q1/messages/")
    assert mounted.claim().path.startswith("/v2/queues/q1/claims/")
    assert next_link(mounted.get("/v2/queues")).startswith("/v2/queues?")
    assert mounted.get("/v2/queues").json["queues"][0]["href"] == "/v2/queues/q1"
    stats = mounted.get("/v2/queues/q1/stats").json["messages"]
    assert stats["oldest"]["href"] == posted.json["resources"][0]
    assert mounted.post("/v2/queues/q1/share", {}).json["paths"] == ["/v2/queues/q1/messages"]
    assert mounted.get("/").json["versions"][0]["links"][0]["href"] == "/v2/"
    resources = mounted.get("/v2/").json["resources"].values()
    assert all(each.get("href-template", each.get("href")).startswith("/v2") for each in resources)


# --- CORS, section 3.1

ORIGIN = "https://console.example.org"


def test_without_a_setting_there_are_no_cors_headers(api):
    answer = api.get("/v2/queues", headers={"Origin": ORIGIN})

    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v2/queues", "/v2/queues?limit=0", "/v2/nothing"])
def test_pages_of_allowed_origins_may_read_answers_and_errors(open_api, path):
    api = open_api(cors={"allowed_origins": [ORIGIN]})

    answer = api.get(path, headers={"Origin": ORIGIN})

    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert exposed >= {"x-auth-token", "x-subject-token", "x-service-token", "x-openstack-request-id"}


def test_pages_of_other_origins_may_not(open_api):
    api = open_api(cors={"allowed_origins": [ORIGIN]})

    answer = api.get("/v2/queues", headers={"Origin": "https://elsewhere.example.org"})

    assert "access-control-allow-origin" not in answer.headers


def test_a_browser_may_ask_beforehand_without_a_token(open_api):
    api = open_api(cors={"allowed_origins": [ORIGIN]}, auth_strategy="token")
    asked = "X-Auth-Token,Client-id,X-Project-Id"
    nobody = api.sending(**{"Client-ID": None, "X-Project-ID": None})

    answer = nobody.request(
        "OPTIONS",
        "/v2/queues/q1",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": asked,
        },
    )

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name.lower() in allowed for name in asked.split(","))
