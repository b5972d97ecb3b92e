import pytest

from notifiers.headers import MOST_HEADERS, checked_headers
from notifiers.outcome import Undeliverable


@pytest.mark.parametrize("nothing", [None, {}, "", []])
def test_nothing_wanted(nothing):
    assert checked_headers(nothing) == {}


def test_what_belongs_to_the_subscription_passes():
    wanted = {
        "X-Key": "a b\tc",
        "Authorization": "Bearer x",
        "Content-Type": "text/plain",
        "X-Auth-Token": "t",
    }
    assert checked_headers(wanted) == wanted


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "HOST", "Content-Length", "transfer-encoding", "Connection", "Keep-Alive", "TE", "Trailer"),
        *("Upgrade", "Expect", "Proxy-Authorization", "proxy-connection", "Webhook-Id", "webhook-signature"),
        *("ce-id", "CE-Type", "Accept-Encoding", "Content-Encoding"),
    ],
)
def test_what_does_not_is_left_out(name):
    assert checked_headers({name: "x", "X-Key": "y"}) == {"X-Key": "y"}


@pytest.mark.parametrize(
    "wanted",
    [
        *("text", ["a"], 5, {f"x{number}": "" for number in range(MOST_HEADERS + 1)}),
        *({"": "x"}, {"a b": "x"}, {"a:b": "x"}, {"a\r\nHost": "x"}, {"é": "x"}, {"Host\n": "x", "a\n": "y"}),
        *({"a": "x\r\nHost: evil"}, {"a": "x\n"}, {"a": "x\r"}, {"a": "\0"}, {"a": "é"}, {"a": "日本"}),
        *({"a": 5}, {"a": None}, {"a": ["x"]}, {"a": "x" * 9000}),
    ],
)  # fmt: skip
def test_what_could_not_be_sent_is_refused(wanted):
    with pytest.raises(Undeliverable):
        checked_headers(wanted)


def test_values_are_not_repeated_in_the_refusal():
    with pytest.raises(Undeliverable) as refusal:
        checked_headers({"X-Key": "secret\n"})
    assert "secret" not in str(refusal.value)
