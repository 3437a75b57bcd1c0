"""Records out by GET: followed as server-sent events or NDJSON, or polled."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from fastapi import Request
from fastapi.responses import Response

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.live.creation import EVENT_FIELD
from penstock.doors.live.positions import beginning
from penstock.doors.live.telling import FramedTelling
from penstock.doors.live.wishes import Wish
from penstock.doors.tails.body import SharedBody
from penstock.doors.tails.tail import SharedTails
from penstock.errors import OffsetOutOfRange, StreamFailed
from penstock.model import StreamInfo
from penstock.protocols import sse
from penstock.protocols.accept import preferred_type
from penstock.protocols.framings import EventFraming, Framing, NDJSONFraming, Runs, kind_of
from penstock.protocols.framings.ndjson import MEDIA_TYPE as NDJSON
from penstock.toolkit.responses.stream_fields import state_fields

_FORMATS: Final = (sse.MEDIA_TYPE, NDJSON, "application/ndjson", "application/jsonl")
_ENOUGH: Final = 1024 * 1024
"""Bytes after which the answer to a poll is full."""


async def read(tails: SharedTails, request: Request, name: str, wish: Wish, who: str | None) -> Response:
    """Answer a GET of ``who``, as far as the application told."""
    format_ = format_of(request)
    last_event_id = request.headers.get("last-event-id") or None
    reader = await tails.service.open(name)
    try:
        info = reader.info
        begin = await beginning(tails.service, reader, wish, last_event_id)
        if info.closed and last_event_id and begin == info.tail:
            reader.close()
            return Response(status_code=204, headers=state_fields(info))  # tells an EventSource to stop
        framing = framing_of(info, format_, wish)
        if wish.wait is not None:
            with reader:
                return await _poll(tails.service, reader, begin, framing, wish.wait)
        telling = FramedTelling(framing, kind_of(info.content_type))
        return SharedBody(tails, telling, reader, begin, _fields(framing, info), opening=framing.opening(), who=who)
    except OffsetOutOfRange:
        reader.close()
        if last_event_id is None and wish.offset == "first":  # what was the first a moment ago has been dropped
            return await read(tails, request, name, wish, who)
        raise
    except BaseException:
        reader.close()
        raise


def format_of(request: Request) -> str:
    """Return the media type that a reader wants: events, where it wants none that there is."""
    return preferred_type(", ".join(request.headers.getlist("accept")), _FORMATS)


def framing_of(info: StreamInfo, format_: str, wish: Wish) -> Framing:
    """Return how the stream is written for a reader."""
    kind = kind_of(info.content_type)
    if format_ != sse.MEDIA_TYPE:
        return NDJSONFraming(kind, wish.envelope)
    field = info.attributes.get(EVENT_FIELD) if wish.event is None else wish.event
    return EventFraming(kind, field or None)


def fields_of(media_type: str) -> dict[str, str]:
    """Return the fields of an answer that goes on."""
    return {
        "content-type": media_type,
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",  # nginx
        "incremental": "?1",  # RFC 10036
        "x-content-type-options": "nosniff",
        "vary": "accept",
    }


def _fields(framing: Framing, info: StreamInfo) -> dict[str, str]:
    return {**fields_of(framing.media_type), **state_fields(info)}


async def _poll(service: StreamService, reader: Reader, start: int, framing: Framing, wait: float) -> Response:
    """Answer with what there is from an offset on, waiting for the first of it.

    Raises:
        StreamFailed: the reader has all there is of a stream that broke.
    """
    runs = Runs(kind_of(reader.info.content_type), start)
    parts: list[bytes] = []
    size = 0
    try:
        async with aclosing(service.follow_reader(reader, start, idle=wait)) as chunks:
            async for chunk in chunks:
                if chunk is None:
                    break
                offset, run = runs.take(chunk.offset, bytes(chunk.data))
                if run:
                    parts.append(framing.frame(offset, run))
                    size += len(run)
                if size >= _ENOUGH or (parts and chunk.end >= reader.info.tail):
                    break
            else:
                offset, run = runs.rest()
                if run:
                    parts.append(framing.frame(offset, run))
    except StreamFailed:
        if not parts:
            raise
    fields = {**_fields(framing, reader.info), "stream-next-offset": str(runs.offset)}
    if not parts:
        del fields["content-type"]
        return Response(status_code=204, headers=fields)
    return Response(b"".join(parts), headers=fields)
