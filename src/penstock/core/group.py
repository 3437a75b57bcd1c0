"""Following many streams at once: several names, or all that a prefix has, those that are yet to come too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from penstock.core.follow import RECHECK, refreshed
from penstock.core.ports import GroupWatch, Reader
from penstock.errors import (
    InvalidName,
    OffsetOutOfRange,
    Stopping,
    StreamFailed,
    StreamGone,
    StreamNotFound,
    TooManyStreams,
)
from penstock.model import COMPACTED, Chunk, StreamInfo

if TYPE_CHECKING:
    from penstock.core.service.reading import Reading

Begin: TypeAlias = Callable[[Reader, bool], Awaitable[int | None]]
"""Says where to begin in a stream, or None to leave it out. Told whether it was there when the group began."""

SLICE = 256 * 1024
"""Bytes that are read of one stream before it is the next one's turn."""


@dataclass(slots=True, eq=False)
class Member:
    """A stream of the group.

    Attributes:
        reader: the stream, opened.
        start: where reading began.
        offset: up to where it was read.
        ended: whether it was read to its end, and that was told.
    """

    reader: Reader
    start: int
    offset: int
    ended: bool = False

    @property
    def name(self) -> str:
        """What the stream is called."""
        return self.reader.info.name


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream of the group came to its end: well, or as ``error`` tells."""

    error: StreamFailed | StreamGone | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which streams a group has: those of ``names``, and if there is a ``prefix`` all that begin with it."""

    names: Sequence[str] = ()
    prefix: str | None = None


@dataclass(slots=True, eq=False)
class Group:
    """Follows a selection. Close it: it holds the streams open.

    What keeps it whole is what keeps `penstock.core.follow` whole: the watch is registered before anything is read, and
    all is looked at again every few seconds.

    Args:
        service: the streams.
        watch: of the selection; it is closed with the group.
        selection: what to follow.
        begin: where to begin in each.
        most: how many streams at most.

    Attributes:
        members: by name, those that have ended too: whoever resumes must not get them again.
    """

    service: Reading
    watch: GroupWatch
    selection: Selection
    begin: Begin
    most: int
    members: dict[str, Member] = field(default_factory=dict)
    _pending: dict[str, Member] = field(default_factory=dict)
    _left_out: set[str] = field(default_factory=set)  # by their incarnations
    _begun: bool = False

    def close(self) -> None:
        """Release everything. Again is harmless."""
        self.watch.close()
        for member in self.members.values():
            member.reader.close()

    async def start(self) -> None:
        """Open what is there.

        Raises:
            TooManyStreams: it is too much.
        """
        self.watch.take()
        await self._look_at_all()
        self._begun = True

    async def follow(self, idle: float) -> AsyncGenerator[tuple[Member, Chunk | Ended] | None, None]:
        """Yield what comes of which stream; None when nothing came for about ``idle`` seconds.

        It ends when all streams of a selection without prefix have.

        Raises:
            Stopping: the service is shutting down.
            TooManyStreams: more were created.
        """
        loop = asyncio.get_running_loop()
        look_again = loop.time() + RECHECK
        quiet_since = loop.time()
        while True:
            for member in list(self._pending.values()):
                async for item in self._turn(member):
                    yield member, item
                    quiet_since = loop.time()
            now = loop.time()
            if not self._pending:
                if self._complete():
                    return
                if self.service.stopping:
                    raise Stopping
                await self.watch.wait(max(0.0, min(look_again - now, quiet_since + idle - now)))
                now = loop.time()
                if now >= quiet_since + idle:
                    quiet_since = now
                    yield None
            hinted = self.watch.take()
            if hinted is None or now >= look_again:
                look_again = now + RECHECK
                await self._look_at_all()
            else:
                for name in hinted:
                    await self._look(name)

    def _complete(self) -> bool:
        """Tell whether nothing more can come."""
        return self.selection.prefix is None and all(
            name in self.members and self.members[name].ended for name in self.selection.names
        )

    async def _turn(self, member: Member) -> AsyncGenerator[Chunk | Ended, None]:
        """Read some of a stream, and note whether there is more."""
        reader = member.reader
        try:
            info = reader.info if member.offset < reader.info.tail else await refreshed(reader, self.service.settle)
            if member.offset < info.tail:
                data = await reader.read(member.offset, min(info.tail, member.offset + SLICE))
                chunk = Chunk(member.offset, data)
                member.offset = chunk.end
                yield chunk
                return
        except OffsetOutOfRange as error:
            if COMPACTED not in reader.info.attributes:
                raise
            member.offset = error.start  # what counts of all before it comes later
            await reader.refresh()
            return
        except StreamGone as error:
            del self.members[member.name], self._pending[member.name]
            reader.close()
            yield Ended(error)
            await self._look(member.name)  # perhaps it was made anew
            return
        del self._pending[member.name]
        if info.closed:
            member.ended = True
            reader.close()
            yield Ended(None if info.failure is None else StreamFailed(info.name, info.tail, info.failure))

    async def _look_at_all(self) -> None:
        for name in self.selection.names:
            await self._look(name)
        if self.selection.prefix is not None:
            async with aclosing(self.service.list_all(self.selection.prefix)) as streams:
                async for info in streams:
                    await self._look(info.name, info)

    async def _look(self, name: str, info: StreamInfo | None = None) -> None:
        """Have a stream read if it may have something new, and open it if it is new.

        Args:
            name: the stream.
            info: its state, where that is known.
        """
        member = self.members.get(name)
        if member is None:
            if info is None or info.incarnation not in self._left_out:
                await self._open(name)
            return
        same = info is None or info.incarnation == member.reader.info.incarnation
        if not member.ended:
            if not same or info is None or info.tail > member.offset or info.closed:
                self._pending[name] = member
        elif not same or (info is None and await self._made_anew(member)):
            await self._open(name)

    async def _made_anew(self, member: Member) -> bool:
        """Tell whether a stream that has ended gave way to another one of its name."""
        with suppress(StreamNotFound, StreamGone):
            info = await self.service.info(member.name)
            return info.incarnation != member.reader.info.incarnation
        return False

    async def _open(self, name: str) -> None:
        try:
            reader = await self.service.open(name)
        except (StreamNotFound, StreamGone, InvalidName):  # the latter: of the server's own, of which hints come too
            return
        incarnation = reader.info.incarnation
        if incarnation in self._left_out:
            reader.close()
            return
        try:
            start = await self.begin(reader, not self._begun)
        except BaseException:
            reader.close()
            raise
        if start is None:
            self._left_out.add(incarnation)
            reader.close()
        elif name not in self.members and len(self.members) >= self.most:
            reader.close()
            raise TooManyStreams(self.most)
        else:
            self.members[name] = self._pending[name] = Member(reader, start, start)
