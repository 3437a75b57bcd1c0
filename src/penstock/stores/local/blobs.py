"""The files that hold the bytes of streams. Blocking.

A file is written only by who holds its lock, only past what the catalog says is in it, and only by offset: so whatever
lies past that length is rubbish of an append that was not completed, and may be overwritten or cut off.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from penstock.model import Buffer

_COPIED = 256 * 1024 * 1024
_READ = 4 * 1024 * 1024
_NO_COPYING = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EPERM}
"""What a file system says that leaves copying to us."""

_MOST_BUFFERS = min(1024, os.sysconf("SC_IOV_MAX"))


class Blobs:
    """The folder of the files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def path(self, incarnation: str) -> Path:
        """Return where the bytes of an incarnation are."""
        return self._root / incarnation[:2] / incarnation

    @contextmanager
    def locked(self, incarnation: str, *, create: bool = True) -> Iterator[Blob]:
        """Open a file to write, and hold its lock.

        Everybody opens the file anew, so the lock keeps the threads of one process apart like the processes.

        Raises:
            FileNotFoundError: it is missing, and not to be created.
        """
        path = self.path(incarnation)
        if create:
            path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Blob(descriptor, path)
        finally:
            os.close(descriptor)

    def open(self, incarnation: str) -> int:
        """Return a descriptor for reading. The file can be read through it even after it was removed."""
        return os.open(self.path(incarnation), os.O_RDONLY | os.O_CLOEXEC)

    def remove(self, incarnation: str) -> None:
        """Remove a file; that it is not there is fine."""
        with suppress(FileNotFoundError):
            self.path(incarnation).unlink()


class Blob:
    """A file that is open to write, and locked."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one after another from ``offset``. Where that fails, nothing stays past it."""
        pending = [memoryview(buffer) for buffer in buffers if len(buffer)]
        position = offset
        try:
            while pending:
                written = os.pwritev(self._descriptor, pending[:_MOST_BUFFERS], position)
                position += written
                while pending and written >= len(pending[0]):
                    written -= len(pending.pop(0))
                if written:
                    pending[0] = pending[0][written:]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, offset)
            raise

    def copy(self, offset: int, source: int, size: int) -> None:
        """Copy the first ``size`` bytes of the file that ``source`` describes to ``offset``.

        The system does it, without the bytes being moved through this process: sharing the blocks, where it can.

        Raises:
            OSError: it cannot be done. What lies past ``offset`` is rubbish.
        """
        done = 0
        while done < size:
            copied = _copied(source, self._descriptor, size - done, done, offset + done)
            if not copied:
                raise OSError(errno.EIO, "a file is shorter than the catalog says")
            done += copied

    def cut(self, length: int) -> None:
        """Cut off what lies past ``length``."""
        if os.fstat(self._descriptor).st_size > length:
            os.ftruncate(self._descriptor, length)

    def punch(self, stop: int) -> None:
        """Give back the room of the bytes before ``stop``, as far as the file system can; they read as zeros."""
        _punch(self._descriptor, stop)

    def sync(self, *, folders: bool) -> None:
        """Bring the bytes to the disk, and with ``folders`` the file's name too, as a new file needs."""
        os.fdatasync(self._descriptor) if hasattr(os, "fdatasync") else os.fsync(self._descriptor)
        if folders:
            _sync_folder(self._path.parent)
            _sync_folder(self._path.parent.parent)


def _copied(source: int, target: int, size: int, start: int, offset: int) -> int:
    """Copy some bytes, and return how many."""
    try:
        return os.copy_file_range(source, target, min(size, _COPIED), start, offset)
    except OSError as error:
        if error.errno not in _NO_COPYING:
            raise
    return os.pwrite(target, os.pread(source, min(size, _READ), start), offset)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# linux/falloc.h
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02


def _punch(descriptor: int, stop: int) -> None:
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)  # which os does not have
    if fallocate is not None:
        offset = ctypes.c_int64
        fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset(0), offset(stop))
