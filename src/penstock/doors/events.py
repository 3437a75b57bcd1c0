"""A stream as server-sent events: which events there are, and how it ends."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.errors import Stopping, StreamFailed, StreamGone
from penstock.model import Buffer, Chunk
from penstock.protocols import sse
from penstock.protocols.records import LineSplitter, RecordTooLongError, has_records

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent; proxies commonly give up after 60."""

RETRY = 1000
"""Milliseconds after which a reader that was cut comes back."""

MAX_RECORD = 16 * 1024 * 1024
"""The most bytes of a record: a reader holds one that has not ended yet."""


async def events(
    service: StreamService, reader: Reader, start: int, heartbeat: float = HEARTBEAT
) -> AsyncGenerator[Buffer, None]:
    """Yield a stream from offset ``start`` on as server-sent events, in buffers that hold whole events.

    The end of the stream is an event too, so that no reader takes a cut line for it: ``end``, or ``error`` with what
    happened. A server that stops just ends; the reader comes back.
    """
    yield sse.encode(retry=RETRY)
    encode = _records(start) if has_records(reader.info.content_type) else _bytes
    try:
        async with aclosing(service.follow_reader(reader, start, idle=heartbeat)) as chunks:
            async for chunk in chunks:
                if chunk is None:
                    yield sse.comment()
                elif framed := encode(chunk):
                    yield framed
        if rest := encode(None):
            yield rest
        yield _last("end", {"state": "closed", "offset": reader.info.tail})
    except StreamFailed as error:
        yield _last("error", {"state": "failed", "offset": error.tail, "reason": error.reason})
    except StreamGone as error:
        yield _last("error", {"state": "gone", "reason": str(error)})
    except RecordTooLongError as error:
        yield _last("error", {"state": "open", "reason": str(error)})
    except Stopping:
        yield sse.comment("the server is stopping: come back in a moment")


def _records(start: int) -> Callable[[Chunk | None], bytes]:
    """Return what turns chunks into an event a record, with the offset after it as the id."""
    splitter = LineSplitter(MAX_RECORD, start)

    def encode(chunk: Chunk | None) -> bytes:
        if chunk is None:  # the end: a last line without a newline is a record too
            rest = splitter.pending
            return _event(splitter.offset + len(rest), rest) if rest else b""
        return b"".join([_event(offset, record) for offset, record in splitter.numbered(bytes(chunk.data))])

    return encode


def _event(offset: int, record: bytes) -> bytes:
    if b"\r" not in record:
        return sse.event(offset, record)
    # A carriage return ends a line of the event stream: one that belongs to the record's line end goes, any other one
    # is read back as a line feed.
    return sse.encode(record.removesuffix(b"\r"), id=offset)


def _bytes(chunk: Chunk | None) -> bytes:
    """Return the event of a chunk of a stream without records."""
    return b"" if chunk is None else sse.encode(b64encode(chunk.data), event="bytes", id=chunk.end)


def _last(kind: str, state: dict[str, object]) -> bytes:
    offset = state.get("offset")
    return sse.encode(json.dumps(state), event=kind, id=offset if isinstance(offset, int) else None)
