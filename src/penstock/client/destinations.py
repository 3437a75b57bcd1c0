"""Where a download goes: a file that appears when it is complete, or a pipe."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

from penstock.client.errors import DestinationBusy
from penstock.client.reading import Version

_PIECE: Final = 1024 * 1024

try:
    import fcntl
except ImportError:  # Windows: two downloads to one file are then not kept apart
    fcntl = None  # type: ignore[assignment]


@runtime_checkable
class BinaryWriter(Protocol):
    """A file open for writing in binary mode, or anything like it."""

    def write(self, data: bytes, /) -> object:
        """Take some bytes."""


class Destination(Protocol):
    """Takes the bytes of a stream, in threads.

    Attributes:
        size: the bytes that it has.
        version: what they are of; None while it has none.
        patient: whether a write always returns soon, so that it may be waited for even on cancellation.
    """

    size: int
    version: Version | None
    patient: bool

    @property
    def restartable(self) -> bool:
        """Whether it can forget its bytes and begin again."""

    def begin(self, version: Version, *, follow: bool) -> None:
        """Forget all bytes; those to come are of this version."""

    def write(self, pieces: list[bytes]) -> None:
        """Take the next bytes."""

    def digest(self) -> bytes:
        """Return the SHA-256 of all bytes."""

    def finish(self) -> None:
        """Make what was written last, and show it."""

    def discard(self) -> None:
        """Forget all bytes, and leave nothing behind."""


class PartialFile:
    """A file that is written under another name beside its place, and put there when it is complete.

    The partial file stays when the program ends early, together with a note on what it is a part of, and the next
    download of the same stream to the same place goes on where it ends.

    Args:
        path: the place.
        name: the name of the stream.
        follow: whether the stream is followed: its entity tag is another one then.
        resume: whether to go on with a partial file that is there.

    Raises:
        DestinationBusy: another download to this place is under way.
        OSError: it cannot be written.
    """

    patient = True

    def __init__(self, path: Path, name: str, *, follow: bool, resume: bool) -> None:
        # Not a symbolic link but what it leads to is replaced, as cp does it.
        self.path = path.resolve()
        self._part = self.path.with_name(self.path.name + ".part")
        self._note = self.path.with_name(self.path.name + ".part.json")
        self._name = name
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = os.open(self._part, flags, 0o666)
        try:
            self._lock()
            self.version = self._noted(follow=follow) if resume else None
            self._hash = hashlib.sha256()
            self.size = 0
            if self.version is not None:
                self._take_stock()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            if not self.size:
                self.discard()
            self._close()

    @property
    def restartable(self) -> bool:
        """See `Destination`."""
        return True

    def begin(self, version: Version, *, follow: bool) -> None:
        """See `Destination`. At no moment does the note speak of bytes that are not its own."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.size = 0
        note = {"name": self._name, "incarnation": version.incarnation, "etag": version.etag, "follow": follow}
        new = self._note.with_name(self._note.name + ".new")
        new.write_text(json.dumps(note), "utf-8")
        new.replace(self._note)
        self.version = version

    def write(self, pieces: list[bytes]) -> None:
        """See `Destination`."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.write(self._descriptor, view)
                # Counted and hashed as far as it went, so that a full disk leaves a state to go on from.
                self._hash.update(view[:written])
                self.size += written
                view = view[written:]

    def digest(self) -> bytes:
        """See `Destination`."""
        return self._hash.digest()

    def finish(self) -> None:
        """See `Destination`: the file is on the disk before it has its name."""
        os.fsync(self._descriptor)
        with suppress(OSError, AttributeError):  # there is none before, or this system has no such call
            os.fchmod(self._descriptor, stat.S_IMODE(self.path.stat().st_mode))
        if os.name == "nt":
            self._close()  # an open file cannot be renamed there
        self._part.replace(self.path)
        self._close()
        self._note.unlink(missing_ok=True)
        _sync_directory(self.path.parent)

    def discard(self) -> None:
        """See `Destination`."""
        self.size = 0
        self.version = None
        self._note.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DestinationBusy(str(self.path)) from None
        # The one who had the lock may have finished meanwhile, and what we opened is a complete file then.
        try:
            same = os.path.samestat(os.fstat(self._descriptor), self._part.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise DestinationBusy(str(self.path))

    def _noted(self, *, follow: bool) -> Version | None:
        try:
            note = json.loads(self._note.read_text("utf-8"))
            if note["name"] != self._name:
                return None
            etag = note["etag"] if note["follow"] == follow else None
            return Version(str(note["incarnation"]), None if etag is None else str(etag))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _take_stock(self) -> None:
        while piece := os.read(self._descriptor, _PIECE):
            self._hash.update(piece)
            self.size += len(piece)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Pipe:
    """A file that somebody else has opened for writing: what it was given cannot be taken back."""

    patient = False
    version: Version | None = None

    def __init__(self, file: BinaryWriter) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    @property
    def restartable(self) -> bool:
        """See `Destination`: as long as nothing was written."""
        return not self.size

    def begin(self, version: Version, *, follow: bool) -> None:
        """See `Destination`."""
        self.version = version

    def write(self, pieces: list[bytes]) -> None:
        """See `Destination`."""
        for piece in pieces:
            view = memoryview(piece)
            self._hash.update(view)
            self.size += len(view)
            while view:
                written = self._file.write(view)  # type: ignore[arg-type]  # any buffer will do
                # A raw file may take less than it was given.
                view = view[written:] if isinstance(written, int) else view[:0]
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def digest(self) -> bytes:
        """See `Destination`."""
        return self._hash.digest()

    def finish(self) -> None:
        """See `Destination`."""

    def discard(self) -> None:
        """See `Destination`."""


def _sync_directory(path: Path) -> None:
    """Make a rename last. Not every system can open a folder for that."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
