"""Several files as one zip archive, written as it is sent.

::

    @app.get("/photos.zip")
    async def photos() -> StreamedZip:
        return StreamedZip(ZipFolder("/srv/photos"), filename="photos.zip")

An archive of files that are only stored, all of known size, is laid out before the first byte: it has a
Content-Length, an entity tag, and can be resumed by Range. Any other is sent as it comes to be.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from hashlib import sha256
from itertools import groupby
from typing import Unpack, cast

from starlette.requests import Request
from starlette.responses import Response

from penstock.model import Buffer
from penstock.protocols.archive import ArchiveWriter, Member, Written, archive_end
from penstock.toolkit.responses.ahead import in_pool, read_ahead
from penstock.toolkit.responses.files import FileOptions, StreamedRanges
from penstock.toolkit.responses.members import Entry, Planned, ZipEntry, ZipFolder, check_distinct, plan, plan_all
from penstock.toolkit.responses.outlet import Outlet
from penstock.toolkit.responses.producers import Items, Producing
from penstock.toolkit.responses.sources import Identity, LocalFile, PathLike, RangeSource
from penstock.toolkit.responses.streamed_body import StreamedBody

__all__ = ["StoredZip", "StreamedZip", "ZipEntry", "ZipFolder"]

LEVEL = 6
"""How hard deflate tries, from 1 to 9."""

_SLICE = 256 * 1024
_WORTH_A_THREAD = 16 * 1024
_KNOWN_CRCS = 65536

_crcs: dict[Identity, int] = {}


class StreamedZip(StreamedRanges):
    """A response that is a zip archive.

    It has 64-bit sizes where needed, names in UTF-8, and never a name that unpacks to anywhere else. Files are read in
    threads, in bounded memory; only the directory at the end, about a hundred bytes for each file, is kept. A failure
    breaks the body off.

    A list or tuple of entries, or a `ZipFolder`, is looked at before the first byte: a file that is missing is a 404.
    If nothing is compressed and all sizes are known, the archive's length is told; and if all its contents can be read
    again (files, bytes, `RangeSource`), it is served with ranges, as a file is. For a range at its end, the checksums
    of files that this process has not sent yet are needed: they are read for it. A file that has changed since the
    archive was laid out breaks it off. Other iterables are taken one entry at a time, while the archive is sent.

    Args:
        entries: what goes into it, in that order; see `Entry`, and `ZipEntry` for more about one.
        status_code: as of `StreamedRanges`.
        filename: the name to save it under.
        deflate: whether its files are compressed, but for those that are already.
        level: how hard that tries, from 1 (fast) to 9 (small).
        options: of `StreamedRanges`.
    """

    def __init__(
        self,
        entries: Iterable[Entry] | AsyncIterable[Entry],
        status_code: int = 200,
        *,
        filename: str = "archive.zip",
        deflate: bool = False,
        level: int = LEVEL,
        **options: Unpack[FileOptions],
    ) -> None:
        if isinstance(entries, (str, bytes, os.PathLike)):
            raise TypeError("An archive needs a list of entries; for a folder's content, a ZipFolder.")
        super().__init__(_NOTHING, status_code, content_type="application/zip", filename=filename, **options)
        self._entries = entries
        self._deflate = deflate
        self._level = level

    async def _respond(self, request: Request, stack: AsyncExitStack) -> Response:
        entries = self._entries
        fields = {"content-type": self.headers["content-type"]}
        if isinstance(entries, (Sequence, ZipFolder)):
            planned = await in_pool(plan_all, entries, self._deflate)
            if all(one.member.size is not None and not one.member.deflated for one in planned):
                archive = StoredZip(planned)
                if all(one.seekable for one in planned):
                    return await self._answer(request, archive)
                fields["content-length"] = str(archive.length)
            pieces = _written(_in_runs(planned), self._level)
        else:
            pieces = _written(_one_by_one(entries, self._deflate), self._level)
        if request.method == "HEAD":
            await pieces.aclose()
            return self._with_headers(StreamedBody(_empty(), 200, fields))
        # What fails until then is answered as an error.
        body = await _begun(pieces)
        return self._with_headers(StreamedBody(body, 200, fields))


async def _begun(pieces: AsyncGenerator[Buffer, None]) -> AsyncGenerator[Buffer, None]:
    """Produce the first piece, and return a generator of all."""
    try:
        first = await anext(pieces)
    except BaseException:
        await pieces.aclose()
        raise

    async def resumed() -> AsyncGenerator[Buffer, None]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return resumed()


async def _empty() -> AsyncGenerator[Buffer, None]:
    return
    yield b""


# -- as it comes ------------------------------------------------------------------------------------------------------


async def _in_runs(planned: list[Planned]) -> AsyncGenerator[list[Planned], None]:
    """Yield the entries, together where one thread can read them one after another."""
    for blocking, run in groupby(planned, lambda one: one.blocking):
        if blocking:
            yield list(run)
        else:
            for one in run:
                yield [one]


async def _one_by_one(
    entries: Iterable[Entry] | AsyncIterable[Entry],
    deflate: bool,
) -> AsyncGenerator[list[Planned], None]:
    """Yield the entries of an iterable as they come."""
    if isinstance(entries, AsyncIterable):
        async for entry in entries:
            yield [await in_pool(plan, entry, deflate)]
        return
    iterator = iter(entries)
    try:
        while (planned := await in_pool(_next, iterator, deflate)) is not None:
            yield [planned]
    finally:
        if isinstance(iterator, Generator):
            await in_pool(iterator.close)


def _next(entries: Iterator[Entry], deflate: bool) -> Planned | None:
    for entry in entries:
        return plan(entry, deflate)
    return None


async def _written(runs: AsyncGenerator[list[Planned], None], level: int) -> AsyncGenerator[Buffer, None]:
    """Yield an archive."""
    archive = ArchiveWriter()
    names: set[str] = set()
    async with aclosing(runs):
        async for run in runs:
            new = [one.member.name for one in run]
            check_distinct([*(name for name in new if name in names), *new])
            names.update(new)
            if run[0].blocking:
                pieces = read_ahead(_write_blocking(archive, run, level))
            else:
                pieces = _write_async(archive, run[0], level)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
    yield archive.finish()


def _write_blocking(archive: ArchiveWriter, run: list[Planned], level: int) -> Generator[Buffer, None, None]:
    for one in run:
        yield archive.begin(one.member)
        data = _Data(one.member, level)
        for piece in _slices(one, 0, one.member.size or 0):
            yield data.feed(piece)
        yield data.finish()
        yield archive.end(data.written())


async def _write_async(archive: ArchiveWriter, one: Planned, level: int) -> AsyncGenerator[Buffer, None]:
    yield archive.begin(one.member)
    data = _Data(one.member, level)
    async with aclosing(_pieces(one)) as pieces:
        async for piece in pieces:
            # Checksums and compression of much at once would hold the event loop up.
            yield data.feed(piece) if len(piece) < _WORTH_A_THREAD else await in_pool(data.feed, piece)
    yield data.finish() + archive.end(data.written())


class _Data:
    """The data of a member on its way: counted, checked and maybe compressed."""

    def __init__(self, member: Member, level: int) -> None:
        self._member = member
        self._deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS) if member.deflated else None
        self._crc = self._size = self._compressed = 0

    def feed(self, data: Buffer) -> Buffer:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        out: Buffer = data if self._deflater is None else self._deflater.compress(data)
        self._compressed += len(out)
        return out

    def finish(self) -> bytes:
        expected = self._member.size
        if expected is not None and self._size != expected:
            raise ValueError(
                f"{self._member.name!r} has {self._size} bytes, and not the {expected} that were announced"
            )
        out = b"" if self._deflater is None else self._deflater.flush()
        self._compressed += len(out)
        return out

    def written(self) -> Written:
        return Written(self._crc, self._size, self._compressed)


def _pieces(one: Planned) -> AsyncGenerator[Buffer, None]:
    """Yield the bytes of an entry that are not read by blocking calls."""
    if one.seekable:
        return cast("RangeSource", one.content).read(0, one.member.size or 0)
    return _produced(cast("Items", one.content))


async def _produced(items: Items) -> AsyncGenerator[Buffer, None]:
    """Yield what an iterable yields; a plain one is iterated in one thread, from its first item to its last."""
    outlet = Outlet(0)
    producing = Producing(items, _octets, outlet)
    try:
        while (data := await outlet.take()) is not None:
            yield data
        if producing.error is not None:
            raise producing.error
    finally:
        await producing.close()


def _octets(item: Buffer | str) -> bytes:
    return item.encode() if isinstance(item, str) else bytes(item)


def _slices(one: Planned, start: int, stop: int) -> Generator[Buffer, None, None]:
    """Yield some bytes of an entry; blocking."""
    if one.identity is None:
        octets = memoryview(cast("Buffer", one.content))
        for offset in range(start, stop, _SLICE):
            yield octets[offset : min(offset + _SLICE, stop)]
        return
    file = LocalFile.open(cast("PathLike", one.content), one.identity)
    try:
        yield from file.slices(start, stop)
    finally:
        file.close()


# -- laid out before --------------------------------------------------------------------------------------------------


class StoredZip:
    """An archive of members that are stored as they are, of known sizes; see `RangeSource`.

    Args:
        planned: what goes into it.
    """

    def __init__(self, planned: Sequence[Planned]) -> None:
        self._planned = planned
        self._crc: dict[int, int] = {}
        self._offsets: list[int] = []  # of the members' headers
        self._records: list[int] = []  # of their entries in the directory
        identity = sha256()
        offset = 0
        for one in planned:
            self._offsets.append(offset)
            header = one.member.header()
            offset += len(header) + self._size(one) + len(one.member.descriptor(_UNKNOWN))
            identity.update(b"%b%b\n" % (header, one.validator.encode()))
        self._directory = offset
        for index, one in enumerate(planned):
            self._records.append(offset)
            offset += len(one.member.record(self._described(index, 0), self._offsets[index]))
        self._end = archive_end(len(planned), self._directory, offset - self._directory)
        self.length = offset + len(self._end)
        self.etag = f'"{identity.hexdigest()[:40]}"'
        if not all(one.settled for one in planned):
            self.etag = f"W/{self.etag}"
        self.last_modified: float | None = None  # what was left out since does not show in it

    @staticmethod
    def _size(one: Planned) -> int:
        return one.member.size or 0

    def _described(self, index: int, crc: int) -> Written:
        size = self._size(self._planned[index])
        return Written(crc, size, size)

    async def read(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        """See `RangeSource.read`."""
        first = max(bisect_right(self._offsets, start) - 1, 0)
        last = bisect_right(self._offsets, stop - 1) if stop > start else first
        for blocking, run in groupby(range(first, last), lambda index: self._planned[index].blocking):
            indexes = list(run)
            if blocking:
                async with aclosing(read_ahead(self._read_blocking(indexes, start, stop))) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                for index in indexes:
                    async with aclosing(self._read_async(index, start, stop)) as pieces:
                        async for piece in pieces:
                            yield piece
        if stop > self._directory:
            await self._find_async_crcs(start)
            async with aclosing(read_ahead(self._read_directory(start, stop))) as pieces:
                async for piece in pieces:
                    yield piece

    def _places(self, index: int) -> tuple[bytes, int, int]:
        """Return a member's header, where its data begins, and where that ends."""
        one = self._planned[index]
        header = one.member.header()
        begin = self._offsets[index] + len(header)
        return header, begin, begin + self._size(one)

    def _read_blocking(self, indexes: list[int], start: int, stop: int) -> Generator[Buffer, None, None]:
        for index in indexes:
            one = self._planned[index]
            header, begin, end = self._places(index)
            yield _clipped(header, begin - len(header), start, stop)
            crc = 0
            for piece in _slices(one, max(start - begin, 0), min(stop, end) - begin) if start < end else ():
                crc = zlib.crc32(piece, crc)
                yield piece
            if start <= begin and stop >= end:
                self._keep(index, crc)
            if one.member.behind and start < end + 24 and stop > end:
                descriptor = one.member.descriptor(self._described(index, self._crc_of(index)))
                yield _clipped(descriptor, end, start, stop)

    async def _read_async(self, index: int, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        one = self._planned[index]
        header, begin, end = self._places(index)
        yield _clipped(header, begin - len(header), start, stop)
        crc = 0
        if max(start, begin) < min(stop, end):
            source = cast("RangeSource", one.content)
            async with aclosing(source.read(max(start - begin, 0), min(stop, end) - begin)) as pieces:
                async for piece in pieces:
                    crc = await in_pool(zlib.crc32, piece, crc)
                    yield piece
        if start <= begin and stop >= end:
            self._keep(index, crc)
        if start < end + 24 and stop > end:
            await self._find_async_crc(index)
            yield _clipped(one.member.descriptor(self._described(index, self._crc[index])), end, start, stop)

    def _read_directory(self, start: int, stop: int) -> Generator[Buffer, None, None]:
        first = max(bisect_right(self._records, start) - 1, 0)
        for index in range(first, len(self._planned)):
            offset = self._records[index]
            if offset >= stop:
                return
            written = self._described(index, self._crc_of(index))
            yield _clipped(self._planned[index].member.record(written, self._offsets[index]), offset, start, stop)
        yield _clipped(self._end, self.length - len(self._end), start, stop)

    # -- checksums ------------------------------------------------------------------------------------------------

    def _crc_of(self, index: int) -> int:
        """Return a member's checksum; blocking: its file is read where it is not known."""
        one = self._planned[index]
        crc = one.member.crc
        if crc is None:
            crc = self._crc.get(index)
        if crc is None and one.identity is not None:
            crc = _crcs.get(one.identity)
        if crc is None:
            crc = 0
            for piece in _slices(one, 0, self._size(one)):
                crc = zlib.crc32(piece, crc)
            self._keep(index, crc)
        return crc

    async def _find_async_crcs(self, start: int) -> None:
        """Find the checksums of sources whose entries in the directory are read from ``start`` on."""
        for index in range(max(bisect_right(self._records, start) - 1, 0), len(self._planned)):
            if not self._planned[index].blocking:
                await self._find_async_crc(index)

    async def _find_async_crc(self, index: int) -> None:
        if index in self._crc:
            return
        crc = 0
        one = self._planned[index]
        async with aclosing(cast("RangeSource", one.content).read(0, self._size(one))) as pieces:
            async for piece in pieces:
                crc = await in_pool(zlib.crc32, piece, crc)
        self._crc[index] = crc

    def _keep(self, index: int, crc: int) -> None:
        """Remember a checksum, also for the next request, which may be for the rest."""
        self._crc[index] = crc
        one = self._planned[index]
        if one.identity is not None and one.settled:
            if len(_crcs) >= _KNOWN_CRCS:
                _crcs.clear()
            _crcs[one.identity] = crc


_UNKNOWN = Written(0, 0, 0)
_NOTHING = StoredZip([])


def _clipped(data: bytes, offset: int, start: int, stop: int) -> bytes:
    """Return of ``data``, which stands at ``offset``, what lies from ``start`` up to ``stop``."""
    return data[max(start - offset, 0) : max(stop - offset, 0)]
