import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from queues.errors import Invalid, MissingKey
from queues.limits import Limits
from queues.metadata import (
    RETRY_DEFAULTS,
    Change,
    apply_changes,
    check_retry_policy,
    defaults,
    parse_changes,
    policy_of,
    schema,
    validate,
    with_defaults,
)
from queues.models import Address, DeadLetter, Json, JsonObject

LIMITS = Limits()
ADDRESS = Address(project="p", queue="q")
RESERVED = sorted(schema(LIMITS)["properties"])
INTEGERS = {
    "_default_message_ttl": (60, 1209600),
    "_max_messages_post_size": (1, 262144),
    "_default_message_delay": (0, 900),
    "_dead_letter_queue_messages_ttl": (60, 1209600),
}
RETRY_INTEGERS = [
    "retries_with_no_delay",
    "minimum_delay_retries",
    "minimum_delay",
    "maximum_delay",
    "maximum_delay_retries",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
own_keys = st.text(max_size=20).filter(lambda key: key not in RESERVED)
own_metadata = st.dictionaries(own_keys, json_values, max_size=4)


def refusal(metadata: JsonObject, limits: Limits = LIMITS) -> str:
    with pytest.raises(Invalid) as caught:
        validate(metadata, limits)
    return str(caught.value)


class TestRules:
    def test_the_schema_is_one(self):
        Draft202012Validator.check_schema(schema(LIMITS))
        assert set(RESERVED) == {*defaults(LIMITS), "_flavor", "_retry_policy"}

    def test_metadata_may_be_empty(self):
        validate({}, LIMITS)

    @pytest.mark.parametrize("key", RESERVED)
    def test_null_means_unset(self, key):
        validate({key: None}, LIMITS)

    def test_what_every_queue_shows_may_be_stored(self):
        validate(defaults(LIMITS), LIMITS)

    @pytest.mark.parametrize(("key", "bounds"), INTEGERS.items())
    def test_integers_have_bounds_and_the_refusal_names_them(self, key, bounds):
        low, high = bounds
        validate({key: low}, LIMITS)
        validate({key: high}, LIMITS)
        expected = f"The attribute {key} is not acceptable: it must be an integer from {low} to {high}."
        assert refusal({key: low - 1}) == expected
        assert refusal({key: high + 1}) == expected
        assert refusal({key: "123"}) == expected

    def test_the_bounds_are_the_operators(self):
        strict = Limits(max_message_ttl=120, max_messages_post_size=1024, max_message_delay=0)
        for key in ("_default_message_ttl", "_dead_letter_queue_messages_ttl"):
            assert refusal({key: 121}, strict).endswith("from 60 to 120.")
        assert refusal({"_max_messages_post_size": 1025}, strict).endswith("from 1 to 1024.")
        assert refusal({"_default_message_delay": 1}, strict).endswith("from 0 to 0.")
        validate({"_default_message_ttl": 121}, LIMITS)

    def test_a_claim_count_is_at_least_one(self):
        validate({"_max_claim_count": 1}, LIMITS)
        validate({"_max_claim_count": 2**63 - 1}, LIMITS)
        for value in (0, -1, "2", 1.5):
            assert refusal({"_max_claim_count": value}).endswith("it must be an integer of at least 1.")

    @pytest.mark.parametrize("key", [*INTEGERS, "_max_claim_count"])
    @pytest.mark.parametrize("value", [True, 60.0, 60.5, "60", [60], {"value": 60}])
    def test_only_an_integer_is_an_integer(self, key, value):
        assert f"The attribute {key} is not acceptable" in refusal({key: value})

    @pytest.mark.parametrize("key", [*INTEGERS, "_max_claim_count"])
    @pytest.mark.parametrize("value", ["", [], {}, False, 0.0])
    def test_f1_empty_values_of_another_type_are_refused(self, key, value):
        assert f"The attribute {key} is not acceptable" in refusal({key: value})

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("_enable_encrypt_messages", True),
            ("_enable_encrypt_messages", False),
            ("_flavor", "gold"),
            ("_dead_letter_queue", "dead.letters-1_2"),
        ],
    )
    def test_switches_and_names(self, key, value):
        validate({key: value}, LIMITS)

    @pytest.mark.parametrize("value", [0, 1, "", "true", []])
    def test_encryption_is_a_boolean(self, value):
        assert refusal({"_enable_encrypt_messages": value}).endswith("it must be a boolean.")

    @pytest.mark.parametrize("value", [0, False, ["gold"], {}])
    def test_a_flavor_is_a_string(self, value):
        assert refusal({"_flavor": value}).endswith("_flavor is not acceptable: it must be a string.")

    @pytest.mark.parametrize("name", ["", "dead/letters", "dead letters", "q\n", "q" * 65])
    def test_a_dead_letter_queue_is_a_queue_name(self, name):
        assert refusal({"_dead_letter_queue": name}).endswith("it must be the name of a queue.")

    @pytest.mark.parametrize("value", [0, False, ["q"], {}])
    def test_the_name_of_a_dead_letter_queue_is_a_string(self, value):
        assert refusal({"_dead_letter_queue": value}).endswith("it must be a string.")

    @settings(deadline=None)
    @given(own_metadata)
    def test_all_else_is_the_owners(self, metadata):
        validate(metadata, LIMITS)

    @pytest.mark.parametrize("key", ["_ttl", "__flavor", "_Flavor", "name", "$ref", "a.b", "", "properties"])
    def test_keys_that_only_look_reserved_are_the_owners(self, key):
        validate({key: [1, None, {"a": 2.5}]}, LIMITS)


class TestRetryPolicy:
    @pytest.mark.parametrize(
        "policy",
        [
            {},
            {"minimum_delay": 10, "maximum_delay": 20},
            {"minimum_delay": 20},
            {"maximum_delay": 15},
            {"retries_with_no_delay": 0, "minimum_delay_retries": 0, "maximum_delay_retries": 0},
            {"retry_backoff_function": "linear"},
            {"retry_backoff_function": "arithmetic"},
            {"retry_backoff_function": "geometric"},
            {"retry_backoff_function": "exponential"},
            {"ignore_subscription_override": True},
            {"something_else": [1]},
            dict(RETRY_DEFAULTS),
        ],
    )
    def test_policies_that_do(self, policy):
        validate({"_retry_policy": policy}, LIMITS)

    @pytest.mark.parametrize("policy", ["", [], 0, False, "linear", [{}]])
    def test_f1_a_policy_is_an_object(self, policy):
        assert refusal({"_retry_policy": policy}).endswith(
            "_retry_policy is not acceptable: it must be an object."
        )

    @pytest.mark.parametrize("member", RETRY_INTEGERS)
    @pytest.mark.parametrize("value", [-1, 1.0, True, "1", "", [], {}])
    def test_f1_numbers_are_integers_from_zero(self, member, value):
        expected = f"_retry_policy.{member} is not acceptable: it must be an integer of at least 0."
        assert refusal({"_retry_policy": {member: value}}).endswith(expected)

    @pytest.mark.parametrize("value", ["", "quadratic", "LINEAR", 0, False, []])
    def test_the_backoff_is_one_of_four(self, value):
        message = refusal({"_retry_policy": {"retry_backoff_function": value}})
        assert message.endswith("it must be one of linear, arithmetic, geometric, exponential.")

    @pytest.mark.parametrize("value", [0, 1, "", "no", []])
    def test_the_override_is_a_boolean(self, value):
        assert refusal({"_retry_policy": {"ignore_subscription_override": value}}).endswith("a boolean.")

    @pytest.mark.parametrize("member", RETRY_DEFAULTS)
    def test_null_means_absent(self, member):
        validate({"_retry_policy": {member: None}}, LIMITS)

    @pytest.mark.parametrize(
        "policy",
        [
            {"minimum_delay": 10, "maximum_delay": 19},
            {"minimum_delay": 20, "maximum_delay": 10},
            {"minimum_delay": 10, "maximum_delay": 10},
            {"minimum_delay": 21},
            {"minimum_delay": 21, "maximum_delay": None},
            {"maximum_delay": 14},
            {"maximum_delay": 0},
        ],
    )
    def test_delays_are_ten_seconds_apart_with_the_defaults_filled_in(self, policy):
        assert "maximum_delay must be at least 10 seconds more" in refusal({"_retry_policy": policy})
        with pytest.raises(Invalid, match="maximum_delay must be at least 10 seconds more"):
            check_retry_policy(policy)


class TestDefaults:
    def test_seven_attributes_are_always_shown(self):
        assert with_defaults({}, LIMITS) == {
            "_max_messages_post_size": 262144,
            "_default_message_ttl": 3600,
            "_default_message_delay": 0,
            "_dead_letter_queue": None,
            "_dead_letter_queue_messages_ttl": None,
            "_max_claim_count": None,
            "_enable_encrypt_messages": False,
        }

    def test_the_defaults_are_the_operators(self):
        own = Limits(max_messages_post_size=1024, default_message_ttl=60, default_message_delay=5)
        shown = with_defaults({}, own)
        assert shown["_max_messages_post_size"] == 1024
        assert shown["_default_message_ttl"] == 60
        assert shown["_default_message_delay"] == 5

    @pytest.mark.parametrize("key", defaults(LIMITS))
    @pytest.mark.parametrize("empty", [None, 0, "", False, [], {}])
    def test_what_is_stored_but_empty_has_its_default(self, key, empty):
        assert with_defaults({key: empty}, LIMITS)[key] == defaults(LIMITS)[key]

    def test_what_is_stored_comes_first_and_wins(self):
        stored = {"z": 1, "_max_claim_count": 3, "a": None, "_flavor": None}
        shown = with_defaults(stored, LIMITS)
        assert list(shown)[:4] == list(stored)
        assert {**shown, **stored} == shown

    @settings(deadline=None)
    @given(own_metadata)
    def test_the_owners_own_stay_as_they_are(self, metadata):
        before = copy.deepcopy(metadata)
        shown = with_defaults(metadata, LIMITS)
        assert metadata == before
        assert shown == {**defaults(LIMITS), **metadata}
        assert with_defaults(shown, LIMITS) == shown


class TestPolicy:
    def test_of_a_queue_that_says_nothing(self):
        policy = policy_of(ADDRESS, {}, Limits(default_message_ttl=70, default_message_delay=7))
        assert (policy.message_ttl, policy.message_delay, policy.max_post_size) == (70, 7, 262144)
        assert not policy.encrypted
        assert policy.dead_letter is None

    def test_nulls_say_nothing(self):
        assert policy_of(ADDRESS, dict.fromkeys(RESERVED), LIMITS) == policy_of(ADDRESS, {}, LIMITS)

    def test_the_shown_defaults_say_nothing_more(self):
        assert policy_of(ADDRESS, defaults(LIMITS), LIMITS) == policy_of(ADDRESS, {}, LIMITS)

    def test_of_a_queue_that_says_all(self):
        metadata = {
            "_default_message_ttl": 90,
            "_default_message_delay": 9,
            "_max_messages_post_size": 100,
            "_enable_encrypt_messages": True,
        }
        policy = policy_of(ADDRESS, metadata, LIMITS)
        assert (policy.message_ttl, policy.message_delay, policy.max_post_size) == (90, 9, 100)
        assert policy.encrypted

    def test_a_post_keeps_the_lower_of_both_bounds(self):
        metadata = {"_max_messages_post_size": 2000}
        assert policy_of(ADDRESS, metadata, Limits(max_messages_post_size=1000)).max_post_size == 1000
        assert policy_of(ADDRESS, metadata, Limits(max_messages_post_size=3000)).max_post_size == 2000

    def test_dead_letters_go_to_the_same_project(self):
        metadata = {"_max_claim_count": 2, "_dead_letter_queue": "dlq"}
        letters = Address(project="p", queue="dlq")
        assert policy_of(ADDRESS, metadata, LIMITS).dead_letter == DeadLetter(address=letters, max_claims=2)
        metadata["_dead_letter_queue_messages_ttl"] = 9999
        assert policy_of(ADDRESS, metadata, LIMITS).dead_letter == DeadLetter(
            address=letters, max_claims=2, ttl=9999
        )

    @pytest.mark.parametrize(
        "metadata",
        [
            {"_max_claim_count": 2},
            {"_dead_letter_queue": "dlq"},
            {"_dead_letter_queue_messages_ttl": 60},
            {"_max_claim_count": None, "_dead_letter_queue": "dlq"},
            {"_max_claim_count": 2, "_dead_letter_queue": None},
        ],
    )
    def test_dead_letters_need_a_count_and_a_queue(self, metadata):
        assert policy_of(ADDRESS, metadata, LIMITS).dead_letter is None

    def test_a_queue_is_not_its_own_dead_letter_queue(self):
        metadata = {"_max_claim_count": 2, "_dead_letter_queue": "q"}
        assert policy_of(ADDRESS, metadata, LIMITS).dead_letter is None


def change(path: Json, op: Json = "add") -> list[Json]:
    return [{"op": op, "path": path, "value": 1}]


class TestPatchSyntax:
    def test_a_patch_may_be_empty(self):
        assert parse_changes([]) == []

    def test_the_three_operations(self):
        document = [
            {"op": "add", "path": "/metadata/a", "value": 1},
            {"op": "replace", "path": "/metadata/b", "value": None},
            {"op": "remove", "path": "/metadata/c"},
        ]
        assert parse_changes(document) == [
            Change(op="add", key="a", value=1),
            Change(op="replace", key="b", value=None),
            Change(op="remove", key="c"),
        ]

    @pytest.mark.parametrize(
        "document", [None, {}, "", 5, True, {"op": "add", "path": "/metadata/a", "value": 1}]
    )
    def test_f1_a_patch_is_a_list(self, document):
        with pytest.raises(Invalid, match="must be a list"):
            parse_changes(document)

    @pytest.mark.parametrize("operation", [None, [], "add", 5, True])
    def test_f1_an_operation_is_an_object(self, operation):
        with pytest.raises(Invalid, match="must be an object"):
            parse_changes([operation])

    @pytest.mark.parametrize("op", [None, "", "a", "ADD", "move", "test", 1, True, ["add"], {"add": 1}])
    def test_an_operation_is_one_of_three(self, op):
        with pytest.raises(Invalid, match="must be add, replace or remove"):
            parse_changes(change("/metadata/a", op=op))
        with pytest.raises(Invalid, match="must be add, replace or remove"):
            parse_changes([{"path": "/metadata/a", "value": 1}])

    @pytest.mark.parametrize("op", ["add", "replace"])
    def test_add_and_replace_need_a_value(self, op):
        with pytest.raises(Invalid, match="needs a value"):
            parse_changes([{"op": op, "path": "/metadata/a"}])

    @pytest.mark.parametrize("op", ["add", "replace", "remove"])
    @pytest.mark.parametrize("path", [None, 5, True, ["/metadata/a"], {"a": 1}])
    def test_f1_a_path_is_a_string(self, op, path):
        with pytest.raises(Invalid, match="must be a JSON pointer"):
            parse_changes(change(path, op=op))
        with pytest.raises(Invalid, match="must be a JSON pointer"):
            parse_changes([{"op": op, "value": 1}])

    @pytest.mark.parametrize("op", ["add", "replace", "remove"])
    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/",
            "//",
            "a",
            "/a",
            "metadata/a",
            " /metadata/a",
            "/metadata",
            "/metadata/",
            "/metadata/ ",
            "/metadata//a",
            "//metadata/a",
            "/metadata/a/",
            "/metadata/a/b",
            "/metadata/a/ ",
            "/ /a",
            "/metadata/~",
            "/metadata/a~",
            "/metadata/~2",
            "/metadata/~a",
            "/metadata/~~0",
            "/~metadata/a",
        ],
    )
    def test_a_path_is_a_pointer_to_one_key(self, op, path):
        with pytest.raises(Invalid, match="The path of each operation must be"):
            parse_changes(change(path, op=op))

    @pytest.mark.parametrize("op", ["add", "replace", "remove"])
    @pytest.mark.parametrize("path", ["/data/a", "/metadata2/a", "/meta~0data/a", "/a/metadata"])
    def test_f11_the_root_is_metadata_for_remove_too(self, op, path):
        with pytest.raises(Invalid, match="must be /metadata/<key>"):
            parse_changes(change(path, op=op))

    @pytest.mark.parametrize(
        ("path", "key"),
        [
            ("/metadata/a", "a"),
            ("/METADATA/a", "a"),
            ("/Metadata/A", "A"),
            ("/ metadata / a b ", "a b"),
            ("/metadata/~0", "~"),
            ("/metadata/~1", "/"),
            ("/metadata/~01", "~1"),
            ("/metadata/~10", "/0"),
            ("/metadata/a~1b~0c", "a/b~c"),
            ("/metadata/$a.b", "$a.b"),
            ("/metadata/metadata", "metadata"),
        ],
    )
    def test_how_a_key_is_written(self, path, key):
        assert [each.key for each in parse_changes(change(path))] == [key]

    @settings(deadline=None)
    @given(st.text(min_size=1).filter(lambda key: key == key.strip()))
    def test_every_key_without_blanks_around_it_can_be_written(self, key):
        pointer = "/metadata/" + key.replace("~", "~0").replace("/", "~1")
        assert [each.key for each in parse_changes(change(pointer))] == [key]

    @settings(deadline=None)
    @given(json_values)
    def test_whatever_comes_is_read_or_refused(self, document):
        for each in (document, [document], change(document), change("/metadata/a", op=document)):
            try:
                parse_changes(each)
            except Invalid:
                continue


def patched(metadata: JsonObject, *steps: Any) -> JsonObject:
    changes = [
        Change(op=op, key=key, value=value[0] if value else None) for op, key, *value in steps
    ]  # of (op, key) or (op, key, value)
    return apply_changes(metadata, changes)


class TestPatchEffect:
    def test_add_sets_and_overwrites(self):
        assert patched({"a": 1}, ("add", "a", 2), ("add", "b", None)) == {"a": 2, "b": None}

    def test_replace_needs_a_key(self):
        assert patched({"a": 1}, ("replace", "a", [2])) == {"a": [2]}
        with pytest.raises(MissingKey, match="no key 'b' to replace"):
            patched({"a": 1}, ("replace", "b", 2))

    def test_remove_needs_a_key(self):
        assert patched({"a": 1, "b": None}, ("remove", "b")) == {"a": 1}
        with pytest.raises(MissingKey, match="no key 'b' to remove"):
            patched({"a": 1}, ("remove", "b"))

    @pytest.mark.parametrize("key", defaults(LIMITS))
    def test_a_reserved_key_can_be_replaced_and_removed_unseen(self, key):
        assert patched({}, ("replace", key, 7)) == {key: 7}
        assert patched({"a": 1}, ("remove", key)) == {"a": 1}
        assert patched({key: 7}, ("remove", key)) == {}

    @pytest.mark.parametrize("key", ["_flavor", "_retry_policy"])
    @pytest.mark.parametrize("op", ["replace", "remove"])
    def test_f11_flavor_and_retry_policy_must_be_there(self, key, op):
        with pytest.raises(MissingKey):
            patched({}, (op, key, "x"))
        patched({}, ("add", key, "x"), (op, key, "y"))

    def test_steps_see_the_steps_before_them(self):
        assert patched({}, ("add", "a", 1), ("replace", "a", 2), ("remove", "a")) == {}
        with pytest.raises(MissingKey):
            patched({"a": 1}, ("remove", "a"), ("remove", "a"))

    def test_a_client_may_add_a_reserved_key_and_remove_it_later(self):
        steps = [("add", "_max_claim_count", 3), ("add", "mine", 1), ("remove", "_max_claim_count")]
        assert patched({}, *steps) == {"mine": 1}

    def test_what_is_stored_stays_as_it_is(self):
        stored = {"a": 1}
        with pytest.raises(MissingKey):
            patched(stored, ("add", "b", 2), ("remove", "a"), ("remove", "c"))
        assert stored == {"a": 1}

    def test_the_order_of_the_keys_is_kept(self):
        changed = patched({"b": 1, "a": 2}, ("add", "c", 3), ("replace", "b", 4))
        assert json.dumps(changed) == '{"b": 4, "a": 2, "c": 3}'

    @settings(deadline=None)
    @given(own_metadata, own_metadata)
    def test_any_metadata_can_be_turned_into_any_other(self, before, after):
        removed = [("remove", key) for key in before]
        added = [("add", key, value) for key, value in after.items()]
        assert patched(before, *removed, *added) == after


def test_a_default_above_a_maximum_that_was_lowered_since_is_lowered_too():
    limits = Limits(max_message_ttl=600, default_message_ttl=300, max_message_delay=10)
    stored = {"_default_message_ttl": 3600, "_default_message_delay": 900}

    policy = policy_of(Address(project="p", queue="q"), stored, limits)

    assert (policy.message_ttl, policy.message_delay) == (600, 10)
