"""Many JSON records at once: checked and made compact a batch at a time, not byte by byte or one by one."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import from_json

from penstock.protocols.records import MAX_NESTING, RecordError, compact, json_record, text_record

try:  # which the extra `server` brings
    from msgspec import Raw
    from msgspec.json import Decoder
except ImportError:
    Decoder = None  # type: ignore[assignment,misc]  # there is another way, see `json_lines`

__all__ = ["BadLineError", "Lines", "json_lines", "text_lines"]

# A number that nobody knows, between any two records: see `_all_json`.
_MARK: Final = random.Random(secrets.randbits(256)).getrandbits(60)  # noqa: S311 - secret, and drawn once
_BETWEEN: Final = b",%d," % _MARK


@dataclass(frozen=True, slots=True)
class Lines:
    """Records as a stream keeps them.

    Attributes:
        data: the records, each with its LF.
        count: how many there are.
    """

    data: bytes
    count: int

    def after(self, skipped: int) -> bytes:
        """Return the records without the first ``skipped`` ones."""
        start = 0
        for _ in range(skipped):
            start = self.data.index(b"\n", start) + 1
        return self.data[start:]


class BadLineError(RecordError):
    """One of several lines is not a record.

    Attributes:
        before: the records before it.
        size: bytes of the input before the line.
    """

    def __init__(self, error: RecordError, before: Lines, size: int) -> None:
        super().__init__(f"line {before.count + 1} of these: {error}")
        self.error = error
        self.before = before
        self.size = size


def json_lines(data: bytes) -> Lines:
    """Turn NDJSON into records: each line as `json_record` would, empty ones left out.

    Raises:
        BadLineError: a line is not one JSON text.
    """
    lines = [line for line in data.split(b"\n") if line and not line.isspace()]
    if not lines:
        return Lines(b"", 0)
    if not (_each_json(data, lines) if Decoder is not None else _all_json(lines)):
        return _one_by_one(data, json_record, skip_empty=True)
    whole = data if data.endswith(b"\n") and data.count(b"\n") == len(lines) else b"\n".join((*lines, b""))
    return Lines(compact(whole, b" \t\r"), len(lines))


def _each_json(data: bytes, lines: Sequence[bytes]) -> bool:
    """Tell whether each line is one JSON text, by a parser that makes nothing of it: at a twentieth of the cost.

    It does not look at what is between quotes, so that is decoded besides. A no may be wrong, a yes never.
    """
    decode = Decoder(Raw).decode
    try:
        data.decode()
        for line in lines:
            decode(line)
            if len(line) > MAX_NESTING and line.count(b"[") + line.count(b"{") > MAX_NESTING:
                return False
    except (ValueError, RecursionError):
        return False
    return True


def _all_json(lines: Sequence[bytes]) -> bool:
    """Tell whether each line is one JSON text. A no may be wrong (the engine has limits of its own), a yes never.

    They are parsed as one array with a mark between any two of them. Brackets or quotes that begin in one line and end
    in another take the mark with them, and commas outside of brackets move it: either way it is missing from its place,
    and who writes the lines cannot know it.
    """
    try:
        values = from_json(b"[" + _BETWEEN.join(lines) + b"]", allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return False
    return len(values) == 2 * len(lines) - 1 and all(mark == _MARK for mark in values[1::2])


def text_lines(data: bytes, charset: str = "utf-8") -> Lines:
    r"""Turn lines of text into records: each as `text_record` would; ``\n`` and ``\r\n`` end lines.

    Raises:
        BadLineError: a line is not text of that charset, or holds a CR or NUL.
    """
    if not data:
        return Lines(b"", 0)
    ended = data if data.endswith(b"\n") else data + b"\n"
    if charset.strip().lower() in {"utf-8", "utf8"}:
        plain = ended.replace(b"\r\n", b"\n")
        if b"\r" not in plain and b"\0" not in plain and _is_utf8(plain):
            return Lines(plain, plain.count(b"\n"))
    return _one_by_one(ended[:-1], lambda line: text_record(line, charset), skip_empty=False)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _one_by_one(data: bytes, record: Callable[[bytes], bytes], *, skip_empty: bool) -> Lines:
    records: list[bytes] = []
    size = 0
    for line in data.split(b"\n"):
        if not skip_empty or line.strip():
            try:
                records.append(record(line + b"\n" if not skip_empty else line))
            except RecordError as error:
                raise BadLineError(error, Lines(b"".join(records), len(records)), size) from error
        size += len(line) + 1
    return Lines(b"".join(records), len(records))
