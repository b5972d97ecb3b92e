import json
import time
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues.errors import Invalid
from queues.events import read
from queues.filters import MAX_CLAUSES, MAX_FILTER_DEPTH, MAX_POINTER_TOKENS, parse
from queues.models import Json

EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/openstack/compute.host1",
    "type": "org.openstack.compute.instance.create.end",
    "subject": "i-1",
    "sequence": 5,
    "data": {
        "kind": "vm",
        "n": 1,
        "f": 1.5,
        "t": True,
        "none": None,
        "empty": "",
        "tags": ["a", {"k": "v"}],
        "nova_object.data": {"uuid": "u"},
        "a/b": {"m~n": "odd"},
        "": "blank",
    },
}


def matches(document: Json, body: Json = EVENT) -> bool:
    return parse(document).matches(body)


def refusal(document: Json) -> str:
    with pytest.raises(Invalid) as caught:
        parse(document)
    return str(caught.value)


class TestFields:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("subject", "i-1"),
            ("/subject", "i-1"),
            ("sequence", 5),
            ("/data/kind", "vm"),
            ("/data/tags/0", "a"),
            ("/data/tags/1/k", "v"),
            ("/data/nova_object.data/uuid", "u"),
            ("/data/a~1b/m~0n", "odd"),
            ("/data/", "blank"),
        ],
    )
    def test_names_and_pointers_lead_to_fields(self, field, value):
        assert matches({"exact": {field: value}})

    @pytest.mark.parametrize(
        "field",
        [
            "missing",
            "/missing",
            "/data/kind/x",
            "/data/tags/2",
            "/data/tags/-",
            "/data/tags/00",
            "/data/tags/-1",
            "/data/tags/x",
            "/data/tags/9999999999999999999999",
            "/data/tags/\u0660",
            "/data/n/0",
            "/Data/kind",
            "/data//kind",
        ],
    )
    @pytest.mark.parametrize("value", ["a", None, 0, False])
    def test_a_missing_field_has_no_value(self, field, value):
        assert not matches({"exact": {field: value}})
        assert matches({"not": {"exact": {field: value}}})

    @pytest.mark.parametrize("dialect", ["prefix", "suffix"])
    def test_a_missing_field_has_no_beginning_and_no_end(self, dialect):
        assert not matches({dialect: {"missing": "a"}})
        assert matches({"not": {dialect: {"missing": "a"}}})

    @pytest.mark.parametrize("body", [None, True, 1, 1.5, "x", [], ["x"], {}, [{"subject": "i-1"}]])
    def test_a_body_may_be_anything(self, body):
        assert not matches({"exact": {"subject": "i-1"}}, body)

    def test_names_do_for_bodies_that_are_no_events(self):
        assert matches({"exact": {"kind": "vm"}}, {"kind": "vm"})
        assert matches({"exact": {"/0/kind": "vm"}}, [{"kind": "vm"}])

    @pytest.mark.parametrize(
        "field", ["", "data.kind", "Subject", "a-b", "data/kind", "/a~", "/a~2b", "ä", " a"]
    )
    def test_other_fields_are_refused(self, field):
        assert "a field is the name of an attribute" in refusal({"exact": {field: "x"}})

    def test_pointers_are_bounded(self):
        parse({"exact": {"/a" * MAX_POINTER_TOKENS: "x"}})
        assert "at most" in refusal({"exact": {"/a" * (MAX_POINTER_TOKENS + 1): "x"}})


class TestExact:
    VALUES = ("a", "1", "true", "null", 1, 0, 1.5, True, False, None)

    @pytest.mark.parametrize("asked", VALUES)
    @pytest.mark.parametrize("found", VALUES)
    def test_values_are_compared_by_type(self, asked, found):
        assert matches({"exact": {"x": asked}}, {"x": found}) is (json.dumps(asked) == json.dumps(found))

    @pytest.mark.parametrize(("asked", "found"), [(1, 1.0), (1.0, 1), (0, -0.0), (2**60, float(2**60))])
    def test_numbers_are_of_one_type(self, asked, found):
        assert matches({"exact": {"x": asked}}, {"x": found})

    def test_integers_are_not_rounded(self):
        assert not matches({"exact": {"x": 2**53 + 1}}, {"x": float(2**53)})

    @pytest.mark.parametrize("found", [[], {}, ["a"], {"a": 1}])
    @pytest.mark.parametrize("asked", ["a", 1, None])
    def test_what_is_no_scalar_equals_nothing(self, asked, found):
        assert not matches({"exact": {"x": asked}}, {"x": found})

    def test_case_counts(self):
        assert not matches({"exact": {"subject": "I-1"}})

    def test_every_field_must_match(self):
        assert matches({"exact": {"subject": "i-1", "/data/n": 1}})
        assert not matches({"exact": {"subject": "i-1", "/data/n": 2}})
        assert not matches({"exact": {"subject": "x", "/data/n": 1}})

    @pytest.mark.parametrize("value", ["", [], {}, ["a"]])
    def test_other_values_are_refused(self, value):
        assert "at /exact/type: the value must be" in refusal({"exact": {"type": value}})


class TestPrefixAndSuffix:
    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({"prefix": {"type": "org.openstack."}}, True),
            ({"prefix": {"type": EVENT["type"]}}, True),
            ({"prefix": {"type": "openstack"}}, False),
            ({"prefix": {"type": "Org"}}, False),
            ({"prefix": {"type": "org", "subject": "i-"}}, True),
            ({"prefix": {"type": "org", "subject": "x"}}, False),
            ({"prefix": {"/data/empty": "x"}}, False),
            ({"suffix": {"type": ".end"}}, True),
            ({"suffix": {"type": EVENT["type"]}}, True),
            ({"suffix": {"type": ".start"}}, False),
            ({"suffix": {"/data/nova_object.data/uuid": "u"}}, True),
        ],
    )
    def test_a_string_begins_or_ends(self, document, expected):
        assert matches(document) is expected

    @pytest.mark.parametrize("dialect", ["prefix", "suffix"])
    @pytest.mark.parametrize("field", ["/data/n", "/data/t", "/data/none", "/data/tags", "/data"])
    def test_what_is_no_string_does_neither(self, dialect, field):
        assert not matches({dialect: {field: "1"}})

    @pytest.mark.parametrize("dialect", ["prefix", "suffix"])
    @pytest.mark.parametrize("value", ["", None, 1, True, [], {}])
    def test_the_value_is_a_string_that_is_not_empty(self, dialect, value):
        assert f"at /{dialect}/type: the value must be a string" in refusal({dialect: {"type": value}})


class TestCombinations:
    YES: ClassVar[Json] = {"exact": {"id": "1"}}
    NO: ClassVar[Json] = {"exact": {"id": "2"}}

    def test_truth_tables(self):
        yes, no = self.YES, self.NO
        assert matches({"all": [yes, yes]})
        assert not matches({"all": [yes, no]})
        assert matches({"any": [no, yes]})
        assert not matches({"any": [no, no]})
        assert matches({"not": no})
        assert not matches({"not": yes})
        assert matches({"not": {"not": yes}})

    def test_an_array_is_a_conjunction(self):
        assert matches([self.YES, self.YES])
        assert not matches([self.YES, self.NO])

    def test_an_empty_array_wants_everything(self):
        assert matches([])
        assert matches([], None)

    @pytest.mark.parametrize("dialect", ["all", "any"])
    @pytest.mark.parametrize("operand", [[], {}, None, "x", {"exact": {"id": "1"}}])
    def test_there_is_an_array_of_at_least_one(self, dialect, operand):
        expected = (
            f"The filter is not acceptable at /{dialect}: there must be an array of at least one filter."
        )
        assert refusal({dialect: operand}) == expected

    @pytest.mark.parametrize("dialect", ["exact", "prefix", "suffix"])
    @pytest.mark.parametrize("operand", [{}, [], None, "x", 1])
    def test_there_is_at_least_one_field(self, dialect, operand):
        assert f"at /{dialect}: there must be an object" in refusal({dialect: operand})

    @pytest.mark.parametrize("document", [None, 1, "x", True, {}, {"exact": {"id": "1"}, "not": {}}])
    def test_a_filter_has_one_dialect(self, document):
        assert "at its top: a filter is an object with one member" in refusal(document)
        assert "at /not: a filter is an object with one member" in refusal({"not": document})

    @pytest.mark.parametrize("dialect", ["sql", "Exact", "", "or", "a/b~"])
    def test_other_dialects_are_refused(self, dialect):
        assert "the dialects are" in refusal({dialect: "x = 1"})

    def test_the_place_of_a_mistake_is_named(self):
        document = {"all": [self.YES, {"any": [{"not": {"prefix": {"/a~1b": 1}}}]}]}
        assert "at /all/1/any/0/not/prefix/~1a~01b: " in refusal(document)
        assert "at /1/not: " in refusal([self.YES, {"not": []}])

    def test_the_place_is_shown_in_ascii_and_not_at_length(self):
        assert r"at /exact/\xe4\n: " in refusal({"exact": {"ä\n": "x"}})
        assert len(refusal({"exact": {"Ä" * 100_000: "x"}})) < 500


class TestBounds:
    def nested(self, levels: int) -> Json:
        document: Json = {"exact": {"id": "1"}}
        for _ in range(levels - 1):
            document = {"not": document}
        return document

    def test_levels_are_bounded(self):
        assert matches({"not": self.nested(MAX_FILTER_DEPTH - 1)}) is (MAX_FILTER_DEPTH % 2 == 1)
        assert matches([self.nested(MAX_FILTER_DEPTH)]) is (MAX_FILTER_DEPTH % 2 == 1)
        for levels in (MAX_FILTER_DEPTH + 1, 900):
            assert "levels deep" in refusal(self.nested(levels))

    def test_clauses_are_bounded(self):
        def fields(count: int) -> Json:
            return {f"/a{index}": "x" for index in range(count)}

        parse({"exact": fields(MAX_CLAUSES - 1)})
        assert f"at most {MAX_CLAUSES}" in refusal({"exact": fields(MAX_CLAUSES)})
        parse([{"exact": {"id": "1"}}] * (MAX_CLAUSES // 2))
        for count in (MAX_CLAUSES // 2 + 1, 200_000):
            assert f"at most {MAX_CLAUSES}" in refusal([{"exact": {"id": "1"}}] * count)

    def test_the_worst_filter_takes_little_time(self):
        pointer = "/a" * MAX_POINTER_TOKENS
        body: Json = "x" * 100_000
        for _ in range(MAX_POINTER_TOKENS):
            body = {"a": body}
        worst = parse({"any": [{"suffix": {pointer: "y" * 1000}}] * (MAX_CLAUSES // 2 - 1)})
        started = time.process_time()
        for _ in range(100):
            assert not worst.matches(body)
        assert time.process_time() - started < 5


def test_events_are_matched_as_they_are_stored():
    headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "com.example.a%20b"),
    ]
    (event,) = read("application/json", headers, b'{"kind": "x"}')
    stored = json.loads(event.document)
    assert matches({"exact": {"type": "com.example.a b", "/data/kind": "x"}}, stored)


def test_equal_documents_make_equal_filters():
    document = {"any": [{"exact": {"id": "1"}}, {"not": {"prefix": {"/data/kind": "v", "type": "o"}}}]}
    assert parse(document) == parse(json.loads(json.dumps(document)))
    assert hash(parse(document)) == hash(parse(document))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["id", "type", "/data/kind", "/data/tags/0", "/data", "x.y"]) | st.text(
    "/~01ab", max_size=6
)
comparisons = st.builds(
    lambda dialect, operand: {dialect: operand},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.dictionaries(fields, scalars | json_values, max_size=3),
)
documents = st.recursive(
    comparisons | json_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=8,
)


@settings(max_examples=400)
@given(documents | st.lists(documents, max_size=3), json_values | st.just(EVENT))
def test_anything_is_a_filter_or_refused(document, body):
    try:
        found = parse(document)
    except Invalid:
        return
    assert found.matches(body) in (True, False)


def pointer_to(body: Json, data: st.DataObject) -> tuple[str, Json]:
    pointer = ""
    while body and isinstance(body, dict | list):
        key = data.draw(st.sampled_from(sorted(body) if isinstance(body, dict) else range(len(body))))
        pointer += "/" + str(key).replace("~", "~0").replace("/", "~1")
        body = body[key]
    return pointer, body


@given(st.dictionaries(st.text(max_size=3), json_values, min_size=1, max_size=3), st.data())
def test_whatever_is_in_a_body_can_be_pointed_at(body, data):
    pointer, value = pointer_to(body, data)
    if value in ("", [], {}) and not isinstance(value, bool):
        return
    assert matches({"exact": {pointer: value}}, body)
