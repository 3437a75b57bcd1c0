"""What goes into an archive: files, bytes, what is read or produced elsewhere, and folders of files."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import AsyncIterable, Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias, TypeGuard
from zlib import crc32

from penstock.model import Buffer
from penstock.protocols.archive import Member, check_member_name
from penstock.toolkit.responses.media_types import guessed, is_compressed
from penstock.toolkit.responses.sources import Identity, PathLike, RangeSource

Content: TypeAlias = PathLike | Buffer | RangeSource | AsyncIterable[Buffer | str] | Iterable[Buffer | str]
"""A local file's path, bytes, a `RangeSource`, or an async or a plain iterable of bytes or text."""

# What a file's name may hold and a name in an archive must not.
_HOSTILE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|^[A-Za-z]:")

_SOME_DAY = 315619200.0  # 1980-01-02, which is past 1980-01-01 in every time zone


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """A file in an archive, with all that can be said about it.

    Attributes:
        name: its path in the archive, with ``/`` between folders.
        content: see `Content`. Text is a path.
        modified: Unix seconds; by default what the file or source tells; for an iterable, the present; for bytes, the
            day on which the calendar of zip begins, so that the same bytes always make the same archive.
        size: of an iterable, how many bytes it will yield, if that is known: the archive's length may be, then.
        deflate: whether it is compressed; by default as the archive is, but not what is compressed in itself.
    """

    name: str
    content: Content
    modified: float | None = None
    size: int | None = None
    deflate: bool | None = None


Entry: TypeAlias = ZipEntry | tuple[str, Content] | PathLike
"""An entry; a name and a content; or a path, whose last part is the name."""


class ZipFolder(Iterable[ZipEntry]):
    """All files below a folder, in the order of their names; also its empty folders.

    Symbolic links are left out, which could lead anywhere, and so is all that is neither file nor folder. Characters
    that a name in an archive must not have become ``_``.

    Args:
        path: the folder.
        prefix: where in the archive its content stands; by default below the folder's own name.
    """

    def __init__(self, path: PathLike, *, prefix: str | None = None) -> None:
        self.path = path
        # Made absolute: the name of "." is known then.
        self.prefix = Path(os.path.abspath(path)).name if prefix is None else prefix.strip("/")  # noqa: PTH100

    def __iter__(self) -> Iterator[ZipEntry]:
        """Walk; blocking."""
        return self._walk(os.fspath(self.path), self.prefix)

    def _walk(self, path: str, prefix: str) -> Iterator[ZipEntry]:
        with os.scandir(path) as found:
            below = sorted(found, key=lambda entry: entry.name)
        if not below and prefix:
            yield ZipEntry(f"{prefix}/", b"", modified=Path(path).stat().st_mtime)
        for entry in below:
            name = _HOSTILE.sub("_", entry.name)
            name = f"{prefix}/{name}" if prefix else name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(entry.path, name)
            elif entry.is_file(follow_symlinks=False):
                yield ZipEntry(name, entry.path)


@dataclass(frozen=True, slots=True)
class Planned:
    """An entry that was looked at.

    Attributes:
        member: what the archive says about it.
        content: where its bytes come from.
        identity: of a local file: the state that is to be read.
        blocking: whether its bytes are read by blocking calls.
        seekable: whether any part of its bytes can be read, as often as wanted.
        validator: what changes with its bytes, if it is seekable.
        settled: whether the validator is sure to.
    """

    member: Member
    content: Content
    identity: Identity | None
    blocking: bool
    seekable: bool
    validator: str
    settled: bool = True


def plan(entry: Entry, deflate: bool) -> Planned:
    """Look at an entry; blocking.

    Raises:
        ValueError: its name is not safe.
        FileNotFoundError: there is no such file.
    """
    entry = _entry(entry)
    name, content = check_member_name(entry.name), entry.content
    deflate = (deflate and not is_compressed(guessed(name) or "")) if entry.deflate is None else entry.deflate
    if isinstance(content, (str, os.PathLike)):
        return _planned_file(entry, content, deflate)
    if isinstance(content, (bytes, bytearray, memoryview)):
        octets = memoryview(content).cast("B") if not isinstance(content, bytes) else content
        deflate = deflate and len(octets) > 0
        mode = 0o755 if name.endswith("/") else 0o644
        modified = _SOME_DAY if entry.modified is None else entry.modified
        member = Member(name=name, modified=modified, size=len(octets), crc=crc32(octets), deflated=deflate, mode=mode)
        return Planned(member, octets, None, True, True, sha256(octets).hexdigest())
    if _is_source(content):
        modified = entry.modified or content.last_modified or _SOME_DAY
        member = Member(name=name, modified=modified, size=content.length, deflated=deflate)
        etag = content.etag
        return Planned(member, content, None, False, True, etag, not etag.startswith("W/"))
    modified = time.time() if entry.modified is None else entry.modified
    member = Member(name=name, modified=modified, size=entry.size, deflated=deflate)
    return Planned(member, content, None, False, False, "")


def _is_source(content: object) -> TypeGuard[RangeSource]:
    return hasattr(content, "read") and hasattr(content, "length") and hasattr(content, "etag")


def _entry(entry: Entry) -> ZipEntry:
    if isinstance(entry, ZipEntry):
        return entry
    if isinstance(entry, tuple):
        return ZipEntry(*entry)
    return ZipEntry(Path(entry).name, entry)


def _planned_file(entry: ZipEntry, path: PathLike, deflate: bool) -> Planned:
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(f"Not a regular file: {os.fspath(path)!r}")
    identity = Identity.of(status)
    member = Member(
        name=entry.name,
        modified=status.st_mtime if entry.modified is None else entry.modified,
        size=status.st_size,
        deflated=deflate,
        mode=stat.S_IMODE(status.st_mode),
    )
    return Planned(member, path, identity, True, True, repr(identity), identity.settled())


def plan_all(entries: Iterable[Entry], deflate: bool) -> list[Planned]:
    """Look at all entries; blocking.

    Raises:
        ValueError: as `plan`, or two have one name.
    """
    planned = [plan(entry, deflate) for entry in entries]
    check_distinct([one.member.name for one in planned])
    return planned


def check_distinct(names: Collection[str]) -> None:
    """Refuse names of which one would overwrite another when they are unpacked."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two files of one name in an archive: {name!r}")
        seen.add(name)
