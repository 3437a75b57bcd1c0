"""A stream as the protocol's events: what came, then where that leaves the reader (PROTOCOL.md section 5.8)."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.errors import Stopping, StreamGone
from penstock.model import Buffer, Chunk, StreamInfo
from penstock.protocols import durable, sse


async def events(
    service: StreamService, reader: Reader, start: int, cursor: str | None, *, lifetime: float, heartbeat: float
) -> AsyncGenerator[Buffer, None]:
    """Yield a stream from offset ``start`` on as events, each one of data with its control event in one buffer.

    It ends when the stream is closed, and all has been told; and after about ``lifetime`` seconds, when the reader has
    to come back. When the stream is deleted it just ends: who comes back learns of it.

    Args:
        service: the streams.
        reader: the stream.
        start: where to begin.
        cursor: the reader's last cursor, or None.
        lifetime: seconds.
        heartbeat: seconds of silence after which a control event says that there is still nothing new.

    Raises:
        StreamFailed: the stream broke: the events are broken off, and who comes back is told so.
    """
    framing = _framing(reader.info, start)
    clock = asyncio.get_running_loop()
    until = clock.time() + lifetime
    told = durable.cursor(service.now(), cursor)

    def control(at: int, info: StreamInfo) -> bytes:
        nonlocal told
        told = max(told, durable.cursor(service.now()), key=int)
        caught_up = at == info.tail
        whole = info.failure is None
        return durable.control_event(
            at, told, up_to_date=caught_up and whole, closed=caught_up and info.closed and whole
        )

    info = reader.info
    if start == info.tail:
        yield control(start, info)
        if info.closed:
            return
    try:
        async with aclosing(service.follow_reader(reader, start, idle=heartbeat)) as chunks:
            async for chunk in chunks:
                info = reader.info
                if chunk is None:
                    await service.renew(info)
                    yield control(framing.offset, info)
                else:
                    payload = framing.event(chunk, last=info.closed and chunk.end == info.tail)
                    if payload:
                        yield payload + control(framing.offset, info)
                    if info.complete and framing.offset == info.tail:
                        return
                if clock.time() >= until:
                    return
        yield control(reader.info.tail, reader.info)
    except Stopping:
        yield sse.comment("the server is stopping: come back in a moment")
    except StreamGone:
        return


class _Framing(Protocol):
    """Turns chunks into events of data, each of whole messages or characters; ``offset`` is where the last ended."""

    offset: int

    def event(self, chunk: Chunk, *, last: bool) -> bytes: ...


def _framing(info: StreamInfo, start: int) -> _Framing:
    if durable.is_json(info):
        return _Messages(start)
    return _Text(start) if durable.is_text(info) else _Bytes(start)


class _Bytes:
    def __init__(self, start: int) -> None:
        self.offset = start

    def event(self, chunk: Chunk, *, last: bool) -> bytes:
        self.offset = chunk.end
        return durable.base64_event(bytes(chunk.data))


class _Messages:
    """JSON: an event is an array of whole messages. A chunk may end within one that is long."""

    def __init__(self, start: int) -> None:
        self.offset = start
        self._next = start
        self._parts: list[bytes] = []

    def event(self, chunk: Chunk, *, last: bool) -> bytes:
        data = bytes(chunk.data)
        if chunk.offset != self._next:  # what is dropped of a compacted stream is left out
            self._parts.clear()
        self._next = chunk.end
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._parts.append(data)
            return b""
        lines = b"".join((*self._parts, data[:cut]))
        self._parts = [data[cut:]] if cut < len(data) else []
        self.offset = chunk.offset + cut
        return durable.data_event(durable.array(lines))


class _Text:
    """Text: an event is whole characters. A chunk may end within one."""

    def __init__(self, start: int) -> None:
        self.offset = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def event(self, chunk: Chunk, *, last: bool) -> bytes:
        text = self._decoder.decode(bytes(chunk.data), final=last)
        held, _ = self._decoder.getstate()
        self.offset = chunk.end - len(held)
        return durable.data_event(text.encode()) if text else b""
