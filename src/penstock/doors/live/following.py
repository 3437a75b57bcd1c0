"""A stream in a framing: what a reader is sent from an offset on, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.live.signals import closing_of
from penstock.doors.tails.telling import Unfinished
from penstock.errors import OffsetOutOfRange, Stopping, StreamFailed, StreamGone
from penstock.model import Buffer
from penstock.protocols.framings import Ending, Framing, Runs, kind_of
from penstock.protocols.records import RecordTooLongError

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent; proxies commonly give up after 60."""


async def framed(
    service: StreamService,
    reader: Reader,
    start: int,
    framing: Framing,
    heartbeat: float = HEARTBEAT,
    *,
    ended: Callable[[Ending], None] = lambda _: None,
) -> AsyncGenerator[Buffer, None]:
    """Yield a stream from offset ``start`` on in a framing, in buffers that hold whole records.

    The end of the stream is told too, so that no reader takes a cut line for it. A server that stops just ends; the
    reader comes back.

    Args:
        service: the streams.
        reader: the stream, opened. It is not closed here.
        start: the offset to begin at, where a record begins.
        framing: how it is written.
        heartbeat: seconds of silence after which a sign of life is sent.
        ended: is told how the stream ended for this reader, before that is sent; nothing where the server stops.

    Raises:
        Unfinished: after the last buffer, where the framing is to be broken off for an end that is not a good one.
    """
    yield framing.opening()
    runs = Runs(kind_of(reader.info.content_type), start)
    try:
        async with aclosing(service.follow_reader(reader, start, idle=heartbeat)) as chunks:
            async for chunk in chunks:
                if chunk is None:
                    yield framing.heartbeat()
                    continue
                offset, run = runs.take(chunk.offset, bytes(chunk.data))
                if run:
                    yield framing.frame(offset, run)
        offset, run = runs.rest()
        if run:
            yield framing.frame(offset, run)
    except Stopping:
        yield framing.farewell()
    except (OffsetOutOfRange, StreamFailed, StreamGone, RecordTooLongError) as error:
        ending = ending_of(error)
        ended(ending)
        yield framing.end(ending)
    else:
        ending = closing_of(reader.info)
        ended(ending)
        yield framing.end(ending)
        return
    if framing.breaks_off:
        raise Unfinished("the stream had not come to its end")


def ending_of(error: Exception) -> Ending:
    """Return how a stream ended for its reader."""
    if isinstance(error, StreamFailed):
        return Ending("failed", error.tail, error.reason)
    if isinstance(error, StreamGone):
        return Ending("gone", None, str(error))
    if isinstance(error, OffsetOutOfRange):
        return Ending("open", None, str(error), (("start", error.start),))
    return Ending("open", None, str(error))
