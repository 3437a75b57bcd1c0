"""Request bodies of any size: read as fast as they come, and written in batches while the next one arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TypeVar

from starlette.requests import Request

from penstock.core.digests import Hasher
from penstock.model import Buffer
from penstock.toolkit.problems import RequestError, bad_request

C = TypeVar("C")

_SHARE = 64 * 1024 * 1024
"""Bytes of bodies in memory that all uploads of a process share; half of it waits, half of it is being written."""

_LEAST = 256 * 1024
_MOST = 4 * 1024 * 1024


class _Budget:
    """How much each of the uploads that are under way may hold: much for one, little for a hundred."""

    def __init__(self) -> None:
        self.uploads = 0

    def share(self) -> int:
        """Return how many bytes each of them may hold."""
        return max(_LEAST, min(_MOST, _SHARE // 2 // max(self.uploads, 1)))


budget = _Budget()


@asynccontextmanager
async def left_closed(chunks: AsyncIterator[C]) -> AsyncIterator[AsyncIterator[C]]:
    """Close ``chunks`` in the end, if it is a generator."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def pump(
    chunks: AsyncIterator[Buffer],
    write: Callable[[Sequence[Buffer]], Awaitable[None]],
    hasher: Hasher | None = None,
) -> int:
    """Write all that ``chunks`` yields, and return how many bytes that were.

    While a write runs, the next chunks are gathered; see `batches`. What either side raises is raised, once the other
    has ended; what arrived before is written.

    Args:
        chunks: the bytes.
        write: is given some buffers, in order.
        hasher: takes digests of the same bytes, at the same time.
    """
    total = 0
    async with aclosing(batches(chunks)) as gathered:
        async for batch in gathered:
            total += sum(map(len, batch))
            if hasher is None:
                await write(batch)
            else:  # side by side, in two threads
                await asyncio.gather(write(batch), hasher.update(batch))
    return total


async def batches(chunks: AsyncIterator[Buffer]) -> AsyncGenerator[list[Buffer], None]:
    """Yield the chunks that arrived since the last batch was taken, together.

    So a slow source's chunks are passed on as they trickle, and a fast one's in large batches. Their size is bounded,
    which holds the source back: uvicorn stops reading from the socket.
    """
    gathered = _Gathered()
    budget.uploads += 1
    reader = asyncio.create_task(gathered.fill(chunks))
    try:
        while batch := await gathered.take():
            yield batch
    finally:
        budget.uploads -= 1
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


class _Gathered:
    """The chunks between the reader of a body and its writer."""

    def __init__(self) -> None:
        self._chunks: list[Buffer] = []
        self._size = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    async def fill(self, chunks: AsyncIterator[Buffer]) -> None:
        try:
            async with left_closed(chunks):
                async for chunk in chunks:
                    if chunk:
                        self._chunks.append(chunk)
                        self._size += len(chunk)
                        self._changed.set()
                        while self._size >= budget.share():
                            self._changed.clear()
                            await self._changed.wait()
        except Exception as error:  # noqa: BLE001 - for the writer to raise, after what came before it
            self._error = error
        finally:
            self._ended = True
            self._changed.set()

    async def take(self) -> list[Buffer]:
        """Return what there is, waiting for the first of it; nothing at the end."""
        while not self._chunks and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        batch, self._chunks, self._size = self._chunks, [], 0
        self._changed.set()
        if not batch and self._error is not None:
            raise self._error
        return batch


def content_length(request: Request) -> int | None:
    """Return the declared length of the body in bytes, or None."""
    value = request.headers.get("content-length")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit():
        raise bad_request("Content-Length must be a number of bytes.")
    return int(value)


def limited(request: Request, max_size: int | None) -> AsyncGenerator[bytes, None]:
    """Return the body's chunks, bounded: a longer one is refused as soon as that is known.

    Raises:
        RequestError: ``too-large`` (413).
    """
    length = content_length(request)
    if max_size is not None and length is not None and length > max_size:
        raise too_large(max_size)
    return request.stream() if max_size is None else _bounded(request, max_size)


async def _bounded(request: Request, max_size: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > max_size:
                raise too_large(max_size)
            yield chunk


async def whole(request: Request, max_size: int) -> bytes:
    """Return the whole body, of at most ``max_size`` bytes."""
    return b"".join([chunk async for chunk in limited(request, max_size)])


def too_large(max_size: int) -> RequestError:
    """Return the error for a body that has more bytes than that."""
    return RequestError(
        "too-large", 413, f"The body is larger than {max_size} bytes, which is the most here.", max_size=max_size
    )
