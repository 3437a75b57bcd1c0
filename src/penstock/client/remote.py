"""A stream as a server tells of it, in header fields or in JSON."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import urllib.parse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from penstock.model import OCTETS, STOPPED, StreamInfo
from penstock.protocols.dates import parse_date
from penstock.protocols.digest import DigestError, parse_digests
from penstock.protocols.ranges import parse_content_range


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStream(StreamInfo):
    """The state of a stream as a server told it.

    From header fields only a part is known: ``metadata`` is empty, ``created_at`` is 0, and ``modified_at`` has whole
    seconds.

    Attributes:
        etag: the entity tag, which ``if_match`` takes; None where the server sent none.
        url: where the stream can be read over HTTP.
    """

    etag: str | None = None
    url: str | None = None


def remote_from_headers(name: str, url: str, headers: Mapping[str, str]) -> RemoteStream:
    """Read the fields of an answer that concerns the stream.

    Args:
        name: the stream's name.
        url: the address that was asked.
        headers: values by name; looking one up must not depend on its case.
    """
    state = headers.get("stream-state", "closed")
    closed = state != "open"
    tail = _tail(headers)
    stopped = headers.get("stream-stopped")
    return RemoteStream(
        name=name,
        incarnation=headers.get("stream-incarnation", ""),
        content_type=headers.get("content-type", OCTETS),
        tail=tail,
        closed=closed,
        failure=urllib.parse.unquote(headers.get("stream-failure", "no reason was given"))
        if state == "failed"
        else None,
        length=tail if state == "closed" else None,
        modified_at=parse_date(headers.get("last-modified", "")) or 0.0,
        expires_at=_moment(headers.get("stream-expires-at")),
        digests=digests_from(headers),
        attributes={} if stopped is None else {STOPPED: urllib.parse.unquote(stopped)},
        etag=headers.get("etag"),
        url=url,
    )


def remote_from_json(document: Mapping[str, Any], base_url: str) -> RemoteStream:
    """Read the JSON that stands for a stream in listings and in the answer to a PUT.

    Args:
        document: the JSON object.
        base_url: what a ``url`` that is only a path is relative to.

    Raises:
        ValueError: it does not stand for a stream.
    """
    try:
        state = document["state"]
        return RemoteStream(
            name=str(document["name"]),
            incarnation=str(document["incarnation"]),
            content_type=str(document["content_type"]),
            tail=int(document["tail"]),
            closed=state != "open",
            failure=str(document.get("failure") or "no reason was given") if state == "failed" else None,
            length=document.get("length"),
            metadata=dict(document.get("metadata") or {}),
            created_at=_moment(document.get("created_at")) or 0.0,
            modified_at=_moment(document.get("modified_at")) or 0.0,
            expires_at=_moment(document.get("expires_at")),
            digests={algorithm: base64.b64decode(text) for algorithm, text in (document.get("digests") or {}).items()},
            etag=document.get("etag"),
            url=urllib.parse.urljoin(base_url, str(document.get("url") or "")),
        )
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"not the JSON of a stream: {error!r}") from error


def digests_from(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the digests of the whole that an answer tells, by algorithm. A field that cannot be read tells none."""
    try:
        return parse_digests(headers.get("repr-digest", ""))
    except DigestError:
        return {}


def _tail(headers: Mapping[str, str]) -> int:
    told = headers.get("stream-tail", "")
    if told.isascii() and told.isdigit():
        return int(told)
    # Something between us and the server may drop fields that it does not know. The standard ones tell as much.
    with suppress(ValueError):
        complete = parse_content_range(headers.get("content-range", ""))[1]
        if complete is not None:
            return complete
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _moment(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    with suppress(ValueError):
        return dt.datetime.fromisoformat(text).timestamp()
    return None
