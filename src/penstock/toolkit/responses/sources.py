"""What a response can read any range of: a local file, or anything else of known length."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from penstock.errors import StorageFailed
from penstock.model import Buffer
from penstock.toolkit.responses.ahead import SLOW, in_pool, read_ahead

PathLike: TypeAlias = str | os.PathLike[str]

SLICE = 128 * 1024
"""Bytes that are read at once at first, and for a slow client, of which there may be many."""

LARGEST = 512 * 1024
"""Bytes that are read at once for a client that takes them quickly. More would not stay in the processor's cache until
it is sent. (To map the file would save a sixth of the work. But one that is cut while it is mapped kills the process,
and whoever writes to the files that people serve knows nothing of that.)"""

_READ_AHEAD = 128 * 1024
"""Bytes that the system reads ahead of a file that is read in order."""

_STRETCH = 16 * 1024 * 1024
"""Bytes that are read by threads before it is tried again whether they are in memory."""

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)

_TICK = 20_000_000
"""Nanoseconds within which a file may change twice without its modification time telling so: the kernel's clock ticks
every 1 to 10 ms."""

_COARSE = 2_000_000_000
"""The same on file systems that keep whole seconds, or every other one."""


class RangeSource(Protocol):
    """Bytes that do not change while they are read, and of which any range can be read: an object in a bucket, say."""

    @property
    def length(self) -> int:
        """How many bytes there are."""

    @property
    def etag(self) -> str:
        """An entity tag with its quotation marks, that of other bytes is another: ``"v1"``, or ``W/"v1"``."""

    @property
    def last_modified(self) -> float | None:
        """When they were last modified, in Unix seconds, if that is known."""

    def read(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from offset ``start`` up to ``stop``: exactly those, or raise. It is closed after use."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one state of a file from another.

    Attributes:
        device: the file system.
        inode: the file: another one if it was replaced.
        size: its length in bytes.
        modified: when it was last written to, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Take it from what the system says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def settled(self) -> bool:
        """Whether a change from now on is sure to show: the file was not written to just now."""
        coarse = self.modified % 1_000_000_000 == 0
        return abs(time.time_ns() - self.modified) > (_COARSE if coarse else _TICK)


class LocalFile:
    """A regular file as it is at the moment when it is opened; see `RangeSource`.

    It may be replaced, deleted or appended to: what is read is what was there. If it is cut or overwritten, reading
    raises `StorageFailed`. (One that is overwritten and grows at once cannot be told from one that only grows.)

    Args:
        descriptor: open for reading; `close` closes it.
        name: what errors call it.
        identity: the state that is to be read, where it was looked at before; otherwise that at this moment.
    """

    def __init__(self, descriptor: int, name: str, identity: Identity | None = None) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "Not a regular file", name)
        self._descriptor = descriptor
        self._name = name
        self.mode = status.st_mode
        self.identity = Identity.of(status) if identity is None else identity
        self._settled = self.identity.settled()
        self._check()

    @classmethod
    def open(cls, path: PathLike, identity: Identity | None = None) -> Self:
        """Open a file; blocking.

        Raises:
            FileNotFoundError: there is no regular file.
        """
        # Without waiting: a named pipe would keep the thread until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            return cls(descriptor, os.fspath(path), identity)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def length(self) -> int:
        """See `RangeSource.length`."""
        return self.identity.size

    @property
    def etag(self) -> str:
        """See `RangeSource.etag`. A weak one just after the file was written to: it may be again within the tick."""
        identity = self.identity
        value = f'"{identity.inode:x}-{identity.size:x}-{identity.modified:x}"'
        return value if self._settled else f"W/{value}"

    @property
    def last_modified(self) -> float:
        """See `RangeSource.last_modified`."""
        return self.identity.modified / 1_000_000_000

    async def read(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """See `RangeSource.read`. What the system has in memory is copied from there at once; the rest by a thread."""
        clock = time.monotonic
        size = SLICE
        while start < stop:
            end = min(start + size, stop)
            if self._in_memory(start, end):
                data = self._read(start, end)
                start += len(data)
                begun = clock()
                yield data
                size = SLICE if clock() - begun > SLOW else LARGEST
                continue
            end = min(start + _STRETCH, stop)
            async with aclosing(read_ahead(self.slices(start, end))) as pieces:
                async for piece in pieces:
                    yield piece
            start = end

    def _in_memory(self, start: int, stop: int) -> bool:
        """Tell whether the system has the bytes in memory, as far as a byte of each of its usual read-aheads shows it.

        Then they are there without waiting for a disk. To ask for a byte costs half a microsecond; to have all of them
        read on that condition needs a buffer that is filled with zeros first, which costs half as much as reading.
        """
        if _NOWAIT is None:
            return False
        byte = bytearray(1)
        try:
            for offset in (*range(start, stop, _READ_AHEAD), stop - 1):
                os.preadv(self._descriptor, [byte], offset, _NOWAIT)
        except OSError:  # not in memory; or this file system cannot tell
            return False
        return True

    def _read(self, start: int, stop: int) -> bytes:
        data = os.pread(self._descriptor, stop - start, start)
        self._check()
        if not data:
            raise StorageFailed(f"The file {self._name!r} is shorter than it was.")
        return data

    def slices(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yield the bytes; blocking.

        Raises:
            StorageFailed: the file was cut or overwritten.
        """
        while start < stop:
            data = self._read(start, min(start + SLICE, stop))
            start += len(data)
            yield data

    def _check(self) -> None:
        """Look whether the bytes are still those that were there."""
        now = Identity.of(os.fstat(self._descriptor))
        then = self.identity
        if now == then:
            return
        if now.inode != then.inode or now.device != then.device:
            raise StorageFailed(f"The file {self._name!r} was replaced before it was read.")
        if now.size <= then.size:
            raise StorageFailed(f"The file {self._name!r} changed while it was read.")

    def close(self) -> None:
        """Close the descriptor. Nothing may be reading."""
        os.close(self._descriptor)


@asynccontextmanager
async def opened(path: PathLike) -> AsyncIterator[LocalFile]:
    """Open a file in a thread, and close it.

    Raises:
        FileNotFoundError: there is no regular file.
    """
    opening = in_pool(LocalFile.open, path)
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_at_once)
        raise
    try:
        yield file
    finally:
        file.close()


def _close_at_once(opening: asyncio.Future[LocalFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
