"""Cutting chunks into runs that begin and end where records do."""

from __future__ import annotations

from penstock.protocols.framings.framing import Kind
from penstock.protocols.records import RecordTooLongError

MAX_RECORD = 16 * 1024 * 1024
"""The most bytes of a record: whoever reads it as one holds it until it ends."""


class Runs:
    """Holds back the beginning of a record until its end is there.

    Args:
        kind: of the stream. Bytes without records pass as they are.
        offset: of the first byte that will be fed; a record begins there.
        max_record: bytes that one record may have, and so what is held at most.

    Attributes:
        offset: where the next run begins.
    """

    __slots__ = ("_held", "_kind", "_max_record", "_size", "offset")

    def __init__(self, kind: Kind, offset: int = 0, max_record: int = MAX_RECORD) -> None:
        self.offset = offset
        self._kind = kind
        self._max_record = max_record
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> tuple[int, bytes]:
        """Take the next bytes, and return the run that they complete with its offset; an empty one completes nothing.

        Raises:
            RecordTooLongError: a record is longer than ``max_record``; no run is lost that was returned before.
        """
        cut = len(chunk) if self._kind == "bytes" else chunk.rfind(b"\n") + 1
        self._check(chunk, cut)
        if cut:
            run = chunk[:cut] if not self._held else b"".join((*self._held, chunk[:cut]))
            self._held, self._size = [], 0
        else:
            run = b""
        if cut < len(chunk):
            self._held.append(chunk[cut:])
            self._size += len(chunk) - cut
        start = self.offset
        self.offset += len(run)
        return start, run

    def take(self, offset: int, chunk: bytes) -> tuple[int, bytes]:
        """Take bytes at an offset: those that would be next, or later ones, where what is between was dropped."""
        if offset != self.offset + self._size:
            self.offset, self._held, self._size = offset, [], 0
        return self.feed(chunk)

    def rest(self) -> tuple[int, bytes]:
        """Return what is left when the stream is closed: a last record without its LF, or nothing."""
        start, run = self.offset, b"".join(self._held)
        self._held, self._size = [], 0
        self.offset += len(run)
        return start, run

    def _check(self, chunk: bytes, cut: int) -> None:
        """Raise if a record is too long: one that was held and goes on, or one within a large chunk."""
        if self._kind == "bytes" or self._size + len(chunk) <= self._max_record:
            return
        first, *others = chunk[:cut].split(b"\n") if cut else [chunk]
        if self._size + len(first) > self._max_record:
            raise RecordTooLongError(self._max_record, self.offset, [])
        offset = self.offset + self._size + len(first) + 1
        for record in (*others, chunk[cut:]):
            if len(record) > self._max_record:
                raise RecordTooLongError(self._max_record, offset, [])
            offset += len(record) + 1
