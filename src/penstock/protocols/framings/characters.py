"""Cutting chunks into runs of whole characters."""

from __future__ import annotations

import codecs
from typing import Final

_LONGEST: Final = 4  # bytes of a character in UTF-8


class Characters:
    """Holds back the beginning of a character until its end is there. What is no UTF-8 passes as it is.

    Args:
        offset: of the first byte that will be fed.

    Attributes:
        offset: where the next run begins.
    """

    __slots__ = ("_held", "offset")

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._held = b""

    def take(self, offset: int, chunk: bytes) -> tuple[int, bytes]:
        """Take bytes at an offset: those that would be next, or later ones, where what is between was dropped.

        Returns:
            the run that they complete with its offset; an empty one completes nothing.
        """
        if offset != self.offset + len(self._held):
            self.offset, self._held = offset, b""
        data = self._held + chunk if self._held else chunk
        cut = len(data) - _begun(data)
        start, run, self._held = self.offset, data[:cut], data[cut:]
        self.offset += cut
        return start, run

    def rest(self) -> tuple[int, bytes]:
        """Return what is left when the stream is closed: a character that was never completed, or nothing."""
        start, run, self._held = self.offset, self._held, b""
        self.offset += len(run)
        return start, run


def _begun(data: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character."""
    for size in range(1, min(_LONGEST, len(data) + 1)):
        if data[-size] & 0xC0 != 0x80:  # the first byte of one: those after it begin with the bits 10
            return size - codecs.utf_8_decode(data[-size:], "replace", False)[1]
    return 0
