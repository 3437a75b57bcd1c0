"""What can be uploaded: a path, bytes, a binary file, or an iterator of bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from io import FileIO
from pathlib import Path
from typing import Protocol, TypeAlias, cast, runtime_checkable

import anyio.to_thread

from penstock.client.ahead import PIECE, read_ahead
from penstock.client.errors import SourceChanged
from penstock.model import Buffer


class Digest(Protocol):
    """A hash that is being computed, as `hashlib` makes it."""

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""


@runtime_checkable
class BinaryReader(Protocol):
    """A file open for reading in binary mode, or anything like it."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""


SourceLike: TypeAlias = "str | os.PathLike[str] | Buffer | BinaryReader | AsyncIterable[Buffer] | Iterable[Buffer]"
"""A path, bytes, a binary file, or an iterator of bytes, sync (used in a thread) or async."""


class Source(Protocol):
    """Bytes to be sent, perhaps more than once.

    Attributes:
        length: how many there are, or None if that shows only at the end.
    """

    length: int | None

    def rewind(self) -> bool:
        """Make ready to give all the bytes again; False if some are lost."""

    def pieces(self, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes, having put them into ``digest``."""


class Sliceable(Protocol):
    """A source of known length that can give any part of it, at any time.

    Attributes:
        length: how many bytes there are.
        shared: whether it can give several parts at once.
    """

    length: int | None
    shared: bool

    def slice(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from offset ``start`` up to ``stop``.

        Raises:
            SourceChanged: from the generator: there are fewer by now.
        """


def source_of(source: SourceLike) -> Source:
    """Return what to send for anything that can be uploaded.

    Raises:
        TypeError: it cannot be.
        OSError: there is no such file.
    """
    if isinstance(source, str | os.PathLike):
        return PathSource(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesSource(source)
    if isinstance(source, BinaryReader):
        return FileSource(source)
    if isinstance(source, AsyncIterable):
        return AsyncSource(source)
    if isinstance(source, Iterable):
        return IteratorSource(source)
    raise TypeError(f"cannot upload {type(source).__name__}: give a path, bytes, a binary file or an iterator of bytes")


def sliceable(source: Source) -> Sliceable | None:
    """Return the source as one that can give any part of it, or None if it cannot."""
    match source:
        case BytesSource():
            return source
        case PathSource():
            return source if source.regular else None
        case FileSource():
            return source if source.seekable else None
        case _:
            return None


class PathSource:
    """A file by its path.

    Attributes:
        path: the path.
        regular: whether it is a plain file, and not a pipe or a device.
    """

    shared = True

    def __init__(self, path: Path) -> None:
        self.path = path
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        self.regular = stat.S_ISREG(state.st_mode)
        self.length = state.st_size if self.regular else None

    def rewind(self) -> bool:
        """See `Source`."""
        return self.regular

    async def pieces(self, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        """See `Source`."""
        async with aclosing(self._from(0, self.length, digest)) as pieces:
            async for piece in pieces:
                yield piece

    async def slice(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """See `Sliceable`; only of a regular file."""
        async with aclosing(self._from(start, stop - start, None)) as pieces:
            async for piece in pieces:
                yield piece

    async def _from(self, start: int, size: int | None, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        opened: list[FileIO] = []

        def read(size: int) -> bytes:
            if not opened:  # here, in the thread: there is no moment in which a cancellation could leave it open
                opened.append(self.path.open("rb", buffering=0))
                opened[0].seek(start)
            return opened[0].read(size)

        try:
            limited = _limited(_reading(read), size, str(self.path), start)
            async with aclosing(_pieces(limited, digest)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            for file in opened:
                file.close()


class BytesSource:
    """Bytes in memory."""

    shared = True

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data).cast("B")
        self.length: int | None = len(self._view)

    def rewind(self) -> bool:
        """See `Source`."""
        return True

    async def pieces(self, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        """See `Source`."""
        slices = (self._view[start : start + PIECE] for start in range(0, len(self._view), PIECE))
        async with aclosing(_pieces(_nexts(slices), digest)) as pieces:
            async for piece in pieces:
                yield piece

    async def slice(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """See `Sliceable`."""
        for begin in range(start, stop, PIECE):
            yield self._view[begin : min(begin + PIECE, stop)]


class FileSource:
    """A file that somebody else has opened, from where it stands."""

    shared = False

    def __init__(self, file: BinaryReader) -> None:
        self._file = file
        self._start = self.length = None
        self._touched = False
        with suppress(OSError, AttributeError, ValueError):
            seekable = cast("Seekable", file)
            start = seekable.tell()
            self.length = seekable.seek(0, os.SEEK_END) - start
            self._start = seekable.seek(start)

    _start: int | None
    length: int | None

    @property
    def seekable(self) -> bool:
        """Whether any part of it can be read."""
        return self._start is not None

    def rewind(self) -> bool:
        """See `Source`."""
        if not self._touched:
            return True
        if self._start is None:
            return False
        cast("Seekable", self._file).seek(self._start)
        return True

    async def pieces(self, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        """See `Source`."""
        self._touched = True
        # A buffered reader's read() waits for as much as was asked for, its read1() gives what is there: what comes
        # through a pipe goes on as it comes.
        read = getattr(self._file, "read1", self._file.read) if self.length is None else self._file.read
        limited = _limited(_reading(read), self.length, str(getattr(self._file, "name", "The file")))
        async with aclosing(_pieces(limited, digest, abandon=True)) as pieces:
            async for piece in pieces:
                yield piece

    async def slice(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """See `Sliceable`; only where it is seekable, and one at a time."""
        self._touched = True
        position = (self._start or 0) + start

        def read(size: int) -> bytes:
            nonlocal position
            cast("Seekable", self._file).seek(position)
            data = self._file.read(min(size, (self._start or 0) + stop - position))
            position += len(data)
            return data

        limited = _limited(_reading(read), stop - start, str(getattr(self._file, "name", "The file")), start)
        async with aclosing(_pieces(limited, None)) as pieces:
            async for piece in pieces:
                yield piece


class IteratorSource:
    """An iterable of bytes, whose iterator is run in threads."""

    length: int | None = None

    def __init__(self, iterable: Iterable[Buffer]) -> None:
        self._iterable = iterable
        self._touched = False

    def rewind(self) -> bool:
        """See `Source`: an iterable that is not its own iterator (a list, say) can begin again."""
        return not self._touched or not isinstance(self._iterable, Iterator)

    async def pieces(self, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        """See `Source`."""
        self._touched = True
        async with aclosing(_pieces(_nexts(self._iterable), digest, abandon=True)) as pieces:
            async for piece in pieces:
                yield piece


class AsyncSource:
    """An async iterable of bytes."""

    length: int | None = None

    def __init__(self, iterable: AsyncIterable[Buffer]) -> None:
        self._iterable = iterable
        self._touched = False

    def rewind(self) -> bool:
        """See `Source`."""
        return not self._touched or not isinstance(self._iterable, AsyncIterator)

    async def pieces(self, digest: Digest | None) -> AsyncGenerator[Buffer, None]:
        """See `Source`."""
        self._touched = True
        async for item in self._iterable:
            piece = _bytes(item)
            if digest is not None and len(piece) >= PIECE // 16:
                await anyio.to_thread.run_sync(digest.update, piece)
            elif digest is not None:
                digest.update(piece)
            if piece:
                yield piece


class Seekable(Protocol):
    """What of a file lets it be sent again."""

    def tell(self) -> int:
        """Return the position."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Go to a position, and return it."""


Read: TypeAlias = Callable[[], Buffer | None]


async def _pieces(read: Read, digest: Digest | None, *, abandon: bool = False) -> AsyncGenerator[Buffer, None]:
    pieces: AsyncGenerator[Buffer, None] = read_ahead(_hashing(read, digest), abandon=abandon)
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


def _reading(read: Callable[[int], bytes | None]) -> Read:
    return lambda: read(PIECE) or None


def _nexts(iterable: Iterable[Buffer]) -> Read:
    iterator = iter(iterable)

    def read() -> Buffer | None:
        for item in iterator:
            if piece := _bytes(item):
                return piece
        return None

    return read


def _bytes(item: object) -> Buffer:
    if not isinstance(item, bytes | bytearray | memoryview):
        raise TypeError(f"an upload consists of bytes, and the iterator gave {type(item).__name__}")
    return item


def _limited(read: Read, length: int | None, what: str, start: int = 0) -> Read:
    """Read as many bytes as there were at first: the length is announced, and a file may change meanwhile."""
    if length is None:
        return read
    left = length

    def limited() -> Buffer | None:
        nonlocal left
        if not left:
            return None
        piece = read()
        if piece is None:
            raise SourceChanged(what, start + length, start + length - left)
        piece = piece[:left]
        left -= len(piece)
        return piece

    return limited


def _hashing(read: Read, digest: Digest | None) -> Read:
    if digest is None:
        return read

    def hashing() -> Buffer | None:
        piece = read()
        if piece is not None:
            digest.update(piece)
        return piece

    return hashing
