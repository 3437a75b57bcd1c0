"""Where a reader begins: at an offset, at the first one, now, some records back, or at a time."""

from __future__ import annotations

from datetime import datetime

from penstock.core import forks
from penstock.core.lines import lines_back
from penstock.core.ports import Reader
from penstock.core.retention import offset_at
from penstock.core.service import StreamService
from penstock.doors.live.appending import is_number
from penstock.doors.live.wishes import Wish
from penstock.errors import OffsetOutOfRange
from penstock.model import COMPACTED
from penstock.protocols.framings.runs import MAX_RECORD
from penstock.protocols.records import has_records
from penstock.toolkit.problems import bad_request


async def beginning(service: StreamService, reader: Reader, wish: Wish, resumes_at: str | None) -> int:
    """Return the offset that a reader begins at.

    Args:
        service: the streams.
        reader: the stream, opened.
        wish: what the reader asks for,
        resumes_at: and where it says that it goes on, which wins; or None.

    Raises:
        RequestError: it asks for what is no place.
        OffsetOutOfRange: it asks for a place that there is not, any more or yet.
    """
    if resumes_at is None and wish.last is not None:
        return await last_records(reader, wish.last)
    if resumes_at is None and wish.since is not None:
        return await since(service, reader, wish.since)
    value = resumes_at or wish.offset
    if value == "now":
        return await now(reader)
    if value == "first":
        return forks.beginning(reader)
    if not is_number(value):
        raise bad_request(
            "The offset (or Last-Event-ID) must be a number of bytes from the start, or 'first', or 'now'."
        )
    return await check_boundary(reader, int(value))


async def check_boundary(reader: Reader, offset: int) -> int:
    """Return where a reader begins, who says a place where a record does.

    Of a stream that is compacted, all that counts is at or after its beginning: who comes from before, begins there.

    Raises:
        OffsetOutOfRange: it is past the tail, or within a record: then it was not this incarnation's. Or it is before
            what is kept.
    """
    info = reader.info
    first = forks.beginning(reader)
    if offset < first and COMPACTED in info.attributes:
        return first
    forks.check_offset(reader, offset)
    if offset > first and has_records(info.content_type) and bytes(await reader.read(offset - 1, offset)) != b"\n":
        at_the_end = info.closed and offset == info.tail
        if not at_the_end:
            raise OffsetOutOfRange(info.name, offset, info.tail, "is within a record")
    return offset


async def now(reader: Reader) -> int:
    """Return the tail, or where the record begins of which a part is there: who follows from now on gets it whole."""
    info = reader.info
    if info.closed or not has_records(info.content_type):
        return info.tail
    return await lines_back(reader, info.tail, 0, max(forks.beginning(reader), info.tail - MAX_RECORD))


async def last_records(reader: Reader, count: int) -> int:
    """Return where the last ``count`` records begin; a part of one at the end does not count while it may grow.

    Raises:
        RequestError: the stream has no records.
    """
    info = reader.info
    if not has_records(info.content_type):
        raise bad_request(f"{info.name!r} has no records of which the last ones could be counted.")
    first = forks.beginning(reader)
    if info.tail == first:
        return first
    end = info.tail if info.closed else await now(reader)
    unended = end == info.tail > first and bytes(await reader.read(end - 1, end)) != b"\n"
    return await lines_back(reader, end, count - unended, first)


async def since(service: StreamService, reader: Reader, text: str) -> int:
    """Return where that begins which was appended since a time; perhaps a little more of what was before it.

    Args:
        service: the streams.
        reader: the stream, opened.
        text: a date-time with its zone (RFC 3339), or seconds: since 1970, or with a minus sign from now back.

    Raises:
        RequestError: it is no time, or the stream does not know when it was what.
    """
    try:
        when = float(text)
        when = when + service.now() if text.startswith("-") else when
    except ValueError:
        when = _moment(text)
    offset = offset_at(reader.info, when)
    if offset is None:
        raise bad_request(f"{reader.info.name!r} does not know when its records came.")
    info = reader.info
    if offset in {info.tail, info.start} or not has_records(info.content_type):
        return offset
    return await lines_back(reader, offset, 0, info.start)


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise bad_request("since is a date-time of RFC 3339 with its zone, or a number of seconds.")
    return moment.timestamp()
