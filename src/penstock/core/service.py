"""The service: names in, streams out. It joins the rules with a store, a notifier and a clock."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from penstock.core import rules
from penstock.core.digests import digest_of
from penstock.core.follow import RECHECK, follow, until_grown
from penstock.core.forks import ForkReader, check_offset
from penstock.core.group import Begin, Group, Selection
from penstock.core.keeper import Keeper
from penstock.core.ports import Change, Clock, Decide, JoiningStore, Notifier, Reader, Store, View
from penstock.core.presence import Attendance, Presence, together
from penstock.core.rules import Condition
from penstock.core.uninterrupted import uninterrupted
from penstock.core.uploads import Upload, copy, until_evicted
from penstock.core.writer import Draft, Writer
from penstock.errors import (
    PenstockError,
    Stopping,
    StorageFailed,
    StreamClosed,
    StreamFailed,
    StreamGone,
    StreamNotFound,
)
from penstock.model import (
    RESERVED,
    Appended,
    Buffer,
    Chunk,
    Origin,
    Page,
    Producer,
    StreamInfo,
    StreamSpec,
    Usage,
    check_name,
    new_incarnation,
)

logger = logging.getLogger("penstock")

PAGE = 1000
"""The most streams that one `list` returns."""

_SWEEP_BATCH = 100
_RETRY = 1.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return time.time()


class Companion(Protocol):
    """What runs beside a service, on its streams."""

    async def start(self) -> None:
        """Begin; the service has started."""

    async def stop(self) -> None:
        """End; the service stops next."""


class StreamService:
    """Streams by name: create, append, read, follow, close, delete.

    An async context manager: it opens its store on entry and releases everything on exit. For one event loop.

    Args:
        store: where the streams live.
        notifier: who wakes the followers.
        clock: the time.
        sweep_every: seconds between two looks for what has expired.

    Attributes:
        on_change: is told the name of every stream that this process has changed; or None. It must be quick.
        attendance: who is there, of this process.
        companions: what is started and stopped with the service.
    """

    def __init__(
        self, store: Store, notifier: Notifier, *, clock: Clock | None = None, sweep_every: float = 60.0
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._clock = SystemClock() if clock is None else clock
        self._sweep_every = sweep_every
        self._sweeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._leftover: dict[str, StreamInfo] = {}
        self._unswept = asyncio.Event()
        self._digesting: dict[tuple[str, str], asyncio.Task[bytes]] = {}
        self.on_change: Callable[[str], None] | None = None
        self.companions: list[Companion] = []
        self._keeper = Keeper(self)
        self.attendance = Attendance()
        self._notifier.on_question(self.attendance.answer)

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store, recover what a crash left, and begin to take requests."""
        await self._store.start()
        try:
            await self._notifier.start()
        except BaseException:
            await self._store.stop()
            raise
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="penstock-sweep")
        for companion in self.companions:
            await companion.start()

    async def stop(self) -> None:
        """End the followers, finish what is being committed, and release everything."""
        self.drain()
        for companion in self.companions:
            await companion.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await self._keeper.stop()
        for task in self._digesting.values():
            task.cancel()
        await self._notifier.stop()
        await self._store.stop()

    def drain(self) -> None:
        """End the followers, so that the server can go: each gets `Stopping` once it has what is there."""
        self._stopping = True
        self._notifier.notify_all()

    @property
    def stopping(self) -> bool:
        """Whether `drain` was called."""
        return self._stopping

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def now(self) -> float:
        """Return the time that the rules are told (Unix seconds)."""
        return self._clock.now()

    # -- reading --------------------------------------------------------------------------------------------------

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

    async def wait(self, reader: Reader, offset: int, timeout: float) -> StreamInfo:
        """Return the state of a stream once it has more than ``offset`` bytes, or is closed.

        Or as it is after ``timeout`` seconds, or when the service stops.

        Raises:
            StreamGone: the stream was deleted or replaced.
        """
        return await until_grown(
            reader, self._notifier, offset, timeout, stopping=lambda: self._stopping, settle=self.settle
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

        return _there(await self.commit(name, decide, incarnation=incarnation))

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

    async def find(self, owner: str | None, key: str) -> StreamInfo | None:
        """Return an owner's youngest stream of this key, shown by its name or not, or None."""
        return rules.living(await self._store.find(owner, key), self.now())

    async def usage(self, owner: str) -> Usage:
        """Return how many streams an owner has, and their bytes; uploads count with their declared length."""
        return await self._store.usage(owner)

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

    # -- writing --------------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        spec: StreamSpec | None = None,
        *,
        data: Sequence[Buffer] = (),
        close: bool = False,
        producer: Producer | None = None,
    ) -> StreamInfo:
        """Create a stream, perhaps with its first bytes, perhaps complete at once.

        Raises:
            StreamExists: there is one of that name.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.create(
                view, name, spec, incarnation=incarnation, now=now, data=data, close=close, producer=producer
            )

        return _there(await self.commit(name, decide, size=rules.size_of(data)))

    async def append(
        self,
        name: str,
        data: Sequence[Buffer],
        *,
        offset: int | None = None,
        producer: Producer | None = None,
        close: bool = False,
        incarnation: str | None = None,
        content_type: str | None = None,
        create: StreamSpec | None = None,
    ) -> Appended:
        """Append atomically: all of ``data``, or nothing. It is durable when this returns.

        Args:
            name: the stream.
            data: the bytes, in as many buffers as they come in; none of them with ``close`` is a plain close.
            offset: where the tail must be; None appends wherever it is.
            producer: who appends: a repetition of an append that was accepted changes nothing and succeeds.
            close: close the stream in the same commit.
            incarnation: which incarnation is meant; None for whichever there is.
            content_type: what the stream must hold; None for whatever it does.
            create: create the stream like this if there is none.

        Raises:
            StreamNotFound, StreamGone, StreamClosed, StreamFailed, StreamBusy: there is nothing to append to.
            OffsetMismatch, ContentTypeMismatch, LengthMismatch: the append does not fit.
            ProducerFenced, ProducerOutOfSequence: another producer took over, or something was left out.
            StorageFull: nothing was kept.
        """
        check_name(name)
        fresh, now = new_incarnation(), self.now()

        def decide(view: View) -> Change:
            if create is not None and rules.living(view.current, now) is None and offset in {None, 0}:
                return rules.create(
                    view, name, create, incarnation=fresh, now=now, data=data, close=close, producer=producer
                )
            return rules.append(
                view,
                name,
                data,
                now=now,
                offset=offset,
                producer=producer,
                close=close,
                content_type=content_type,
                incarnation=incarnation,
            )

        change = await self.commit(
            name, decide, producer=None if producer is None else producer.id, size=rules.size_of(data)
        )
        info = _there(change)
        return Appended(info, change.offset, change.duplicate, created=info.incarnation == fresh)

    async def append_records(
        self,
        name: str,
        data: Buffer,
        count: int,
        skip: Callable[[int], Buffer],
        *,
        producer: Producer,
        close: bool = False,
        incarnation: str | None = None,
        content_type: str | None = None,
        create: StreamSpec | None = None,
    ) -> Appended:
        """Append records atomically that their producer numbers one by one, without those that it had sent before.

        So a producer that was cut off may cut its records into appends as it likes when it sends them again.

        Args:
            name: the stream.
            data: the records.
            count: how many there are, at least one.
            skip: returns the records without so many of the first ones; pure, called in another thread.
            producer: who appends. Its sequence is the number of the first record.
            close: close the stream in the same commit.
            incarnation: as of `append`.
            content_type: as of `append`.
            create: as of `append`.

        Raises:
            PenstockError: as of `append`.
        """
        check_name(name)
        fresh, now = new_incarnation(), self.now()

        def decide(view: View) -> Change:
            if create is not None and rules.living(view.current, now) is None:
                change = rules.create(
                    view, name, create, incarnation=fresh, now=now, data=(data,), close=close, producer=producer
                )
                return rules.numbered(change, replace(producer, sequence=producer.sequence + count - 1))
            return rules.append_records(
                view,
                name,
                data,
                count,
                skip,
                now=now,
                producer=producer,
                close=close,
                content_type=content_type,
                incarnation=incarnation,
            )

        change = await self.commit(name, decide, producer=producer.id, size=len(data))
        info = _there(change)
        return Appended(info, change.offset, change.duplicate, created=info.incarnation == fresh)

    async def append_from(
        self, name: str, chunks: AsyncIterable[Buffer], *, offset: int | None = None, close: bool = False
    ) -> StreamInfo:
        """Append progressively what ``chunks`` yields: readers see it as it comes, and it is durable at the end.

        Where ``chunks`` raises, what came before is kept and made durable, then the error goes on.
        """
        info = await self.info(name)
        writer = Writer(self, info)
        if offset is not None and offset != info.tail:
            rules.append(View(info, info), name, (), now=self.now(), offset=offset)  # raises what is wrong
        try:
            async for chunk in chunks:
                await writer.write([chunk])
        except PenstockError:
            raise
        except BaseException:
            await uninterrupted(writer.flush())
            raise
        return await (writer.close() if close else writer.flush())

    async def replace(
        self,
        name: str,
        spec: StreamSpec | None = None,
        *,
        condition: Condition | None = None,
        shown: bool = True,
    ) -> Draft:
        """Begin a stream that its name shows once it is complete; one that it shows now stays until then.

        Args:
            name: the stream.
            spec: what is to be said about it.
            condition: looks at what the name shows (None: nothing), at the beginning and at the end, and raises
                `PreconditionFailed` if that must not be replaced.
            shown: False to keep it hidden until it is complete, even if the name shows nothing.

        Returns:
            an async context manager: write to it, then publish it; left otherwise, it is discarded.

        Raises:
            StreamIsOpen: the name shows a stream that is still being written, and that is no upload.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.begin_replacement(
                view, name, spec, incarnation=incarnation, now=now, condition=condition, shown=shown
            )

        return Draft(self, _there(await self.commit(name, decide, incarnation=incarnation, durable=False)), condition)

    async def begin_upload(
        self,
        name: str,
        spec: StreamSpec | None = None,
        *,
        ttl: float | None = None,
        condition: Condition | None = None,
        shown: bool = True,
        incarnation: str | None = None,
    ) -> StreamInfo:
        """Create an upload: a stream that is written by one request after another, with `upload`, until it is complete.

        It is shown at once if the name shows nothing. If the name shows a closed stream, or another upload, that stays
        until the new one is complete, and the new one is addressed by its incarnation.

        Args:
            name: the stream.
            spec: what is to be said about it; also who owns it, and by which key it is found.
            ttl: seconds without progress after which it expires while it is not complete.
            condition: see `replace`; it is to be given again at the end.
            shown: False for a part of another upload, which its name never shows: see `join`.
            incarnation: an id of the caller's own, new for each creation.

        Raises:
            StreamIsOpen: the name shows a stream that is still being written, and that is no upload.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), incarnation or new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.begin_upload(
                view, name, spec, incarnation=incarnation, now=now, ttl=ttl, condition=condition, shown=shown
            )

        return _there(await self.commit(name, decide, incarnation=incarnation))

    async def resume(self, name: str, *, incarnation: str | None = None) -> StreamInfo:
        """Return the state of an upload to go on from: nobody else writes to it any more, and its bytes are durable.

        Whoever was writing is evicted: a client that lost its connection need not wait until that is noticed. Of a
        complete upload, or of any other closed stream, the state is just returned.

        Raises:
            StreamNotFound, StreamGone: there is none.
            StreamFailed: it broke.
            NotAnUpload: it is a stream that grows in another way.
        """
        info = await self.info(name, incarnation=incarnation)
        if info.complete:
            return info
        try:
            return await self._taken_over(info, None, None, None)
        except StreamClosed:  # it was completed just now
            return await self.info(name, incarnation=info.incarnation)

    @asynccontextmanager
    async def upload(
        self, name: str, *, incarnation: str | None = None, offset: int, length: int | None = None
    ) -> AsyncIterator[Upload]:
        """Write to an upload, as the only one who does: whoever did before is evicted, and so are we by the next one.

        The body of the ``async with`` is interrupted as soon as another writer takes over, in whichever process.

        Args:
            name: the stream.
            incarnation: which incarnation; None for the one that the name shows.
            offset: where the bytes to come belong: the tail.
            length: the final size in bytes, if it has not been declared before.

        Raises:
            StreamNotFound, StreamGone: there is none.
            StreamClosed: it is complete.
            StreamFailed: it broke.
            NotAnUpload: it is a stream that grows in another way.
            OffsetMismatch: the tail is elsewhere; nobody was evicted.
            LengthMismatch: another length was declared, or a shorter one than there are bytes.
            WriterEvicted: another writer took over.
        """
        info = await self.info(name, incarnation=incarnation)
        writer = new_incarnation()
        info = await self._taken_over(info, writer, offset, length)
        upload = Upload(self, info, writer)
        async with until_evicted(self, self._notifier, upload):
            yield upload

    async def _taken_over(
        self, info: StreamInfo, writer: str | None, offset: int | None, length: int | None
    ) -> StreamInfo:
        now = self.now()

        def decide(view: View) -> Change:
            return rules.take_over(
                view,
                info.name,
                now=now,
                writer=writer,
                offset=offset,
                length=length,
                incarnation=info.incarnation,
            )

        return _there(await self.commit(info.name, decide, incarnation=info.incarnation, durable=writer is None))

    async def join(self, info: StreamInfo, parts: Sequence[StreamInfo]) -> StreamInfo:
        """Complete an upload that has no bytes of its own with those of other streams, one after another.

        Where the store can, the bytes are not moved through this process, and are there in one commit with the close.

        Args:
            info: the upload.
            parts: closed streams, shown by their names or not. They stay.

        Raises:
            StreamGone: the upload or one of the parts is gone.
            StreamClosed: the upload is complete.
            LengthMismatch: the upload was declared to have another length.
        """
        if not isinstance(self._store, JoiningStore):
            return await copy(self, info, parts)
        now, size = self.now(), sum(part.tail for part in parts)

        def decide(view: View) -> Change:
            return rules.publish(
                view, info.name, incarnation=info.incarnation, now=now, digests={}, condition=None, joined=size
            )

        try:
            return _there(await self._store.join(info.name, decide, parts, incarnation=info.incarnation))
        finally:
            self._notifier.notify(info.name)

    async def shorten(self, info: StreamInfo, ttl: float) -> None:
        """Let a part go ``ttl`` seconds after its last change, because what it was for is done.

        Raises:
            StreamGone: it is gone already.
        """
        now = self.now()

        def decide(view: View) -> Change:
            return rules.shorten(view, info.name, ttl=ttl, now=now, incarnation=info.incarnation)

        await self.commit(info.name, decide, incarnation=info.incarnation, durable=False)

    async def annotate(self, name: str, attributes: Mapping[str, Any], *, incarnation: str | None = None) -> StreamInfo:
        """Set attributes of a stream, durably; those that are None are removed. See `StreamInfo.attributes`."""
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.annotate(view, name, attributes, now=now, incarnation=incarnation)

        return _there(await self.commit(name, decide, incarnation=incarnation))

    async def extend_lease(self, name: str, by: str, seconds: float, *, incarnation: str) -> StreamInfo:
        """Let the producer of a stream say that it is there, and will be heard of within so many seconds.

        A stream that depends on its producer (`penstock.core.rules.lease`) fails when that time is over: whoever looks
        at it then is told so.

        Raises:
            StreamFailed, StreamClosed, StreamGone: it has ended.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.extend_lease(view, name, by=by, until=now + seconds, now=now, incarnation=incarnation)

        return _there(await self.commit(name, decide, incarnation=incarnation, durable=False))

    async def claim(self, name: str, by: str, seconds: float, *, incarnation: str) -> bool:
        """Tell whether ``by`` is to do what is to be done once with a stream, by one process at a time.

        The first that asks is, for so many seconds; it may ask again for more. It says that it is done by
        `annotate`, with None for the attribute `penstock.core.rules.CLAIM`, and in the same commit what became of it.

        Raises:
            StreamGone: there is no such incarnation.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.claim(view, name, by=by, until=now + seconds, now=now, incarnation=incarnation)

        info = _there(await self.commit(name, decide, incarnation=incarnation, durable=False))
        return bool(info.attributes[rules.CLAIM]["by"] == by)

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

    async def put(
        self,
        name: str,
        data: Sequence[Buffer],
        spec: StreamSpec | None = None,
        *,
        condition: Condition | None = None,
        digests: dict[str, bytes] | None = None,
    ) -> StreamInfo:
        """Create or replace a whole stream in one commit: for what fits into memory. See `replace`."""
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.put(
                view,
                name,
                spec,
                incarnation=incarnation,
                now=now,
                data=data,
                digests=digests or {},
                condition=condition,
            )

        return _there(await self.commit(name, decide, incarnation=incarnation, size=rules.size_of(data)))

    async def discard(self, draft: StreamInfo) -> None:
        """Remove a draft that will not be completed. Where the storage cannot do that now, it is tried again."""
        try:
            await self.commit(draft.name, rules.discard, incarnation=draft.incarnation, durable=False)
        except PenstockError as error:
            logger.warning("An unfinished upload could not be removed yet: %s", error)
            self._leftover[draft.incarnation] = draft
            self._unswept.set()
        else:
            self._leftover.pop(draft.incarnation, None)

    async def close(self, name: str, *, incarnation: str | None = None) -> StreamInfo:
        """Close a stream: nothing more can be appended. Again is harmless."""
        return (await self.append(name, (), close=True, incarnation=incarnation)).info

    async def stop_stream(self, name: str, reason: str, *, incarnation: str | None = None) -> StreamInfo:
        """Close a stream because a reader has enough: its producer's next append raises `StreamStopped`.

        Of a stream that has ended already, nothing changes.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.stop(view, name, reason, now=now, incarnation=incarnation)

        return _there(await self.commit(name, decide, incarnation=incarnation))

    async def presence(self, name: str) -> Presence:
        """Return who is there of a stream: on all processes of this machine that share it."""
        check_name(name)
        others = await self._notifier.ask(name.encode())
        return together([self.attendance.of(name), *others])

    async def trim(self, name: str, start: int, *, incarnation: str | None = None) -> StreamInfo:
        """Drop a stream's bytes before offset ``start``. Offsets stay what they are; readers behind it are told.

        Raises:
            OffsetOutOfRange: it is past the tail, or before what is kept.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.trim(view, name, start, now=now, incarnation=incarnation)

        return _there(await self.commit(name, decide, incarnation=incarnation, durable=False))

    async def fail(self, name: str, reason: str, *, incarnation: str | None = None) -> StreamInfo:
        """Say that an open stream broke: its readers are told so, and never take it for complete."""
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.fail(view, name, reason, now=now, incarnation=incarnation)

        return _there(await self.commit(name, decide, incarnation=incarnation))

    async def make_durable(self, info: StreamInfo) -> None:
        """Bring to the disk what a stream has, also what was appended without waiting for that."""

        def unchanged(view: View) -> Change:
            return Change(view.target, duplicate=view.target is None)

        await self.commit(info.name, unchanged, incarnation=info.incarnation)

    async def delete(self, name: str, *, incarnation: str | None = None, condition: Condition | None = None) -> None:
        """Remove a stream. Readers of a closed one finish it; followers of an open one are told that it is gone.

        One that has forks keeps its bytes for them, and its name, until the last of them is gone.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.delete(view, name, now=now, incarnation=incarnation, condition=condition)

        await self._remove(name, decide, incarnation)

    async def _remove(self, name: str, decide: Decide, incarnation: str | None, *, durable: bool = True) -> Change:
        """Carry out a removal, and then that of the origins which were kept for this stream alone.

        Should that be interrupted, the next sweep finds them.
        """
        origins: list[Origin | None] = []

        def observed(view: View) -> Change:
            origins[:] = [None if view.target is None else view.target.origin]
            return decide(view)

        change = await self.commit(name, observed, incarnation=incarnation, durable=durable)
        origin = origins[-1]
        if change.info is None and origin is not None:
            try:
                await self._reap(origin)
            except PenstockError as error:  # what was asked for is done
                logger.warning("A deleted stream without forks could not be removed yet: %s", error)
        return change

    async def _reap(self, origin: Origin) -> None:
        await self._remove(origin.name, rules.reap, origin.incarnation, durable=False)

    async def commit(
        self,
        name: str,
        decide: Decide,
        *,
        incarnation: str | None = None,
        producer: str | None = None,
        size: int = 0,
        durable: bool = True,
    ) -> Change:
        """Have a decision carried out, and wake the followers. See `Store.commit`.

        Also a cancelled commit may have changed something, so the followers are woken whatever becomes of it.
        """
        try:
            change = await self._store.commit(
                name, decide, incarnation=incarnation, producer=producer, size=size, durable=durable
            )
        finally:
            self._notifier.notify(name)
        if self.on_change is not None and not change.duplicate:
            self.on_change(name)
        if change.data and change.info is not None and change.info.attributes:
            self._keeper.appended(change.info)
        return change

    # -- chores ---------------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Remove what has expired, and return how many streams that were."""
        swept = 0
        while True:
            expired = await self._store.expired(self.now(), _SWEEP_BATCH)
            for info in expired:
                swept += not (await self._expire(info)).duplicate
            if len(expired) < _SWEEP_BATCH:
                break
        for info in await self._store.overdue(self.now(), _SWEEP_BATCH):
            with suppress(StreamGone, StreamNotFound):
                await self._keeper.trim(info)
        while orphans := await self._store.orphans(_SWEEP_BATCH):
            for info in orphans:
                await self._reap(Origin(info.name, info.incarnation))
        return swept

    async def _expire(self, info: StreamInfo) -> Change:
        now = self.now()
        return await self._remove(info.name, lambda view: rules.expire(view, now=now), info.incarnation, durable=False)

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
                await self._store.tidy()
            except PenstockError as error:
                logger.warning("The sweep of expired streams failed, and will be tried again: %s", error)
            if self._leftover:
                await asyncio.sleep(_RETRY)
                for draft in list(self._leftover.values()):
                    await self.discard(draft)
            else:
                self._unswept.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._unswept.wait(), self._sweep_every)


def _is_reserved(info: StreamInfo) -> bool:
    return info.name.partition("/")[0] == RESERVED


def _there(change: Change) -> StreamInfo:
    """Return the state after a change that leaves a stream behind."""
    assert change.info is not None  # noqa: S101 - only deletions leave none
    return change.info
