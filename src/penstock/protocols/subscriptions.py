"""Subscriptions of the Durable Streams protocol (sections 6 and 7): what is asked for, told, signed and believed."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.errors import PenstockError
from penstock.protocols.durable import MalformedError, offset, position

__all__ = [
    "ANY_TYPE",
    "PULL_WAKE",
    "TOKEN_SECONDS",
    "WEBHOOK",
    "Acknowledgement",
    "Created",
    "SubscriptionRequestError",
    "TokenError",
    "check_address",
    "check_webhook",
    "cursor_of",
    "jwk",
    "key_id",
    "read_acknowledgement",
    "read_created",
    "read_streams",
    "read_worker",
    "signature_field",
    "signed_text",
    "token",
    "token_generation",
]

WEBHOOK: Final = "webhook"
PULL_WAKE: Final = "pull-wake"
ANY_TYPE: Final = (WEBHOOK, PULL_WAKE)

TOKEN_SECONDS: Final = 3600
"""How long a token is believed: longer than any lease."""

_LEASE: Final = (1_000, 600_000)
_USUAL_LEASE: Final = 30_000
_LONGEST_TEXT: Final = 1024
_MOST_STREAMS: Final = 10_000


class SubscriptionRequestError(PenstockError):
    """A request that is refused, with the protocol's ``code`` and the ``status`` that belongs to it."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        self.code = code
        self.status = status
        super().__init__(text)


class TokenError(SubscriptionRequestError):
    """A token that is not believed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text, 401)


def _invalid(text: str) -> SubscriptionRequestError:
    return SubscriptionRequestError("INVALID_REQUEST", text)


# -- what is asked for (section 6.2) ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What a request to create a subscription says; see `penstock.core.subscriptions.Settings`."""

    webhook: str | None
    wake_stream: str | None
    pattern: str | None
    streams: tuple[str, ...]
    lease: float
    description: str | None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise _invalid("The body must be JSON.") from None
    if not isinstance(value, dict):
        raise _invalid("The body must be a JSON object.")
    return value


def _path(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip("/") or len(value) > _LONGEST_TEXT:
        raise _invalid(f"{what} must be the path of a stream, relative to the root of the streams.")
    return value.strip("/")


def _optional(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise _invalid(f"{what} must be a text of at most {_LONGEST_TEXT} characters.")
    return value or None


def read_created(body: bytes) -> Created:
    """Read a request to create a subscription.

    Raises:
        SubscriptionRequestError: it is not as it must be.
    """
    value = _object(body)
    kind = value.get("type")
    if kind not in ANY_TYPE:
        raise _invalid('type must be "webhook" or "pull-wake".')
    pattern = _optional(value.get("pattern"), "pattern")
    streams = value.get("streams")
    named = () if streams is None or streams == [] else _names(streams)
    if pattern is None and not named:
        raise _invalid("There must be a pattern, or streams.")
    lease = value.get("lease_ttl_ms", _USUAL_LEASE)
    if not isinstance(lease, int) or isinstance(lease, bool) or not _LEASE[0] <= lease <= _LEASE[1]:
        raise _invalid(f"lease_ttl_ms must be a whole number from {_LEASE[0]} to {_LEASE[1]}.")
    webhook = wake_stream = None
    if kind == WEBHOOK:
        told = value.get("webhook")
        webhook = _optional(told.get("url"), "webhook.url") if isinstance(told, dict) else None
        if webhook is None:
            raise _invalid("A subscription of type webhook needs webhook.url.")
    if kind == PULL_WAKE:
        if not value.get("wake_stream"):
            raise _invalid("A subscription of type pull-wake needs wake_stream.")
        wake_stream = _path(value["wake_stream"], "wake_stream")
    return Created(
        webhook=webhook,
        wake_stream=wake_stream,
        pattern=None if pattern is None else _path(pattern, "pattern"),
        streams=named,
        lease=lease / 1000,
        description=_optional(value.get("description"), "description"),
    )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or len(value) > _MOST_STREAMS:
        raise _invalid("streams must be a list of paths.")
    return tuple(sorted({_path(each, "Each of streams") for each in value}))


def read_streams(body: bytes) -> tuple[str, ...]:
    """Read a request to add streams (section 6.4)."""
    return _names(_object(body).get("streams"))


def read_worker(body: bytes) -> str:
    """Read a request to claim the wake (section 7.2), and return the worker's name."""
    worker = _optional(_object(body).get("worker"), "worker")
    if worker is None:
        raise _invalid("worker must be the name of the worker.")
    return worker


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a worker says of its wake: how far it came in which streams, in bytes, and whether it is done."""

    wake: str
    generation: int
    acks: Mapping[str, int]
    done: bool


def read_acknowledgement(body: bytes) -> Acknowledgement:
    """Read a callback, an ack or a release (sections 7.1 and 7.2)."""
    value = _object(body)
    wake, generation, acks = value.get("wake_id"), value.get("generation"), value.get("acks", [])
    if not isinstance(wake, str) or not isinstance(generation, int) or isinstance(generation, bool):
        raise _invalid("wake_id and generation must be those of the wake.")
    if not isinstance(acks, list) or not all(isinstance(ack, dict) for ack in acks):
        raise _invalid("acks must be a list of objects.")
    read: dict[str, int] = {}
    for ack in acks:
        read[_path(ack.get("stream", ack.get("path")), "stream")] = _place(ack.get("offset"))
    return Acknowledgement(wake, generation, read, value.get("done") is True)


def _place(at: object) -> int:
    try:
        place = position(at) if isinstance(at, str) and at != "-1" else None
    except MalformedError:
        place = None
    if place is None:
        raise SubscriptionRequestError("INVALID_OFFSET", "offset must be one that the server gave.", 409)
    return place


def cursor_of(at: int) -> str:
    """Return a cursor as the protocol writes it."""
    return "-1" if at < 0 else offset(at)


# -- where webhooks may be (section 12.8) -----------------------------------------------------------------------------


def check_webhook(url: str, *, local: bool) -> None:
    """Refuse a URL that is not to be told of anything.

    Args:
        url: the URL.
        local: whether ``http://localhost`` and ``http://127.…`` may be told: for development.

    Raises:
        SubscriptionRequestError: it is not allowed.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _rejected("is not a URL") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise _rejected("must be an https URL")
    if parts.username is not None or parts.password is not None or "\\" in url or any(c <= " " for c in url):
        raise _rejected("must be a plain URL, without a user's name")
    if parts.scheme == "http":
        if local and _is_local(host):
            return
        raise _rejected("must be an https URL")
    if host == "localhost" or host.endswith(".localhost"):
        raise _rejected("must not be on this machine")
    try:
        check_address(host)
    except ValueError:
        return  # a name, which is looked at when it is resolved


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 4 and address.is_loopback


def check_address(host: str) -> None:
    """Refuse an address that is not a public one.

    Raises:
        SubscriptionRequestError: it is private, of this machine, of this link, or of another special kind.
        ValueError: it is no address.
    """
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    public = address if mapped is None else mapped
    if not public.is_global or public.is_multicast:
        raise _rejected("must not be in a private network")


def _rejected(why: str) -> SubscriptionRequestError:
    return SubscriptionRequestError("WEBHOOK_URL_REJECTED", f"webhook.url {why}.")


# -- signatures (sections 6.5 and 7.1) --------------------------------------------------------------------------------


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def key_id(public: bytes) -> str:
    """Return the id of an Ed25519 key: its thumbprint (RFC 7638, RFC 8037 appendix A.3)."""
    text = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": _base64url(public)}, separators=(",", ":"))
    return f"ds_{_base64url(hashlib.sha256(text.encode()).digest())}"


def jwk(public: bytes) -> dict[str, str]:
    """Return an Ed25519 public key as a JSON Web Key (RFC 8037)."""
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": key_id(public),
        "use": "sig",
        "alg": "EdDSA",
        "x": _base64url(public),
    }


def signed_text(timestamp: int, body: bytes) -> bytes:
    """Return what is signed of a message to a webhook."""
    return b"%d.%b" % (timestamp, body)


def signature_field(timestamp: int, public: bytes, signature: bytes) -> str:
    """Return ``Webhook-Signature``."""
    return f"t={timestamp},kid={key_id(public)},ed25519={_base64url(signature)}"


# -- tokens (section 12.9) --------------------------------------------------------------------------------------------


def token(key: bytes, subscription: str, generation: int, now: float) -> str:
    """Return a token for the workers of one wake of one subscription."""
    claims = {
        "sub": subscription,
        "generation": generation,
        "exp": int(now) + TOKEN_SECONDS,
        "jti": secrets.token_hex(8),
    }
    payload = _base64url(json.dumps(claims, separators=(",", ":")).encode())
    return f"{payload}.{_base64url(_mac(key, payload))}"


def token_generation(key: bytes, field: str | None, subscription: str, now: float) -> int:
    """Read the token of an ``Authorization`` field, and return the generation of the wake that it is for.

    Raises:
        TokenError: it is not ours, of another subscription, or too old.
    """
    scheme, _, text = (field or "").partition(" ")
    payload, _, mac = text.strip().partition(".")
    if scheme.lower() != "bearer" or not payload or not _same(_base64url(_mac(key, payload)), mac):
        raise TokenError("TOKEN_INVALID", "Authorization must be Bearer and the token of the wake.")
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if claims["sub"] != subscription:
        raise TokenError("TOKEN_INVALID", "The token is of another subscription.")
    if claims["exp"] < now:
        raise TokenError("TOKEN_EXPIRED", "The token has expired.")
    generation: int = claims["generation"]
    return generation


def _mac(key: bytes, payload: str) -> bytes:
    return hmac.new(key, payload.encode(), hashlib.sha256).digest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
