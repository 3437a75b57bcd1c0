"""Reading a stream of the local store: from its file, and from the catalog what is not in the file yet."""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from penstock.core.ports import FileExtent
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import OffsetOutOfRange, StorageFailed, StreamGone
from penstock.model import Buffer, StreamInfo
from penstock.stores.local.catalog import Catalog, Head
from penstock.stores.local.engine import Engine

T = TypeVar("T")

SLICE = 1024 * 1024
"""How many bytes a read returns at most. From 1 MiB on, what a slice costs vanishes beside moving its bytes."""

EXTENT = 8 * SLICE
"""How many bytes of a file are sent at once by the system at most."""

MOST_HELD = 2 * 1024 * 1024
"""How many bytes of a closed stream that are not in its file a reader holds in memory at most."""

_NOWAIT = getattr(os, "RWF_NOWAIT", None)
_scratch = threading.local()


class LocalReader:
    """See `Reader`.

    A closed stream's file is mapped, and its reads are views of the mapping: nothing is copied, and the pages belong to
    the system's cache. An open stream's file is read in a thread.
    """

    def __init__(self, engine: Engine, head: Head, descriptor: int, rest: bytes) -> None:
        self._engine = engine
        self._head = head
        self._info = head.info
        self._descriptor = descriptor
        self._rest = rest
        self._map: memoryview | None = None
        self._recalls = False

    @classmethod
    def opened(cls, engine: Engine, catalog: Catalog, head: Head, *, hold: bool) -> Self:
        """Open what a head says, in the catalog's snapshot; blocking.

        With ``hold``, what is not in the file is held in memory, so that it outlives a deletion of the stream.

        Raises:
            FileNotFoundError: the stream was deleted meanwhile.
        """
        descriptor = engine.blobs.open(head.info.incarnation) if head.filed > head.info.start else -1
        rest = b""
        if hold:
            rest = b"".join(data for _, data in catalog.chunks(head.key, head.filed, head.info.tail))
        return cls(engine, head, descriptor, rest)

    @property
    def info(self) -> StreamInfo:
        """See `Reader.info`."""
        return self._info

    async def refresh(self) -> StreamInfo:
        """See `Reader.refresh`."""
        self._head = await self._in_thread(self._refreshed)
        self._info = self._head.info
        return self._info

    def recall(self, offset: int) -> tuple[StreamInfo, Buffer] | None:
        """See `RecallingReader.recall`."""
        if not self._recalls:
            self._recalls = True
            self._engine.recollections.begin(self._info.incarnation)
        recalled = self._engine.recollections.recall(self._info.incarnation, offset)
        if recalled is not None:
            self._info = recalled[0]
        return recalled

    def _refreshed(self) -> Head:
        head = self._engine.catalog().by_key(self._head.key)
        if head is None or head.info.incarnation != self._info.incarnation:
            raise StreamGone(self._info.name, self._info.incarnation)
        return head

    async def read(self, start: int, stop: int) -> Buffer:
        """See `Reader.read`."""
        stop = min(stop, start + SLICE)
        filed = self._head.filed
        if start < filed:
            stop = min(stop, filed)
            # What shrinks may get a hole where it is mapped, and read as zeros.
            if not self._info.closed or self._info.shrinks:
                return await self._in_thread(self._from_file, start, stop)
            if not self._resident(start, stop):
                await self._in_thread(self._fetch, start, stop)
            return self._mapped(stop)[start:stop]
        if self._rest:
            return memoryview(self._rest)[start - filed : stop - filed]
        return await self._in_thread(self._from_catalog, start, stop)

    async def extent(self, start: int, stop: int) -> FileExtent | None:
        """See `FileReader.extent`."""
        stop = min(stop, start + EXTENT, self._head.filed)
        if start >= stop or not self._info.closed or self._info.shrinks:
            return None
        end = start
        while end < stop and self._resident(end, min(end + SLICE, stop)):
            end = min(end + SLICE, stop)
        if end == start:
            end = min(start + SLICE, stop)
            await self._in_thread(self._fetch, start, end)
        return FileExtent(self._file(), start, end - start)

    def read_now(self, start: int, stop: int) -> Buffer | None:
        """See `PromptReader.read_now`."""
        filed = self._head.filed
        if start >= filed:
            return memoryview(self._rest)[start - filed : stop - filed] if self._rest else None
        if stop > filed or _NOWAIT is None or not self._info.closed or self._info.shrinks:
            return None
        # Copied: up to some hundred kilobytes that takes less than the faults of as many pages of a mapping.
        data = bytearray(stop - start)
        try:
            read = os.preadv(self._file(), [data], start, _NOWAIT)
        except BlockingIOError:
            return None
        except OSError:  # this file system cannot tell
            read = os.preadv(self._file(), [data], start)
        return data if read == len(data) else None

    # -- the file -------------------------------------------------------------------------------------------------

    def _file(self) -> int:
        """Return the descriptor; the file may have come to be after the reader was opened."""
        if self._descriptor < 0:
            try:
                self._descriptor = self._engine.blobs.open(self._info.incarnation)
            except FileNotFoundError:
                raise StreamGone(self._info.name, self._info.incarnation) from None
        return self._descriptor

    def _from_file(self, start: int, stop: int) -> bytes:
        try:
            data = os.pread(self._file(), stop - start, start)
        except StreamGone:  # or there never was a file, because all that would be in it was dropped
            head = self._refreshed()
            raise (
                _dropped(head.info, start)
                if head.info.start > start
                else StreamGone(head.info.name, head.info.incarnation)
            ) from None
        if not data:
            raise StorageFailed(f"The file of the stream {self._info.name!r} is shorter than the catalog says.")
        if self._info.shrinks:
            # A hole is made after the commit that drops what was there: what was read before that is as it was.
            head = self._refreshed()
            if head.info.start > start:
                raise _dropped(head.info, start)
        return data

    def _mapped(self, stop: int) -> memoryview:
        if self._map is None or len(self._map) < stop:
            descriptor = self._file()
            if os.fstat(descriptor).st_size < self._head.filed:  # a page past the end would be a SIGBUS
                raise StorageFailed(f"The file of the stream {self._info.name!r} is shorter than the catalog says.")
            self._map = memoryview(mmap.mmap(descriptor, self._head.filed, prot=mmap.PROT_READ))
        return self._map

    def _resident(self, start: int, stop: int) -> bool:
        """Guess whether the pages are in memory, so that sending them will not stop the event loop for the disk.

        Asks for the first and the last byte without waiting: a warm file costs two system calls, not a thread hop.
        """
        if _NOWAIT is None:
            return False
        byte = bytearray(1)
        try:
            for offset in (start, stop - 1):
                os.preadv(self._file(), [byte], offset, _NOWAIT)
        except BlockingIOError:
            return False
        except OSError:  # this file system cannot tell
            return True
        return True

    def _fetch(self, start: int, stop: int) -> None:
        """Bring the pages into memory, and ask for the next ones."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file(), stop, 8 * SLICE, os.POSIX_FADV_WILLNEED)
        if not hasattr(_scratch, "buffer"):
            _scratch.buffer = bytearray(SLICE)
        os.preadv(self._file(), [memoryview(_scratch.buffer)[: stop - start]], start)

    # -- the catalog ----------------------------------------------------------------------------------------------

    def _from_catalog(self, start: int, stop: int) -> bytes:
        catalog = self._engine.catalog()
        with catalog.snapshot():
            self._head = head = self._refreshed()
            if start < head.info.start:
                raise _dropped(head.info, start)
            if start >= head.filed:
                parts = []
                for offset, data in catalog.chunks(head.key, start, stop):
                    parts.append(data[max(start - offset, 0) : stop - offset])
                return b"".join(parts)
        # Folded into the file since: there it is.
        return self._from_file(start, min(stop, head.filed))

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        # Not interrupted, so that the descriptor is never closed under a thread that reads from it.
        return await uninterrupted(asyncio.ensure_future(self._engine.read(function, *args)))

    def close(self) -> None:
        """See `Reader.close`."""
        if self._recalls:
            self._recalls = False
            self._engine.recollections.end(self._info.incarnation)
        self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _dropped(info: StreamInfo, offset: int) -> OffsetOutOfRange:
    return OffsetOutOfRange(info.name, offset, info.tail, "is before what is kept", start=info.start)
