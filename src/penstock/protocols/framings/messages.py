"""Records as messages of a WebSocket."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final

from penstock.protocols.framings.framing import Ending, Kind, json_line, lines_of
from penstock.protocols.framings.values import values_of

SUBPROTOCOL: Final = "penstock.v1"

MAX_MESSAGE: Final = 4 * 1024 * 1024 + 4096
"""The most bytes of a message that a client sends: an append, and what is said about it."""


@dataclass(frozen=True, slots=True)
class MessageFraming:
    """A run is one text message: ``{"offset": 123, "records": [...]}``, with the offset after the last record.

    So whoever has the message has its records, and goes on at its offset. Of a stream without records it is
    ``{"offset": 123, "bytes": "<base64>"}``. The end is ``{"end": {"state": "closed", "offset": 123}}``.

    Attributes:
        kind: what the stream holds.
        start: where a reader begins, which the first message tells; None for no such message. It is no part of what
            framings are compared by.
    """

    kind: Kind
    start: int | None = field(default=None, compare=False)

    @property
    def media_type(self) -> str:
        """See `Framing.media_type`: the subprotocol."""
        return SUBPROTOCOL

    @property
    def joins(self) -> bool:
        """See `Framing.joins`: no."""
        return False

    @property
    def breaks_off(self) -> bool:
        """See `Framing.breaks_off`: no, the close code tells."""
        return False

    def opening(self) -> bytes:
        """See `Framing.opening`: a message without records."""
        return b"" if self.start is None else b'{"offset":%d,"records":[]}' % self.start

    def frame(self, offset: int, data: bytes) -> bytes:
        """See `Framing.frame`."""
        end = offset + len(data)
        if self.kind == "bytes":
            return b'{"offset":%d,"bytes":"%b"}' % (end, b64encode(data))
        return b'{"offset":%d,"records":[%b]}' % (end, b",".join(values_of(self.kind, lines_of(data))))

    def heartbeat(self) -> bytes:
        """See `Framing.heartbeat`: nothing, pings do that."""
        return b""

    def farewell(self) -> bytes:
        """See `Framing.farewell`: nothing, the close code tells (1012, service restart)."""
        return b""

    def end(self, ending: Ending) -> bytes:
        """See `Framing.end`."""
        return json_line({"end": ending.members()})
