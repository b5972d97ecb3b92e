import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues.checksum import checksum


@pytest.mark.parametrize(
    ("body", "digest"),
    [
        ("0", "cfcd208495d565ef66e7dff9f98764da"),
        ('{"x": "é"}', "d4203f105fc1d910394232ede7a41c68"),
        ('{"x":"\\u00E9"}', "d4203f105fc1d910394232ede7a41c68"),
    ],
)
def test_the_vectors_of_the_protocol(body, digest):
    assert checksum(body.encode()) == f"MD5:{digest}"


def test_an_object_is_written_with_blanks_and_its_keys_as_received():
    expected = hashlib.md5(b'{"b": [1, 2], "a": {}}').hexdigest()
    assert checksum(b'{"b":[1,2],"a":{}}') == f"MD5:{expected}"
    assert checksum(b'{"a":{},"b":[1,2]}') != f"MD5:{expected}"


def test_h4_null_has_no_checksum():
    assert checksum(b"null") is None
    assert checksum(b" null\n") is None


@pytest.mark.parametrize("body", [b"false", b'""', b"[]", b"{}", b"0.0"])
def test_nothing_but_null_lacks_one(body):
    assert checksum(body) == f"MD5:{hashlib.md5(body).hexdigest()}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
).filter(lambda value: value is not None)


@settings(deadline=None)
@given(json_values)
def test_how_a_body_was_written_does_not_matter(value):
    dense = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    airy = json.dumps(value, indent=3).encode()
    expected = hashlib.md5(json.dumps(value).encode()).hexdigest()
    assert checksum(dense) == checksum(airy) == f"MD5:{expected}"
