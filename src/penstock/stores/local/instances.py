"""Which stores are running on a folder. A lock file each: the operating system frees the lock of one that ended."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Instance:
    """This store among those that share the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.id = secrets.token_hex(8)
        # Locked before it appears under its name, so that nobody takes it for one that ended.
        hidden = folder / f".{self.id}"
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        hidden.rename(folder / self.id)

    def end(self, *, orderly: bool = True) -> None:
        """Free the lock. An orderly end leaves nothing to clean up after it."""
        if orderly:
            with suppress(FileNotFoundError):
                (self._folder / self.id).unlink()
        os.close(self._descriptor)

    @contextmanager
    def ended(self) -> Iterator[list[str]]:
        """Lend the ids of those that ended without cleaning up, to this caller alone; forget them afterwards."""
        taken: dict[str, int] = {}
        try:
            for path in self._folder.iterdir():
                if path.name == self.id or path.name.startswith("."):
                    continue
                with suppress(FileNotFoundError, BlockingIOError):
                    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        os.close(descriptor)
                        raise
                    taken[path.name] = descriptor
            yield list(taken)
            for name in taken:
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()
        finally:
            for descriptor in taken.values():
                os.close(descriptor)
