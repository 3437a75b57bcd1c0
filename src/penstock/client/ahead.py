"""Blocking work beside the network: the next piece is read, or the last one written, while another one travels.

Files and hashes would hold up the event loop, so they are worked on in threads, in pieces big enough that the way to
the thread and back costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

PIECE: Final = 1024 * 1024
"""Bytes that one trip to a thread is worth."""

_MOST_HELD: Final = 4 * PIECE


async def read_ahead(read: Callable[[], T | None], *, abandon: bool = False) -> AsyncGenerator[T, None]:
    """Yield what ``read`` returns in a thread until it returns None, always one call ahead.

    Close the generator: only then has the last call ended, so that what it reads from may be closed.

    Args:
        read: what to call.
        abandon: whether a call may be left behind at the end. Right where it may wait for ever, as at a terminal.
    """

    def begin() -> asyncio.Task[T | None]:
        return asyncio.create_task(_in_thread(read, abandon=abandon))

    ahead = begin()
    try:
        while (item := await ahead) is not None:
            ahead = begin()
            yield item
    finally:
        if abandon:
            ahead.cancel()
        await settled(ahead)


async def _in_thread(work: Callable[[], T], *, abandon: bool) -> T:
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon)


class WriteBehind:
    """Writes in a thread what is added, in order, while more is being added.

    What arrives while a write is under way is written in one go afterwards. Not more than a few MiB are ever held: then
    `add` waits, which slows down the sender.

    Args:
        write: takes the pieces, in the thread.
        at_least: bytes that must have come together before they are written; 1 writes each piece at once.
        abandon: whether a write may be left behind on cancellation. Right for a pipe, whose reader may never come back,
            and wrong for a file that is closed afterwards.
    """

    def __init__(self, write: Callable[[list[bytes]], None], *, at_least: int = PIECE, abandon: bool = False) -> None:
        self._write = write
        self._at_least = at_least
        self._abandon = abandon
        self._held: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None
        self._broken = False  # a write failed: what comes after it must not be written, as if nothing were missing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.flush()
        elif not self._abandon:
            # What arrived before the trouble is worth keeping: it need not be sent again.
            with anyio.CancelScope(shield=True), suppress(OSError):
                await self.flush()
        elif self._writing is not None:
            self._writing.cancel()
            await settled(self._writing)

    async def add(self, piece: bytes) -> None:
        """Take the next bytes; raises what an earlier write raised."""
        self._held.append(piece)
        self._size += len(piece)
        if self._writing is not None and (self._writing.done() or self._size >= _MOST_HELD):
            await self._written()
        if self._writing is None and self._size >= self._at_least:
            self._writing = asyncio.create_task(self._work())

    async def flush(self) -> None:
        """Wait until everything is written."""
        while (self._held and not self._broken) or self._writing is not None:
            if self._writing is None:
                self._writing = asyncio.create_task(self._work())
            await self._written()

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                self._writing = writing
                raise

    async def _work(self) -> None:
        while self._held:
            pieces, self._held, self._size = self._held, [], 0
            try:
                await anyio.to_thread.run_sync(self._write, pieces, abandon_on_cancel=self._abandon)
            except BaseException:
                self._broken = True
                raise
            if self._size < self._at_least:
                return


async def settled(task: asyncio.Task[T]) -> None:
    """Wait for the end of a task, good or bad, even while this one is being cancelled."""
    with anyio.CancelScope(shield=True):
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it
