from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues.errors import Invalid, InvalidName
from queues.limits import (
    MAX_PROJECT,
    Limits,
    check_address,
    check_idempotency_key,
    check_range,
    is_queue_name,
)
from queues.models import Address


def test_the_defaults_are_those_of_the_protocol():
    assert asdict(Limits()) == {
        "default_message_ttl": 3600,
        "default_message_delay": 0,
        "default_claim_ttl": 300,
        "default_claim_grace": 60,
        "default_subscription_ttl": 3600,
        "max_queues_per_page": 20,
        "max_messages_per_page": 20,
        "max_subscriptions_per_page": 20,
        "max_messages_per_claim_or_pop": 20,
        "max_pools_per_page": 20,
        "max_flavors_per_page": 20,
        "max_queue_metadata": 65536,
        "max_messages_post_size": 262144,
        "max_message_ttl": 1209600,
        "max_message_delay": 900,
        "max_claim_ttl": 43200,
        "max_claim_grace": 43200,
    }


GOOD_NAMES = ["q", "Nice-Boat_2", "Service.test_queue", ".", "..", "-", "_", "0", "q" * 64]
BAD_NAMES = ["", "q" * 65, "Nice-Bo@t", "a b", "a/b", "a,b", "ä", "\N{FULLWIDTH DIGIT ONE}", "q\x00", " q"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_that_queues_can_have(name):
    assert is_queue_name(name)
    check_address(Address(project="p", queue=name))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_queues_cannot_have(name):
    assert not is_queue_name(name)
    with pytest.raises(InvalidName, match="1 to 64 characters"):
        check_address(Address(project="p", queue=name))


def test_f17_a_name_does_not_end_with_a_newline():
    assert not is_queue_name("q\n")
    with pytest.raises(InvalidName):
        check_address(Address(project="p", queue="q\n"))


@pytest.mark.parametrize("value", [None, 1, True, b"q", ["q"], {"q": "q"}])
def test_only_a_string_is_a_name(value):
    assert not is_queue_name(value)


@pytest.mark.parametrize("project", ["p", "a project", "ä", "a.b", "p" * MAX_PROJECT])
def test_projects_may_have_any_characters(project):
    check_address(Address(project=project, queue="q"))


def test_a_project_id_has_at_most_256_characters():
    with pytest.raises(InvalidName, match="at most 256"):
        check_address(Address(project="p" * 257, queue="q"))


@settings(deadline=None)
@given(st.integers(), st.integers(), st.integers())
def test_a_range_includes_its_ends(value, low, high):
    if low <= value <= high:
        check_range("limit", value, low, high)
    else:
        with pytest.raises(Invalid) as caught:
            check_range("limit", value, low, high)
        assert str(caught.value) == f"The limit must be from {low} to {high}."


@pytest.mark.parametrize("key", ["k", "!", "~", "0" * 255, "8e03978e-40d5-43e8-bc93-6894a57f9324"])
def test_idempotency_keys(key):
    check_idempotency_key(key)


@pytest.mark.parametrize("key", ["", "0" * 256, "a b", "a\n", "\x00", "\x7f", "ä"])
def test_what_is_no_idempotency_key(key):
    with pytest.raises(Invalid, match="1 to 255 visible ASCII characters"):
        check_idempotency_key(key)
