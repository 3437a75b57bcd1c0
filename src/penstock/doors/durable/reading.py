"""GET: catch-up reads, long-polls, and the way to events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.follow import refreshed
from penstock.core.forks import beginning, check_offset
from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.durable.answers import answer, common
from penstock.doors.durable.telling import EventTelling
from penstock.doors.tails.body import SharedBody
from penstock.doors.tails.tail import SharedTails
from penstock.errors import OffsetOutOfRange, StreamFailed
from penstock.model import COMPACTED, Buffer, StreamInfo
from penstock.protocols import durable, sse
from penstock.protocols.conditional import ETagList
from penstock.toolkit.problems import bad_request
from penstock.toolkit.responses.stream_fields import state_fields
from penstock.toolkit.responses.streamed_body import StreamedBody

CHUNK: Final = 8 * 1024 * 1024
"""Bytes of a stream that one answer has, or somewhat more where a message is longer than that."""

_HELD: Final = 1024 * 1024
"""Answers of up to so many bytes are put together in memory; longer ones are sent as they are read."""

_BLOCK: Final = 64 * 1024
_SHORTEST: Final = 0.1
_BROKEN: Final = frozenset({"stream-state", "stream-failure"})


@dataclass(frozen=True, slots=True)
class Manner:
    """How the door serves reads.

    Attributes:
        long_poll: seconds that a long-poll waits.
        cache: ``public``, or ``private`` where not everybody may read.
    """

    long_poll: float
    cache: str


async def read(service: StreamService, tails: SharedTails, request: Request, name: str, manner: Manner) -> Response:
    """Answer a read from an offset in one of the three modes (PROTOCOL.md sections 5.6 to 5.8).

    Raises:
        MalformedError, RequestError: the query is wrong.
        StreamNotFound, StreamGone, OffsetOutOfRange: there is nothing to read, or not from there.
    """
    query = request.query_params
    live, cursor = query.get("live"), query.get("cursor")
    start = _start(query.getlist("offset"), live)
    reader = await service.open(name)
    try:
        await service.renew(reader.info)
        if live == "sse":
            return await _events(service, tails, reader, start, cursor)
        response = await _chunk(
            service, request, reader, start, cursor if live else None, manner, live=live is not None
        )
    except BaseException:
        reader.close()
        raise
    if not isinstance(response, StreamedBody):
        reader.close()
    return response


def _start(offsets: list[str], live: str | None) -> int | None:
    """Return where to begin; None for the tail."""
    if live not in {None, "long-poll", "sse"}:
        raise bad_request("live must be long-poll or sse.")
    if len(offsets) > 1:
        raise bad_request("There must be one offset, not several.")
    if not offsets and live is not None:
        raise bad_request(f"live={live} needs an offset: -1 for the beginning, now for the tail.")
    return durable.position(offsets[0]) if offsets else 0


# -- catch-up and long-poll -------------------------------------------------------------------------------------------


async def _chunk(
    service: StreamService,
    request: Request,
    reader: Reader,
    start: int | None,
    cursor: str | None,
    manner: Manner,
    *,
    live: bool,
) -> Response:
    info = reader.info
    if start is None:
        if not live:
            _check_whole(info, info.tail)
            return _nothing(info)
        start = info.tail
    start = _kept(reader, start)
    if live and start == info.tail and not info.closed:
        info = await _waited(service, reader, start, manner.long_poll)
    _check_whole(info, start)
    fields = {"content-type": durable.media_type(info)}
    if live:
        fields["stream-cursor"] = durable.cursor(service.now(), cursor)
        if start == info.tail:
            return _timed_out(info, fields)
    end = await _end(reader, start)
    etag = durable.etag(info, start, end)
    up_to_date = end == info.tail and info.failure is None
    fields |= {
        "stream-next-offset": durable.offset(end),
        "etag": etag,
        "cache-control": _cache(info, end, live, manner),
    }
    if up_to_date:
        fields["stream-up-to-date"] = "true"
        if info.closed:
            fields["stream-closed"] = "true"
    if _is_known(request.headers.get("if-none-match"), etag):
        del fields["content-type"]
        return answer(304, fields)
    return await _body(reader, start, end, fields)


async def _waited(service: StreamService, reader: Reader, start: int, seconds: float) -> StreamInfo:
    """Wait for something new, or the end, for so long at most. A stream that is waited for does not expire."""
    clock = asyncio.get_running_loop()
    until = clock.time() + seconds
    while True:
        left = until - clock.time()
        ttl = reader.info.ttl
        info = await service.wait(reader, start, left if ttl is None else min(left, max(ttl / 2, _SHORTEST)))
        await service.renew(info)
        if info.tail > start or info.closed or service.stopping or clock.time() >= until:
            return info


def _kept(reader: Reader, start: int) -> int:
    """Return where to begin for ``start``: in a stream that is compacted, what counts of all before it comes later.

    Raises:
        OffsetOutOfRange: there is nothing to read from there, or not any more.
    """
    if COMPACTED in reader.info.attributes:
        start = max(start, beginning(reader))
    check_offset(reader, start)
    return start


def _check_whole(info: StreamInfo, start: int) -> None:
    """Tell who has all there is of a stream that broke that it did: the protocol has no other word for such an end.

    Raises:
        StreamFailed: it did.
    """
    if info.failure is not None and start == info.tail:
        raise StreamFailed(info.name, info.tail, info.failure)


def _nothing(info: StreamInfo) -> Response:
    """Answer a catch-up read from ``now``: it has no data, and tells where the tail is (section 8)."""
    fields = {
        "content-type": durable.media_type(info),
        "stream-next-offset": durable.offset(info.tail),
        "stream-up-to-date": "true",
        "cache-control": "no-store",
    }
    if info.closed:
        fields["stream-closed"] = "true"
    return answer(200, fields, b"[]" if durable.is_json(info) else b"")


def _timed_out(info: StreamInfo, fields: dict[str, str]) -> Response:
    """Answer a long-poll that nothing came for, or that nothing will ever come for (section 5.7)."""
    del fields["content-type"]
    fields |= {
        "stream-next-offset": durable.offset(info.tail),
        "stream-up-to-date": "true",
        "cache-control": "no-store",
    }
    if info.closed:
        del fields["stream-cursor"]  # nobody is to come back
        fields["stream-closed"] = "true"
    return answer(204, fields)


def _cache(info: StreamInfo, end: int, live: bool, manner: Manner) -> str:
    """Tell how long an answer may be kept (section 10.1).

    The bytes at an offset never change, but a catch-up read up to the tail of an open stream will be longer next time:
    whoever asks for all there is must not be given what there was. A long-poll goes on from where its answer ends.
    """
    if end == info.tail and not info.closed and not live:
        return f"{manner.cache}, no-cache"
    return f"{manner.cache}, max-age=60, stale-while-revalidate=300"


def _is_known(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    known = ETagList.parse(if_none_match)
    return known.any or any(str(tag) == etag for tag in known.tags)


async def _end(reader: Reader, start: int) -> int:
    """Return where an answer that begins at ``start`` ends: at the tail, or where a message does."""
    info = reader.info
    await _check_between_messages(reader, start)
    end = start + CHUNK
    if end >= info.tail:
        return info.tail
    if not durable.is_json(info):
        return end
    stop = end
    while stop > start:
        block = b"".join([bytes(data) async for data in _slices(reader, max(start, stop - _BLOCK), stop)])
        if (at := block.rfind(b"\n")) >= 0:
            return stop - len(block) + at + 1
        stop -= len(block)
    async for data in _slices(reader, end, info.tail):
        if (at := bytes(data).find(b"\n")) >= 0:
            return end + at + 1
        end += len(data)
    return info.tail


async def _check_between_messages(reader: Reader, start: int) -> None:
    """Check that no offset within a message is read from.

    Raises:
        OffsetOutOfRange: it is one.
    """
    info = reader.info
    if durable.is_json(info) and start > beginning(reader) and bytes(await reader.read(start - 1, start)) != b"\n":
        raise OffsetOutOfRange(info.name, start, info.tail, "is within a message")


async def _slices(reader: Reader, start: int, end: int) -> AsyncGenerator[Buffer, None]:
    while start < end:
        data = await reader.read(start, end)
        yield data
        start += len(data)


async def _body(reader: Reader, start: int, end: int, fields: dict[str, str]) -> Response:
    """Answer with the bytes from ``start`` to ``end``, as they are or as an array."""
    json = durable.is_json(reader.info)
    if end - start <= _HELD:
        lines = b"".join([bytes(data) async for data in _slices(reader, start, end)])
        return answer(200, fields, durable.array(lines) if json else lines)
    fields["content-length"] = str(end - start + (1 if json else 0))
    body = _array(reader, start, end) if json else _slices(reader, start, end)
    return common(StreamedBody(body, headers=fields, release=reader.close))


async def _array(reader: Reader, start: int, end: int) -> AsyncGenerator[Buffer, None]:
    """Yield the array of the messages from ``start`` to ``end``: a byte more than they have. See `durable.array`."""
    yield b"["
    async for data in _slices(reader, start, end - 1):
        yield bytes(data).replace(b"\n", b",")
    yield b"]"


# -- events -----------------------------------------------------------------------------------------------------------


async def _events(
    service: StreamService, tails: SharedTails, reader: Reader, start: int | None, cursor: str | None
) -> Response:
    """Answer with events. When the stream is deleted they just end: who comes back learns of it.

    Raises:
        StreamFailed: the reader has all there is of a stream that broke. While it reads, the events are broken off.
    """
    info = await refreshed(reader) if start is None else reader.info
    begin = _kept(reader, info.tail if start is None else start)
    _check_whole(info, begin)
    await _check_between_messages(reader, begin)
    telling = EventTelling.of(info)
    fields = {
        "content-type": sse.MEDIA_TYPE,
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",  # nginx
        "incremental": "?1",  # RFC 10036
    }
    if telling.kind == "bytes":
        fields["stream-sse-data-encoding"] = "base64"
    mark = int(durable.cursor(service.now(), cursor))
    opening = telling.after(begin, info, mark) if begin == info.tail else b""
    if telling.is_end(begin, info):
        fields |= {"stream-closed": "true", "stream-up-to-date": "true"}
        reader.close()
        return answer(200, fields, opening)
    return common(SharedBody(tails, telling, reader, begin, fields, opening=opening, mark=mark))


# -- metadata ---------------------------------------------------------------------------------------------------------


def described(info: StreamInfo) -> Response:
    """Answer HEAD: all there is to know of a stream (section 5.5)."""
    fields = {
        "content-type": durable.media_type(info),
        "stream-next-offset": durable.offset(info.tail),
        "etag": durable.etag(info, 0, info.tail),
        "cache-control": "no-store",
    }
    if info.ttl is not None:
        fields["stream-ttl"] = str(int(info.ttl))
    if info.expires_at is not None:
        fields["stream-expires-at"] = durable.timestamp(info.expires_at)
    if info.complete:
        fields["stream-closed"] = "true"
    if info.failure is not None:  # fields that the other doors have for what the protocol does not know
        fields |= {name: value for name, value in state_fields(info).items() if name in _BROKEN}
    return answer(200, fields)
