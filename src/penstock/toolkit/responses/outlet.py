"""The bounded buffer between who produces a body and who sends it.

The producer appends small pieces, as they come; the sender takes all that is there at once. So pieces are sent together
when they come fast, and at once when they come slowly, and a slow client holds the producer back.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque

HIGH = 256 * 1024
"""Bytes that may wait; more hold the producer back."""

ENOUGH = 64 * 1024
"""Bytes that are sent without waiting for more."""


class Outlet:
    """The buffer. One sender, on the event loop; one producer, on the event loop or in a thread.

    Args:
        latency: seconds that the first piece may wait for others to be sent with it.
    """

    def __init__(self, latency: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._latency = latency
        # Pieces are appended at one end and taken at the other, each an atomic operation: no lock is needed.
        self._pieces: deque[bytes] = deque()
        # Each of these is written by one side only.
        self._produced = 0
        self._taken = 0
        self._taken_pieces = 0
        self._ended = False
        self._closed = False
        self._wanted = 0  # how many bytes the sender waits for
        self._attention = HIGH  # see `_look_out`
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room_for_thread = threading.Event()

    # -- for the producer -----------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether nobody takes anything any more, so that producing is in vain."""
        return self._closed

    def append(self, piece: bytes) -> bool:
        """Add a piece, and tell whether the producer has to wait for `room`, or is `closed`; on the event loop.

        One of these is there for every item, so it does as little as it can.
        """
        self._pieces.append(piece)
        self._produced += len(piece)
        return self._produced >= self._attention and self._attend()

    def _attend(self) -> bool:
        waiting = self._produced - self._taken
        if self._wanted and waiting >= self._wanted:
            self._wanted = 0
            self._arrived.set()
        self._look_out()
        return self._closed or waiting >= HIGH

    def _look_out(self) -> None:
        """Set from how many bytes on there is more to do than to append."""
        if self._closed:
            self._attention = 0
        else:
            self._attention = self._taken + (min(self._wanted, HIGH) if self._wanted else HIGH)

    async def room(self) -> None:
        """Wait until there is room."""
        while self._produced - self._taken >= HIGH and not self._closed:
            self._room.clear()
            await self._room.wait()

    def append_from_thread(self, piece: bytes) -> None:
        """Add a piece, waiting for room; in a thread."""
        self._pieces.append(piece)
        self._produced += len(piece)
        if self._wanted and self._produced - self._taken >= self._wanted:
            self._wanted = 0
            self._loop.call_soon_threadsafe(self._arrived.set)
        while self._produced - self._taken >= HIGH and not self._closed:
            self._room_for_thread.clear()
            if self._produced - self._taken < HIGH or self._closed:
                return
            self._room_for_thread.wait()

    def end(self) -> None:
        """Say that nothing more comes; on the event loop."""
        self._ended = True
        self._arrived.set()

    # -- for the sender -------------------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take now."""
        return not self._pieces

    @property
    def taken(self) -> tuple[int, int]:
        """How many pieces were taken, and how many bytes they had."""
        return self._taken_pieces, self._taken

    async def begun(self, timeout: float | None) -> None:
        """Wait for the first piece, or the end, or for ``timeout`` seconds."""
        await self._wait(1, timeout)

    async def is_all(self, size: int) -> bool:
        """Tell whether fewer than ``size`` bytes come in all, as far as that shows within the latency."""
        await self._wait(size, self._latency)
        return self._ended and self._produced - self._taken < size

    async def take(self, timeout: float | None = None) -> bytes | None:
        """Return all that is there, waiting for the first of it.

        Returns:
            the bytes; none after ``timeout`` seconds without any; None at the end.
        """
        await self._wait(1, timeout)
        if not self._pieces:
            return None if self._ended else b""
        if self._latency:
            await self._wait(ENOUGH, self._latency)
        return self._take()

    async def _wait(self, wanted: int, timeout: float | None) -> None:
        """Wait until so many bytes are there, or the end, or for ``timeout`` seconds."""
        self._arrived.clear()
        self._wanted = wanted
        self._look_out()
        # Looked at after the wish was noted: what comes before this line is seen here, what comes later wakes.
        if self._ended or self._produced - self._taken >= wanted:
            return
        timer = None if timeout is None else self._loop.call_later(timeout, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            self._wanted = 0
            if timer is not None:
                timer.cancel()

    def _take(self) -> bytes:
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        data = b"".join(pieces)
        self._taken_pieces += len(pieces)
        self._taken += len(data)
        self._look_out()
        self._room.set()
        self._room_for_thread.set()
        return data

    def close(self) -> None:
        """Say that nothing is taken any more."""
        self._closed = True
        self._look_out()
        self._room.set()
        self._room_for_thread.set()
