import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues import events
from queues.errors import Invalid
from queues.events import Event, read, read_notification
from queues.limits import MAX_DEPTH, check_idempotency_key
from queues.models import Json, JsonObject

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
REQUIRED: JsonObject = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01"
NOTIFICATION: JsonObject = {
    "message_id": "5c329f20-d435-444c-8fa2-e1b54592219c",
    "publisher_id": "compute.host1",
    "event_type": "compute.instance.exists",
    "priority": "INFO",
    "payload": {"instance_id": "i-1", "tenant_id": "p-9"},
    "timestamp": "2012-05-08 20:03:48.753100",
    "_unique_id": "u",
    "_context_auth_token": "gAAAA-secret",
    "_context_project_id": "p-1",
    "_context_request_id": "req-1",
}


def structured(**members: Json) -> Event:
    (event,) = read(STRUCTURED, [], json.dumps({**REQUIRED, **members}).encode())
    return event


def binary(body: bytes = b"", content_type: str = "", **headers: str) -> Event:
    given = {f"ce-{name}": value for name, value in {**REQUIRED, **headers}.items()}
    (event,) = read(content_type, given.items(), body)
    return event


def notification(**members: Json) -> Event:
    return read_notification(json.dumps({**NOTIFICATION, **members}).encode())


def document(event: Event) -> Json:
    return json.loads(event.document)


def refusal(content_type: str, headers: dict[str, str], body: bytes | str, **limits: int) -> str:
    raw = body.encode() if isinstance(body, str) else body
    with pytest.raises(Invalid) as caught:
        read(content_type, headers.items(), raw, **limits)
    return str(caught.value)


def structured_refusal(**members: Json) -> str:
    return refusal(STRUCTURED, {}, json.dumps({**REQUIRED, **members}))


def binary_refusal(body: bytes = b"", content_type: str = "", **headers: str) -> str:
    given = {f"ce-{name}": value for name, value in {**REQUIRED, **headers}.items()}
    return refusal(content_type, given, body)


class TestMode:
    @pytest.mark.parametrize(
        "content_type",
        [
            STRUCTURED,
            "Application/CloudEvents+JSON",
            f" {STRUCTURED} ; charset=UTF-8",
            f'{STRUCTURED};charset="utf-8"',
        ],
    )
    def test_an_event_is_told_by_its_content_type_whatever_the_headers_say(self, content_type):
        (event,) = read(content_type, [("ce-id", "2")], json.dumps(REQUIRED).encode())
        assert event.attributes == REQUIRED

    @pytest.mark.parametrize("content_type", [BATCH, BATCH.upper(), f"{BATCH}; charset=utf-8"])
    def test_a_batch_keeps_its_order(self, content_type):
        body = json.dumps([{**REQUIRED, "id": id_} for id_ in "312"]).encode()
        assert [event.attributes["id"] for event in read(content_type, [], body)] == list("312")

    def test_a_batch_may_be_empty(self):
        assert read(BATCH, [], b"[]") == []

    def test_a_batch_is_bounded(self):
        batch = json.dumps([REQUIRED] * 3)
        assert len(read(BATCH, [], batch.encode(), max_events=3)) == 3
        assert (
            refusal(BATCH, {}, batch, max_events=2) == "At most 2 events can be posted at once; these are 3."
        )

    def test_the_refusal_of_a_batch_names_the_event(self):
        batch = json.dumps([REQUIRED, {**REQUIRED, "id": ""}])
        assert refusal(BATCH, {}, batch) == (
            "Event 1 of the array is not acceptable: The attribute id must be a string that is not empty."
        )

    @pytest.mark.parametrize("body", ["{}", "1", "null", "[1]", "[null]", "[[]]"])
    def test_a_batch_is_an_array_of_objects(self, body):
        assert "wrong shape" in refusal(BATCH, {}, body)

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/cloudevents",
            "application/cloudevents+avro",
            "application/cloudevents+json2",
            "application/cloudevents-batch",
            "application/cloudevents-batch+protobuf",
        ],
    )
    def test_other_formats_are_refused_even_if_there_are_headers(self, content_type):
        headers = {f"ce-{name}": value for name, value in REQUIRED.items()}
        assert refusal(content_type, headers, json.dumps(REQUIRED)).startswith("Events in this format")

    @pytest.mark.parametrize("content_type", [STRUCTURED, BATCH])
    def test_another_charset_is_refused(self, content_type):
        assert "UTF-8" in refusal(f"{content_type}; charset=utf-16", {}, json.dumps(REQUIRED))

    def test_json_with_event_headers_is_binary_mode_even_if_it_looks_like_a_notification(self):
        event = binary(json.dumps(NOTIFICATION).encode(), "application/json")
        assert document(event)["data"] == NOTIFICATION

    @pytest.mark.parametrize("content_type", ["", "text/plain", "application/xml", "application/jsonp"])
    def test_what_is_no_event_is_refused(self, content_type):
        assert refusal(content_type, {}, "{}").startswith("This is no event")


class TestAttributes:
    @pytest.mark.parametrize("name", REQUIRED)
    def test_the_required_ones_must_be_there(self, name):
        assert structured_refusal(**{name: None}) == f"The attribute {name} is missing."
        rest = {f"ce-{key}": value for key, value in REQUIRED.items() if key != name}
        assert refusal("", rest, "") == f"The attribute {name} is missing."

    @pytest.mark.parametrize("name", [*REQUIRED, "datacontenttype", "dataschema", "subject", "time"])
    @pytest.mark.parametrize("value", ["", 1, True, [], {}, 1.5])
    def test_those_of_the_specification_are_strings_and_not_empty(self, name, value):
        assert name in structured_refusal(**{name: value})

    @pytest.mark.parametrize("name", REQUIRED)
    def test_none_is_empty_as_a_header(self, name):
        assert name in binary_refusal(b"", **{name: ""})

    @pytest.mark.parametrize("version", ["0.3", "1", "1.0.2", "2.0"])
    def test_the_version_is_1_0(self, version):
        assert structured_refusal(specversion=version) == "The attribute specversion must be 1.0."

    def test_null_is_absent(self):
        assert structured(subject=None, myext=None, data_base64=None).attributes == REQUIRED

    @pytest.mark.parametrize("name", ["Subject", "my_ext", "my-ext", "", "é", "a b", "x\n"])
    def test_names_are_lower_case_letters_and_digits(self, name):
        assert "wrong name" in structured_refusal(**{name: "x"})

    @pytest.mark.parametrize("name", ["my-ext", "my_ext", "data", "data_base64", ""])
    def test_names_of_headers_too(self, name):
        assert "wrong name" in binary_refusal(b"", **{name: "x"})

    @pytest.mark.parametrize("value", ["", "x", "ü😀", True, False, 0, -(2**31), 2**31 - 1])
    def test_an_extension_is_a_string_a_boolean_or_an_integer(self, value):
        attributes = structured(ext=value).attributes
        assert (attributes["ext"], type(attributes["ext"])) == (value, type(value))

    @pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1.0, 1.5, [], ["x"], {}, {"a": 1}, 10**30])
    def test_an_extension_is_nothing_else(self, value):
        assert "ext" in structured_refusal(ext=value)

    @pytest.mark.parametrize("character", ["\x00", "\n", "\x7f", "\x9f", "\ufdd0", "\uffff", "\U0010fffe"])
    def test_strings_have_no_control_characters_and_noncharacters(self, character):
        assert "control characters" in structured_refusal(ext=f"a{character}b")
        assert "control characters" in structured_refusal(id=f"a{character}b")
        assert "control characters" in binary_refusal(subject=quote(f"a{character}b"))

    @pytest.mark.parametrize(
        "source",
        [
            "/s",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "mailto:cncf@example.com",
            "https://user@[::1]:80/a/b;c=1?q=/?#f/?",
            "//pubsub.googleapis.com/projects/p",
            "1-555-123-4567",
            "a%20b",
            "?q",
            "#f",
        ],
    )
    def test_the_source_is_a_uri_reference(self, source):
        assert structured(source=source).attributes["source"] == source

    @pytest.mark.parametrize(
        "source", ["a b", "/ä", "a%2", "a%zz", "<a>", "a#b#c", "/[x]", "a\\b", 'a"b', "{x}"]
    )
    def test_any_other_source_is_refused(self, source):
        assert structured_refusal(source=source) == "The attribute source must be a URI reference (RFC 3986)."

    @pytest.mark.parametrize(
        ("schema", "good"), [("https://e.org/s#v1", True), ("urn:x", True), ("/s", False)]
    )
    def test_the_schema_is_a_uri(self, schema, good):
        if good:
            assert structured(dataschema=schema).attributes["dataschema"] == schema
        else:
            assert "URI" in structured_refusal(dataschema=schema)

    @pytest.mark.parametrize("name", ["time", "expirytime"])
    @pytest.mark.parametrize(
        "text",
        [
            "2018-04-05T17:31:00Z",
            "2018-04-05t17:31:00z",
            "2018-04-05T17:31:00.1+05:30",
            "2018-04-05T17:31:00.123456789-00:00",
            "2016-12-31T23:59:60Z",
            "0001-01-01T00:00:00+23:59",
        ],
    )
    def test_timestamps_are_those_of_rfc_3339(self, name, text):
        assert structured(**{name: text}).attributes[name] == text

    @pytest.mark.parametrize("name", ["time", "expirytime"])
    @pytest.mark.parametrize(
        "text",
        [
            "2018-04-05",
            "2018-04-05 17:31:00Z",
            "2018-04-05T17:31Z",
            "2018-04-05T17:31:00",
            "2018-02-30T17:31:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:60:00Z",
            "2018-04-05T17:31:61Z",
            "2018-04-05T17:31:00+24:00",
            "2018-04-05T17:31:00+0100",
            "2018-04-05T17:31:00.Z",
            "9999-12-31T23:59:60Z",
            "٢018-04-05T17:31:00Z",
            "20180405T173100Z",
            "yesterday",
            " 2018-04-05T17:31:00Z",
        ],
    )
    def test_other_times_are_refused(self, name, text):
        assert structured_refusal(**{name: text}) == f"The attribute {name} must be a timestamp (RFC 3339)."

    def test_the_expiry_cannot_be_a_number(self):
        assert "timestamp" in structured_refusal(expirytime=12)

    @pytest.mark.parametrize("kind", ["json", "a/b/c", "a b/c", "a/", "text/plain; \x01", "text/plain x"])
    def test_the_content_type_is_a_media_type(self, kind):
        assert "datacontenttype" in structured_refusal(datacontenttype=kind)
        assert "datacontenttype" in binary_refusal(b"x", kind)


class TestStructuredData:
    def test_there_may_be_none(self):
        event = structured()
        assert event.document == b'{"specversion":"1.0","id":"1","source":"/s","type":"t"}'
        assert event.data is None

    def test_null_is_a_value(self):
        assert structured(data=None).document.endswith(b',"data":null}')

    @pytest.mark.parametrize("kind", ["application/json", "text/json; a=b", "image/svg+JSON", None])
    @pytest.mark.parametrize("value", [{"a": [1, {}]}, [], "x", 1, 1.5, True, None])
    def test_it_is_any_json_where_the_type_is_json_or_absent(self, kind, value):
        assert document(structured(datacontenttype=kind, data=value))["data"] == value

    def test_a_string_is_not_parsed_again(self):
        assert structured(datacontenttype="application/json", data='{"a":1}').data == rb'"{\"a\":1}"'

    def test_it_is_a_string_where_the_type_is_another(self):
        assert structured(datacontenttype="application/xml", data="<a/>").data == b'"<a/>"'
        assert structured(datacontenttype="application/xml", data=None).data is None
        assert "must be a string" in structured_refusal(datacontenttype="application/xml", data={})

    def test_base64_stays(self):
        event = structured(data_base64="AAH/")
        assert event.data_base64 == "AAH/"
        assert document(event) == {**REQUIRED, "data_base64": "AAH/"}

    def test_base64_is_written_in_one_way(self):
        assert structured(data_base64="AB==").data_base64 == "AA=="

    @pytest.mark.parametrize("value", ["A", "AA", "AA=", "A-_A", "AA\nAA", "ÄÄÄÄ", 1, True, [], {}])
    def test_bad_base64_is_refused(self, value):
        assert "data_base64" in structured_refusal(data_base64=value)

    @pytest.mark.parametrize("data", [None, "x", {}])
    def test_there_are_not_both(self, data):
        assert (
            structured_refusal(data=data, data_base64="AAAA") == "An event has data or data_base64, not both."
        )

    def test_the_data_are_compact_and_keep_the_spelling_of_numbers_and_strings(self):
        raw = rb'{"a" : [ 1.10 , 1E2,0.12345678901234567890123 ],"b": "\u00e9  \n"}'
        (event,) = read(STRUCTURED, [], json.dumps(REQUIRED).encode()[:-1] + b', "data": %b }' % raw)
        assert event.data == rb'{"a":[1.10,1E2,0.12345678901234567890123],"b":"\u00e9  \n"}'

    def test_equal_attributes_make_equal_documents(self):
        first = {**REQUIRED, "subject": "é", "a": 1}
        escaped, plain = (
            json.dumps(first),
            json.dumps(dict(reversed(first.items())), ensure_ascii=False, indent=1),
        )
        (one,), (two,) = (read(STRUCTURED, [], text.encode()) for text in (escaped, plain))
        assert one.document == two.document
        assert "é".encode() in one.document

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"nul",
            b'{"id":1,}',
            b'{"id":"\xff"}',
            b'{"id":"\\ud800"}',
            b'{"id":NaN}',
            b"\xef\xbb\xbf{}",
        ],
    )
    def test_what_is_no_json_is_refused(self, body):
        assert "could not be parsed as JSON" in refusal(STRUCTURED, {}, body)

    @pytest.mark.parametrize("body", ["[]", "1", '"x"', "null"])
    def test_an_event_is_an_object(self, body):
        assert "wrong shape" in refusal(STRUCTURED, {}, body)

    @pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
    def test_integers_have_64_bits(self, number):
        assert "64-bit" in structured_refusal(data=[{"a": number}])
        assert "64-bit" in binary_refusal(str(number).encode(), "application/json")

    def test_the_bounds_of_integers_are_within(self):
        assert document(structured(data=[2**63 - 1, -(2**63)]))["data"] == [2**63 - 1, -(2**63)]

    def test_nesting_is_bounded_in_the_document_that_is_stored(self):
        def nested(levels: int) -> bytes:
            return b"[" * levels + b"]" * levels

        assert binary(nested(MAX_DEPTH - 1), "application/json").data == nested(MAX_DEPTH - 1)
        for levels in (MAX_DEPTH, 1000, 200_000):
            binary_refusal(nested(levels), "application/json")
            refusal(STRUCTURED, {}, json.dumps(REQUIRED)[:-1] + ',"data":' + nested(levels).decode() + "}")
            refusal(STRUCTURED, {}, json.dumps(REQUIRED)[:-1] + ',"ext":' + nested(levels).decode() + "}")

    def test_a_wide_document_is_not_deep(self):
        wide: Json = [[[]] for _ in range(MAX_DEPTH * 2)]
        assert document(structured(data=wide))["data"] == wide


class TestBinaryHeaders:
    def test_names_are_told_apart_by_no_case(self):
        (event,) = read(
            "", [("CE-SpecVersion", "1.0"), ("Ce-Id", "A"), ("ce-source", "s"), ("ce-TYPE", "T")], b""
        )
        assert event.attributes == {"specversion": "1.0", "id": "A", "source": "s", "type": "T"}

    def test_other_headers_do_not_matter(self):
        headers = [
            *((f"ce-{name}", value) for name, value in REQUIRED.items()),
            ("host", "h"),
            ("x-ce-a", "b"),
        ]
        assert read("", headers, b"")[0].attributes == REQUIRED

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("%e2%82%ac", "€"),
            ("%41b%2Dc", "Ab-c"),  # encoded without need
            ("%2541", "%41"),  # one round
            ("a+b", "a+b"),
            ('"a b"', "a b"),
            (r'"a \"b\" \\ c"', r'a "b" \ c'),
            ('"%20"', " "),  # unquoted first, then decoded
            ('"%\\41"', "A"),
            ('"%"41', "A"),
            ("%22a%22", '"a"'),  # so what is decoded is no quoted string
            ('x "y z" w', "x y z w"),
            ('""x', "x"),
            (r"a\b", r"a\b"),  # no escape without quotation marks
            ("  a b  ", "a b"),
            ("~!", "~!"),
        ],
    )
    def test_values_are_unquoted_then_percent_decoded_once(self, value, text):
        assert binary(subject=value).attributes["subject"] == text

    @pytest.mark.parametrize("value", ["%C0%A0", "%ff", "%E2%82", "a%80", "%ED%A0%80", "%F4%90%80%80"])
    def test_bad_utf_8_is_refused(self, value):
        assert (
            binary_refusal(subject=value) == "The header ce-subject is no UTF-8 when it is percent-decoded."
        )

    @pytest.mark.parametrize("value", ["%", "50%", "%4", "%4g", "%%41"])
    def test_a_stray_percent_sign_is_refused(self, value):
        assert "percent sign" in binary_refusal(subject=value)

    @pytest.mark.parametrize("value", ['"', '"a', 'a"', '"a"b"', r'"a\"', '"a\\'])
    def test_a_quoted_string_without_end_is_refused(self, value):
        assert "without end" in binary_refusal(subject=value)

    @pytest.mark.parametrize("value", ["é", "\xe2\x82\xac", "€", "a\x00", "a\nb", "\x7f"])
    def test_what_should_have_been_encoded_is_refused(self, value):
        assert "percent-encoded" in binary_refusal(subject=value)

    def test_the_content_type_must_not_be_an_attribute_too(self):
        assert "ce-datacontenttype" in binary_refusal(
            b"{}", "application/json", datacontenttype="application/json"
        )

    def test_no_attribute_comes_twice(self):
        with pytest.raises(Invalid, match="twice"):
            read("", [*((f"ce-{name}", value) for name, value in REQUIRED.items()), ("CE-ID", "2")], b"")

    def test_an_extension_stays_a_string(self):
        assert binary(sequence="5", flag="true").attributes == {**REQUIRED, "flag": "true", "sequence": "5"}

    def test_hostile_values_take_linear_time(self):
        started = time.process_time()
        for value in ('"' + '\\"' * 200_000, '"' * 200_001, "%41" * 200_000, '"\\' * 200_000, "%" * 200_000):
            read_or_refuse("", [("ce-subject", value)], b"")
        assert time.process_time() - started < 5


class TestTrace:
    def headers(self, *extra: tuple[str, str]) -> list[tuple[str, str]]:
        return [*((f"ce-{name}", value) for name, value in REQUIRED.items()), *extra]

    def extensions(self, *extra: tuple[str, str]) -> JsonObject:
        (event,) = read("", self.headers(*extra), b"")
        return {name: value for name, value in event.attributes.items() if name not in REQUIRED}

    def test_the_trace_of_the_request_is_kept(self):
        assert self.extensions(("Traceparent", PARENT), ("tracestate", "a=1")) == {
            "traceparent": PARENT,
            "tracestate": "a=1",
        }

    def test_the_parts_of_the_state_are_joined(self):
        found = self.extensions(
            ("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", ""), ("tracestate", "b=2")
        )
        assert found["tracestate"] == "a=1,b=2"

    def test_the_trace_of_the_event_goes_before(self):
        assert self.extensions(
            ("traceparent", PARENT), ("tracestate", "a=1"), ("ce-traceparent", OTHER_PARENT)
        ) == {"traceparent": OTHER_PARENT}

    def test_a_state_without_its_parent_does_not_join_another(self):
        assert self.extensions(("ce-tracestate", "a=1")) == {}
        assert self.extensions(("ce-tracestate", "a=1"), ("traceparent", PARENT)) == {"traceparent": PARENT}

    @pytest.mark.parametrize(
        "parent",
        [
            "",
            "x",
            PARENT.upper(),
            PARENT[:-1],
            f"ff{PARENT[2:]}",
            f"00-{'0' * 32}-{'1' * 16}-00",
            f"00-{'1' * 32}-{'0' * 16}-00",
        ],
    )
    def test_an_invalid_one_is_ignored(self, parent):
        assert self.extensions(("traceparent", parent), ("tracestate", "a=1")) == {}

    def test_two_are_none(self):
        assert self.extensions(("traceparent", PARENT), ("traceparent", OTHER_PARENT)) == {}

    def test_a_state_that_cannot_be_read_is_left_out(self):
        assert self.extensions(("traceparent", PARENT), ("tracestate", "a=\xe9")) == {"traceparent": PARENT}

    def test_in_the_other_modes_the_event_says_itself(self):
        headers = [("traceparent", PARENT)]
        assert read(STRUCTURED, headers, json.dumps(REQUIRED).encode())[0].attributes == REQUIRED


class TestBinaryData:
    @pytest.mark.parametrize("kind", ["application/json", "Text/JSON;charset=utf-8", "application/a+json"])
    def test_json_is_data(self, kind):
        event = binary(b' {"a" : 1.0} ', kind)
        assert (event.data, event.data_base64) == (b'{"a":1.0}', None)
        assert event.attributes["datacontenttype"] == kind

    @pytest.mark.parametrize("body", [b"{", b"abc", b"\xff", b'"\xff"', b"1e999", b'"\\udc00"'])
    def test_malformed_json_is_refused(self, body):
        binary_refusal(body, "application/json")

    @pytest.mark.parametrize("kind", ["text/plain", "text/xml; charset=UTF-8", 'TEXT/html;charset="utf-8"'])
    def test_text_is_a_string(self, kind):
        assert document(binary("ä\n\ufeff".encode(), kind))["data"] == "ä\n\ufeff"

    @pytest.mark.parametrize(
        "kind",
        [
            "",
            "application/octet-stream",
            "application/xml",
            "text/plain; charset=latin-1",
            "application/json; charset=utf-16",
        ],
    )
    def test_all_else_is_base64(self, kind):
        event = binary(b"[1]", kind)
        assert event.data is None
        assert base64.b64decode(document(event)["data_base64"]) == b"[1]"

    def test_text_that_is_no_utf_8_is_base64(self):
        assert binary(b"\xff", "text/plain").data_base64 == "/w=="

    @pytest.mark.parametrize("kind", ["", "application/json", "text/plain", "application/octet-stream"])
    def test_an_empty_body_is_no_data(self, kind):
        event = binary(b"", kind)
        assert (event.data, event.data_base64) == (None, None)

    def test_without_a_content_type_there_is_none(self):
        assert "datacontenttype" not in binary(b"x").attributes


class TestKey:
    def test_it_does_as_an_idempotency_key(self):
        key = structured(id="ü" * 10_000, source="/" + "s" * 10_000).key
        check_idempotency_key(key)
        assert key.startswith("cloudevent:")

    def test_it_is_made_of_source_and_id_alone(self):
        assert structured(subject="x", data=1).key == structured(type="other").key == binary(b"x").key

    def test_it_does_not_change_between_releases(self):
        assert (
            structured().key == "cloudevent:270e79cb058c7e816f268eec25a21a2668be7baeaff22c4c808ba58578d5c249"
        )

    @given(st.text("ab:1", min_size=1, max_size=4), st.text("ab:1", min_size=1, max_size=4), st.data())
    def test_no_two_pairs_share_one(self, source, id_, data):
        other = data.draw(st.tuples(*[st.text("ab:1", min_size=1, max_size=4)] * 2))
        keys = {
            Event(attributes={**REQUIRED, "source": pair[0], "id": pair[1]}).key
            for pair in [(source, id_), other]
        }
        assert len(keys) == len({(source, id_), other})

    def test_the_boundary_between_source_and_id_counts(self):
        assert structured(source="a", id="bc").key != structured(source="ab", id="c").key


class TestLife:
    NOW = 1_700_000_000_000
    MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

    def test_an_event_need_not_say(self):
        assert structured().expires is None
        assert structured().ttl(self.NOW) is None

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("2023-11-14T22:14:20Z", 60),
            ("2023-11-15T03:44:20+05:30", 60),
            ("2023-11-14T22:14:20.001Z", 61),
            ("2023-11-14T22:14:19.999999999Z", 60),
            ("2023-11-14T22:13:20Z", 0),
            ("1990-12-31T23:59:60Z", 0),
            ("0001-01-01T00:00:00+23:59", 0),
        ],
    )
    def test_it_lives_until_its_expiry(self, text, seconds):
        assert structured(expirytime=text).ttl(self.NOW) == seconds
        assert binary(expirytime=text).ttl(self.NOW) == seconds

    def test_the_expiry_is_a_point_in_time(self):
        expires = structured(expirytime="2023-11-15T03:44:20+05:30").expires
        assert expires == self.MOMENT + timedelta(minutes=1)


class TestNotification:
    EXPECTED: ClassVar[JsonObject] = {
        "specversion": "1.0",
        "id": "5c329f20-d435-444c-8fa2-e1b54592219c",
        "source": "/openstack/compute.host1",
        "type": "org.openstack.compute.instance.exists",
        "datacontenttype": "application/json",
        "priority": "INFO",
        "projectid": "p-1",
        "requestid": "req-1",
        "subject": "i-1",
        "time": "2012-05-08T20:03:48.753100Z",
        "data": {"instance_id": "i-1", "tenant_id": "p-9"},
    }

    def envelope(self, inner: Json = NOTIFICATION, version: Json = "2.0", **more: Json) -> bytes:
        return json.dumps({"oslo.version": version, "oslo.message": json.dumps(inner), **more}).encode()

    def test_a_bare_one_becomes_an_event(self):
        (event,) = read("application/json", [], json.dumps(NOTIFICATION).encode())
        assert document(event) == self.EXPECTED

    def test_an_envelope_is_opened(self):
        (event,) = read("Application/JSON; charset=utf-8", [], self.envelope())
        assert document(event) == self.EXPECTED

    def test_several_may_be_posted_at_once(self):
        body = b"[" + self.envelope() + b"," + json.dumps({**NOTIFICATION, "message_id": "2"}).encode() + b"]"
        assert [event.attributes["id"] for event in read("application/json", [], body)] == [
            self.EXPECTED["id"],
            "2",
        ]
        assert refusal("application/json", {}, body, max_events=1).startswith("At most 1")
        assert read("application/json", [], b"[]") == []

    def test_no_token_is_kept(self):
        assert b"secret" not in read_notification(self.envelope()).document

    @pytest.mark.parametrize(
        ("context", "project", "request_id"),
        [
            ({"_context_tenant": "t", "_context_request_id": "r"}, "t", "r"),
            ({"_context_tenant_id": "t"}, "t", None),
            ({"_context_project_id": None, "_context_tenant": "t"}, "t", None),
            ({"_context": {"project_id": "p", "request_id": "r", "auth_token": "x"}}, "p", "r"),
            ({"_context": None}, None, None),
            ({"_context_project_id": "", "_context_request_id": 5}, None, None),
            ({}, None, None),
        ],
    )
    def test_project_and_request_come_out_of_the_context(self, context, project, request_id):
        bare = {name: value for name, value in NOTIFICATION.items() if not name.startswith("_context")}
        event = read_notification(self.envelope({**bare, **context}))
        assert (event.attributes.get("projectid"), event.attributes.get("requestid")) == (project, request_id)

    @pytest.mark.parametrize(
        ("stamp", "time"),
        [
            ("2012-05-08 20:03:48", "2012-05-08T20:03:48Z"),
            ("2012-05-08T20:03:48.5", "2012-05-08T20:03:48.500000Z"),
            ("2012-05-08T20:03:48Z", "2012-05-08T20:03:48Z"),
            ("2012-05-08 20:03:48+02:00", "2012-05-08T18:03:48Z"),
            (None, None),
            ("", None),
        ],
    )
    def test_the_time_is_utc(self, stamp, time):
        assert notification(timestamp=stamp).attributes.get("time") == time

    @pytest.mark.parametrize(
        "stamp", ["now", "2012-05-08", "2012-05-08  20:03:48", "0001-01-01 00:00:00+01:00", 5]
    )
    def test_another_time_is_refused(self, stamp):
        with pytest.raises(Invalid, match="timestamp"):
            notification(timestamp=stamp)

    @pytest.mark.parametrize(
        ("publisher", "source"),
        [
            ("nova-compute:host", "/openstack/nova-compute:host"),
            ("a b/ü?#%", "/openstack/a%20b%2F%C3%BC%3F%23%25"),
            (None, "/openstack"),
            ("", "/openstack"),
        ],
    )
    def test_the_source_is_a_uri_reference(self, publisher, source):
        assert notification(publisher_id=publisher).attributes["source"] == source

    @pytest.mark.parametrize(
        ("payload", "subject"),
        [
            ({"nova_object.data": {"uuid": "u"}, "nova_object.version": "1.0"}, "u"),
            ({"volume_id": "v"}, "v"),
            ({"resource_info": "r"}, "r"),
            ({"id": 5}, None),
            ({"id": "a\nb"}, None),
            ({"nova_object.data": []}, None),
            ([], None),
            ("x", None),
            (None, None),
        ],
    )
    def test_the_subject_is_the_resource_where_it_is_known(self, payload, subject):
        event = notification(payload=payload)
        assert event.attributes.get("subject") == subject
        assert document(event)["data"] == payload

    @pytest.mark.parametrize("name", ["message_id", "event_type", "payload"])
    def test_what_is_needed_is_named(self, name):
        rest = {key: value for key, value in NOTIFICATION.items() if key != name}
        expected = f"This is no notification of OpenStack: it has no {name}."
        assert refusal("application/json", {}, json.dumps(rest)) == expected
        assert refusal("application/json", {}, self.envelope(rest)) == expected

    @pytest.mark.parametrize("name", ["message_id", "event_type", "publisher_id", "priority", "timestamp"])
    @pytest.mark.parametrize("value", [1, [], {}, True])
    def test_its_members_are_strings(self, name, value):
        with pytest.raises(Invalid, match=name):
            notification(**{name: value})

    @pytest.mark.parametrize("name", ["message_id", "event_type"])
    @pytest.mark.parametrize("value", ["", None])
    def test_what_is_needed_is_not_empty(self, name, value):
        with pytest.raises(Invalid, match=name):
            notification(**{name: value})

    @pytest.mark.parametrize("version", ["1.0", "2.1", "3.0", 2.0, None, ""])
    def test_the_version_of_the_envelope_is_known(self, version):
        assert "oslo.version" in refusal("application/json", {}, self.envelope(version=version))

    @pytest.mark.parametrize("message", [NOTIFICATION, None, 1, "", "{", "[]", "1", '{"a":"\ud800"}'])
    def test_the_message_of_the_envelope_is_the_text_of_an_object(self, message):
        body = json.dumps({"oslo.version": "2.0", "oslo.message": message})
        refusal("application/json", {}, body)

    def test_without_both_keys_it_is_bare(self):
        assert notification(**{"oslo.message": "x"}).attributes["id"] == self.EXPECTED["id"]

    def test_the_inner_document_is_bounded_although_it_was_a_string(self):
        inner = json.dumps(NOTIFICATION)[:-1] + ',"payload":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}"
        body = json.dumps({"oslo.version": "2.0", "oslo.message": inner})
        assert "nested" in refusal("application/json", {}, body)
        assert "64-bit" in refusal("application/json", {}, self.envelope({**NOTIFICATION, "payload": 2**64}))

    def test_the_same_notification_has_the_same_key_in_both_forms(self):
        assert read_notification(self.envelope()).key == notification().key


# Round trips

text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=20)
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in {"data", "time", "expirytime", "tracestate", *events._CORE}
)
sources = st.text("abc/:?-._~", min_size=1, max_size=20).map(lambda path: "/x" + path.lstrip("/"))
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=10)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
contexts = st.builds(
    lambda extensions, required, subject: {**extensions, **required, **subject},
    st.dictionaries(names, text, max_size=4),
    st.fixed_dictionaries({"specversion": st.just("1.0"), "id": text, "source": sources, "type": text}),
    st.dictionaries(st.just("subject"), text, max_size=1),
)


def header(value: str) -> str:
    return "".join(c if "!" <= c <= "~" and c not in '"%' else quote(c, safe="") for c in value)


def quoted_header(value: str) -> str:
    """As older producers write: a quoted string, in which only percent signs and what is not ASCII are encoded."""
    encoded = "".join(c if " " <= c <= "~" and c != "%" else quote(c, safe="") for c in value)
    return '"' + encoded.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(contexts, json_values, st.sampled_from([header, quoted_header]))
def test_an_event_in_binary_mode_is_the_same_in_structured_mode(context, data, write):
    kind = "application/json"
    headers = [(f"ce-{name}", write(value)) for name, value in context.items()]
    (first,) = read(kind, headers, json.dumps(data).encode())
    body = json.dumps({**context, "datacontenttype": kind, "data": data}).encode()
    (second,) = read(STRUCTURED, [], body)
    assert first == second
    assert json.loads(first.document) == json.loads(body)
    assert read(STRUCTURED, [], first.document) == [first]
    assert read(BATCH, [], b"[" + first.document + b"]") == [first]


@given(
    contexts, st.binary(min_size=1), st.sampled_from(["application/octet-stream", "text/plain", "text/xml"])
)
def test_bytes_come_out_as_they_went_in(context, body, kind):
    (event,) = read(kind, [(f"ce-{name}", header(value)) for name, value in context.items()], body)
    if event.data_base64 is not None:
        assert base64.b64decode(event.data_base64) == body
    else:
        assert event.data is not None
        assert json.loads(event.data).encode() == body
    assert read(STRUCTURED, [], event.document) == [event]


# Whatever arrives, it is an event or it is refused.

wild_text = st.text(max_size=30) | st.text('"\\%aé0fF \t', max_size=12)
wild_names = (
    st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-time", "ce-x", "traceparent", "tracestate"])
    | wild_text
)
members = st.sampled_from(
    [
        *REQUIRED,
        *NOTIFICATION,
        "data",
        "data_base64",
        "time",
        "expirytime",
        "datacontenttype",
        "dataschema",
        "x",
    ]
)
wild_objects = st.builds(
    lambda base, more: {**base, **more},
    st.sampled_from([{}, REQUIRED, NOTIFICATION]),
    st.dictionaries(members | wild_text, json_values | wild_text, max_size=5),
)
wild_bodies = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    wild_objects.map(lambda value: json.dumps(value).encode()),
    st.lists(wild_objects, max_size=3).map(lambda value: json.dumps(value).encode()),
    wild_objects.map(
        lambda value: json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(value)}).encode()
    ),
    wild_text.map(lambda value: json.dumps({"oslo.version": "2.0", "oslo.message": value}).encode()),
)
wild_types = (
    st.sampled_from([STRUCTURED, BATCH, "application/json", "text/plain", "application/octet-stream", ""])
    | wild_text
)


def read_or_refuse(content_type: str, headers: list[tuple[str, str]], body: bytes) -> list[Event]:
    try:
        return read(content_type, headers, body)
    except Invalid:
        return []


@settings(max_examples=400)
@given(wild_types, st.lists(st.tuples(wild_names, wild_text), max_size=6), st.booleans(), wild_bodies)
def test_anything_is_an_event_or_refused(content_type, headers, complete, body):
    if complete:
        headers = [*((f"ce-{name}", value) for name, value in REQUIRED.items()), *headers]
    for event in read_or_refuse(content_type, headers, body):
        check_idempotency_key(event.key)
        assert read(STRUCTURED, [], event.document) == [event]
        assert event.ttl(0) is None or event.expires is not None
