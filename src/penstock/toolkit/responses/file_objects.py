"""File objects as what a response sends: in large pieces, not in lines."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncGenerator, Generator
from typing import IO, Any, Protocol, TypeAlias

PIECE = 256 * 1024
"""Bytes, or characters, that are read at once."""


class AsyncFile(Protocol):
    """A file that is read with ``await``, as those of anyio and aiofiles."""

    async def read(self, size: int = -1, /) -> Any:
        """Read up to ``size`` bytes or characters; nothing at the end."""


FileObject: TypeAlias = IO[bytes] | IO[str] | AsyncFile


def is_file_object(content: object) -> bool:
    """Tell whether something is read rather than iterated."""
    return isinstance(content, io.IOBase) or callable(getattr(content, "read", None))


def pieces_of(file: Any) -> Generator[Any, None, None] | AsyncGenerator[Any, None]:
    """Return what yields a file from where it stands to its end, and closes it."""
    return _awaited(file) if inspect.iscoroutinefunction(file.read) else _read(file)


def _read(file: Any) -> Generator[Any, None, None]:
    try:
        while piece := file.read(PIECE):
            yield piece
    finally:
        file.close()


async def _awaited(file: Any) -> AsyncGenerator[Any, None]:
    try:
        while piece := await file.read(PIECE):
            yield piece
    finally:
        close = getattr(file, "aclose", None) or file.close
        closing = close()
        if inspect.isawaitable(closing):
            await closing
