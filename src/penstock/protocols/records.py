"""Records: streams whose unit is a line, each ending in LF (NDJSON, JSON Lines, plain text)."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Final, NoReturn

from penstock.protocols.media_types import essence

__all__ = [
    "MAX_NESTING",
    "LineSplitter",
    "RecordError",
    "RecordTooLongError",
    "compact",
    "has_records",
    "is_json",
    "json_members",
    "json_record",
    "json_records",
    "text_record",
]

MAX_NESTING: Final = 256
"""How deep arrays and objects of one JSON record may nest. Many readers stop at less (RFC 8259 section 9)."""

_LINE_TYPES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})

# Charsets of text records. Short, because some of Python's codecs take quadratic time or decode escapes.
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
}

# A string's closing quote is optional, so that each byte of unterminated ones is looked at only once, too.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_AROUND: Final = frozenset({"", " ", "\t", "\r"})
_SPACES: Final = re.compile(r"[ \t\r\n]++")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class RecordError(ValueError):
    """Bytes that are not a record. The text says why, and is fit to be sent to the client."""


class RecordTooLongError(RecordError):
    """A line is longer than a record may be.

    Attributes:
        offset: Where the line begins in the stream.
        records: The records of the same chunk that came before the line.
    """

    def __init__(self, max_record: int, offset: int, records: list[bytes]) -> None:
        super().__init__(f"the record at offset {offset} is longer than {max_record} bytes")
        self.offset = offset
        self.records = records


def has_records(content_type: str) -> bool:
    """Tell whether a stream of this content type consists of records, one a line.

    True of NDJSON (``application/x-ndjson``, ``application/ndjson``), JSON Lines (``application/jsonl``) and
    ``text/*``. False of ``application/json-seq``, whose records begin with a control character (RFC 7464).
    """
    media_type = essence(content_type)
    return media_type in _LINE_TYPES or media_type.startswith("text/")


def json_record(body: bytes) -> bytes:
    """Turn one JSON text (RFC 8259) into a record.

    Only insignificant white space is removed. Strings and numbers keep the spelling that they came with, so no
    number loses digits, range or zeros on its way (``1.10``, ``1e400`` and integers of any size come out as they
    went in), and an escaped lone surrogate stays escaped, which keeps the record valid UTF-8. Repeated
    names in an object are kept.

    Args:
        body: UTF-8 without a byte order mark.

    Returns:
        The compact JSON text and LF; no LF or CR in between.

    Raises:
        RecordError: Not UTF-8, not exactly one JSON text (``NaN`` and ``Infinity`` are none), or nested deeper
            than `MAX_NESTING`.
    """
    text = _decoded(body)
    if text.startswith("\ufeff"):
        raise RecordError("JSON must not begin with a byte order mark")
    _check_nesting(body)
    try:  # not `_json_errors`, which takes as long as all the rest
        _CHECKER.decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _json_error(error) from error
    return compact(body) + b"\n"


def json_records(body: bytes) -> list[bytes]:
    """Turn one JSON text into records: of an array its elements, one record each, of anything else itself.

    One level is taken apart and no more: ``[[1, 2], 3]`` gives ``[1,2]`` and ``3``, and ``[]`` nothing. Each record is
    what `json_record` makes of its text.

    Raises:
        RecordError: as of `json_record`.
    """
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [json_record(body)]
    _check_nesting(body)
    text = _decoded(body)
    records: list[bytes] = []
    with _json_errors():
        at = _token(text, text.index("[") + 1)
        while text[at : at + 1] != "]" or records:  # an array may end at once, but not after a comma
            _, end = _CHECKER.raw_decode(text, at)
            records.append(compact(text[at:end].encode()) + b"\n")
            at = _token(text, end)
            if text[at : at + 1] != ",":
                break
            at = _token(text, at + 1)
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        if _token(text, at + 1) != len(text):
            raise json.JSONDecodeError("Extra data", text, at + 1)
    return records


def json_members(body: bytes) -> dict[str, bytes]:
    """Take a JSON object apart: each member's value as `json_record` would write it, without the LF.

    Of a name that comes twice, the last value counts.

    Raises:
        RecordError: as of `json_record`, or it is not an object.
    """
    text = json_record(body)[:-1].decode()
    if not text.startswith("{"):
        raise RecordError("it must be a JSON object")
    members: dict[str, bytes] = {}
    at = 1
    while text[at] != "}":
        name, end = _CHECKER.raw_decode(text, at)
        _, after = _CHECKER.raw_decode(text, end + 1)
        members[name] = text[end + 1 : after].encode()
        at = after + (text[after] == ",")
    return members


def _token(text: str, at: int) -> int:
    """Return where the next token begins, at ``at`` or after the white space there."""
    match = _SPACES.match(text, at)
    return at if match is None else match.end()


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"JSON must be UTF-8: {error.reason} at byte {error.start}") from error


@contextmanager
def _json_errors() -> Iterator[None]:
    try:
        yield
    except (json.JSONDecodeError, RecursionError) as error:
        raise _json_error(error) from error


def _json_error(error: json.JSONDecodeError | RecursionError) -> RecordError:
    if isinstance(error, RecursionError):  # the caller left less room on the stack than MAX_NESTING needs
        return RecordError("JSON is nested too deeply")
    return RecordError(f"not valid JSON: {error}")


def compact(data: bytes, space: bytes = b" \t\r\n") -> bytes:
    """Return valid JSON without the white space between its tokens.

    When it is split at the quotes, what is within strings is at every other place. Escaped quotes and backslashes are
    put out of the way first, as characters that cannot be in valid JSON.

    Args:
        data: one JSON text, or several.
        space: the characters that go.
    """
    if not any(map(data.__contains__, space)):  # a regular expression takes a hundred times as long
        return data
    escapes = b"\\" in data
    if escapes:
        data = data.replace(b"\\\\", b"\0").replace(b'\\"', b"\1")
    parts = data.split(b'"')
    parts[::2] = b'"'.join(parts[::2]).translate(None, space).split(b'"')
    data = b'"'.join(parts)
    return data.replace(b"\1", b'\\"').replace(b"\0", b"\\\\") if escapes else data


def is_json(text: bytes) -> bool:
    """Tell whether bytes are one JSON text in UTF-8, as `json_record` takes it, and without white space around it."""
    try:
        decoded = text.decode()
        _CHECKER.decode(decoded)
    except (ValueError, RecursionError):
        return False
    return decoded[:1] not in _AROUND and decoded[-1:] not in _AROUND


def _refuse_constant(name: str) -> NoReturn:
    raise RecordError(f"not valid JSON: {name} is not a JSON value")


# Numbers are left as texts: converting them costs time, and fails for long ones.
_CHECKER: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)


def _check_nesting(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_NESTING:
        return
    brackets = _STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_NESTING:
        raise RecordError(f"JSON is nested deeper than {MAX_NESTING} levels")


def text_record(body: bytes, charset: str = "utf-8") -> bytes:
    r"""Turn one line of text into a record.

    Args:
        body: The line, with or without one line end (``\n`` or ``\r\n``); may be empty.
        charset: The body's charset: UTF-8, US-ASCII, ISO-8859-1 or windows-1252.

    Returns:
        The line in UTF-8, and LF.

    Raises:
        RecordError: Not text of that charset, an unknown charset, or more than one line; a CR or NUL inside
            the line is refused as well.
    """
    codec = _CHARSETS.get(charset.strip().lower())
    if codec is None:
        raise RecordError(f"text records cannot be read in the charset {charset[:40]!r}; use utf-8")
    try:
        text = body.decode(codec)
    except UnicodeDecodeError as error:
        raise RecordError(f"the text is not {charset}: {error.reason} at byte {error.start}") from error
    line = text.removesuffix("\n")
    if line != text:
        line = line.removesuffix("\r")
    for char, name in (("\n", "LF"), ("\r", "CR"), ("\0", "NUL")):
        if char in line:
            raise RecordError(f"a text record is one line, but there is a {name} at character {line.index(char)}")
    return line.encode() + b"\n"


class LineSplitter:
    r"""Cuts a stream's bytes into records, from chunks of any size.

    Args:
        max_record: Bytes that one record may have, its LF not counted, and so what is held at most.
        offset: Offset in the stream of the first byte that will be fed; it must begin a record.

    Attributes:
        offset: Offset after the last record returned, which is where the next one begins.
    """

    __slots__ = ("_held", "_max_record", "_parts", "offset")

    def __init__(self, max_record: int, offset: int = 0) -> None:
        self.offset = offset
        self._max_record = max_record
        self._parts: list[bytes] = []
        self._held = 0

    @property
    def pending(self) -> bytes:
        """The bytes of the record that has begun at `offset` and not ended."""
        self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def feed(self, chunk: bytes) -> list[bytes]:
        r"""Take the next bytes and return the records that they complete.

        Args:
            chunk: Bytes as they arrived, cut anywhere.

        Returns:
            The records in order, without their LF (a CR before it stays): record by record, the offset
            grows by ``len(record) + 1``.

        Raises:
            RecordTooLongError: A record is longer than ``max_record``. The splitter is of no use then; the
                records before the long one are in the error.
        """
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines:
            if self._parts:
                lines[0] = b"".join((*self._parts, lines[0]))
                self._parts, self._held = [], 0
            if max(map(len, lines)) > self._max_record:
                good = lines[: next(i for i, line in enumerate(lines) if len(line) > self._max_record)]
                self.offset += sum(map(len, good)) + len(good)
                raise RecordTooLongError(self._max_record, self.offset, good)
            self.offset += sum(map(len, lines)) + len(lines)
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
            if self._held > self._max_record:
                raise RecordTooLongError(self._max_record, self.offset, lines)
        return lines

    def numbered(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Do as `feed` does, and return each record with the offset after it."""
        start = self.offset
        lines = self.feed(chunk)
        ends = accumulate(lines, lambda end, line: end + len(line) + 1, initial=start)
        next(ends)
        return list(zip(ends, lines, strict=True))
