import base64

import pytest

from queues.errors import Invalid
from queues.webhook_keys import PRIVATE, read_private_key, write_key

KEY = b"p" * 32


def test_a_private_key_is_written_and_read():
    text = write_key(PRIVATE, KEY)
    assert text == "whsk_" + base64.b64encode(KEY).decode()
    assert read_private_key(text) == KEY


def test_a_public_key_may_follow_a_private_one():
    assert read_private_key(write_key(PRIVATE, KEY + b"q" * 32)) == KEY


@pytest.mark.parametrize(
    "text", ["", "whsk_AAAA", "whsec_" + "A" * 43 + "=", "whsk_%secret", "whsk_" + "A" * 45]
)
def test_a_bad_private_key_is_refused_and_not_repeated(text):
    with pytest.raises(Invalid) as error:
        read_private_key(text)
    assert "secret" not in str(error.value)
