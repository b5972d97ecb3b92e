import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queues.errors import Unsealable
from queues.models import Message
from queues.sealing import KeyRing

OLD, NEW = b"o" * 32, b"n" * 32
RING = KeyRing({"old": OLD})
BODY = b'{"event": "BackupStarted"}'


@settings(deadline=None)
@given(st.text(max_size=256), st.binary())
def test_what_was_sealed_can_be_opened(project, body):
    assert RING.open(project, RING.seal(project, body)) == body


def test_the_form_of_a_sealed_body():
    sealed = RING.seal("p", BODY)
    assert sealed.startswith(b"\x01\x03old")
    assert len(sealed) == len(b"\x01\x03old") + 12 + len(BODY) + 16
    assert b"Backup" not in sealed


def test_the_same_body_is_never_sealed_the_same():
    assert len({RING.seal("p", BODY) for _ in range(100)}) == 100


def test_h3_the_first_key_seals_and_all_open():
    before = RING.seal("p", BODY)
    rotated = KeyRing({"new": NEW, "old": OLD})
    after = rotated.seal("p", BODY)
    assert after.startswith(b"\x01\x03new")
    assert rotated.open("p", before) == rotated.open("p", after) == BODY


def test_a_key_that_is_gone_is_named_as_the_reason():
    sealed = KeyRing({"new": NEW}).seal("p", BODY)
    with pytest.raises(Unsealable, match="a key that this service does not have"):
        RING.open("p", sealed)


def test_h3_without_a_key_nothing_is_sealed_or_opened():
    empty = KeyRing({})
    with pytest.raises(Unsealable, match="no key"):
        empty.seal("p", BODY)
    with pytest.raises(Unsealable):
        empty.open("p", RING.seal("p", BODY))


def test_h3_a_body_of_another_tenant_does_not_open():
    sealed = RING.seal("theirs", BODY)
    with pytest.raises(Unsealable, match="was changed"):
        RING.open("ours", sealed)


def test_h3_where_the_key_id_ends_and_the_project_begins_is_authenticated():
    ring = KeyRing({"a": OLD, "ab": OLD})
    sealed = ring.seal("bc", BODY)
    assert sealed.startswith(b"\x01\x01a")
    with pytest.raises(Unsealable):
        ring.open("c", b"\x01\x02ab" + sealed[3:])


def test_h3_no_byte_can_be_changed():
    sealed = RING.seal("p", BODY)
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]
        with pytest.raises(Unsealable):
            RING.open("p", changed)


def test_h3_no_byte_can_be_missing_or_added():
    sealed = RING.seal("p", BODY)
    for length in range(len(sealed)):
        with pytest.raises(Unsealable):
            RING.open("p", sealed[:length])
    with pytest.raises(Unsealable):
        RING.open("p", sealed + b"\x00")


@settings(deadline=None)
@given(st.binary() | st.binary().map(lambda tail: b"\x01\x03old" + tail))
def test_h2_what_an_intruder_writes_into_the_store_is_refused(stored):
    with pytest.raises(Unsealable):
        RING.open("p", stored)


def message(body: bytes, *, sealed: bool) -> Message:
    return Message(id="1", body=body, created=0, expires=60_000, client_id="c", sealed=sealed, claim_count=2)


def test_h1_messages_are_revealed_with_all_else_as_it_was():
    stored = message(RING.seal("p", BODY), sealed=True)
    assert list(RING.reveal("p", [stored])) == [msgspec.structs.replace(stored, body=BODY, sealed=False)]


def test_h2_each_message_says_itself_whether_it_is_sealed():
    plain, sealed = message(b"1", sealed=False), message(RING.seal("p", b"2"), sealed=True)
    assert [one.body for one in RING.reveal("p", [plain, sealed, plain])] == [b"1", b"2", b"1"]


def test_plain_messages_need_no_key():
    messages = [message(BODY, sealed=False)]
    assert KeyRing({}).reveal("p", messages) == messages


def test_a_plain_body_that_looks_sealed_stays_as_it_is():
    messages = [message(RING.seal("p", BODY), sealed=False)]
    assert RING.reveal("p", messages) == messages


def test_no_error_and_no_representation_shows_a_key():
    with pytest.raises(Unsealable) as caught:
        RING.open("other", RING.seal("p", BODY))
    assert OLD.decode() not in f"{caught.value!r}{caught.value.__cause__!r}{RING!r}"


def test_who_does_not_encrypt_does_not_load_cryptography():
    program = "import sys; from queues.sealing import KeyRing; KeyRing({}); assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
