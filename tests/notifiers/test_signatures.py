import base64
import hashlib
import hmac

import pytest

from notifiers.signatures import WebhookSigner, verify
from queues.errors import BadSignature, Invalid

NOW = 1_614_265_330
BODY = b'{"test": 2432232314}'
VECTOR = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(NOW),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
VECTOR_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD, NEW = b"o" * 32, b"n" * 32
PRIVATE = b"p" * 32


def sign(signer: WebhookSigner, subscription: str = "s1") -> dict[str, str]:
    return signer.headers("msg_1", subscription, BODY, timestamp=NOW)


class TestVerifying:
    def test_the_vector_of_the_specification(self):
        verify(VECTOR, BODY, [VECTOR_KEY], now=NOW)

    @pytest.mark.parametrize(
        "change",
        [
            {"webhook-id": "msg_2"},
            {"webhook-id": "msg.2"},
            {"webhook-timestamp": str(NOW + 1)},
            {"webhook-timestamp": "soon"},
            {"webhook-timestamp": "-5"},
            {"webhook-signature": ""},
            {"webhook-signature": "v1,AAAA"},
            {"webhook-signature": "v1,not base64"},
            {"webhook-signature": VECTOR["webhook-signature"].replace("v1,", "v1a,")},
            {"webhook-signature": VECTOR["webhook-signature"].replace("v1,", "v2,")},
        ],
    )
    def test_what_was_changed_is_refused(self, change):
        with pytest.raises(BadSignature):
            verify(VECTOR | change, BODY, [VECTOR_KEY], now=NOW)

    def test_another_body_is_refused(self):
        with pytest.raises(BadSignature):
            verify(VECTOR, BODY + b" ", [VECTOR_KEY], now=NOW)

    def test_missing_headers_are_refused(self):
        with pytest.raises(BadSignature):
            verify({}, BODY, [VECTOR_KEY], now=NOW)

    @pytest.mark.parametrize("away", [-301, 301])
    def test_what_is_not_timely_is_refused(self, away):
        verify(VECTOR, BODY, [VECTOR_KEY], now=NOW + away // 2)
        with pytest.raises(BadSignature):
            verify(VECTOR, BODY, [VECTOR_KEY], now=NOW + away)

    def test_one_signature_of_several_will_do(self):
        several = VECTOR | {"webhook-signature": f"v1,AAAA {VECTOR['webhook-signature']} v9,x"}
        verify(several, BODY, ["whsec_AAAA", VECTOR_KEY], now=NOW)

    def test_a_bad_key_is_named_without_showing_it(self):
        with pytest.raises(Invalid) as error:
            verify(VECTOR, BODY, ["whsec_%%%"], now=NOW)
        assert "%%%" not in str(error.value)


class TestSharedKeys:
    def test_each_subscription_has_its_own(self):
        signer = WebhookSigner([NEW])
        [secret] = signer.secrets("s1")
        derived = hmac.digest(NEW, b"webhook:s1", hashlib.sha256)
        assert secret == "whsec_" + base64.b64encode(derived).decode()
        assert signer.secrets("s2") != [secret]
        with pytest.raises(BadSignature):
            verify(sign(signer, "s2"), BODY, [secret], now=NOW)

    def test_all_keys_sign_while_they_are_rotated(self):
        headers = sign(WebhookSigner([NEW, OLD]))
        for key in (NEW, OLD):
            verify(headers, BODY, WebhookSigner([key]).secrets("s1"), now=NOW)
        assert headers["webhook-signature"].startswith(sign(WebhookSigner([NEW]))["webhook-signature"])

    def test_without_keys_nothing_is_signed(self):
        assert sign(WebhookSigner([])) == {}

    def test_an_id_with_a_full_stop_is_not_signed(self):
        with pytest.raises(ValueError, match="full stop"):
            WebhookSigner([NEW]).headers("a.1", "s1", BODY, timestamp=NOW)


class TestAsymmetricKeys:
    def test_the_public_key_verifies(self):
        signer = WebhookSigner([NEW], [PRIVATE])
        verify(sign(signer), BODY, signer.public_keys(), now=NOW)
        with pytest.raises(BadSignature):
            verify(sign(signer), BODY + b" ", signer.public_keys(), now=NOW)

    def test_other_public_keys_do_not(self):
        other = WebhookSigner([], [b"q" * 32])
        with pytest.raises(BadSignature):
            verify(sign(WebhookSigner([], [PRIVATE])), BODY, other.public_keys(), now=NOW)
