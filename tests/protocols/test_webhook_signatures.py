from __future__ import annotations

import base64

import pytest

from penstock.protocols.webhooks import WebhookError, signed_fields, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(24)).decode()
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SENT = 1614265330


def test_a_signature_that_other_libraries_make() -> None:
    assert signed_fields([SECRET], message_id=ID, timestamp=SENT, body=BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": str(SENT),
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_what_was_signed_is_accepted_by_each_of_the_secrets() -> None:
    fields = signed_fields([SECRET, OTHER], message_id=ID, timestamp=SENT, body=BODY)
    for secret in (SECRET, SECRET.removeprefix("whsec_"), OTHER):
        assert verify(secret, fields, BODY, now=SENT + 299) == ID


@pytest.mark.parametrize(
    ("change", "body", "now"),
    [
        ({}, BODY + b" ", SENT),
        ({}, BODY, SENT + 301),
        ({}, BODY, SENT - 301),
        ({"webhook-id": "msg_other"}, BODY, SENT),
        ({"webhook-id": ""}, BODY, SENT),
        ({"webhook-timestamp": str(SENT + 1)}, BODY, SENT),
        ({"webhook-timestamp": "soon"}, BODY, SENT),
        ({"webhook-signature": ""}, BODY, SENT),
        ({"webhook-signature": "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, BODY, SENT),
        ({"webhook-signature": "v1,ä"}, BODY, SENT),
    ],
)
def test_anything_else_is_refused(change: dict[str, str], body: bytes, now: float) -> None:
    fields = signed_fields([SECRET], message_id=ID, timestamp=SENT, body=BODY)
    with pytest.raises(WebhookError):
        verify(SECRET, {**fields, **change}, body, now=now)
    with pytest.raises(WebhookError):
        verify(OTHER, fields, BODY, now=SENT)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!", "whsec_" + "A" * 100])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(WebhookError, match="24 to 64"):
        signed_fields([secret], message_id=ID, timestamp=SENT, body=BODY)
