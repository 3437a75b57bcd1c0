"""Where the records of a body begin and end, found in chunks of any size and in bounded memory.

Lines, elements of a JSON array, rows of comma-separated values, and records that come after their length. What is
inside a record is somebody else's to read.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final, Literal, Protocol, TypeAlias

from penstock.protocols.records import MAX_NESTING, LineSplitter, RecordTooLongError

__all__ = ["ArraySplitter", "Lines", "PrefixSplitter", "Rows", "SplitError", "Splitter"]

Found: TypeAlias = list[tuple[int, bytes]]
"""Records, each with the offset in the body at which it begins."""


class SplitError(Exception):
    """The records cannot be told apart from here on.

    Attributes:
        kind: ``too-large``: a record is longer than the bound. ``malformed``: the body does not have the form that it
            should have. ``incomplete``: it ends within a record.
        offset: where in the body the record begins.
    """

    def __init__(self, kind: Literal["too-large", "malformed", "incomplete"], offset: int, text: str) -> None:
        self.kind = kind
        self.offset = offset
        super().__init__(text)


class Splitter(Protocol):
    """Finds the records. After a `SplitError` it is of no use."""

    def feed(self, data: bytes, found: Found) -> None:
        """Take the next bytes, and add the records that they complete to ``found``."""

    def finish(self, found: Found) -> None:
        """Say that the body has ended, and add the record that this completes."""


class Lines:
    """Records that are lines. Empty ones are none; the last line need not have an end."""

    def __init__(self, max_item: int) -> None:
        self._splitter = LineSplitter(max_item)

    def feed(self, data: bytes, found: Found) -> None:
        """See `Splitter`."""
        start = self._splitter.offset
        try:
            lines, error = self._splitter.feed(data), None
        except RecordTooLongError as too_long:
            lines, error = too_long.records, too_long
        starts = accumulate(lines, lambda offset, line: offset + len(line) + 1, initial=start)
        found += [pair for pair in zip(starts, lines, strict=False) if not pair[1].isspace() and pair[1]]
        if error is not None:
            raise SplitError("too-large", error.offset, "the line is too long")

    def finish(self, found: Found) -> None:
        """See `Splitter`."""
        if self._splitter.pending.strip():
            found.append((self._splitter.offset, self._splitter.pending))


class Rows:
    """Rows of comma-separated values (RFC 4180): lines, but a field within quotation marks may have several of them."""

    def __init__(self, max_item: int) -> None:
        self._lines = LineSplitter(max_item)
        self._max_item = max_item
        self._parts: list[bytes] = []  # lines of a row whose quotation mark was not closed yet
        self._held = 0
        self._start = 0

    def feed(self, data: bytes, found: Found) -> None:
        """See `Splitter`."""
        start = self._lines.offset
        try:
            lines, error = self._lines.feed(data), None
        except RecordTooLongError as too_long:
            lines, error = too_long.records, too_long
        for line in lines:
            self._line(start, line, found)
            start += len(line) + 1
        if error is not None:
            raise self._too_large(error.offset)

    def _line(self, start: int, line: bytes, found: Found) -> None:
        if self._parts:
            self._parts.append(line)
            self._held += len(line) + 1
            if line.count(b'"') % 2:
                found.append((self._start, b"\n".join(self._parts)))
                self._parts = []
            elif self._held > self._max_item:
                raise self._too_large(self._start)
        elif line.count(b'"') % 2:
            self._parts, self._held, self._start = [line], len(line), start
        elif line and not line.isspace():
            found.append((start, line))

    def finish(self, found: Found) -> None:
        """See `Splitter`."""
        if self._lines.pending:
            self._line(self._lines.offset, self._lines.pending, found)
        if self._parts:
            raise SplitError("malformed", self._start, "a quotation mark is never closed")

    def _too_large(self, offset: int) -> SplitError:
        if self._parts:
            text = "the row is too long: perhaps a quotation mark is not closed"
            return SplitError("too-large", self._start, text)
        return SplitError("too-large", offset, "the row is too long")


class PrefixSplitter:
    """Records that come after their length.

    Args:
        max_item: the most bytes of a record.
        size: how many bytes a length has; 0 for a varint, as Protocol Buffers write it.
        byteorder: of the length.
    """

    def __init__(self, max_item: int, size: int = 4, byteorder: Literal["big", "little"] = "big") -> None:
        self._max_item = max_item
        self._size = size
        self._byteorder = byteorder
        self._held = bytearray()
        self._offset = 0
        self._needed = 1  # how many bytes must be there for the next look to be worth it

    def feed(self, data: bytes, found: Found) -> None:
        """See `Splitter`."""
        self._held += data
        position = 0
        while len(self._held) - position >= self._needed:
            head = self._head(position)
            if head is None:
                self._needed = len(self._held) - position + 1
                break
            size, length = head
            if length > self._max_item:
                raise SplitError("too-large", self._offset + position, f"the record has {length} bytes")
            if len(self._held) - position < size + length:
                self._needed = size + length
                break
            found.append((self._offset + position, bytes(self._held[position + size : position + size + length])))
            position += size + length
            self._needed = 1
        del self._held[:position]
        self._offset += position

    def finish(self, found: Found) -> None:
        """See `Splitter`."""
        if self._held:
            raise SplitError("incomplete", self._offset, "the body ends within it")

    def _head(self, position: int) -> tuple[int, int] | None:
        """Return how many bytes the length takes, and the length; None if it is not all there."""
        if self._size:
            prefix = self._held[position : position + self._size]
            return None if len(prefix) < self._size else (self._size, int.from_bytes(prefix, self._byteorder))
        length = 0
        for index, byte in enumerate(self._held[position : position + 10]):
            length |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return index + 1, length
        if len(self._held) - position >= 10:
            raise SplitError("malformed", self._offset + position, "its length is no varint")
        return None


_SPACE: Final = rb"[ \t\r\n]*+"
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT: Final = rb'[^"\[\]{}]++|' + _STRING
_ONE_LEVEL: Final = _FLAT + rb"|[\[{](?:" + _FLAT + rb")*+[\]}]"
_TWO_LEVELS: Final = _FLAT + rb"|[\[{](?:" + _ONE_LEVEL + rb")*+[\]}]"
_COMMON: Final = re.compile(_SPACE + rb"([\[{](?:" + _TWO_LEVELS + rb")*+[\]}])" + _SPACE + rb",", re.DOTALL)
"""An element that is an object or array, not deeply nested, and the comma after it: what most arrays consist of."""

_TO_BRACKET: Final = re.compile(rb"(?:" + _FLAT + rb")*+", re.DOTALL)
_TO_BRACKET_OR_COMMA: Final = re.compile(rb'(?:[^",\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SPACES: Final = re.compile(_SPACE)
_BLANK: Final = b" \t\r\n"
_QUOTE, _COMMA, _CLOSE = b'",]'
_OPEN: Final = frozenset(b"[{")


class ArraySplitter:
    """The elements of one JSON array. Each byte is looked at a bounded number of times, however it arrives."""

    def __init__(self, max_item: int) -> None:
        self._max_item = max_item
        self._held = bytearray()  # from the beginning of the present element on
        self._offset = 0  # of the first of them
        self._position = 0  # up to where they were looked at
        self._depth = 0
        self._in_string = False
        self._fresh = False  # whether nothing of the present element was looked at
        self._after_comma = False
        self._ended = False

    def feed(self, data: bytes, found: Found) -> None:
        """See `Splitter`."""
        self._held += data
        if self._depth == 0 and not self._ended and not self._begin():
            return
        while not self._ended and self._element(found):
            pass
        if self._ended:
            self._skip_space()
            if self._held:
                raise SplitError("malformed", self._offset, "there is something after the array's end")
        elif len(self._held) > self._max_item:
            raise self._too_large()

    def finish(self, found: Found) -> None:
        """See `Splitter`."""
        if not self._ended:
            raise SplitError("incomplete", self._offset, "the body ends before the array does")

    def _begin(self) -> bool:
        self._skip_space()
        if not self._held:
            return False
        if self._held[:1] != b"[":
            raise SplitError("malformed", self._offset, "the body is no JSON array")
        self._drop(1)
        self._depth, self._fresh = 1, True
        return True

    def _skip_space(self) -> None:
        match = _SPACES.match(self._held)
        self._drop(0 if match is None else match.end())

    def _drop(self, size: int) -> None:
        del self._held[:size]
        self._offset += size
        self._position = 0

    def _element(self, found: Found) -> bool:
        """Look for the end of the present element, and tell whether it was there."""
        if self._fresh:
            self._common(found)
            self._skip_space()
            if not self._held:
                return False
            self._fresh = False
        end = self._end()
        if end is None:
            return False
        last = self._held[end] == _CLOSE
        element = bytes(self._held[:end]).rstrip(_BLANK)
        if element:
            self._add(element, found)
        elif not last or self._after_comma:
            raise SplitError("malformed", self._offset, "an element of the array is missing")
        self._drop(end + 1)
        self._fresh, self._after_comma, self._ended = True, not last, last
        return True

    def _common(self, found: Found) -> None:
        """Take all elements of the common kind that are there."""
        position = 0
        while (match := _COMMON.match(self._held, position)) is not None:
            start, end = match.span(1)
            if end - start > self._max_item:
                break
            found.append((self._offset + start, match[1]))
            position = match.end()
        if position:
            self._after_comma = True
            self._drop(position)

    def _end(self) -> int | None:
        """Return where the present element ends: at its comma, or at the array's end; None if that is not there."""
        held, position = self._held, self._position
        while True:
            if self._in_string:
                position = _matched(_STRING_REST, held, position)
                if (
                    position == len(held) or held[position] != _QUOTE
                ):  # the end of what is there, or a backslash before it
                    break
                position += 1
                self._in_string = False
            position = _matched(_TO_BRACKET if self._depth > 1 else _TO_BRACKET_OR_COMMA, held, position)
            if position == len(held):
                break
            mark = held[position]
            if self._depth == 1 and mark in (_COMMA, _CLOSE):
                return position
            position += 1
            if mark == _QUOTE:
                self._in_string = True
            elif mark in _OPEN:
                self._depth += 1
                if self._depth > MAX_NESTING:
                    raise SplitError("malformed", self._offset, "it is nested too deeply")
            else:
                self._depth -= 1
                if self._depth < 1:
                    raise SplitError("malformed", self._offset, "a bracket is closed that was not opened")
        self._position = position
        return None

    def _add(self, element: bytes, found: Found) -> None:
        if len(element) > self._max_item:
            raise self._too_large()
        found.append((self._offset, element))

    def _too_large(self) -> SplitError:
        return SplitError("too-large", self._offset, "the element is too long")


def _matched(pattern: re.Pattern[bytes], data: bytearray, position: int) -> int:
    match = pattern.match(data, position)
    return position if match is None else match.end()
