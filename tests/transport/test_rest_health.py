"""Health, and what every operation answers when the store does not. Sections 3.2 and 9; checklist 25."""

import pytest
from falcon import testing

from tests.transport.conftest import ADMIN, ENDPOINTS, ONE_STORE, WITHOUT_POOLS, assert_problem

HEALTH = "/v2/health"
OPERATIONS = {
    "create_queue": "insert",
    "post_messages": "post",
    "list_messages": None,
    "claim_messages": "claim",
    "delete_messages": "delete",
    "delete_claim": "release",
    "bulk_delete_messages": "delete_many",
    "delete_queue": "drop",
}
NEED_THE_STORE = [each for each in ENDPOINTS if each[1] not in ("/v2/", "/v2/queues/q1/share")]


@pytest.fixture
def operator(open_api):
    return open_api(admin=True).sending(**ADMIN)


# --- health


@WITHOUT_POOLS
def test_health_tells_of_every_operation(operator):
    answer = operator.get(HEALTH)

    assert answer.status_code == 200
    assert set(answer.json) == {"storage_reachable", "operation_status", "message_volume"}
    assert answer.json["storage_reachable"] is True
    assert set(answer.json["operation_status"]) == set(OPERATIONS)
    for status in answer.json["operation_status"].values():
        assert set(status) == {"succeeded", "seconds", "ref"}
        assert status["succeeded"] is True
        assert isinstance(status["seconds"], float)
        assert status["ref"] is None


@WITHOUT_POOLS
def test_health_counts_the_messages_of_all_projects(operator):
    operator.post_bodies("a", "b")
    operator.of("red").post_bodies("c")
    operator.claim(limit=1)

    assert operator.get(HEALTH).json["message_volume"] == {"free": 2, "claimed": 1, "total": 3}


@WITHOUT_POOLS
def test_health_leaves_nothing_behind(operator):
    for _ in range(3):
        operator.get(HEALTH)

    assert operator.get(HEALTH).json["message_volume"] == {"free": 0, "claimed": 0, "total": 0}
    assert operator.queue_names() == []


@WITHOUT_POOLS
@pytest.mark.parametrize(
    ("operation", "method"), [(name, method) for name, method in OPERATIONS.items() if method]
)
def test_an_operation_that_fails_is_told_and_can_be_found_in_the_log(
    operator, driver, logged, operation, method
):
    driver.break_(method)

    answer = operator.get(HEALTH)

    status = answer.json["operation_status"][operation]
    assert (answer.status_code, status["succeeded"]) == (200, False)
    assert len(status["ref"]) > 7
    assert status["ref"] in logged()


@WITHOUT_POOLS
def test_the_other_operations_are_still_told(operator, driver):
    driver.break_("claim")

    statuses = operator.get(HEALTH).json["operation_status"]

    assert [name for name, status in statuses.items() if not status["succeeded"]] == ["claim_messages"]


@ONE_STORE
def test_health_is_not_served_unless_it_is_asked_for(api):
    answer = api.get(HEALTH, headers=ADMIN)

    assert (answer.status_code, answer.json) == (404, {"title": "404 Not Found"})


@ONE_STORE
@pytest.mark.parametrize("roles", [None, "", "member", "administrator, member", "admins"])
def test_health_is_for_operators(operator, roles):
    assert_problem(operator.get(HEALTH, headers={"X-Roles": roles}), 403, "Not authorized")


@ONE_STORE
@pytest.mark.parametrize("roles", ["admin", "member,admin", "member, admin", "ADMIN"])
def test_an_operator_may_have_other_roles_too(operator, roles):
    assert operator.get(HEALTH, headers={"X-Roles": roles}).status_code == 200


# --- the store does not answer


@ONE_STORE
@pytest.mark.parametrize(("method", "path"), NEED_THE_STORE)
def test_without_its_store_every_operation_is_unavailable(broken_api, method, path):
    answer = broken_api.call(method, path)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    if method != "HEAD":
        assert_problem(answer, 503, "Service temporarily unavailable")
        assert "retry" in answer.json["description"].lower()


@ONE_STORE
@pytest.mark.parametrize("path", ["/", "/v2/", "/v2"])
def test_without_its_store_the_service_still_describes_itself(broken_api, path):
    assert broken_api.get(path).status_code in (200, 300)


@ONE_STORE
def test_without_its_store_the_service_still_tells_mistakes(broken_api):
    assert_problem(broken_api.get("/v2/queues?limit=x"), 400, "Invalid parameter")
    assert_problem(broken_api.post("/v2/queues/q1/claims", {"ttl": "x"}), 400, "Invalid request body")
    assert_problem(broken_api.put("/v2/queues/b@d"), 400, "Invalid queue identification")
    assert broken_api.get("/v2/nothing").status_code == 404


@ONE_STORE
def test_a_description_does_not_tell_of_the_store(broken_api):
    text = broken_api.get("/v2/queues").text

    assert not any(word in text.lower() for word in ("sqlite", "memory", "traceback", "store"))


@WITHOUT_POOLS
def test_when_the_store_comes_back_service_resumes(full_api, driver):
    full_api.post_bodies("before")
    driver.break_()
    refused = full_api.post("/v2/queues/q1/messages", {"messages": [{"body": "meanwhile"}]})
    driver.mend()

    full_api.post_bodies("after")

    assert refused.status_code == 503
    assert full_api.listed() == ["before", "after"]
    assert full_api.get("/v2/ping").status_code == 204


# --- something that nobody expected


@ONE_STORE
def test_f10_a_defect_is_no_outage(api, driver, logged):
    """A client that retries on 503 must not retry this; the log tells what it was, the client does not see."""
    driver.break_(error=RuntimeError("a wheel came off"))

    answer = testing.simulate_get(api.app, "/v2/queues", headers=api.headers)

    assert_problem(answer, 500, "Internal server error")
    assert set(answer.json) == {"title", "description"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-openstack-request-id"] in logged()
    assert "a wheel came off" in logged()
    assert "wheel" not in answer.text
    assert "retry-after" not in answer.headers
