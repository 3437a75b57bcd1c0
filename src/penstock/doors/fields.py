"""Streams in the words of HTTP: names in URLs, header fields, entity tags, JSON."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from starlette.requests import Request

from penstock.errors import InvalidName
from penstock.model import OCTETS, StreamInfo, StreamSpec, check_name
from penstock.protocols.disposition import filename_from
from penstock.protocols.timestamps import parse_timestamp, timestamp
from penstock.toolkit.problems import RequestError, bad_request
from penstock.toolkit.responses.media_types import guessed
from penstock.toolkit.responses.stream_fields import etag_of

_LONGEST_TTL: Final = 100 * 365 * 86400

_NONE: Final[Mapping[str, Any]] = {}

_MEDIA_TYPE: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+[ \t]*(?:;[ -~\t]*)?", re.ASCII)
_MAX_CONTENT_TYPE: Final = 255
_UPLOAD_KEY: Final = re.compile(r"[!-~]{1,255}")


def name_in(request: Request) -> str:
    """Return the stream's name from a request's path.

    Raises:
        InvalidName: it cannot name a stream.
        RequestError: it has an encoded slash, which some proxies decode and some do not.
    """
    name: str = request.path_params["name"]
    raw = request.scope.get("raw_path")
    if isinstance(raw, bytes):
        path = raw.partition(b"?")[0]
        if b"%2f" in path.lower():
            raise bad_request("The name in the URL has an encoded slash (%2F). Write slashes of names as they are.")
        _check_utf8(name, path)
    if not request.scope["path"].endswith(name):  # the router leaves out a line feed at the end
        raise InvalidName(name, "in the URL, a line feed follows it")
    return check_name(name)


def _check_utf8(name: str, path: bytes) -> None:
    """Refuse what is not UTF-8: servers decode it to U+FFFD, by which many URLs would be one name."""
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise InvalidName(name, "in the URL, it is not percent-encoded UTF-8") from None


def base_of(request: Request, route: str) -> str:
    """Return the path that the URLs of streams begin with, with whatever the application is mounted under."""
    # A prefix may have parameters of its own (/users/{user}/files): they are what they are in this request.
    path = str(request.app.url_path_for(route, **{**request.path_params, "name": ""}))
    root: str = request.scope.get("root_path", "").rstrip("/")
    return root + quote(path, safe="/")


def url_in(base: str, name: str) -> str:
    """Return the path of a stream's URL."""
    return base + quote(name, safe="/")


def upload_url_in(base: str, info: StreamInfo) -> str:
    """Return the path and query of an upload's URL: it means this incarnation, whatever the name shows.

    Once it is complete, and shown, the name alone will do.
    """
    url = url_in(base, info.name)
    return url if info.complete and info.published else f"{url}?upload={info.incarnation}"


def relative_to(request: Request, base: str, url: str) -> str:
    """Return a stream's URL relative to that of a request for the collection or for a stream (RFC 3986 section 4.2).

    So it holds whatever a proxy makes of paths, which the server need not know.

    Args:
        request: the request.
        base: what the paths of streams' URLs begin with here: as long as it does, ``url`` is made relative.
        url: the URL.
    """
    name, inner = request.path_params.get("name", ""), url.removeprefix(base)
    if not url.startswith(base):
        return url
    if not name:
        return inner if request.scope["path"].endswith("/") else f"{base.rstrip('/').rpartition('/')[2]}/{inner}"
    folder = quote(name.rpartition("/")[0], safe="/")
    if not folder:
        return inner
    return inner.removeprefix(f"{folder}/") if inner.startswith(f"{folder}/") else url


def resolved(base: str, url: str) -> tuple[str, str | None]:
    """Return the name and the incarnation that the URL of an upload tells.

    Whatever host a client reached the server by, an upload is one of this server: only the path counts. A proxy may
    have put something before it.

    Args:
        base: what the paths of streams' URLs begin with here.
        url: a URL, or a path.

    Raises:
        RequestError: it is not the URL of a stream.
        InvalidName: what it tells is no name.
    """
    try:
        split = urlsplit(url)
        _, found, name = split.path.partition(base)
        text = unquote_to_bytes(name).decode()
    except ValueError:
        found = text = ""
    if not found or not split.path.startswith("/"):
        raise bad_request(f"{url[:200]!r} is not the URL of an upload.")
    incarnations = parse_qs(split.query).get("upload", [None])
    return check_name(text), incarnations[0]


def key_of(request: Request) -> str | None:
    """Return the key by which the client wants to find an upload again (``Upload-Key``), or None.

    Raises:
        RequestError: it is not visible ASCII, or too long.
    """
    value = request.headers.get("upload-key")
    if value is None:
        return None
    if not _UPLOAD_KEY.fullmatch(value):
        raise bad_request("Upload-Key must have 1 to 255 visible characters of ASCII.")
    return value


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


def content_type_of(request: Request, *names: str) -> str:
    """Return the declared content type of the body; without one, what the suffixes of names tell, the first first.

    Raises:
        RequestError: it is not a media type.
    """
    return media_type_of(request.headers.get("content-type", ""), *names)


def media_type_of(declared: str, *names: str) -> str:
    """Return a media type as it was declared; for an empty text, what the suffixes of names tell, the first first.

    Raises:
        RequestError: it is not a media type.
    """
    value = declared.strip()
    if not value:
        return next((guess for guess in map(guessed, names) if guess is not None), OCTETS)
    if not _MEDIA_TYPE.fullmatch(value) or len(value) > _MAX_CONTENT_TYPE:
        raise bad_request("Content-Type must be a media type, such as text/csv.")
    return value


def check_coding(request: Request) -> None:
    """Refuse a body that is not as it is: nobody would know of the coding when it is read.

    Raises:
        RequestError: ``unsupported-media-type`` (415).
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(
            "unsupported-media-type",
            415,
            "A body with a Content-Encoding is not supported here: send it as it is.",
            {"accept-encoding": "identity"},
        )


def filename_of(request: Request) -> str | None:
    """Return the file name that a request tells, or None."""
    return filename_from(request.headers.get("content-disposition", ""))


def spec_of(
    request: Request,
    content_type: str,
    length: int | None,
    now: Callable[[], float],
    attributes: Mapping[str, Any] = _NONE,
) -> StreamSpec:
    """Return what a request says about the stream that it creates.

    Args:
        request: the request.
        content_type: of the stream.
        length: its final size, where that is known.
        now: the time.
        attributes: what the door says of it besides.

    Raises:
        RequestError: a field is not as it must be.
    """
    filename = filename_of(request)
    return StreamSpec(
        content_type=content_type,
        length=length,
        metadata={} if filename is None else {"filename": filename},
        ttl=_ttl(request),
        expires_at=_expires_at(request, now()),
        attributes=attributes,
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
    seconds = parse_timestamp(value)
    if seconds is None:
        raise bad_request("Stream-Expires-At must be a date-time of RFC 3339 with its zone: 2030-01-02T03:04:05Z.")
    if seconds <= now:
        raise bad_request("Stream-Expires-At is in the past.")
    return seconds
