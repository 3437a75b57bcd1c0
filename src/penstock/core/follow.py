"""Following a stream: reading on past its tail as bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

from penstock.core.ports import Notifier, Reader, RecallingReader
from penstock.errors import OffsetOutOfRange, Stopping, StreamFailed, StreamGone
from penstock.model import COMPACTED, Chunk, StreamInfo

RECHECK = 5.0
"""Seconds after which a follower looks again, hint or not: a lost hint costs this much latency, and no data."""

Settle: TypeAlias = Callable[[StreamInfo], Awaitable[bool]]
"""Is given a state that was just looked at. It tells whether it has changed it, so that another look is due."""


async def follow(
    reader: Reader,
    notifier: Notifier,
    start: int,
    *,
    stopping: Callable[[], bool],
    idle: float | None = None,
    settle: Settle | None = None,
) -> AsyncGenerator[Chunk | None, None]:
    """Yield a stream's bytes from ``start`` on, until it is closed.

    The order is what makes it whole: the watch is registered, then the state is read, then it waits. A change between
    two of these is seen by the later one.

    Args:
        reader: the stream, opened. It is not closed here.
        notifier: who knows of changes.
        start: the offset to begin at.
        stopping: whether the service is shutting down.
        idle: yield None whenever nothing came for about this many seconds.
        settle: see `Settle`.

    Raises:
        OffsetOutOfRange: what comes next was dropped meanwhile. Of a stream that is compacted that is no loss: there it
            goes on where the stream begins now, and the next chunk's offset is not the last one's end.
        StreamFailed: after the last bytes of a stream that broke.
        StreamGone: the stream was deleted or replaced.
        Stopping: the service is shutting down.
    """
    name = reader.info.name
    watch = notifier.watch(name)
    offset = start
    quiet = 0.0
    recall = reader.recall if isinstance(reader, RecallingReader) else None
    near = False  # whether this process made all the changes since the last look
    try:
        while True:
            watch.clear()
            recalled = recall(offset) if near and recall is not None else None
            if recalled is not None:
                info, data = recalled
                if data:
                    yield Chunk(offset, data)
                    offset += len(data)
                    quiet = 0.0
            else:
                info = await refreshed(reader, settle)
            while offset < info.tail:
                try:
                    data = await reader.read(offset, info.tail)
                except OffsetOutOfRange as error:
                    if COMPACTED not in info.attributes:
                        raise
                    offset = error.start  # what counts of all before it comes later
                    info = await refreshed(reader)
                    continue
                yield Chunk(offset, data)
                offset += len(data)
                quiet = 0.0
            if info.failure is not None:
                raise StreamFailed(name, info.tail, info.failure)
            if info.closed:
                return
            if stopping():
                raise Stopping
            pause = RECHECK if idle is None else min(RECHECK, idle - quiet)
            near = await watch.wait(pause)
            if idle is not None:
                quiet += pause
                if quiet >= idle:
                    quiet = 0.0
                    yield None
    finally:
        watch.close()


async def until_grown(
    reader: Reader,
    notifier: Notifier,
    offset: int,
    timeout: float,
    *,
    stopping: Callable[[], bool],
    settle: Settle | None = None,
) -> StreamInfo:
    """Return the state of a stream once it has more than ``offset`` bytes, or is closed, or time is up, or we stop.

    Raises:
        StreamGone: the stream was deleted or replaced.
    """
    clock = asyncio.get_running_loop()
    until = clock.time() + timeout
    watch = notifier.watch(reader.info.name)
    try:
        while True:
            watch.clear()
            info = await refreshed(reader, settle)
            left = until - clock.time()
            if info.tail > offset or info.closed or left <= 0 or stopping():
                return info
            await watch.wait(min(RECHECK, left))
    finally:
        watch.close()


async def refreshed(reader: Reader, settle: Settle | None = None) -> StreamInfo:
    """Look at a stream again, and return its state.

    Raises:
        StreamGone: it was deleted, also if its bytes are kept for forks.
    """
    info = await reader.refresh()
    if settle is not None and await settle(info):
        info = await reader.refresh()
    if info.deleted:
        raise StreamGone(info.name, info.incarnation)
    return info
