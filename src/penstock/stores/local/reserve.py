"""A file that only takes up room, and gives it back when the disk is full: even a deletion has to be written down.

It is as large as the catalog's log may grow: what is in the log can then always be moved into the database, which gives
the log's own room back. So the reserve can be filled again after each use of it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_MOST = 32 * 1024 * 1024
_LEAST = 1024 * 1024
_SHARE = 16  # of a small disk it takes a part


class Reserve:
    """The file. Blocking; for who holds the lock to commit.

    Attributes:
        size: how many bytes it holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        disk = os.statvfs(path.parent)
        self.size = max(_LEAST, min(_MOST, disk.f_blocks * disk.f_frsize // _SHARE))

    def fill(self) -> bool:
        """Take the room, and tell whether it is there: on a disk that is full just now it is not to be had."""
        with suppress(OSError):
            if os.stat(self._path).st_size >= self.size:  # noqa: PTH116 - of each commit: in a fifth of Path.stat's time
                return True
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._allocate(descriptor)
                return True
            finally:
                os.close(descriptor)
        return False

    def _allocate(self, descriptor: int) -> None:
        held = os.fstat(descriptor).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, held, self.size - held)
            return
        while held < self.size:
            held += os.pwrite(descriptor, bytes(min(_LEAST, self.size - held)), held)

    def release(self) -> None:
        """Give the room back."""
        with suppress(OSError):
            os.truncate(self._path, 0)
