"""Signed webhooks, as Standard Webhooks describes them (https://www.standardwebhooks.com, symmetric signatures).

Who receives them checks them with `verify`, or with any library of that name.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["TOLERANCE", "WebhookError", "signed_fields", "verify"]

TOLERANCE: Final = 300.0
"""Seconds that a message may be older or newer than the receiver's clock."""

_PREFIX: Final = "whsec_"
_LEAST_SECRET: Final = 24
_MOST_SECRET: Final = 64


class WebhookError(ValueError):
    """A secret that is none, or a message that is not what its signature was made of."""


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for: ``whsec_`` and Base64 of 24 to 64 bytes.

    Raises:
        WebhookError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _LEAST_SECRET <= len(key) <= _MOST_SECRET:
        raise WebhookError(f"A webhook's secret is {_PREFIX}, then Base64 of 24 to 64 random bytes.")
    return key


def signed_fields(secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the header fields that sign a message.

    Args:
        secrets: the secrets, the current one first; further ones are those that receivers may still know.
        message_id: stays the same when the message is sent again; without a full stop.
        timestamp: of this attempt (Unix seconds).
        body: exactly what is sent.
    """
    signatures = (_signature(key_of(secret), message_id, str(timestamp), body) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def verify(secret: str, fields: Mapping[str, str], body: bytes, *, now: float, tolerance: float = TOLERANCE) -> str:
    """Check a message, and return its id, by which a repetition is recognised.

    Args:
        secret: what the sender signs with.
        fields: the header fields, by names in lower case (or a case-insensitive mapping).
        body: exactly what was received.
        now: the time (Unix seconds).
        tolerance: seconds that the message may be off.

    Raises:
        WebhookError: it is not signed with this secret, or too long ago.
    """
    message_id, timestamp = fields.get("webhook-id", ""), fields.get("webhook-timestamp", "")
    if not message_id or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise WebhookError("The message has no webhook-id or webhook-timestamp.")
    if abs(now - int(timestamp)) > tolerance:
        raise WebhookError("The message is too old, or its sender's clock is wrong.")
    expected = _signature(key_of(secret), message_id, timestamp, body).encode()
    given = (text[3:].encode() for text in fields.get("webhook-signature", "").split() if text.startswith("v1,"))
    if not any(hmac.compare_digest(expected, signature) for signature in given):
        raise WebhookError("The signature is not that of this message.")
    return message_id


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
