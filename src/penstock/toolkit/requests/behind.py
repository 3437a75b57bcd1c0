"""Work on bytes in a thread, behind their reader: hashing them, writing them to a file."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from penstock.core.uninterrupted import uninterrupted
from penstock.model import Buffer

__all__ = ["Behind", "keep_freed_memory"]

_BATCH: Final = 512 * 1024
"""Bytes that the work is given at once, about: what still is in a processor's cache since it arrived."""

_TURN: Final = 32 * 1024 * 1024
"""Bytes after which a thread is handed back, for others that wait for one."""


class Behind:
    """Hands bytes to a function that runs in a thread, in order, while the next ones arrive.

    The thread is one of the event loop's own pool. It is asked for once enough has gathered to be worth its while, and
    held while there is more: for many batches of a fast source, so that all that the event loop does is to hand over.

    Args:
        work: is given some buffers, in order, never two calls at once. What it raises ends it, and is raised to whoever
            hands over more or waits for the end.
        most: tells how many bytes may be under way, at the moment.
    """

    def __init__(self, work: Callable[[list[Buffer]], None], most: Callable[[], int]) -> None:
        self._work = work
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[Buffer] = []
        self._gathered = 0  # their size
        self._size = 0  # of what was handed over and is not done
        self._busy = False
        self._running: asyncio.Future[None] | None = None
        self._room: asyncio.Event | None = None  # what a reader waits for
        self._bound = 0  # the size at which there is room again
        self._error: Exception | None = None

    async def put(self, buffers: Sequence[Buffer]) -> None:
        """Hand over some buffers, which must not change from now on. Wait only while too many are under way."""
        self._check()
        most = self._most()
        size = sum(map(len, buffers))
        with self._lock:
            self._waiting += buffers
            self._gathered += size
            self._size += size
            full = self._size >= most
            begin = not self._busy and self._gathered >= min(_BATCH, most // 2)
            self._busy = self._busy or begin
        if begin:
            self._begin(asyncio.get_running_loop())
        if full:
            await self._wait_for_room(most // 2)
            self._check()

    async def flush(self) -> None:
        """Wait until all is done."""
        with self._lock:
            begin = not self._busy and bool(self._waiting)
            self._busy = self._busy or begin
        if begin:
            self._begin(asyncio.get_running_loop())
        while (running := self._running) is not None:
            await uninterrupted(running)
            if self._running is running:
                self._running = None
        self._check()

    async def stop(self) -> None:
        """Let go of what has not begun, and wait for what has."""
        with self._lock:
            self._waiting, self._gathered = [], 0
        with suppress(Exception):
            await self.flush()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait_for_room(self, bound: int) -> None:
        room = asyncio.Event()
        with self._lock:
            if self._size <= bound:
                return
            self._room, self._bound = room, bound
        await room.wait()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running = loop.run_in_executor(None, self._drain, loop)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        done = 0
        try:
            while batch := self._take():
                self._work(batch)
                size = sum(map(len, batch))
                self._done(size, loop)
                done += size
                if done >= _TURN:
                    loop.call_soon_threadsafe(self._begin, loop)
                    return
        except Exception as error:  # noqa: BLE001 - for who hands over the next ones
            with self._lock:
                self._error, self._busy, self._waiting, self._gathered = error, False, [], 0
            self._done(self._size, loop)

    def _take(self) -> list[Buffer]:
        with self._lock:
            count = size = 0
            while count < len(self._waiting) and size < _BATCH:
                size += len(self._waiting[count])
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            self._gathered -= size
            self._busy = bool(batch)  # here, so that whoever hands over the next ones begins anew
            return batch

    def _done(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._size -= size
            room = self._room
            if room is None or self._size > self._bound:
                return
            self._room = None
        loop.call_soon_threadsafe(room.set)


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep some megabytes of freed memory for the buffers of bodies, once for the whole process.

    A body passes through buffers of hundreds of kilobytes, each freed within a moment. As it comes, glibc returns each
    to the system and asks for the next one: to have its pages zeroed again and again takes longer than to receive what
    goes into them. Freeing one large block teaches it to keep up to twice that size ("dynamic mmap threshold",
    mallopt(3)). The block's pages are never touched, so it costs nothing. Other C libraries do not care.
    """
    bytes(16 * 1024 * 1024)
