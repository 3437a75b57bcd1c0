"""A stream as the protocol's events: what came, then where that leaves the reader (PROTOCOL.md section 5.8)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.doors.tails.telling import Cutter, Last
from penstock.errors import Stopping, StreamGone
from penstock.model import StreamInfo
from penstock.protocols import durable, sse
from penstock.protocols.framings import Runs
from penstock.protocols.framings.characters import Characters
from penstock.toolkit.responses.handover import Piece


@dataclass(frozen=True, slots=True)
class EventTelling:
    """See `Telling`: an event of data with the control event that goes with it.

    All that differs between readers at an offset is the cursor, where theirs is ahead of time (section 10.1): that is
    their mark. So the event of data is made once for all, and the control event once for each cursor.

    Attributes:
        kind: what the stream holds: JSON messages, of which an event is an array; text, of which it is whole
            characters; or anything else, which comes in base64.
    """

    kind: Literal["json", "text", "bytes"]

    @classmethod
    def of(cls, info: StreamInfo) -> EventTelling:
        """Return how a stream is told."""
        if durable.is_json(info):
            return cls("json")
        return cls("text" if durable.is_text(info) else "bytes")

    def cutter(self, offset: int) -> Cutter:
        """See `Telling.cutter`. A message is as long as whoever appended it was allowed to make it."""
        return Characters(offset) if self.kind == "text" else Runs(self.kind, offset, max_record=sys.maxsize)

    def part(self, offset: int, run: bytes) -> bytes:
        """See `Telling.part`: as it is, so that what is sent together is one event."""
        return run

    def joined(self, parts: Sequence[bytes]) -> bytes:
        """See `Telling.joined`."""
        run = b"".join(parts)
        if self.kind == "json":
            return durable.data_event(durable.array(run))
        if self.kind == "text":
            return durable.data_event(run.decode(errors="replace").encode())
        return durable.base64_event(run)

    def after(self, at: int, info: StreamInfo, mark: int) -> bytes:
        """See `Telling.after`: the control event."""
        up_to_date = at == info.tail and info.failure is None
        return durable.control_event(at, str(mark), up_to_date=up_to_date, closed=self.is_end(at, info))

    def is_end(self, at: int, info: StreamInfo) -> bool:
        """See `Telling.is_end`."""
        return info.complete and at == info.tail

    def mark(self, now: float) -> int:
        """See `Telling.mark`."""
        return durable.interval(now)

    def heartbeat(self, at: int, info: StreamInfo, mark: int) -> bytes:
        """See `Telling.heartbeat`: there is still nothing new."""
        return self.after(at, info, mark)

    def closing(self, info: StreamInfo) -> Last:
        """See `Telling.closing`."""
        return Last(Piece(self.after(info.tail, info, 0)), whole=True)

    def ending(self, error: Exception) -> Last:
        """See `Telling.ending`: the protocol has no word for it, but who comes back learns of it."""
        if isinstance(error, Stopping):
            return Last(Piece(sse.FAREWELL), whole=True)
        return Last(Piece(b""), whole=isinstance(error, StreamGone))
