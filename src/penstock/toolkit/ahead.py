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

BATCH = 1024 * 1024
"""Bytes that one visit to a thread yields. From 1 MiB on, what the visit costs vanishes beside moving the bytes."""

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
    ahead = in_pool(_batch, pieces)
    try:
        while batch := await asyncio.shield(ahead):
            ahead = in_pool(_batch, pieces)
            for piece in batch:
                yield piece
    finally:
        await uninterrupted(_end(ahead, pieces))


async def _end(ahead: asyncio.Future[list[Buffer]], pieces: Generator[Buffer, None, None]) -> None:
    with suppress(Exception):  # whoever awaited it heard of it, and nobody else wants it
        await ahead
    await in_pool(pieces.close)


def _batch(pieces: Generator[Buffer, None, None]) -> list[Buffer]:
    """Return the next pieces; the small ones joined; none at the end."""
    batch: list[Buffer] = []
    small: list[Buffer] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if len(piece) < _SMALL:
            small.append(piece)
        else:
            if small:
                batch.append(b"".join(small))
                small = []
            batch.append(piece)
        if size >= BATCH:
            break
    if small:
        batch.append(b"".join(small))
    return batch
