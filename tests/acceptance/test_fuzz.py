"""Hostile input: never a 5xx, errors in the contract's shape, and a refused request changes nothing (P12)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance.direct import IDENTITY, Answer, Direct, Dump, Headers, Request
from tests.acceptance.fuzzing import examples
from tests.acceptance.processes import CLIENT, PROJECT
from transport.wsgi.routes import ADMIN_ROUTES, ROUTES

PATCH_TYPE = "application/openstack-messaging-v2.0-json-patch"


class Scene:
    """A store in which there is something of everything, and the names of what is in it."""

    def __init__(self, direct: Direct) -> None:
        self.direct = direct
        send = direct.send
        dead_letter = {"_max_claim_count": 1, "_dead_letter_queue": "dead"}
        assert send("PUT", "/v2/queues/deadly", json.dumps(dead_letter).encode()).status == 201
        assert send("PUT", "/v2/queues/sealed", b'{"_enable_encrypt_messages": true}').status == 201
        claimed = self._post("q", b'{"messages": [{"body": 1}]}')
        claim = send("POST", "/v2/queues/q/claims")
        free = self._post("q", b'{"messages": [{"body": 2}]}', headers=[("Idempotency-Key", "USED-KEY")])
        delayed = self._post("q", b'{"messages": [{"body": 3, "delay": 900}]}')
        deadly = self._post("deadly", b'{"messages": [{"body": 4}]}')
        worn = send("POST", "/v2/queues/deadly/claims").headers["location"]
        assert send("DELETE", worn).status == 204
        sealed = self._post("sealed", b'{"messages": [{"body": 5}]}')
        stranger = self._post("q", b'{"messages": [{"body": "of a stranger"}]}', project="stranger")
        signed = send("POST", "/v2/queues/q/share", b'{"methods": ["GET", "POST", "DELETE"]}').document()
        #: Words in a request that stand for what can only be known now.
        self.words = {
            "CLAIMED-ID": claimed,
            "FREE-ID": free,
            "DELAYED-ID": delayed,
            "DEADLY-ID": deadly,
            "SEALED-ID": sealed,
            "STRANGER-ID": stranger,
            "UPPER-ID": free.upper(),
            "GENERATION": free[16:],
            "CLAIM-ID": claim.headers["location"].rpartition("/")[2],
            "STALE-CLAIM": worn.rpartition("/")[2],
            "SIGNATURE": signed["signature"],
            "EXPIRES": signed["expires"],
        }
        self.before: Dump = direct.dump()
        self._version = direct.version()

    def _post(self, queue: str, body: bytes, **options: Any) -> str:
        answer = self.direct.send("POST", f"/v2/queues/{queue}/messages", body, **options)
        assert answer.status == 201
        name: str = answer.document()["resources"][0]
        return name.rpartition("/")[2]

    def resolve(self, request: Request) -> Request:
        def known(text: str) -> str:
            for word, meaning in self.words.items():
                text = text.replace(word, meaning)
            return text

        return replace(
            request,
            path=known(request.path),
            query=known(request.query),
            headers=tuple((name, known(value)) for name, value in request.headers),
        )

    def proper(self, method: str, path: str, body: bytes) -> Request:
        """Return a request in good order, whatever its body is."""
        length = ("Content-Length", str(len(body)))
        headers = (*IDENTITY, ("Content-Type", PATCH_TYPE), length)
        return Request(method=method, path=path, headers=headers, body=body)

    def try_out(self, request: Request, environ: dict[str, Any] | None = None) -> Answer:
        """Send a request, check what holds for every request, and undo what it did."""
        request = self.resolve(request)
        answer = self.direct.call(environ or request.environ())
        assert answer.status < 500, answer
        check_shape(request, answer)
        assert b"of a stranger" not in answer.body
        if self.direct.version() != self._version:
            after = self.direct.dump()
            if answer.status >= 400:
                assert after == self.before, answer
            assert of_a_stranger(after) == of_a_stranger(self.before), answer
            self.direct.restore(self.before)
            self._version = self.direct.version()
        return answer


def of_a_stranger(dump: Dump) -> list[tuple[Any, ...]]:
    """Return the rows that nothing of the other project may ever touch."""
    queues = [row for row in dump["queue"] if row[1] == "stranger"]
    piles = {row[4] for row in queues}
    held = [row for row in dump["message"] if row[0] in piles]
    payloads = {row[-1] for row in held}
    return [
        *queues,
        *held,
        *(row for row in dump["payload"] if row[0] in payloads),
        *(row for row in dump["record"] if row[1] == "stranger"),
    ]


def check_shape(request: Request, answer: Answer) -> None:
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    for value in answer.headers.values():
        assert value.isprintable()
        value.encode("latin-1")
    if request.method == "HEAD" or answer.status in (204, 304):
        assert not answer.body
        return
    accept = [value for name, value in request.headers if name == "Accept"]
    if answer.status in (404, 405, 406) and accept not in ([], ["*/*"], ["application/json"]):
        return  # the server's framework answers in the type that was asked for, or not at all
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/json"
        document = answer.document()
        wanted = {"title", "description"}
        if answer.status in (404, 405, 406) and "description" not in document:
            wanted = {"title"}
        assert set(document) == wanted
        assert all(isinstance(text, str) and text for text in document.values())
    elif answer.body:
        answer.document()


@pytest.fixture(scope="module")
def scene(direct: Direct) -> Scene:
    return Scene(direct)


# What a request is made of. A word in capitals is resolved by the scene.

NAMES = ["q", "other", "deadly", "sealed", "absent"]
ODD_NAMES = [
    "",
    ".",
    "..",
    "q%0a",
    "q%00",
    "%00",
    "%2f",
    "q%2Fmessages",
    "%252f",
    "%ff%fe",
    "%C3%A9",
    "%ED%A0%80",
    "%",
    "%zz",
    "q;v=1",
    "q:a",
    "Nice-Bo@t",
    "Q",
    "-",
    "_",
    "%D9%A3",
    "q%20",
    "+",
    "a" * 64,
    "a" * 65,
    "a" * 4000,
]
MESSAGE_IDS = ["CLAIMED-ID", "FREE-ID", "DELAYED-ID", "DEADLY-ID", "SEALED-ID", "STRANGER-ID"]
CLAIM_IDS = ["CLAIM-ID", "STALE-CLAIM"]
ODD_IDS = [
    "UPPER-ID",
    "FREE-IDFREE-ID",
    "FREE-ID0",
    "FREE-ID%0a",
    "0FREE-ID",
    "-FREE-ID",
    "+FREE-ID",
    "0x1GENERATION",
    "000000000000000_GENERATION",
    "0000000000000000GENERATION",
    "7fffffffffffffffGENERATION",
    "8000000000000000GENERATION",
    "ffffffffffffffffGENERATION",
    "%D9%A0" * 16 + "GENERATION",
    "%EF%BC%90" * 32,
    "GENERATIONGENERATION",
    "f" * 32,
    "1",
    "None",
    "null",
    "undefined",
    "zzz",
    "51db6f78c508f17ddc924357",
    "'",
    '"',
    "%27%20OR%201%3D1--",
    "{}",
    "*",
    "a" * 4000,
]

odd_text = st.one_of(
    st.sampled_from(
        ["", " ", "\t", "0", "-1", "null", "true", "NaN", "é", "\u0663", "\U0001f4e8", "\x00", "%s", "{}"]
    ),
    st.text(max_size=20),
    st.integers(1, 9000).map(lambda length: "x" * length),
)
escaped = odd_text.map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))


def usually(common: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw the common thing five times out of six, for one odd thing must not hide behind another."""
    return st.integers(0, 5).flatmap(lambda number: odd if number == 5 else common)


queue_names = usually(st.sampled_from(NAMES), st.one_of(st.sampled_from(ODD_NAMES), escaped))
message_ids = usually(st.sampled_from(MESSAGE_IDS), st.one_of(st.sampled_from(ODD_IDS + CLAIM_IDS), escaped))
claim_ids = usually(st.sampled_from(CLAIM_IDS), st.one_of(st.sampled_from(ODD_IDS + MESSAGE_IDS), escaped))

numbers = st.one_of(
    st.sampled_from(
        [-(2**63) - 1, -(2**63), -(2**31), -1, 0, 1, 20, 21, 59, 60, 61, 300, 899, 900, 901, 43200]
    ),
    st.sampled_from([43201, 1209600, 1209601, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**19, 10**30]),
    st.integers(),
)

# Parameter values, as written in a URL.
parameter_values = st.one_of(
    st.sampled_from(
        ["true", "False", "1", "10", "20", "on", "yes", "FREE-ID", "CLAIMED-ID", "CLAIM-ID", "q"]
    ),
    st.sampled_from(
        ["", "+1", "%2B1", "1.0", "1e1", "0x10", "1_0", "%D9%A3", " 1", "1,2", ",", ",,", "FREE-ID,"]
    ),
    st.sampled_from(["%", "%zz", "%00", "%ff", "%ED%A0%80", "+", "&", ";", "[]", "CLAIM-ID,,CLAIM-ID,"]),
    st.lists(message_ids, min_size=1, max_size=25).map(",".join),
    numbers.map(str),
    message_ids,
    escaped,
)
parameter_names = st.one_of(
    st.sampled_from(
        ["limit", "marker", "detailed", "with_count", "name", "echo", "include_claimed", "ids", "pop"]
    ),
    st.sampled_from(
        ["include_delayed", "claim_id", "claim_ids", "_default_message_ttl", "a.b", "$where", "", "%00"]
    ),
    escaped,
)
parameters = st.one_of(
    st.tuples(parameter_names, parameter_values).map("=".join),
    parameter_names,
    parameter_values,
)
queries = st.one_of(st.just(""), st.lists(parameters, max_size=4).map("&".join))

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        numbers,
        st.floats(),
        st.text(st.characters(), max_size=8),
        st.sampled_from(
            ["", "60", "q", "dead", "messages", "subscriptions", "claims", "\ud800", "\udc00\ud800", "\x00"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def members(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw an object with some of these members, one in six of a value that may be anything."""
    return st.fixed_dictionaries(
        {}, optional={name: usually(s, json_values) for name, s in strategies.items()}
    )


metadata = members(
    _default_message_ttl=numbers,
    _max_messages_post_size=numbers,
    _default_message_delay=numbers,
    _max_claim_count=numbers,
    _dead_letter_queue=st.sampled_from(["dead", "q", "a" * 65, "x\n"]),
    _dead_letter_queue_messages_ttl=numbers,
    _enable_encrypt_messages=st.booleans(),
    _flavor=st.sampled_from(["gold", ""]),
    _retry_policy=members(
        retries_with_no_delay=numbers,
        minimum_delay_retries=numbers,
        minimum_delay=numbers,
        maximum_delay=numbers,
        maximum_delay_retries=numbers,
        retry_backoff_function=st.sampled_from(["linear", "arithmetic", "geometric", "exponential", "none"]),
        ignore_subscription_override=st.booleans(),
    ),
    fizbit=json_values,
)
pointers = st.one_of(
    st.sampled_from(
        ["/metadata/a", "/metadata/_max_claim_count", "/metadata/_retry_policy", "/METADATA/~0~1"]
    ),
    st.sampled_from(
        ["", "/", "/a", "metadata/a", "/metadata", "/metadata/", "/metadata/a/b", "/metadata/~2", "//"]
    ),
)
changes = st.lists(
    usually(
        members(op=st.sampled_from(["add", "replace", "remove"]), path=pointers, value=json_values),
        json_values,
    ),
    max_size=4,
)
messages = members(
    messages=st.lists(usually(members(body=json_values, ttl=numbers, delay=numbers), json_values), max_size=4)
)
terms = members(ttl=numbers, grace=numbers, limit=numbers, id=st.just("CLAIM-ID"))
dates = st.one_of(
    st.sampled_from(
        ["2031-01-01T00:00:00", "2031-01-01", "2031-W01-1", "20310101T000000Z", "2031-01-01T00:00:00.5+05:30"]
    ),
    st.sampled_from(
        ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2031-02-30", "1", "-1", "now", "T"]
    ),
    st.datetimes().map(str),
)
wish = members(
    paths=st.lists(st.sampled_from(["messages", "claims", "subscriptions", "../q2"]), max_size=3),
    methods=st.lists(st.sampled_from(["GET", "POST", "get", ""]), max_size=3),
    expires=dates,
)
purge = members(resource_types=st.lists(st.sampled_from(["messages", "subscriptions", "claims"]), max_size=3))

BODIES: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("PUT", "/v2/queues/{queue_name}"): metadata,
    ("PATCH", "/v2/queues/{queue_name}"): changes,
    ("POST", "/v2/queues/{queue_name}/messages"): messages,
    ("POST", "/v2/queues/{queue_name}/claims"): terms,
    ("PATCH", "/v2/queues/{queue_name}/claims/{claim_id}"): terms,
    ("POST", "/v2/queues/{queue_name}/purge"): purge,
    ("POST", "/v2/queues/{queue_name}/share"): wish,
}


@st.composite
def texts(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> bytes:
    """Draw the text of a document; every second time it is damaged."""
    document = draw(documents)
    escape = draw(st.booleans())
    text = json.dumps(document, ensure_ascii=escape).encode("utf-8", "surrogatepass")
    return draw(st.one_of(st.just(text), damaged(text)))


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """Draw a text that differs from this one in one place, or is put in another coat."""
    at = draw(st.integers(0, len(text)))
    piece = draw(
        st.one_of(
            st.binary(max_size=3), st.sampled_from([b'"', b"\\", b"[", b"}", b",", b"\\ud800", b"\x00"])
        )
    )
    return draw(
        st.sampled_from(
            [
                text[:at],
                text[:at] + piece + text[at:],
                text[:at] + piece + text[at + len(piece) :],
                text[:at] + text[at + 1 :],
                b"\xef\xbb\xbf" + text,
                b"\xff\xfe" + text,
                text.decode("utf-8", "replace").encode("utf-16"),
                text.decode("utf-8", "replace").encode("utf-32-be"),
                text + b" ",
                text + text,
                text + b" //",
                b"\n\t " + text,
                b" " * 5,
                b"",
            ]
        )
    )


LONG = "x" * 8000
odd_header_values = st.one_of(
    st.sampled_from(
        ["", " ", ",", ";", "=", '"', "\t", "*", "*/*", "-1", "0", "é", "\xff\xfe", "\xa0", LONG, LONG * 8]
    ),
    st.sampled_from(
        [CLIENT, CLIENT.upper(), "{" + CLIENT + "}", "urn:uuid:" + CLIENT, CLIENT[:-1], "a" * 300]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
)
header_names = st.one_of(
    st.sampled_from(
        ["Client-ID", "X-Project-ID", "X-Tenant-ID", "X-Tenant", "Accept", "Content-Type", "Host", "TE"]
    ),
    st.sampled_from(
        ["URL-Signature", "URL-Expires", "URL-Methods", "URL-Paths", "X-Roles", "X-Auth-Token", "Expect"]
    ),
    st.sampled_from(
        ["EXTRA-SPEC", "Idempotency-Key", "Authorization", "Cookie", "Range", "If-Match", "If-None-Match"]
    ),
    st.sampled_from(
        ["If-Modified-Since", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"]
    ),
    st.sampled_from(
        ["X-HTTP-Method-Override", "Origin", "Access-Control-Request-Method", "Date", "Location"]
    ),
    st.sampled_from(
        ["Content-Encoding", "Accept-Encoding", "Accept-Charset", "Transfer-Encoding", "Connection"]
    ),
)
known_header_values = st.sampled_from(
    [
        ("Idempotency-Key", "USED-KEY"),
        ("Idempotency-Key", "new"),
        ("Accept", "application/json"),
        ("Accept", "application/xml"),
        ("Accept", "application/json;q=0"),
        ("Accept", "text/html, application/json;q=2, */*;q=x"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Type", "application/json; charset=utf-16"),
        ("Content-Type", PATCH_TYPE),
        ("Content-Encoding", "gzip"),
        ("EXTRA-SPEC", "messagecode:123456"),
        ("EXTRA-SPEC", "nothing"),
        ("X-Roles", "admin"),
        ("X-Roles", "reader"),
        ("Range", "bytes=0-1"),
        ("X-HTTP-Method-Override", "DELETE"),
    ]
)
signed_headers: st.SearchStrategy[Headers] = st.fixed_dictionaries(
    {
        "URL-Signature": usually(st.just("SIGNATURE"), odd_header_values),
        "URL-Expires": usually(st.just("EXPIRES"), odd_header_values),
        "URL-Methods": usually(st.just("DELETE,GET,POST"), odd_header_values),
        "URL-Paths": usually(st.just("/v2/queues/q/messages"), odd_header_values),
    }
).map(lambda headers: tuple(headers.items()))

identities: st.SearchStrategy[Headers] = usually(
    st.just((("Client-ID", CLIENT), ("X-Project-ID", PROJECT))),
    st.tuples(
        st.tuples(st.just("Client-ID"), odd_header_values),
        st.tuples(st.sampled_from(["X-Project-ID", "X-Tenant-ID"]), odd_header_values),
    ),
)
more_headers: st.SearchStrategy[Headers] = usually(
    st.just(()),
    st.one_of(
        signed_headers,
        st.lists(st.one_of(known_header_values, st.tuples(header_names, odd_header_values)), max_size=3).map(
            tuple
        ),
    ),
)

ENDPOINTS = [
    (method, path)
    for path, methods in {**ROUTES, **ADMIN_ROUTES, "/": {"GET": None}, "/v2/": {"GET": None}}.items()
    for method in methods
]
ODD_METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "FOO",
    "get",
]


@st.composite
def requests(draw: st.DrawFn, method: str, template: str) -> Request:
    """Draw a request to an endpoint: each part is mostly in order, so that the others are looked at."""
    path = template
    for variable, values in (
        ("{queue_name}", queue_names),
        ("{message_id}", message_ids),
        ("{claim_id}", claim_ids),
    ):
        if variable in path:
            path = path.replace(variable, draw(values))
    path += draw(usually(st.just(""), st.sampled_from(["", "/", "//", "/x", "%00", "/..", ";", "."])))
    headers: Headers = draw(identities)
    if (method, template) == ("PATCH", "/v2/queues/{queue_name}"):
        headers += (("Content-Type", PATCH_TYPE),)
    headers += draw(more_headers)
    documents = BODIES.get((method, template))
    body = b""
    if documents is not None or draw(st.booleans()):
        body = draw(texts(usually(json_values if documents is None else documents, json_values)))
    length = draw(st.sampled_from([len(body)] * 6 + [None, 0, len(body) // 2, len(body) + 1, 10**30]))
    if length is not None:
        headers += (("Content-Length", str(length)),)
    elif draw(st.booleans()):
        headers += (("Transfer-Encoding", "chunked"),)
    return Request(
        method=draw(usually(st.just(method), st.sampled_from(ODD_METHODS))),
        path=path,
        query=draw(queries),
        headers=headers,
        body=body,
    )


@pytest.mark.parametrize(("method", "template"), ENDPOINTS, ids=lambda part: part.replace("/v2/", ""))
def test_f1_no_input_is_a_server_error(scene: Scene, method: str, template: str) -> None:
    @examples(200 if (method, template) in BODIES else 60)
    @given(requests(method, template))
    def run(request: Request) -> None:
        scene.try_out(request)

    run()


ODD_LENGTHS = ["abc", "-1", "-0", " 5", "+5", "5,5", "5.0", "0x5", "1e3", "\xb2", "5 5", "1" * 5000]


@pytest.mark.parametrize(("method", "template"), sorted(BODIES))
def test_a_length_that_is_no_number_is_refused(scene: Scene, method: str, template: str) -> None:
    path = template.format(queue_name="q", claim_id="CLAIM-ID")
    for length in ODD_LENGTHS:
        headers = (*IDENTITY, ("Content-Type", PATCH_TYPE), ("Content-Length", length))
        scene.try_out(Request(method=method, path=path, headers=headers, body=b"[{}]"))


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]", inside: bytes = b"") -> bytes:
    return opening * levels + inside + closing * levels


#: Around what is nested: where it goes in a document, and how many levels that takes itself.
PLACES = {
    ("POST", "/v2/queues/q/messages"): (b'{"messages": [{"body": %s}]}', 3),
    ("PUT", "/v2/queues/absent"): (b'{"a": %s}', 1),
    ("PATCH", "/v2/queues/q"): (b'[{"op": "add", "path": "/metadata/a", "value": %s}]', 2),
    ("POST", "/v2/queues/q/claims"): (b'{"a": %s}', 1),
    ("PATCH", "/v2/queues/q/claims/CLAIM-ID"): (b'{"a": %s}', 1),
    ("POST", "/v2/queues/q/purge"): (b'{"resource_types": [], "a": %s}', 1),
}


@pytest.mark.parametrize(
    ("opening", "closing", "inside"), [(b"[", b"]", b""), (b'{"a":', b"}", b"1"), (b'[{"\\"[":', b"}]", b"0")]
)
@pytest.mark.parametrize("endpoint", PLACES, ids=" ".join)
def test_f2_depth_is_bounded(
    scene: Scene, endpoint: tuple[str, str], opening: bytes, closing: bytes, inside: bytes
) -> None:
    document, around = PLACES[endpoint]
    step = opening.count(b"[") + opening.count(b"{") - opening.count(b'"[')
    bound = (100 - around) // step

    def status(levels: int) -> int:
        text = document % nested(levels, opening, closing, inside)
        return scene.try_out(scene.proper(*endpoint, text)).status

    assert status(bound) in (200, 201, 204)
    for levels in (bound + 1, 1000, 6000):
        assert status(levels) == 400


@pytest.mark.parametrize("levels", [1_000, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"":', b"}"), (b"[", b""), (b"{", b""), (b"[{", b"")]
)
@pytest.mark.parametrize(
    "around", [b"%s", b'{"messages": [{"body": %s}]}', b'{"messages": %s}', b'{"a": %s, "messages": []}']
)
def test_f2_bottomless_nesting_is_refused(
    scene: Scene, around: bytes, opening: bytes, closing: bytes, levels: int
) -> None:
    text = (around % nested(levels, opening, closing))[: 2**18]
    assert scene.try_out(scene.proper("POST", "/v2/queues/q/messages", text)).status == 400


def test_f2_brackets_in_text_are_not_nesting(scene: Scene) -> None:
    text = b'{"messages": [{"body": "%s"}, {"body": "\\"%s"}]}' % (b"[" * 1000, b"{" * 1000)
    assert scene.try_out(scene.proper("POST", "/v2/queues/q/messages", text)).status == 201


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "unit", [b'\\"', b'"\\', b'"', b"\\", b'["', b'{"', b"[]", b"1", b"\\u", b"\\ud800", b"-", b" "]
)
def test_a_hostile_text_costs_no_more_than_its_length(scene: Scene, unit: bytes) -> None:
    for start in (b"", b'"', b"[" * 101, b"[" * 101 + b'"', b'{"messages": [{"body": "'):
        text = (start + unit * 2**18)[: 2**18]
        assert scene.try_out(scene.proper("POST", "/v2/queues/q/messages", text)).status == 400


LIMITS = [
    ("POST", "/v2/queues/q/messages", b'{"messages": [{"body": 1}]}', 262144),
    ("PUT", "/v2/queues/absent", b"{}", 65536),
    ("PATCH", "/v2/queues/q", b"[]", 65536),
    ("POST", "/v2/queues/q/claims", b"{}", 65536),
    ("PATCH", "/v2/queues/q/claims/CLAIM-ID", b"{}", 65536),
    ("POST", "/v2/queues/q/purge", b'{"resource_types": []}', 65536),
    ("POST", "/v2/queues/q/share", b"{}", 65536),
]


@pytest.mark.parametrize(("method", "path", "document", "limit"), LIMITS)
@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
def test_a_body_that_is_too_large_is_not_read(
    scene: Scene, method: str, path: str, document: bytes, limit: int, announced: bool
) -> None:
    def answer(size: int) -> tuple[int, int]:
        """Return the status, and how much of the body was read."""
        request = scene.resolve(scene.proper(method, path, document.ljust(size)))
        if not announced:
            headers = [header for header in request.headers if header[0] != "Content-Length"]
            request = replace(request, headers=(*headers, ("Transfer-Encoding", "chunked")))
        environ = request.environ()
        return scene.try_out(request, environ).status, environ["wsgi.input"].tell()

    assert answer(limit) == (answer(len(document))[0], limit)
    assert answer(limit + 1) == (400, 0 if announced else limit + 1)
    assert answer(10 * limit) == (400, 0 if announced else limit + 1)
