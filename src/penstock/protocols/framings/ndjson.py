"""Records as NDJSON: one JSON text a line."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from penstock.protocols.framings.framing import Ending, Kind, json_line, lines_of
from penstock.protocols.framings.values import values_of

MEDIA_TYPE: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class NDJSONFraming:
    """Each record is a line; an empty line is a heartbeat; the last line tells how it ended.

    Plain: JSON records are passed on as they are, lines of text as JSON texts, other bytes as JSON texts of base64. The
    last line is ``{"stream-state": "closed", "stream-offset": 123}``: an object of these members as the last line of a
    body that ended properly is not a record.

    In envelopes: ``{"offset": 123, "data": ...}``, with the offset after the record, or ``"bytes"`` with base64 instead
    of ``"data"``; the last line is ``{"state": "closed", "offset": 123}``, with neither.

    Attributes:
        kind: what the stream holds.
        envelope: whether each record comes with its offset.
    """

    kind: Kind
    envelope: bool = False

    @property
    def media_type(self) -> str:
        """See `Framing.media_type`."""
        return MEDIA_TYPE

    @property
    def joins(self) -> bool:
        """See `Framing.joins`."""
        return True

    @property
    def breaks_off(self) -> bool:
        """See `Framing.breaks_off`, so that no program takes a part for the whole."""
        return True

    def opening(self) -> bytes:
        """See `Framing.opening`: an empty line, which has proxies pass on the header."""
        return b"\n"

    def frame(self, offset: int, data: bytes) -> bytes:
        """See `Framing.frame`."""
        if self.kind == "bytes":
            text = b64encode(data)
            return b'{"offset":%d,"bytes":"%b"}\n' % (offset + len(data), text) if self.envelope else b'"%b"\n' % text
        if not self.envelope:
            if self.kind == "json":
                return data if data.endswith(b"\n") else data + b"\n"
            return b"\n".join([*values_of(self.kind, lines_of(data)), b""])
        lines = lines_of(data)
        framed = []
        end = offset
        for line, value in zip(lines, values_of(self.kind, lines), strict=True):
            end += len(line) + 1
            framed.append(b'{"offset":%d,"data":%b}\n' % (min(end, offset + len(data)), value))
        return b"".join(framed)

    def heartbeat(self) -> bytes:
        """See `Framing.heartbeat`."""
        return b"\n"

    def farewell(self) -> bytes:
        """See `Framing.farewell`: nothing, the body just breaks off."""
        return b""

    def end(self, ending: Ending) -> bytes:
        """See `Framing.end`."""
        members = ending.members()
        if not self.envelope:
            members = {f"stream-{name}": value for name, value in members.items()}
        return json_line(members) + b"\n"
