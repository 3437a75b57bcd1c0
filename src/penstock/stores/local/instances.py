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
        os.write(self._descriptor, boot_id())
        hidden.rename(folder / self.id)

    def end(self, *, orderly: bool = True) -> None:
        """Free the lock. An orderly end leaves nothing to clean up after it."""
        if orderly:
            with suppress(FileNotFoundError):
                (self._folder / self.id).unlink()
        os.close(self._descriptor)

    @contextmanager
    def ended(self) -> Iterator[dict[str, bool]]:
        """Lend the ids of those that ended without cleaning up, to this caller alone; forget them afterwards.

        With each goes whether the machine ended too, and took with it what was not on the disk.
        """
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
            yield {name: _boot_of(descriptor) not in {b"", boot_id()} for name, descriptor in taken.items()}
            for name in taken:
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()
        finally:
            for descriptor in taken.values():
                os.close(descriptor)


def boot_id() -> bytes:
    """Return what Linux names this run of the machine by; empty elsewhere."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return b""


def _boot_of(descriptor: int) -> bytes:
    return os.pread(descriptor, 100, 0)
