"""Streams in words and JSON, for people and programs."""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.client import RemoteStream


def as_json(stream: RemoteStream) -> dict[str, Any]:
    """Return what is known of a stream, with the names that the HTTP interface uses; unknown times are None."""
    return {
        "name": stream.name,
        "state": stream.state,
        "tail": stream.tail,
        "length": stream.length,
        "content_type": stream.content_type,
        "etag": stream.etag,
        "incarnation": stream.incarnation,
        "failure": stream.failure,
        "created_at": _moment(stream.created_at or None),
        "modified_at": _moment(stream.modified_at or None),
        "expires_at": _moment(stream.expires_at),
        "metadata": dict(stream.metadata),
        "digests": {name: b64encode(digest).decode() for name, digest in stream.digests.items()},
        "url": stream.url,
    }


def local_time(seconds: float) -> str:
    """Return a time as people at this machine read it; empty if it is not known."""
    if not seconds:
        return ""
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: int) -> str:
    """Return a number of bytes in few characters: ``512 B``, ``1.5 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat().replace("+00:00", "Z")
