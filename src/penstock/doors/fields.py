"""Streams in the words of HTTP: names in URLs, header fields, entity tags, JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from penstock.model import OCTETS, StreamInfo, StreamSpec, check_name
from penstock.protocols.conditional import ETag
from penstock.protocols.disposition import filename_from
from penstock.toolkit.problems import bad_request

_LONGEST_TTL = 100 * 365 * 86400


def name_in(request: Request) -> str:
    """Return the stream's name from a request's path.

    Raises:
        InvalidName: it cannot name a stream.
        RequestError: it has an encoded slash, which some proxies decode and some do not.
    """
    raw = request.scope.get("raw_path")
    if isinstance(raw, bytes) and b"%2f" in raw.split(b"?")[0].lower():
        raise bad_request("The name in the URL has an encoded slash (%2F). Write slashes of names as they are.")
    name: str = request.path_params["name"]
    return check_name(name)


def url_of(request: Request, route: str, name: str) -> str:
    """Return the path of a stream's URL, with whatever the application is mounted under."""
    path = str(request.app.url_path_for(route, name=name))
    root: str = request.scope.get("root_path", "").rstrip("/")
    return root + quote(path, safe="/")


def etag_of(info: StreamInfo) -> ETag:
    """Return the strong entity tag of a stream's bytes as they are: within an incarnation, they only grow."""
    return ETag(f"{info.incarnation}-{info.tail}")


def growing_etag_of(info: StreamInfo) -> ETag:
    """Return the entity tag of a stream that is followed to its end: of its incarnation, it can only be one thing."""
    return ETag(info.incarnation)


def state_fields(info: StreamInfo) -> dict[str, str]:
    """Return the fields that tell of a stream's state."""
    fields = {
        "stream-state": info.state,
        "stream-tail": str(info.tail),
        "stream-incarnation": info.incarnation,
    }
    if info.failure is not None:
        fields["stream-failure"] = _visible(info.failure)
    if info.deadline is not None:
        fields["stream-expires-at"] = timestamp(info.deadline)
    return fields


def _visible(text: str) -> str:
    """Return a text as a field's value can carry it: one line of ASCII, the rest percent-encoded."""
    return quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 writes it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def described(info: StreamInfo, url: str) -> dict[str, Any]:
    """Return what is known of a stream, for JSON."""
    return {
        "name": info.name,
        "url": url,
        "state": info.state,
        "tail": info.tail,
        "length": info.length,
        "content_type": info.content_type,
        "etag": str(etag_of(info)),
        "incarnation": info.incarnation,
        "failure": info.failure,
        "created_at": timestamp(info.created_at),
        "modified_at": timestamp(info.modified_at),
        "expires_at": None if info.deadline is None else timestamp(info.deadline),
        "metadata": dict(info.metadata),
        "digests": {name: b64encode(value).decode() for name, value in info.digests.items()},
    }


def content_type_of(request: Request, default: str = OCTETS) -> str:
    """Return the declared content type of the body.

    Raises:
        RequestError: it is not a media type.
    """
    value = request.headers.get("content-type", "").strip()
    if not value:
        return default
    if "/" not in value.split(";")[0] or not value.isascii() or not value.isprintable() or len(value) > 255:
        raise bad_request("Content-Type must be a media type, such as text/csv.")
    return value


def spec_of(request: Request, content_type: str, length: int | None, now: Callable[[], float]) -> StreamSpec:
    """Return what a request says about the stream that it creates.

    Raises:
        RequestError: a field is not as it must be.
    """
    filename = filename_from(request.headers.get("content-disposition", ""))
    return StreamSpec(
        content_type=content_type,
        length=length,
        metadata={} if filename is None else {"filename": filename},
        ttl=_ttl(request),
        expires_at=_expires_at(request, now()),
    )


def _ttl(request: Request) -> float | None:
    value = request.headers.get("stream-ttl")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 12 or not 0 < int(value) <= _LONGEST_TTL:
        raise bad_request("Stream-TTL must be a whole number of seconds, from 1 to a hundred years.")
    return float(value)


def _expires_at(request: Request, now: float) -> float | None:
    value = request.headers.get("stream-expires-at")
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise bad_request("Stream-Expires-At must be a date-time of RFC 3339 with its zone: 2030-01-02T03:04:05Z.")
    if moment.timestamp() <= now:
        raise bad_request("Stream-Expires-At is in the past.")
    return moment.timestamp()
