"""Any JSON value comes back as it was posted, byte for byte; what is no JSON never gets in."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.acceptance.direct import Direct, strict
from tests.acceptance.fuzzing import examples


class _Shown(msgspec.Struct):
    body: msgspec.Raw
    id: str = ""


class _Page(msgspec.Struct):
    messages: list[_Shown]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = st.one_of(
    text, st.sampled_from(["a.b", ".", "$where", "$", "", "\x00", "body", "__proto__", "id", "\u2028", "é"])
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, 0, -1]),
        st.floats(allow_nan=False, allow_infinity=False),
        text,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(keys, inner, max_size=5)),
    max_leaves=20,
)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """Draw a JSON value, written in one of the ways in which it can be."""
    style: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {
                "ensure_ascii": st.booleans(),
                "indent": st.sampled_from([None, None, 1, "\t"]),
                "separators": st.sampled_from([None, (",", ":"), (" , ", " :\n")]),
            }
        )
    )
    return json.dumps(draw(values), **style).encode()


def bodies(answer: bytes) -> list[bytes]:
    return [bytes(message.body) for message in msgspec.json.decode(answer, type=_Page).messages]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "sealed"])
def queue(direct: Direct, request: pytest.FixtureRequest) -> str:
    path = f"/v2/queues/{'sealed' if request.param else 'plain'}"
    metadata = json.dumps({"_enable_encrypt_messages": request.param}).encode()
    assert direct.send("PUT", path, metadata).status == 201
    return path


def test_f2_every_value_comes_back_as_it_was_written(direct: Direct, queue: str) -> None:
    @examples(100)
    @given(st.lists(written(), min_size=1, max_size=3))
    @example([b"null", b'""', b"0"])
    @example([b'{"a.b": 1, "$c": {"$d": "\\u0000"}, "": "\\ud83d\\ude00 \\u00e9"}', b"[]", b"{}"])
    @example([b"9223372036854775807", b"-9223372036854775808", b"1e400"])
    @example([b'{"b": 1, "a": 2, "b": 3}', b"-0", b"1.00"])
    def run(posted: list[bytes]) -> None:
        document = b'{"messages": [%s]}' % b",\n".join(b'{"body": %s }' % body for body in posted)
        answer = direct.send("POST", f"{queue}/messages", document)
        assert answer.status == 201, answer
        paths = answer.document()["resources"]
        ids = [path.rpartition("/")[2] for path in paths]

        def seen(method: str, path: str, query: str = "") -> list[bytes]:
            found = direct.send(method, path, query=query)
            assert found.status in (200, 201), found
            strict(found.body)
            return bodies(found.body)

        assert seen("GET", f"{queue}/messages", "echo=true") == posted
        assert seen("GET", f"{queue}/messages", f"ids={','.join(ids)}") == posted
        for path, body in zip(paths, posted, strict=True):
            single = msgspec.json.decode(direct.send("GET", path).body, type=_Shown)
            assert bytes(single.body) == body
        claim = direct.send("POST", f"{queue}/claims")
        assert claim.status == 201
        assert bodies(claim.body) == posted
        assert seen("GET", claim.headers["location"]) == posted
        assert seen("GET", f"{queue}/messages", "echo=true&include_claimed=true") == posted
        assert direct.send("DELETE", claim.headers["location"]).status == 204
        assert seen("DELETE", f"{queue}/messages", "pop=20") == posted

    run()


def test_a_sealed_body_is_nowhere_in_the_store(direct: Direct, queue: str) -> None:
    secret = b"nobody-reads-this"
    assert direct.send("POST", f"{queue}/messages", b'{"messages": [{"body": "%s"}]}' % secret).status == 201
    stored = b"".join(path.read_bytes() for path in direct.folder.glob("h.db*"))
    assert (secret in stored) == queue.endswith("plain")
    assert direct.send("DELETE", f"{queue}/messages", query="pop=20").status == 200


def test_a_sealed_message_reaches_the_dead_letter_queue_readable(direct: Direct) -> None:
    path = "/v2/queues/sealed-and-buried"
    metadata = b'{"_enable_encrypt_messages": true, "_max_claim_count": 1, "_dead_letter_queue": "grave"}'
    assert direct.send("PUT", path, metadata).status == 201
    assert (
        direct.send("POST", f"{path}/messages", b'{"messages": [{"body": {"\\u00e9": "x"}}]}').status == 201
    )
    claim = direct.send("POST", f"{path}/claims")
    assert direct.send("DELETE", claim.headers["location"]).status == 204
    assert direct.send("POST", f"{path}/claims").status == 204
    assert bodies(direct.send("POST", "/v2/queues/grave/claims").body) == [b'{"\\u00e9": "x"}']


def test_metadata_come_back_as_they_were_meant(direct: Direct) -> None:
    @examples(100)
    @given(st.dictionaries(keys.filter(lambda key: not key.startswith("_")), values, max_size=5))
    def run(metadata: dict[str, Any]) -> None:
        path = "/v2/queues/described"
        assert direct.send("PUT", path, json.dumps(metadata).encode()).status == 201
        shown = direct.send("GET", path).document()
        assert list(shown)[: len(metadata)] == list(metadata)
        assert {key: shown[key] for key in metadata} == metadata
        assert direct.send("DELETE", path).status == 204

    run()


#: What a parser might overlook in a text that it passes on unread.
PIECES = [
    *[
        b"\\",
        b'\\"',
        b"\\x",
        b"\\u",
        b"\\u12",
        b"\\ud800",
        b"\\udc00",
        b"\\u0000",
        b"\n",
        b"\x00",
        b"\x1f",
        b"\x7f",
    ],
    *[
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"'",
        b'"',
    ],
    *[b"NaN", b"Infinity", b"-", b"+", b".", b"e", b"0", b"00", b"9" * 19, b"9" * 40, b"1e", b"0x", b"_"],
    *[
        b",",
        b",,",
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
        b"//",
        b"/**/",
        b" ",
        b"\t",
        b"\xa0",
        b"true",
        b"nul",
        b"None",
    ],
]


@st.composite
def nearly_written(draw: st.DrawFn) -> bytes:
    """Draw the text of a value with a few mistakes in it."""
    body = draw(written())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        gone = draw(st.integers(0, 2))
        body = body[:at] + draw(st.sampled_from(PIECES)) + body[at + gone :]
    return body


def test_f2_what_is_no_json_never_gets_in(direct: Direct, queue: str) -> None:
    @examples(300)
    @given(nearly_written())
    def run(body: bytes) -> None:
        document = b'{"messages": [{"body": %s}]}' % body
        answer = direct.send("POST", f"{queue}/messages", document)
        try:
            meant = strict(document)["messages"]
        except (ValueError, KeyError, TypeError):
            assert answer.status == 400, answer
        else:
            assert answer.status in (201, 400), answer
        if answer.status == 201:
            popped = direct.send("DELETE", f"{queue}/messages", query="pop=20").document()["messages"]
            assert [message["body"] for message in popped] == [message["body"] for message in meant]
            json.dumps(popped, ensure_ascii=False).encode()

    run()
