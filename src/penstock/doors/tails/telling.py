"""How a door tells a stream to the readers of a shared tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.errors import PenstockError
from penstock.model import StreamInfo
from penstock.toolkit.responses.handover import Piece


class Unfinished(PenstockError):
    """A body that does not end well: it is broken off, so that nobody takes it for complete."""


@dataclass(frozen=True, slots=True)
class Last:
    """How a response ends.

    Attributes:
        piece: what is sent last.
        whole: whether the body ends properly then; else it is broken off, so that nobody takes it for complete.
    """

    piece: Piece
    whole: bool


class Cutter(Protocol):
    """Cuts chunks into runs that can be told: see `penstock.protocols.framings.Runs`."""

    @property
    def offset(self) -> int:
        """Where the next run begins."""

    def take(self, offset: int, chunk: bytes) -> tuple[int, bytes]:
        """Take bytes at an offset, and return the run that they complete with its offset."""

    def rest(self) -> tuple[int, bytes]:
        """Return what is left when the stream is closed."""


class Telling(Protocol):
    """What readers are sent. Values: frozen, hashable, equal if they write the same.

    What differs between readers at the same offset is a number, the reader's `mark`; it counts only while it is above
    the one of the present, which all readers have in common.
    """

    def cutter(self, offset: int) -> Cutter:
        """Return what cuts the stream from an offset on."""

    def part(self, offset: int, run: bytes) -> bytes:
        """Return what is kept of a run until it is written, for `joined`."""

    def joined(self, parts: Sequence[bytes]) -> bytes:
        """Return the text of one part or several."""

    def after(self, at: int, info: StreamInfo, mark: int) -> bytes:
        """Return what follows each text; it may be nothing.

        Args:
            at: the offset that the reader has come to.
            info: the stream, as it was last seen.
            mark: the reader's.
        """

    def is_end(self, at: int, info: StreamInfo) -> bool:
        """Tell whether `after` has told the reader that this is the end."""

    def mark(self, now: float) -> int:
        """Return the mark of the present, in Unix seconds."""

    def heartbeat(self, at: int, info: StreamInfo, mark: int) -> bytes:
        """Return what shows a reader who has all there is that the line is alive."""

    def closing(self, info: StreamInfo) -> Last:
        """Return what readers are told of a stream that was closed."""

    def ending(self, error: Exception) -> Last:
        """Return what readers are told of any other end."""
