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

    def fill(self) -> None:
        """Take the room, if it is to be had: on a disk that is full just now it is not."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                missing = SIZE - os.fstat(descriptor).st_size
                if missing > 0:
                    # Written rather than allocated: not every file system and system can do the latter.
                    os.pwrite(descriptor, bytes(missing), SIZE - missing)
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Give the room back, and tell whether there was any."""
        try:
            held = self._path.stat().st_size
            os.truncate(self._path, 0)
        except OSError:
            return False
        return held > 0
