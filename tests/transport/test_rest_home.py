"""The version list, the home document, and ping. Sections 8 and 9; checklist 24."""

from typing import Any

import pytest

from tests.transport.conftest import CLIENT, ONE_STORE, PROJECT, Client

pytestmark = ONE_STORE

MESSAGES = "/v2/queues/{queue_name}/messages"
CLAIM = "/v2/queues/{queue_name}/claims/{claim_id}"

# rel, template, variables, methods, whether it accepts a post
RESOURCES = [
    ("queues", "/v2/queues{?marker,limit,detailed}", "marker limit=queue_limit detailed", "GET", False),
    ("queue", "/v2/queues/{queue_name}", "queue_name", "GET PUT DELETE PATCH", False),
    ("queue_stats", "/v2/queues/{queue_name}/stats", "queue_name", "GET", False),
    ("queue_share", "/v2/queues/{queue_name}/share", "queue_name", "POST", True),
    ("queue_purge", "/v2/queues/{queue_name}/purge", "queue_name", "POST", True),
    (
        "messages",
        MESSAGES + "{?marker,limit,echo,include_claimed}",
        "queue_name marker limit=messages_limit echo include_claimed",
        "GET",
        False,
    ),
    ("post_messages", MESSAGES, "queue_name", "POST", True),
    ("messages_delete", MESSAGES + "{?ids,pop}", "queue_name ids pop", "DELETE", False),
    (
        "message_delete",
        MESSAGES + "/{message_id}{?claim}",
        "queue_name message_id claim=claim_id",
        "DELETE",
        False,
    ),
    ("message_get", MESSAGES + "/{message_id}", "queue_name message_id", "GET", False),
    ("claim", CLAIM, "queue_name claim_id", "GET", False),
    ("post_claim", "/v2/queues/{queue_name}/claims{?limit}", "queue_name limit=claim_limit", "POST", True),
    ("patch_claim", CLAIM, "queue_name claim_id", "PATCH", True),
    ("delete_claim", CLAIM, "queue_name claim_id", "DELETE", False),
]


def variables(text: str) -> dict[str, str]:
    """Read `a b=c` as the variables a, of the kind param/a, and b, of the kind param/c."""
    pairs = (word.partition("=") for word in text.split())
    return {name: f"param/{kind or name}" for name, _, kind in pairs}


def hints(methods: str, *, accepts_post: bool) -> dict[str, Any]:
    described = {"allow": methods.split(), "formats": {"application/json": {}}}
    return {**described, "accept-post": ["application/json"]} if accepts_post else described


def home(api: Client) -> dict[str, Any]:
    return dict(api.get("/v2/").json["resources"])


@pytest.mark.parametrize("strategy", ["none", "token"])
@pytest.mark.parametrize("path", ["/", "/v2"])
def test_anybody_can_ask_for_the_versions(open_api, path, strategy):
    """An endpoint that ends in /v2 is asked for them too, by clients that look for the service."""
    nobody = open_api(auth_strategy=strategy).sending(**{"Client-ID": None, "X-Project-ID": None})

    answer = nobody.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (300, "application/json")
    assert answer.json == {
        "versions": [
            {
                "id": "2",
                "status": "CURRENT",
                "updated": "2014-9-24T04:06:47Z",
                "media-types": [
                    {"base": "application/json", "type": "application/vnd.openstack.messaging-v2+json"}
                ],
                "links": [{"href": "/v2/", "rel": "self"}],
            }
        ]
    }


@pytest.mark.parametrize("path", ["/", "/v2"])
def test_a_wrong_method_on_the_version_list_is_not_allowed(api, path):
    answer = api.post(path)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, OPTIONS")


def test_the_home_document_has_a_type_of_its_own_and_is_good_for_a_day(api):
    answer = api.get("/v2/")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json-home"
    assert answer.headers["cache-control"] == "max-age=86400"


@pytest.mark.parametrize(("rel", "template", "names", "methods", "accepts_post"), RESOURCES)
def test_the_home_document_describes_a_resource(api, rel, template, names, methods, accepts_post):
    assert home(api)[f"rel/{rel}"] == {
        "href-template": template,
        "href-vars": variables(names),
        "hints": hints(methods, accepts_post=accepts_post),
    }


def test_ping_has_no_variables_in_the_home_document(api):
    assert home(api)["rel/ping"] == {"href-template": "/v2/ping", "hints": hints("GET", accepts_post=False)}


def test_health_is_described_to_operators_only(api, open_api):
    assert "rel/health" not in home(api)
    assert home(open_api(admin=True))["rel/health"] == {
        "href": "/v2/health",
        "hints": hints("GET", accepts_post=False),
    }


def test_every_template_begins_with_the_version(open_api):
    resources = home(open_api(admin=True)).values()

    assert all(each.get("href-template", each.get("href")).startswith("/v2") for each in resources)
    assert home(open_api())["rel/queue"]["href-template"].format(queue_name="foo") == "/v2/queues/foo"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_answers_with_nothing(api, method):
    answer = api.request(method, "/v2/ping")

    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("missing", ["Client-ID", "X-Project-ID"])
def test_home_and_ping_need_the_headers_that_all_need(api, missing):
    headers = {"Client-ID": CLIENT, "X-Project-ID": PROJECT, missing: None}

    assert api.get("/v2/ping", headers=headers).status_code == 400
    assert api.get("/v2/", headers=headers).status_code == 400
