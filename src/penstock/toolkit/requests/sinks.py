"""Where a body can go: a file, written off the event loop, which is there whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.core.uninterrupted import uninterrupted
from penstock.errors import StorageFull
from penstock.model import Buffer
from penstock.toolkit.requests.behind import Behind
from penstock.toolkit.requests.bodies import budget

__all__ = ["FileSink", "SavedFile"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MOST_BUFFERS = 512  # of one system call; the least that systems allow is 16, the usual is 1024


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that was written.

    Attributes:
        path: where it is.
        size: how many bytes it has.
        digests: its digests by their RFC 9530 names (``sha-256``), as far as they were asked for.
    """

    path: Path
    size: int
    digests: Mapping[str, bytes] = field(default_factory=dict)


class FileSink:
    """A file that is being written beside its destination, and takes its name in one step.

    An async context manager: left without `publish`, nothing is left of it.

    Args:
        path: the destination. Its folder must exist.
        fsync: whether the file, and then its name, are on the disk for sure when `publish` returns. That survives a
            power cut; without, only a crash of the process.
        overwrite: whether it may take the place of a file.
        mode: the permissions, from which the process's umask is taken.

    Raises:
        FileExistsError: from entering or publishing, if there is a file and it must not be overwritten.
        OSError: the file cannot be created or written.
        StorageFull: there is no room on the disk.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fsync: bool = False, overwrite: bool = True, mode: int = 0o666
    ) -> None:
        self.path = Path(path)
        self.size = 0
        self._fsync = fsync
        self._overwrite = overwrite
        self._mode = mode
        # In the same folder, so that it is on the same file system. Short, since names are limited in length.
        self._temporary = self.path.with_name(f".{secrets.token_hex(8)}.part")
        self._descriptor: int | None = None
        self._behind = Behind(self._write, budget.share)
        self._left = False

    async def write(self, data: Sequence[Buffer]) -> None:
        """Hand over some buffers, which must not change from now on. They are written in a thread, while more arrive.

        What a write raises is raised by the next one, or by `flush`.
        """
        self.size += sum(map(len, data))
        await self._behind.put(data)

    async def flush(self) -> None:
        """Wait until all is written."""
        await self._behind.flush()

    async def publish(self) -> None:
        """Finish the file, and let it take its name."""
        await self.flush()
        await uninterrupted(asyncio.to_thread(self._publish))

    async def __aenter__(self) -> Self:
        budget.uploads += 1
        try:
            await uninterrupted(asyncio.to_thread(self._open))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._left:
            self._left = True
            budget.uploads -= 1
        await uninterrupted(self._behind.stop())
        await uninterrupted(asyncio.to_thread(self._discard))

    def _open(self) -> None:
        if not self._overwrite and self.path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with _no_room():
            self._descriptor = os.open(self._temporary, flags, self._mode)

    def _write(self, data: Sequence[Buffer]) -> None:
        assert self._descriptor is not None  # noqa: S101 - it was entered
        with _no_room():
            for start in range(0, len(data), _MOST_BUFFERS):
                self._write_all(self._descriptor, data[start : start + _MOST_BUFFERS])

    def _write_all(self, descriptor: int, buffers: Sequence[Buffer]) -> None:
        left = sum(map(len, buffers))
        written = os.writev(descriptor, buffers)
        while written < left:  # a disk that is about to be full takes a part
            rest = memoryview(b"".join(buffers))[written:]
            left -= written
            buffers = [rest]
            written = os.writev(descriptor, buffers)

    def _publish(self) -> None:
        assert self._descriptor is not None  # noqa: S101 - it was entered
        with _no_room():
            if self._fsync:
                os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
            if self._overwrite:
                self._temporary.replace(self.path)
            else:
                os.link(self._temporary, self.path)  # unlike a rename, it fails where there is something
            if self._fsync:
                _fsync_folder(self.path.parent)

    def _discard(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
        self._temporary.unlink(missing_ok=True)


class _no_room:  # noqa: N801 - it is used like a function
    """Raise `StorageFull` for the system's errors that mean it."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StorageFull from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
