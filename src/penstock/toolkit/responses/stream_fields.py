"""Streams in header fields: their state, and their entity tags."""

from __future__ import annotations

from urllib.parse import quote

from penstock.model import StreamInfo
from penstock.protocols.conditional import ETag
from penstock.protocols.timestamps import timestamp


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
    if info.stopped is not None:
        fields["stream-stopped"] = _visible(info.stopped)
    if info.deadline is not None:
        fields["stream-expires-at"] = timestamp(info.deadline)
    return fields


def _visible(text: str) -> str:
    """Return a text as a field's value can carry it: one line of ASCII, the rest percent-encoded."""
    return quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
