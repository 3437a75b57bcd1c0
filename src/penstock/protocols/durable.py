"""The Durable Streams protocol, version 1.0: its offsets, cursors, header fields and events.

Section numbers are those of PROTOCOL.md in https://github.com/durable-streams/durable-streams.
"""

from __future__ import annotations

import json
import random
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from penstock.errors import PenstockError
from penstock.model import Producer, StreamInfo
from penstock.protocols import timestamps
from penstock.protocols.media_types import essence

__all__ = [
    "JSON",
    "MEDIA_TYPE",
    "NDJSON",
    "NOW",
    "MalformedError",
    "array",
    "base64_event",
    "closes",
    "control_event",
    "cursor",
    "data_event",
    "declared_type",
    "etag",
    "expiry",
    "interval",
    "is_json",
    "is_text",
    "media_type",
    "offset",
    "position",
    "producer",
    "same_type",
    "stored_as",
    "sub_offset",
    "timestamp",
    "ttl",
    "whole_number",
]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

MEDIA_TYPE: Final = "media_type"
"""The attribute of a stream that this protocol shows as ``application/json``: the type that it was declared with.

What is stored is one compact JSON text a line, and so the stream's own content type is ``application/x-ndjson``.
"""

NOW: Final = "now"
_BEGINNING: Final = "-1"
# The first part is for servers that keep a stream in several files. Here it is zero, and the second counts bytes.
_OFFSET: Final = re.compile(r"0{16}_([0-9]{16})")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_LARGEST: Final = 2**53 - 1
_TYPE: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+[ \t]*(?:;[ -~\t]*)?", re.ASCII)
_LONGEST_TYPE: Final = 255
_LONGEST_PRODUCER: Final = 256

_EPOCH: Final = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
_INTERVAL: Final = 20
_JITTER: Final = (1, 3600)


class MalformedError(PenstockError):
    """A part of a request that is not as the protocol has it. The text is fit to be sent to the client."""


# -- offsets (section 8) ----------------------------------------------------------------------------------------------


def offset(at: int) -> str:
    """Return the token of an offset in bytes: of one length, so that tokens sort as the offsets do."""
    return f"0000000000000000_{at:016d}"


def position(token: str) -> int | None:
    """Return the offset in bytes that a token names; None for ``now``.

    Raises:
        MalformedError: it is none of this server's.
    """
    if token == _BEGINNING:
        return 0
    if token == NOW:
        return None
    match = _OFFSET.fullmatch(token)
    if match is None:
        raise MalformedError("The offset must be one that the server gave, '-1' for the beginning, or 'now'.")
    return int(match[1])


# -- cursors (section 10.1) -------------------------------------------------------------------------------------------


def interval(now: float) -> int:
    """Return the number of the present interval: the least cursor of a live response."""
    return int((now - _EPOCH) // _INTERVAL)


def cursor(now: float, given: str | None = None) -> str:
    """Return the cursor of a live response: the number of the present interval, and always more than the given one.

    Args:
        now: Unix seconds.
        given: the cursor that the client sent, or None. One that is no number counts as none.
    """
    present = interval(now)
    if given is None or not _NUMBER.fullmatch(given) or int(given) < present:
        return str(present)
    seconds = random.randint(*_JITTER)  # noqa: S311 - it spreads requests over caches, and guards nothing
    return str(int(given) + max(1, seconds // _INTERVAL))


def etag(info: StreamInfo, start: int, end: int) -> str:
    """Return the entity tag of the bytes from ``start`` to ``end``: another one where they end the stream (10.1)."""
    closed = ":c" if info.closed and end == info.tail else ""
    return f'"{info.incarnation}:{start}:{end}{closed}"'


# -- content types (section 9) ----------------------------------------------------------------------------------------


def declared_type(value: str | None) -> str | None:
    """Return the media type that a ``Content-Type`` declares; None where there is none that is one."""
    if value is None or len(value) > _LONGEST_TYPE:
        return None
    value = value.strip()
    return value if _TYPE.fullmatch(value) else None


def same_type(one: str, other: str) -> bool:
    """Tell whether two media types are the same, whatever their case and parameters."""
    return one == other or essence(one) == essence(other)


def stored_as(declared: str) -> tuple[str, Mapping[str, Any]]:
    """Return the content type of the bytes that a stream of a declared type stores, and the attributes that tell."""
    if essence(declared) == JSON:
        return NDJSON, {MEDIA_TYPE: declared}
    return declared, {}


def media_type(info: StreamInfo) -> str:
    """Return the content type by which this protocol knows a stream."""
    declared: str = info.attributes.get(MEDIA_TYPE, info.content_type)
    return declared


def is_json(info: StreamInfo) -> bool:
    """Tell whether a stream's messages are JSON values, told as an array (section 9.1)."""
    return MEDIA_TYPE in info.attributes


def is_text(info: StreamInfo) -> bool:
    """Tell whether a stream's bytes are sent as text in events; any other's are sent in base64 (section 5.8)."""
    return essence(info.content_type).startswith("text/")


def array(lines: bytes) -> bytes:
    """Return the JSON array of messages that are stored one a line (section 9.1.5)."""
    return b"[" + lines[:-1].replace(b"\n", b",") + b"]"


# -- fields of requests -----------------------------------------------------------------------------------------------


def closes(value: str | None) -> bool:
    """Tell whether ``Stream-Closed`` says so: any other value than ``true`` counts as none (section 4.1)."""
    return value is not None and value.lower() == "true"


def ttl(value: str) -> float:
    """Read ``Stream-TTL`` (section 5.1): whole seconds.

    Raises:
        MalformedError: it is not in the one spelling that there is.
    """
    if not _NUMBER.fullmatch(value):
        raise MalformedError("Stream-TTL must be a whole number of seconds, without sign or leading zeros.")
    return float(value)


def expiry(value: str) -> float:
    """Read ``Stream-Expires-At`` (section 5.1), and return Unix seconds.

    Raises:
        MalformedError: it is not a time with its zone.
    """
    seconds = timestamps.parse_timestamp(value)
    if seconds is None:
        raise MalformedError("Stream-Expires-At must be a date-time of RFC 3339 with its zone: 2030-01-02T03:04:05Z.")
    return seconds


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 writes it, in UTC, to the millisecond."""
    return timestamps.timestamp(seconds, "milliseconds")


def whole_number(value: str, field: str) -> int:
    """Read a number that a field holds.

    Raises:
        MalformedError: it is not a whole number, or more than JavaScript counts exactly.
    """
    if not value.isascii() or not value.isdigit() or len(value) > 16 or int(value) > _LARGEST:
        raise MalformedError(f"{field} must be a whole number of at most 2^53-1.")
    return int(value)


def sub_offset(value: str) -> int:
    """Read ``Stream-Fork-Sub-Offset`` (section 4.2).

    Raises:
        MalformedError: it is not a number, in the one spelling that there is.
    """
    if not _NUMBER.fullmatch(value):
        raise MalformedError("Stream-Fork-Sub-Offset must be a whole number, without sign or leading zeros.")
    return int(value)


def producer(identity: str | None, epoch: str | None, sequence: str | None) -> Producer | None:
    """Read ``Producer-Id``, ``Producer-Epoch`` and ``Producer-Seq``: all or none of them (section 5.2.1).

    Raises:
        MalformedError: one is missing, or not as it must be.
    """
    if identity is None and epoch is None and sequence is None:
        return None
    if identity is None or epoch is None or sequence is None:
        raise MalformedError("Producer-Id, Producer-Epoch and Producer-Seq go together.")
    if not identity or len(identity) > _LONGEST_PRODUCER:
        raise MalformedError(f"Producer-Id must have 1 to {_LONGEST_PRODUCER} characters.")
    return Producer(identity, whole_number(epoch, "Producer-Epoch"), whole_number(sequence, "Producer-Seq"))


# -- events (section 5.8) ---------------------------------------------------------------------------------------------


def data_event(payload: bytes) -> bytes:
    """Return the event of some text: UTF-8, whose line ends may be of any kind."""
    if b"\r" in payload:  # a line end of the event stream too, by which a payload could end its event
        payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if payload.startswith(b" ") or b"\n " in payload:  # of which a reader would take away the first space of a line
        return b"event: data\ndata: " + payload.replace(b"\n", b"\ndata: ") + b"\n\n"
    return b"event: data\ndata:" + payload.replace(b"\n", b"\ndata:") + b"\n\n"


def base64_event(payload: bytes) -> bytes:
    """Return the event of some bytes."""
    return b"event: data\ndata:" + b64encode(payload) + b"\n\n"


def control_event(at: int, cursor: str | None, *, up_to_date: bool = False, closed: bool = False) -> bytes:
    """Return the event that follows every event of data.

    Args:
        at: where the reader stands, in bytes.
        cursor: the cursor; left out at the end of a closed stream, to which nobody comes back.
        up_to_date: whether that is all there is now.
        closed: whether that is all there ever will be.
    """
    control: dict[str, object] = {"streamNextOffset": offset(at)}
    if cursor is not None and not closed:
        control["streamCursor"] = cursor
    if up_to_date or closed:
        control["upToDate"] = True
    if closed:
        control["streamClosed"] = True
    return b"event: control\ndata:" + json.dumps(control, separators=(",", ":")).encode() + b"\n\n"
