"""Several ranges in one response: ``multipart/byteranges`` (RFC 9110 sections 14.6 and 15.3.7.2)."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.protocols.ranges import ByteRange, content_range

__all__ = ["ByteRangesBody"]

# Of RFC 2046's boundary characters those that need no quotation marks in the Content-Type field.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'+_.-]{1,70}")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e\x80-\xff]+")


def _new_boundary() -> str:
    # 128 random bits: that these bytes occur in the content is not worth checking for.
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class ByteRangesBody:
    """The framing around the parts of a ``multipart/byteranges`` body; the bytes themselves stay elsewhere.

    The body is, for each range in order, its `part_head` and its bytes, and in the end the `tail`.

    Attributes:
        ranges: The ranges to send, at least one. A request for a single range must not be answered by a
            multipart body (section 15.3.7.2).
        complete: Length of the whole representation; None while it is not known.
        media_type: Content type of the representation, repeated in each part; None if it has none.
        boundary: What separates the parts; random unless given.

    Raises:
        ValueError: No range, a range past the complete length, or a boundary or media type that a header
            cannot hold.
    """

    ranges: Sequence[ByteRange]
    complete: int | None
    media_type: str | None
    boundary: str = field(default_factory=_new_boundary)

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("a multipart/byteranges body needs at least one range")
        if not _BOUNDARY.fullmatch(self.boundary):
            raise ValueError(f"not a multipart boundary: {self.boundary!r}")
        if self.media_type is not None and not _PRINTABLE.fullmatch(self.media_type):
            raise ValueError(f"not a content type: {self.media_type!r}")
        if self.complete is not None and max(part.stop for part in self.ranges) > self.complete:
            raise ValueError(f"a range reaches past the complete length {self.complete}")

    @property
    def content_type(self) -> str:
        """Value of the response's ``Content-Type`` field."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def content_length(self) -> int:
        """Exact length of the whole body in bytes."""
        framing = sum(len(self.part_head(index)) for index in range(len(self.ranges)))
        return framing + sum(len(part) for part in self.ranges) + len(self.tail)

    def part_head(self, index: int) -> bytes:
        """Return what precedes the bytes of the range at ``index``: delimiter, fields and an empty line."""
        delimiter = f"--{self.boundary}\r\n" if index == 0 else f"\r\n--{self.boundary}\r\n"
        media_type = "" if self.media_type is None else f"Content-Type: {self.media_type}\r\n"
        position = content_range(self.ranges[index], self.complete)
        return f"{delimiter}{media_type}Content-Range: {position}\r\n\r\n".encode("latin-1")

    @property
    def tail(self) -> bytes:
        """What follows the bytes of the last range: the closing delimiter."""
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")
