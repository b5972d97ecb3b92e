import json

import pytest

from notifiers.cloudevents import STRUCTURED_TYPE, binary, structured
from notifiers.outcome import Delivery

EVENT = {"specversion": "1.0", "id": "e1", "source": "/here", "type": "t", "data": {"a": 1}}


def delivery(body: object) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(
        id="d1",
        subscription_id="s1",
        project="p",
        queue="q1",
        subscriber="http://x/",
        payload=b"{}",
        body=raw,
    )


class TestStructured:
    def test_an_event_goes_out_as_it_came(self):
        content = structured(delivery(EVENT))
        assert content.body == json.dumps(EVENT).encode()
        assert content.headers == {"Content-Type": STRUCTURED_TYPE}

    @pytest.mark.parametrize(
        "body",
        [
            *(b"5", b'"text"', b"null", b"[1]", b"{}", b'{"a": 1.000000000000000000000001}'),
            {"specversion": "1.0"},
            EVENT | {"id": ""},
            EVENT | {"source": 5},
            EVENT | {"Bad_Name": "x"},
            EVENT | {"nested": {}},
            EVENT | {"datacontenttype": "text/plain\r\nHost: evil"},
            EVENT | {"data_base64": "%"},
            b'{"a":' * 5000 + b"1" + b"}" * 5000,
        ],
    )
    def test_all_else_is_wrapped(self, body):
        message = delivery(body)
        content = structured(message)
        start = b'{"specversion":"1.0","id":"d1","source":"/v2/queues/q1","type":"org.hermod.message",'
        assert content.body == (start + b'"datacontenttype":"application/json","data":' + message.body + b"}")
        assert content.headers == {"Content-Type": STRUCTURED_TYPE}


class TestBinary:
    def test_attributes_become_headers(self):
        content = binary(delivery(EVENT | {"count": 5, "good": True, "gone": None}))
        assert content.body == b'{"a": 1}'
        assert content.headers == {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": "e1",
            "ce-source": "/here",
            "ce-type": "t",
            "ce-count": "5",
            "ce-good": "true",
        }

    def test_a_message_is_the_data_of_a_new_event(self):
        content = binary(delivery(b"[1, 2]"))
        assert content.body == b"[1, 2]"
        assert content.headers["ce-id"] == "d1"
        assert content.headers["ce-source"] == "/v2/queues/q1"
        assert content.headers["ce-type"] == "org.hermod.message"
        assert content.headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize(
        ("text", "header"),
        [
            ("Euro \u20ac \U0001f600", "Euro%20%E2%82%AC%20%F0%9F%98%80"),  # the specification's example
            ('50% "off"', "50%25%20%22off%22"),
            ("!#$&'~", "!#$&'~"),
            ("a\r\nHost: evil\x7f\0", "a%0D%0AHost:%20evil%7F%00"),
        ],
    )
    def test_values_are_percent_encoded(self, text, header):
        assert binary(delivery(EVENT | {"subject": text})).headers["ce-subject"] == header

    @pytest.mark.parametrize(
        ("members", "content_type", "body"),
        [
            ({"data": "text"}, "application/json", b'"text"'),
            ({"data": "\u00e9", "datacontenttype": "text/plain"}, "text/plain", b"\xc3\xa9"),
            ({"data": "x", "datacontenttype": "a/b+json; x=y"}, "a/b+json; x=y", b'"x"'),
            ({"data": [1], "datacontenttype": "text/plain"}, "text/plain", b"[1]"),
            ({"data_base64": "AAH/", "datacontenttype": "a/b"}, "a/b", b"\x00\x01\xff"),
            ({}, "application/json", b""),
        ],
    )
    def test_data(self, members, content_type, body):
        event = {name: value for name, value in EVENT.items() if name != "data"} | members
        content = binary(delivery(event))
        assert (content.headers["Content-Type"], content.body) == (content_type, body)
