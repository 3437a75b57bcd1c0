"""A stream in a framing, for the readers of a shared tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.doors.live.following import ending_of
from penstock.doors.live.signals import closing_of
from penstock.doors.tails.telling import Last
from penstock.errors import Stopping
from penstock.model import StreamInfo
from penstock.protocols.framings import Framing, Kind, Runs
from penstock.toolkit.responses.handover import Piece


@dataclass(frozen=True, slots=True)
class FramedTelling:
    """See `Telling`: all readers at an offset are sent the same.

    Attributes:
        framing: the framing, of a kind whose outputs may be joined.
        kind: what the stream holds.
    """

    framing: Framing
    kind: Kind

    def cutter(self, offset: int) -> Runs:
        """See `Telling.cutter`."""
        return Runs(self.kind, offset)

    def part(self, offset: int, run: bytes) -> bytes:
        """See `Telling.part`: framed at once, as what is joined is."""
        return self.framing.frame(offset, run)

    def joined(self, parts: Sequence[bytes]) -> bytes:
        """See `Telling.joined`."""
        return b"".join(parts)

    def after(self, at: int, info: StreamInfo, mark: int) -> bytes:
        """See `Telling.after`: nothing."""
        return b""

    def is_end(self, at: int, info: StreamInfo) -> bool:
        """See `Telling.is_end`: no, that is an event of its own."""
        return False

    def mark(self, now: float) -> int:
        """See `Telling.mark`."""
        return 0

    def heartbeat(self, at: int, info: StreamInfo, mark: int) -> bytes:
        """See `Telling.heartbeat`."""
        return self.framing.heartbeat()

    def closing(self, info: StreamInfo) -> Last:
        """See `Telling.closing`."""
        return Last(Piece(self.framing.end(closing_of(info))), whole=True)

    def ending(self, error: Exception) -> Last:
        """See `Telling.ending`."""
        text = self.framing.farewell() if isinstance(error, Stopping) else self.framing.end(ending_of(error))
        return Last(Piece(text), whole=not self.framing.breaks_off)
