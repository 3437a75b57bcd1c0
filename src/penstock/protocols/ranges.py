"""Byte ranges (RFC 9110 section 14), and following an open stream by range (RFC 8673)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "COALESCE_GAP",
    "MAX_RANGES",
    "OPEN_ENDED_LAST",
    "ByteRange",
    "RangeSpec",
    "content_range",
    "follows",
    "parse_content_range",
    "parse_range",
    "resolve",
    "unsatisfied",
]

MAX_RANGES: Final = 100
"""More ranges than this in one request are taken for an attack (RFC 9110 section 17.15)."""

COALESCE_GAP: Final = 80
"""Ranges with fewer bytes than this between them are sent as one: a part's head costs more than the gap."""

OPEN_ENDED_LAST: Final = 2**53 - 1
"""The "very large" last position of RFC 8673 section 3, by which a client asks for bytes still to come."""

# Twenty digits hold every 64-bit position; a longer number is no position, and int() of it could be slow.
_SPEC: Final = re.compile(r"([0-9]{0,20})-([0-9]{0,20})")
_CONTENT_RANGE: Final = re.compile(
    r"bytes (?:([0-9]{1,20})-([0-9]{1,20})/(?:([0-9]{1,20})|\*)|\*/([0-9]{1,20}))", re.IGNORECASE | re.ASCII
)
_OWS: Final = " \t"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start`` up to, not including, ``stop``. Never empty, as HTTP has no way to write an empty range.

    Attributes:
        start: Offset of the first byte.
        stop: Offset after the last byte.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a byte range: start {self.start}, stop {self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class RangeSpec:
    """One range as it was asked for, before the length of what it selects from is known.

    Attributes:
        first: Position of the first byte, or None for a suffix range.
        last: Position of the last byte (inclusive, as HTTP writes it) or None for "to the end". For a suffix
            range, the number of bytes wanted from the end.
    """

    first: int | None
    last: int | None

    def within(self, length: int) -> ByteRange | None:
        """Return the bytes that this selects out of ``length`` bytes, or None if it is not satisfiable."""
        if self.first is None:
            wanted = min(self.last or 0, length)
            return ByteRange(length - wanted, length) if wanted else None
        if self.first >= length:
            return None
        return ByteRange(self.first, length if self.last is None else min(self.last + 1, length))

    @property
    def very_large(self) -> bool:
        """Whether this ends at a "very large" position (RFC 8673 section 3): it asks for bytes to come, too."""
        return self.first is not None and self.last is not None and self.last >= OPEN_ENDED_LAST


def parse_range(value: str) -> tuple[RangeSpec, ...] | None:
    """Read a ``Range`` field (RFC 9110 sections 14.1.1 and 14.2).

    Args:
        value: The field's value.

    Returns:
        The ranges in the order of the request, at least one, or None where the field is to be ignored and the
        whole representation sent: a unit other than bytes, a malformed value (a last position before the
        first one included), a position of more than 20 digits, or more than `MAX_RANGES` ranges.
    """
    unit, equals, text = value.strip(_OWS).partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    specs: list[RangeSpec] = []
    # White space may precede the first range, too: an example of section 14.1.2 has it, and erratum 7306 says so.
    for element in text.split(","):
        written = element.strip(_OWS)
        if not written:
            continue  # recipients must accept empty list elements (section 5.6.1.2)
        spec = _parse_spec(written)
        if spec is None or len(specs) == MAX_RANGES:
            return None
        specs.append(spec)
    return tuple(specs) or None


def _parse_spec(text: str) -> RangeSpec | None:
    match = _SPEC.fullmatch(text)
    if match is None or text == "-":
        return None
    first = int(match[1]) if match[1] else None
    last = int(match[2]) if match[2] else None
    if first is not None and last is not None and last < first:
        return None
    return RangeSpec(first, last)


def resolve(specs: Sequence[RangeSpec], length: int) -> tuple[ByteRange, ...]:
    """Select the bytes to send out of a representation of ``length`` bytes.

    Ranges that overlap, or lie less than `COALESCE_GAP` bytes apart, become one (RFC 9110 section 15.3.7.2), so
    no byte is sent twice. What remains keeps the order of the request; a coalesced range stands where the
    earliest asked of its ranges stood.

    Args:
        specs: What `parse_range` returned.
        length: Number of bytes that there are. With 0 nothing can be selected; a caller does best to ignore
            the field for an empty representation, since ``bytes=-5`` of it is satisfiable (section 14.1.2) and
            yet no ``Content-Range`` can say so.

    Returns:
        The ranges to send; empty if none is satisfiable (the answer to which is 416).
    """
    satisfiable = [(part, order) for order, spec in enumerate(specs) if (part := spec.within(length))]
    satisfiable.sort(key=lambda item: item[0].start)
    merged: list[tuple[ByteRange, int]] = []
    for part, order in satisfiable:
        if merged and part.start - merged[-1][0].stop < COALESCE_GAP:
            previous, earliest = merged[-1]
            merged[-1] = (ByteRange(previous.start, max(previous.stop, part.stop)), min(earliest, order))
        else:
            merged.append((part, order))
    merged.sort(key=lambda item: item[1])
    return tuple(part for part, _ in merged)


def follows(specs: Sequence[RangeSpec]) -> bool:
    """Tell whether a request asks to follow an open stream: one range with a very large end (RFC 8673).

    The answer of a server that follows repeats the last position of the request:
    ``content_range(ByteRange(spec.first, spec.last + 1), None)`` (RFC 8673 section 2.2).
    """
    return len(specs) == 1 and specs[0].very_large


def content_range(part: ByteRange, complete: int | None) -> str:
    """Write the ``Content-Range`` of a part that is sent (RFC 9110 section 14.4).

    Args:
        part: The bytes that are sent.
        complete: Length of the whole representation; None while it is not known.

    Returns:
        For example ``bytes 0-9/100`` or ``bytes 0-9/*``.

    Raises:
        ValueError: The part reaches past the complete length.
    """
    if complete is not None and part.stop > complete:
        raise ValueError(f"the range ends at {part.stop}, past the complete length {complete}")
    return f"bytes {part.start}-{part.stop - 1}/{'*' if complete is None else complete}"


def unsatisfied(length: int) -> str:
    """Write the ``Content-Range`` of a 416 response (RFC 9110 sections 14.4 and 15.5.17).

    Args:
        length: The representation's current length. The grammar has no form without a number: for an open
            stream it is the tail.

    Returns:
        For example ``bytes */100``.
    """
    return f"bytes */{length}"


def parse_content_range(value: str) -> tuple[ByteRange | None, int | None]:
    """Read a ``Content-Range`` field (RFC 9110 section 14.4).

    Args:
        value: The field's value.

    Returns:
        The part that is enclosed (None in the unsatisfied form, ``*/100``) and the complete length (None if
        it is not known, ``/*``).

    Raises:
        ValueError: Malformed, another unit, a last position before the first or not below the complete length.
            The part must then not be combined with others.
    """
    match = _CONTENT_RANGE.fullmatch(value.strip(_OWS))
    if match is None:
        raise ValueError(f"not a Content-Range of bytes: {value[:100]!r}")
    first, last, complete, current = match.groups()
    if current is not None:
        return None, int(current)
    part = ByteRange(int(first), int(last) + 1)
    if complete is None:
        return part, None
    if part.stop > int(complete):
        raise ValueError(f"the Content-Range reaches past its complete length: {value!r}")
    return part, int(complete)
