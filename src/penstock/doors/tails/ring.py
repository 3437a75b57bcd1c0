"""The latest of a stream, as its readers are sent it."""

from __future__ import annotations

from typing import Final

from penstock.doors.tails.telling import Telling
from penstock.model import StreamInfo
from penstock.toolkit.responses.handover import Piece

RING: Final = 1024 * 1024
"""Bytes that a tail keeps at most, for readers who are a little behind."""

MOST: Final = 256 * 1024
"""Bytes that are joined for one write."""


class Ring:
    """The latest parts, one after the other, and what is written of them.

    Args:
        telling: how they are written.
        info: the stream.

    Attributes:
        info: the stream, as it was last seen.
        end: the offset after the last part.
        size: bytes of all parts.
    """

    def __init__(self, telling: Telling, info: StreamInfo) -> None:
        self.info = info
        self.end = 0
        self.size = 0
        self._telling = telling
        self._parts: dict[int, tuple[int, bytes]] = {}  # by the offset where each begins: where it ends, and the bytes
        self._texts: dict[int, tuple[bytes, int]] = {}  # by offset: what there is from there on, and where that ends
        self._pieces: dict[tuple[int, int], tuple[Piece, int, bool]] = {}  # by offset and mark

    def add(self, start: int, end: int, part: bytes) -> None:
        """Add a part."""
        self._parts[start] = (end, part)
        self.end = end
        self.size += len(part)
        self._forget()

    def has(self, offset: int) -> bool:
        """Tell whether a part, or the tail, begins at an offset."""
        return offset == self.end or offset in self._parts

    def boundary(self, offset: int) -> int | None:
        """Return the first offset behind ``offset`` where a part begins or ends."""
        for start, (end, _) in self._parts.items():
            if start > offset:
                return start
            if end > offset:
                return end
        return self.end if self.end > offset else None

    def since(self, offset: int, mark: int) -> tuple[Piece, int, bool]:
        """Return what to send from an offset on to a reader of a mark: all there is, up to `MOST` bytes.

        Returns:
            what to send, the offset after it, and whether that tells the reader that it is the end.
        """
        known = self._pieces.get((offset, mark))
        if known is None:
            text, end = self._texts.get(offset) or self._joined(offset)
            piece = Piece(text + self._telling.after(end, self.info, mark))
            known = self._pieces[offset, mark] = (piece, end, self._telling.is_end(end, self.info))
        return known

    def _joined(self, offset: int) -> tuple[bytes, int]:
        end, first = self._parts[offset]
        parts, size = [first], len(first)
        while end < self.end:
            following, part = self._parts[end]
            size += len(part)
            if size > MOST:
                break
            parts.append(part)
            end = following
        found = self._texts[offset] = (self._telling.joined(parts), end)
        return found

    def trim(self, size: int) -> None:
        """Forget the oldest parts, until there are at most so many bytes."""
        while self.size > size:
            self.size -= len(self._parts.pop(next(iter(self._parts)))[1])
            self._forget()

    def _forget(self) -> None:
        self._texts.clear()
        self._pieces.clear()
