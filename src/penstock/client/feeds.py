"""What the requests of an upload are made of: bytes from wherever the server says that it has come to."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final, Protocol

from penstock.client.ahead import PIECE, read_ahead
from penstock.client.errors import SourceChanged
from penstock.client.sources import Sliceable
from penstock.model import Buffer

HELD: Final = 8 * 1024 * 1024
"""Bytes of a source that cannot go back which are held until the server has them: a broken connection is no end."""

_LOOK: Final = 0.2
"""Seconds between two looks at a file that is growing."""


class Lost(Exception):
    """Bytes that the server wants again are not there any more. It stays within this package."""


class Feed(Protocol):
    """The bytes of one upload.

    Attributes:
        length: how many they are, once that is known.
    """

    length: int | None

    async def size(self, offset: int, most: int | None) -> int | None:
        """Wait until there is something to send, and return how many bytes the next request has.

        Args:
            offset: where they begin.
            most: the most of them, or None for any number.

        Returns:
            None if that shows at their end; 0 at the end of the feed, whose ``length`` is known then.
        """

    def body(self, offset: int, size: int | None, most: int | None) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes of a request.

        Raises:
            Lost: they are not there any more.
            SourceChanged: the source is not what it was.
        """


class SliceFeed:
    """A part of a source of known length, or all of it."""

    def __init__(self, source: Sliceable, start: int, stop: int) -> None:
        self._source = source
        self._start = start
        self.length: int | None = stop - start

    async def size(self, offset: int, most: int | None) -> int | None:
        """See `Feed`."""
        left = (self.length or 0) - offset
        return left if most is None else min(left, most)

    async def body(self, offset: int, size: int | None, most: int | None) -> AsyncGenerator[Buffer, None]:
        """See `Feed`."""
        start = self._start + offset
        async with aclosing(self._source.slice(start, start + (size or 0))) as pieces:
            async for piece in pieces:
                yield piece


class PassingFeed:
    """A source that gives its bytes once, as they come. The last ones are held until the server has them.

    Args:
        pieces: the bytes. Whoever made them closes them.
    """

    def __init__(self, pieces: AsyncGenerator[Buffer, None]) -> None:
        self._pieces = pieces
        self._held: deque[Buffer] = deque()
        self._start = 0  # the offset of the first byte held
        self._end = 0
        self.length: int | None = None

    async def size(self, offset: int, most: int | None) -> int | None:
        """See `Feed`. What the server had from the start is passed over."""
        while self._end < offset and await self._more():
            self._let_go(min(self._end, offset))
        if self._end < offset:
            raise SourceChanged("The source", offset, self._end)
        self._let_go(offset)
        if self._end == offset and self.length is None:
            await self._more()
        return 0 if self.length == offset else None

    async def body(self, offset: int, size: int | None, most: int | None) -> AsyncGenerator[Buffer, None]:
        """See `Feed`: a request ends when as much is held as may be."""
        self._let_go(offset)
        stop = offset + min(HELD, most or HELD)
        while offset < stop and (offset < self._end or await self._more()):
            piece = self._at(offset)
            piece = piece[: stop - offset]
            yield piece
            offset += len(piece)

    async def _more(self) -> bool:
        """Take the next piece from the source, and tell whether there was one."""
        if self.length is not None:
            return False
        piece = await anext(self._pieces, None)
        if piece is None:
            self.length = self._end
            return False
        self._held.append(memoryview(piece).cast("B"))
        self._end += len(piece)
        return True

    def _at(self, offset: int) -> Buffer:
        """Return what is held of one piece from an offset on."""
        start = self._start
        for piece in self._held:
            if offset < start + len(piece):
                return piece[offset - start :]
            start += len(piece)
        raise AssertionError("not held")

    def _let_go(self, offset: int) -> None:
        """Forget what the server has."""
        if not self._start <= offset <= self._end:
            raise Lost
        while self._held and self._start + len(self._held[0]) <= offset:
            self._start += len(self._held.popleft())


class GrowingFeed:
    """A file that is still being written, until somebody says that it is complete, or it is put away.

    Args:
        path: the file.
        ended: tells whether what is there is all that will come; it is asked again and again.
        idle: seconds without growth after which that is so, too; None for never.
    """

    def __init__(self, path: Path, ended: Callable[[], bool], idle: float | None) -> None:
        self._file = path.open("rb", buffering=0)
        self._path = path
        self._ended = ended
        self._idle = idle
        self.length: int | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def size(self, offset: int, most: int | None) -> int | None:
        """See `Feed`."""
        waited = 0.0
        while True:
            # Asked before the size is: what was there when it ended is part of it.
            over = self._ended() or self._put_away() or (self._idle is not None and waited >= self._idle)
            found = os.fstat(self._file.fileno()).st_size
            if found < offset:
                raise SourceChanged(str(self._path), offset, found)
            if found > offset:
                return found - offset if most is None else min(found - offset, most)
            if over:
                self.length = offset
                return 0
            await asyncio.sleep(_LOOK)
            waited += _LOOK

    async def body(self, offset: int, size: int | None, most: int | None) -> AsyncGenerator[Buffer, None]:
        """See `Feed`."""
        position, stop = offset, offset + (size or 0)

        def read() -> bytes | None:
            nonlocal position
            if position == stop:
                return None
            data = os.pread(self._file.fileno(), min(PIECE, stop - position), position)
            if not data:
                raise SourceChanged(str(self._path), stop, position)
            position += len(data)
            return data

        async with aclosing(read_ahead(read)) as pieces:
            async for piece in pieces:
                yield piece

    def _put_away(self) -> bool:
        """Tell whether the path leads elsewhere by now: so a log is put away, to which nothing is added then."""
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True
