"""Where a reader begins: at an offset, now, or some records back."""

from __future__ import annotations

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.live.appending import is_number
from penstock.doors.live.wishes import Wish
from penstock.errors import OffsetOutOfRange
from penstock.protocols.framings.runs import MAX_RECORD
from penstock.protocols.records import has_records
from penstock.toolkit.problems import bad_request

_BLOCK = 64 * 1024


async def beginning(service: StreamService, reader: Reader, wish: Wish, resumes_at: str | None) -> int:
    """Return the offset that a reader begins at.

    Args:
        service: the streams.
        reader: the stream, opened.
        wish: what the reader asks for,
        resumes_at: and where it says that it goes on, which wins; or None.

    Raises:
        RequestError: it asks for what is no place.
        OffsetOutOfRange: it asks for a place that there is not.
    """
    if resumes_at is None and wish.last is not None:
        return await last_records(reader, wish.last)
    start = parse_offset(resumes_at or wish.offset)
    if start is None:
        return await now(reader)
    await check_boundary(reader, start)
    return start


def parse_offset(value: str) -> int | None:
    """Return the offset to begin at; None for the tail.

    Raises:
        RequestError: it is none.
    """
    if value == "now":
        return None
    if not is_number(value):
        raise bad_request("The offset (or Last-Event-ID) must be a number of bytes from the start, or 'now'.")
    return int(value)


async def check_boundary(reader: Reader, offset: int) -> None:
    """Make sure that a reader begins where a record does.

    Raises:
        OffsetOutOfRange: it is past the tail, or within a record: then it was not this incarnation's.
    """
    info = reader.info
    if offset > info.tail:
        raise OffsetOutOfRange(info.name, offset, info.tail)
    if offset and has_records(info.content_type) and bytes(await reader.read(offset - 1, offset)) != b"\n":
        at_the_end = info.closed and offset == info.tail
        if not at_the_end:
            raise OffsetOutOfRange(info.name, offset, info.tail, "is within a record")


async def now(reader: Reader) -> int:
    """Return the tail, or where the record begins of which a part is there: who follows from now on gets it whole."""
    info = reader.info
    if info.closed or not has_records(info.content_type):
        return info.tail
    return await _records_back(reader, info.tail, 0, max(0, info.tail - MAX_RECORD))


async def last_records(reader: Reader, count: int) -> int:
    """Return where the last ``count`` records begin; a part of one at the end does not count while it may grow.

    Raises:
        RequestError: the stream has no records.
    """
    info = reader.info
    if not has_records(info.content_type):
        raise bad_request(f"{info.name!r} has no records of which the last ones could be counted.")
    if not info.tail:
        return 0
    end = info.tail if info.closed else await now(reader)
    unended = end == info.tail and bytes(await reader.read(end - 1, end)) != b"\n"
    return await _records_back(reader, end, count - unended, 0)


async def _records_back(reader: Reader, stop: int, count: int, least: int) -> int:
    """Return where the record begins that is ``count`` before the one that ends or goes on at ``stop``.

    That is after the newline number ``count``, counted backwards from ``stop`` and from 0. The search goes no further
    back than ``least``.
    """
    left = count
    while stop > least:
        start = max(least, stop - _BLOCK)
        block = await _block(reader, start, stop)
        lines = block.count(b"\n")
        if lines > left:
            at = len(block)
            for _ in range(left + 1):
                at = block.rindex(b"\n", 0, at)
            return start + at + 1
        left -= lines
        stop = start
    return stop


async def _block(reader: Reader, start: int, stop: int) -> bytes:
    parts: list[bytes] = []
    while start < stop:
        data = bytes(await reader.read(start, stop))
        parts.append(data)
        start += len(data)
    return b"".join(parts)
