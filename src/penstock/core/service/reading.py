"""Reading streams, following them, and finding them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from penstock.core import rules
from penstock.core.digests import digest_of
from penstock.core.follow import RECHECK, follow, until_grown
from penstock.core.forks import ForkReader, check_offset
from penstock.core.group import Begin, Group, Selection
from penstock.core.ports import Change, GenerationStore, Reader, View
from penstock.core.service.base import ServiceBase, there
from penstock.errors import Stopping, StorageFailed, StreamFailed, StreamGone, StreamNotFound
from penstock.model import RESERVED, Chunk, Origin, Page, StreamInfo, Usage, check_name

PAGE = 1000
"""The most streams that one `list` returns."""


class Reading(ServiceBase):
    """What the service does that leaves a stream as it is."""

    _generations: GenerationStore | None
    _digesting: dict[tuple[str, str], asyncio.Task[bytes]]

    async def info(self, name: str, *, incarnation: str | None = None) -> StreamInfo:
        """Return the state of the stream that a name shows, or of one of its incarnations, shown or not.

        Raises:
            StreamNotFound: there is none, or its time has come.
            StreamGone: there is no such incarnation, or the stream was deleted, and is kept for its forks.
        """
        found = await self._store.load(check_name(name), incarnation=incarnation)
        return await self._present(name, incarnation, found)

    async def _present(self, name: str, incarnation: str | None, found: StreamInfo | None) -> StreamInfo:
        """Return the stream that was found, or raise what it means that it is not there any more."""
        if found is not None and found.expired(self.now()):
            change = await self._expire(found)  # it is due, and tells whether the stream is kept for forks
            found = change.info
        if found is None:
            raise StreamNotFound(name) if incarnation is None else StreamGone(name, incarnation)
        if found.deleted:
            raise StreamGone(name, found.incarnation)
        return await self._settled(found)

    async def settle(self, info: StreamInfo) -> bool:
        """Let a stream whose producer is gone say so; tell whether it did."""
        return await self._settled(info) is not info

    async def _settled(self, info: StreamInfo) -> StreamInfo:
        """Return the state of a stream; of one whose producer is gone, after it was made to say so."""
        name, incarnation, now = info.name, info.incarnation, self.now()
        if not rules.lapsed(info, now):
            return info

        def decide(view: View) -> Change:
            return rules.lapse(view, name, now=now, incarnation=incarnation)

        return there(await self.commit(name, decide, incarnation=incarnation))

    def generation(self, name: str) -> int | None:
        """Return a number that stays the same as long as what a name shows does; None where the store cannot tell.

        See `penstock.core.ports.GenerationStore`. It does not count that time passes: streams expire.
        """
        return None if self._generations is None else self._generations.generation(name)

    async def load(self, name: str) -> StreamInfo | None:
        """Return the state that the store has of whatever a name shows: also what expired, or is the server's own."""
        return await self._store.load(name)

    async def list(self, prefix: str = "", *, after: str = "", limit: int = PAGE, reserved: bool = False) -> Page:
        """Return up to ``limit`` (1 to 1,000) streams whose names begin with ``prefix`` and come after ``after``.

        With ``reserved``, the server's own are among them.
        """
        limit = max(1, min(limit, PAGE))
        found = await self._store.list(prefix, after, limit + 1)
        now = self.now()
        shown = found[:limit]
        return Page(
            tuple(
                [
                    await self._settled(info)
                    for info in shown
                    if not info.expired(now) and (reserved or not _is_reserved(info))
                ]
            ),
            shown[-1].name if len(found) > limit else None,
        )

    async def list_all(self, prefix: str = "", *, reserved: bool = False) -> AsyncGenerator[StreamInfo, None]:
        """Yield every stream whose name begins with ``prefix``, page by page; see `list`."""
        after: str | None = ""
        while after is not None:
            page = await self.list(prefix, after=after, reserved=reserved)
            for info in page.streams:
                yield info
            after = page.next

    async def find(self, owner: str | None, key: str) -> StreamInfo | None:
        """Return an owner's youngest stream of this key, shown by its name or not, or None."""
        return rules.living(await self._store.find(owner, key), self.now())

    async def usage(self, owner: str) -> Usage:
        """Return how many streams an owner has, and their bytes; uploads count with their declared length."""
        return await self._store.usage(owner)

    async def open(self, name: str, *, incarnation: str | None = None) -> Reader:
        """Open a stream for reading: one incarnation, whatever becomes of the name. Close the reader.

        Args:
            name: the stream.
            incarnation: which incarnation, shown or not; None for the one that the name shows.

        Raises:
            StreamNotFound: there is none, or its time has come.
            StreamGone: there is no such incarnation, or the stream was deleted, and is kept for its forks.
        """
        reader = await self._store.open(check_name(name), incarnation=incarnation)
        try:
            info = await self._present(name, incarnation, None if reader is None else reader.info)
            assert reader is not None  # noqa: S101 - otherwise nothing is present
            if info is not reader.info:  # its producer is gone, and now it says so
                await reader.refresh()
            return reader if reader.info.origin is None else await self._joined(reader, reader.info.origin)
        except BaseException:
            if reader is not None:
                reader.close()
            raise

    async def _joined(self, own: Reader, origin: Origin) -> Reader:
        """Return a reader of a fork and what it begins with. Where that fails, ``own`` is the caller's to close."""
        reader = await self._store.open(origin.name, incarnation=origin.incarnation)
        if reader is None:
            await own.refresh()  # a fork that was deleted meanwhile, and its origin with it
            raise StorageFailed(f"The stream {origin.name!r}, which {own.info.name!r} begins with, is missing.")
        try:
            further = reader.info.origin
            return ForkReader(own, reader if further is None else await self._joined(reader, further))
        except BaseException:
            reader.close()
            raise

    async def renew(self, info: StreamInfo) -> None:
        """Put off the expiry of a stream that is being read, if it has a time to live. The disk is not waited for."""
        if info.ttl is None or info.deleted:
            return
        now = self.now()
        if now > info.renewed_at:
            await self._store.commit(
                info.name, lambda view: rules.renew(view, now=now), incarnation=info.incarnation, durable=False
            )

    async def read(self, name: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[Chunk, None]:
        """Yield the bytes of a stream from offset ``start`` up to ``stop``, or to its tail at this moment.

        Raises:
            OffsetOutOfRange: ``start`` is past the tail.
            StreamFailed: after the last bytes of a stream that broke, where it is read to its end.
        """
        with await self.open(name) as reader:
            info = reader.info
            check_offset(reader, start)
            end = info.tail if stop is None else min(stop, info.tail)
            offset = start
            while offset < end:
                data = await reader.read(offset, end)
                yield Chunk(offset, data)
                offset += len(data)
            if info.failure is not None and stop is None:
                raise StreamFailed(name, info.tail, info.failure)

    async def wait(self, reader: Reader, offset: int, timeout: float) -> StreamInfo:
        """Return the state of a stream once it has more than ``offset`` bytes, or is closed.

        Or as it is after ``timeout`` seconds, or when the service stops.

        Raises:
            StreamGone: the stream was deleted or replaced.
        """
        return await until_grown(
            reader, self._notifier, offset, timeout, stopping=lambda: self._stopping, settle=self.settle
        )

    async def follow(self, name: str, start: int | None = 0) -> AsyncGenerator[Chunk, None]:
        """Yield the bytes of a stream from offset ``start`` (None: from its tail), and those to come, until it closes.

        Raises:
            OffsetOutOfRange: ``start`` is past the tail.
            StreamFailed: after the last bytes of a stream that broke.
            StreamGone: the stream was deleted or replaced.
            Stopping: the service is shutting down; come back at the same offset.
        """
        with await self.open(name) as reader:
            async with aclosing(self.follow_reader(reader, start)) as chunks:
                async for chunk in chunks:
                    if chunk is not None:
                        yield chunk

    def follow_reader(
        self, reader: Reader, start: int | None = 0, *, idle: float | None = None
    ) -> AsyncGenerator[Chunk | None, None]:
        """Follow a stream that is open already; None is yielded when nothing came for ``idle`` seconds."""
        info = reader.info
        if start is not None:
            check_offset(reader, start)
        return follow(
            reader,
            self._notifier,
            info.tail if start is None else start,
            stopping=lambda: self._stopping,
            idle=idle,
            settle=self.settle,
        )

    async def group(self, selection: Selection, begin: Begin, *, most: int = 500) -> Group:
        """Open many streams to follow them at once. Close the group.

        Args:
            selection: which ones.
            begin: says where to begin in each, or None to leave it out.
            most: how many at most.

        Raises:
            TooManyStreams: there are more.
        """
        group = Group(self, self._notifier.watch_group(selection.prefix, selection.names), selection, begin, most)
        try:
            await group.start()
        except BaseException:
            group.close()
            raise
        return group

    async def when(self, name: str, ready: Callable[[StreamInfo], bool], *, incarnation: str) -> StreamInfo:
        """Wait until a stream's state is as ``ready`` wants it, and return it.

        It is looked at after each change, and every few seconds.

        Raises:
            StreamGone: the incarnation is gone.
            Stopping: the service is shutting down.
        """
        watch = self._notifier.watch(check_name(name))
        try:
            while True:
                watch.clear()
                info = await self.info(name, incarnation=incarnation)
                if ready(info):
                    return info
                if self._stopping:
                    raise Stopping
                await watch.wait(RECHECK)
        finally:
            watch.close()

    async def digest(self, reader: Reader, algorithm: str) -> bytes:
        """Return the digest of a complete stream (``sha-256`` or ``sha-512``); computed once, and kept.

        The first caller's request goes away? The work goes on for the others who wait for it.
        """
        info = reader.info
        known = info.digests.get(algorithm)
        if known is not None:
            return known
        key = (info.incarnation, algorithm)
        task = self._digesting.get(key)
        if task is None:
            task = self._digesting[key] = asyncio.create_task(self._digest(info, algorithm))
            task.add_done_callback(lambda _: self._digesting.pop(key, None))
        return await asyncio.shield(task)

    async def _digest(self, info: StreamInfo, algorithm: str) -> bytes:
        with await self.open(info.name, incarnation=info.incarnation) as reader:
            digest = await digest_of(reader, algorithm)
        await self._store.commit(
            info.name,
            lambda view: rules.add_digest(view, algorithm, digest),
            incarnation=info.incarnation,
            durable=False,
        )
        return digest


def _is_reserved(info: StreamInfo) -> bool:
    return info.name.partition("/")[0] == RESERVED
