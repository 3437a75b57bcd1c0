"""What is remembered of uploads that are under way, beyond the end of the program: where each of them goes on.

One small file for each in the user's state folder (``$XDG_STATE_HOME/penstock/uploads``). How far an upload is, only
the server knows: it is asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from penstock.client.errors import SourceBusy

try:
    import fcntl
except ImportError:  # Windows: two uploads of one file are then not kept apart
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("penstock.client")

_KEPT: Final = 30 * 86400.0
"""Seconds after which an upload that nobody went on with is forgotten. Servers forget them sooner."""


def state_folder() -> Path:
    """Return the folder for what programs keep of a user (XDG Base Directory Specification)."""
    told = os.environ.get("XDG_STATE_HOME", "")
    base = Path(told) if told.startswith("/") else Path.home() / ".local" / "state"
    return base / "penstock" / "uploads"


class Entry:
    """What is remembered of one upload. It belongs to one process at a time.

    Args:
        descriptor: of the entry's file; None remembers only until the end of the program.
        path: the file.
    """

    def __init__(self, descriptor: int | None = None, path: Path | None = None) -> None:
        self._descriptor = descriptor
        self._path = path
        self._value: dict[str, Any] = {}
        if descriptor is not None:
            # One line; what comes after it was left by an interrupted write of a shorter one.
            line = os.pread(descriptor, 1024 * 1024, 0).partition(b"\n")[0]
            with suppress(ValueError):
                found = json.loads(line)
                self._value = found if isinstance(found, dict) else {}

    @property
    def value(self) -> dict[str, Any]:
        """What was noted last; empty if nothing was."""
        return self._value

    @property
    def lasting(self) -> bool:
        """Whether what is noted outlives the program."""
        return self._descriptor is not None

    def note(self, **value: Any) -> None:
        """Remember this instead of what was noted before."""
        self._value = value
        if self._descriptor is not None:
            line = json.dumps(value).encode() + b"\n"
            try:
                os.pwrite(self._descriptor, line, 0)
                os.ftruncate(self._descriptor, len(line))
            except OSError as error:
                logger.warning("If this program ends early, the upload must begin anew: %s.", error)

    def forget(self) -> None:
        """Remember nothing."""
        self._value = {}
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @classmethod
    @contextmanager
    def of(cls, folder: Path, *what: str) -> Iterator[Entry]:
        """Open the entry of an upload: what was noted in it before, perhaps by another process that ended.

        Where nothing can be written, it is as good as any until the program ends.

        Args:
            folder: where entries are.
            what: all that tells the upload from others.

        Raises:
            SourceBusy: another process is at it.
        """
        entry = _opened(folder, hashlib.sha256("\0".join(what).encode()).hexdigest()[:32], what)
        try:
            yield entry
        finally:
            if not entry.value:
                entry.forget()
            entry._close()


def _opened(folder: Path, name: str, what: tuple[str, ...]) -> Entry:
    path = folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clear_out(folder)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                _lock(descriptor, what)
                if _is_there(descriptor, path):
                    return Entry(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever had it has just removed it
    except OSError as error:
        logger.warning("If this program ends early, the upload must begin anew: %s.", error)
        return Entry()


def _lock(descriptor: int, what: tuple[str, ...]) -> None:
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceBusy(what[-1]) from None


def _is_there(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _clear_out(folder: Path) -> None:
    """Remove entries that nobody will go on with."""
    oldest = time.time() - _KEPT
    for path in folder.glob("*.json"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
