"""Records as server-sent events."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from penstock.protocols import sse
from penstock.protocols.framings.framing import Ending, Kind, lines_of

RETRY: Final = 1000
"""Milliseconds after which a reader that was cut comes back."""

RESERVED: Final = frozenset({"end", "error", "open", "message", "bytes"})
"""Types that records do not get: they would be taken for our own events, or for an EventSource's."""

_TYPE: Final = re.compile(r"[^\r\n\0]{1,200}")


@dataclass(frozen=True, slots=True)
class EventFraming:
    """Each record is an event with the offset after it as the id.

    A stream without records comes as events ``bytes`` of base64. The end is the event ``end``, or ``error``.

    Attributes:
        kind: what the stream holds.
        type_field: of JSON records that are objects: the member whose text is the event's type. Records without one,
            with one that no event can have, or with one of the `RESERVED` have no type: browsers take ``message``.
        retry: the reconnection time in milliseconds.
    """

    kind: Kind
    type_field: str | None = None
    retry: int = RETRY

    @property
    def media_type(self) -> str:
        """See `Framing.media_type`."""
        return sse.MEDIA_TYPE

    @property
    def joins(self) -> bool:
        """See `Framing.joins`."""
        return True

    @property
    def breaks_off(self) -> bool:
        """See `Framing.breaks_off`: no, readers come back whatever the end is."""
        return False

    def opening(self) -> bytes:
        """See `Framing.opening`."""
        return sse.encode(retry=self.retry)

    def frame(self, offset: int, data: bytes) -> bytes:
        """See `Framing.frame`."""
        if self.kind == "bytes":
            return sse.encode(b64encode(data), event="bytes", id=offset + len(data))
        lines = lines_of(data)
        ends = list(accumulate(map(len, lines), lambda end, size: end + size + 1, initial=offset))[1:]
        ends[-1] = offset + len(data)  # the last record of a stream may be without its LF
        if self.type_field is not None and self.kind == "json":
            return b"".join([self._typed(end, line) for end, line in zip(ends, lines, strict=True)])
        if b"\r" in data:
            # A carriage return ends a line of the event stream: one that belongs to the record's line end goes, any
            # other one is read back as a line feed.
            return b"".join(
                [sse.encode(line.removesuffix(b"\r"), id=end) for end, line in zip(ends, lines, strict=True)]
            )
        return b"".join([b"id: %d\ndata: %b\n\n" % pair for pair in zip(ends, lines, strict=True)])

    def _typed(self, end: int, line: bytes) -> bytes:
        line = line.removesuffix(b"\r")
        event = type_of(line, self.type_field or "")
        if b"\r" in line:  # only of what is not JSON
            return sse.encode(line, id=end)
        return b"%bid: %d\ndata: %b\n\n" % (b"" if event is None else b"event: %b\n" % event.encode(), end, line)

    def heartbeat(self) -> bytes:
        """See `Framing.heartbeat`."""
        return sse.comment()

    def farewell(self) -> bytes:
        """See `Framing.farewell`."""
        return sse.FAREWELL

    def end(self, ending: Ending) -> bytes:
        """See `Framing.end`."""
        event = "end" if ending.state == "closed" else "error"
        return sse.encode(json.dumps(ending.members()), event=event, id=ending.offset)


def type_of(record: bytes, field: str) -> str | None:
    """Return the event's type that a JSON record names in a member, or None."""
    try:
        value = json.loads(record)
    except (ValueError, RecursionError):
        return None
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, str) or found in RESERVED or not _TYPE.fullmatch(found):
        return None
    return found if found.isascii() or found.isprintable() else None
