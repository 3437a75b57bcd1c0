"""Producing bytes in threads, a batch ahead of who sends them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from penstock.core.uninterrupted import uninterrupted
from penstock.model import Buffer

T = TypeVar("T")

THREADS = 16
"""How many pieces of blocking work are done at once, for all responses; more wait for their turn."""

BATCH = 512 * 1024
"""Bytes that one visit to a thread yields: so many that what it costs vanishes beside moving them. A response holds
two such batches, one on its way and one ahead."""

LEAST = 128 * 1024
"""Bytes that a visit yields for a slow client, so that many of them do not hold much memory."""

SLOW = 0.25
"""Seconds that a client takes for a batch from which on it is a slow one."""

_SMALL = 64 * 1024

# Of our own: in the default pool, reads from a slow disk would keep everything else of the application waiting.
_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="penstock-read")


def in_pool(function: Callable[..., T], *args: object) -> asyncio.Future[T]:
    """Start blocking work in one of the threads for it."""
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_pool, partial(context.run, function, *args))


async def read_ahead(pieces: Generator[Buffer, None, None]) -> AsyncGenerator[Buffer, None]:
    """Yield what a blocking generator yields; while one batch is being sent, the next is produced in a thread.

    No thread is kept while nothing is taken, so slow clients do not use the threads up. The generator may be resumed
    by another thread each time, and never by two at once. It is closed in a thread, whatever happens, and only once
    nothing runs in it any more: what it uses may be released then.
    """
    clock = asyncio.get_running_loop().time
    size = LEAST
    ahead = in_pool(_batch, pieces, size)
    try:
        while batch := await asyncio.shield(ahead):
            ahead = in_pool(_batch, pieces, size)
            begun = clock()
            for piece in batch:
                yield piece
            size = max(size // 2, LEAST) if clock() - begun > SLOW else min(size * 2, BATCH)
    finally:
        await uninterrupted(_end(ahead, pieces))


async def _end(ahead: asyncio.Future[list[Buffer]], pieces: Generator[Buffer, None, None]) -> None:
    with suppress(Exception):  # whoever awaited it heard of it, and nobody else wants it
        await ahead
    await in_pool(pieces.close)


def _batch(pieces: Generator[Buffer, None, None], size: int) -> list[Buffer]:
    """Return the next ``size`` bytes or a little more, small pieces joined; none at the end."""
    batch: list[Buffer] = []
    small: list[Buffer] = []
    for piece in pieces:
        size -= len(piece)
        if len(piece) < _SMALL:
            small.append(piece)
        else:
            if small:
                batch.append(b"".join(small))
                small = []
            batch.append(piece)
        if size <= 0:
            break
    if small:
        batch.append(b"".join(small))
    return batch
