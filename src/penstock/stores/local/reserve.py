"""A file that only takes up room, and gives it back when the disk is full: even a deletion has to be written down."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SIZE = 1024 * 1024


class Reserve:
    """The file. Blocking; the processes that share it may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> bool:
        """Take the room, and tell whether it is there: on a disk that is full just now it is not to be had."""
        with suppress(OSError):
            if self._path.stat().st_size >= SIZE:
                return True
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                held = os.fstat(descriptor).st_size
                while held < SIZE:
                    # Written rather than allocated: not every file system and system can do the latter.
                    held += os.pwrite(descriptor, bytes(SIZE - held), held)
                return True
            finally:
                os.close(descriptor)
        return False

    def release(self) -> None:
        """Give the room back."""
        with suppress(OSError):
            os.truncate(self._path, 0)
