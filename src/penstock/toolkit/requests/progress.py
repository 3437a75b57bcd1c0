"""How far a body has come: told to a function, or to everybody who follows a stream."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from penstock.core.service import StreamService
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import PenstockError
from penstock.model import StreamSpec

__all__ = ["OnProgress", "Progress", "published_progress", "reported"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a body has come.

    Attributes:
        received: bytes so far, as they were sent (before a content coding is decoded).
        total: bytes that were announced (``Content-Length``), or None.
        state: ``receiving``; at the end, once, ``complete`` or ``failed``.
    """

    received: int
    total: int | None
    state: Literal["receiving", "complete", "failed"] = "receiving"


OnProgress: TypeAlias = Callable[[Progress], Awaitable[None] | None]
"""Is told of progress: a plain function, which must not block, or a coroutine function, for which reading waits."""


async def reported(
    chunks: AsyncGenerator[bytes, None], total: int | None, on_progress: OnProgress, every: float
) -> AsyncGenerator[bytes, None]:
    """Yield what ``chunks`` yields, and tell how far that is: at most once in ``every`` seconds, and at the end."""
    received = 0
    told = time.monotonic()
    state: Literal["complete", "failed"] = "failed"
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                received += len(chunk)
                if (now := time.monotonic()) - told >= every:
                    told = now
                    await _tell(on_progress, Progress(received, total))
                yield chunk
        state = "complete"
    finally:
        await uninterrupted(_tell(on_progress, Progress(received, total, state)))


async def _tell(on_progress: OnProgress, progress: Progress) -> None:
    result = on_progress(progress)
    if inspect.isawaitable(result):
        await result


def published_progress(streams: StreamService, name: str) -> OnProgress:
    """Return a function that appends progress to a stream, one JSON text a line, for everybody to follow.

    The stream is created, and closed at the end. Where it cannot be appended to, the upload goes on without.
    """

    async def publish(progress: Progress) -> None:
        line = json.dumps(asdict(progress), separators=(",", ":")).encode() + b"\n"
        spec = StreamSpec(content_type="application/x-ndjson")
        try:
            await streams.append(name, [line], create=spec, close=progress.state != "receiving")
        except PenstockError:
            return

    return publish
