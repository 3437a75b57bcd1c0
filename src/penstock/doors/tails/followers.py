"""The readers of a shared tail: behind it, each reads from the store by itself; at it, it is just written to."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable

from penstock.core.follow import refreshed
from penstock.core.ports import Reader
from penstock.doors.tails.ring import MOST
from penstock.doors.tails.tail import SharedTail
from penstock.doors.tails.telling import Last, Unfinished
from penstock.errors import OffsetOutOfRange, Stopping, StreamFailed, StreamGone
from penstock.model import COMPACTED, StreamInfo
from penstock.protocols.records import RecordTooLongError
from penstock.toolkit.responses.handover import Line, Piece, Sink

logger = logging.getLogger("penstock")


class Follower:
    """A reader: where it stands, and its line. See `Sink` for what it is told of that.

    It has a task of its own only while it is behind the tail.

    Args:
        tail: what it follows.
        offset: where it begins.
        line: where it is written to.
        left: is called when it goes, perhaps more than once.
        mark: what makes it different from others; see `Telling`.

    Attributes:
        offset: up to where it has been written to.
        mark: as above.
        left: as above.
        paused_at: since when its line takes nothing more, by the event loop's clock; 0 while it does.
    """

    __slots__ = ("_done", "_line", "_over", "_room", "_tail", "_task", "_timer", "left", "mark", "offset", "paused_at")

    def __init__(self, tail: SharedTail, offset: int, line: Line, left: Callable[[], None], mark: int = 0) -> None:
        self.offset = offset
        self.mark = mark
        self.left = left
        self.paused_at = 0.0
        self._tail = tail
        self._line = line
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False  # whether its lifetime is
        self._done = False
        line.sink = self
        tail.enter(self)
        if tail.tails.lifetime is not None:
            self._timer = asyncio.get_running_loop().call_later(tail.tails.lifetime, self._expire)

    def start(self, reader: Reader) -> None:
        """Begin, with a reader of the stream that it closes."""
        if self._tail.meets(self.offset):
            reader.close()
            self._tail.join(self)
        else:
            self._task = asyncio.create_task(self._catch_up(reader), name="penstock-follower")

    # -- for the tail ---------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it has gone, or was told the end."""
        return self._done or self._line.closed

    def write(self, piece: Piece) -> bool:
        """Send it something; False if its line takes no more for now."""
        return self._line.write(piece)

    def catch_up(self) -> None:
        """Read from the store: the ring has gone on without it."""
        self._task = asyncio.create_task(self._catch_up(None), name="penstock-follower")

    def finish(self, last: Last) -> None:
        """Tell it the end of the stream."""
        self._leave()
        self._line.finish(last.piece, whole=last.whole)

    def abort(self) -> None:
        """Cut it off."""
        self.lost()
        self._line.abort()

    def _leave(self) -> None:
        self._done = True
        self._tail.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        """Let it come back: now, or once its line takes something, as one that takes nothing is to be given up."""
        self._over = True
        if not self.paused_at:
            self._send_back()

    def _send_back(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.finish(Last(Piece(b""), whole=True))

    # -- for the line ---------------------------------------------------------------------------------------------

    def resumed(self) -> None:
        """See `Sink.resumed`."""
        self.paused_at = 0.0
        if self._over and not self._done:
            self._send_back()
        elif self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
        elif self._task is None:
            self._tail.join(self)

    def lost(self) -> None:
        """See `Sink.lost`."""
        self._leave()
        if self._task is not None:
            self._task.cancel()

    # -- by itself ------------------------------------------------------------------------------------------------

    async def _catch_up(self, reader: Reader | None) -> None:
        """Read from the store up to the ring, or to the end of the stream."""
        try:
            last = await self._read_up(reader or await self._opened())
        except (OffsetOutOfRange, StreamFailed, StreamGone, RecordTooLongError, Stopping) as error:
            last = self._tail.telling.ending(error)
        except Exception as error:  # noqa: BLE001 - whatever it is: nobody may take what came so far for all
            self._task = None
            logger.warning("A reader of %r was cut off: %s", self._tail.name, error)
            self.abort()
            return
        self._task = None
        if last is None:
            self._tail.join(self)
        else:
            self.finish(last)

    async def _opened(self) -> Reader:
        return await self._tail.tails.service.open(self._tail.name, incarnation=self._tail.incarnation)

    async def _read_up(self, reader: Reader) -> Last | None:
        """Send what is in the store. Return what comes last, or None where the tail goes on."""
        tail, runs, at = self._tail, self._tail.telling.cutter(self.offset), self.offset
        try:
            while not tail.meets(runs.offset):
                info = reader.info if at < reader.info.tail else await refreshed(reader, tail.tails.service.settle)
                stop = min(info.tail, at + MOST, tail.boundary(at) or info.tail)
                if at < stop:
                    try:
                        data = bytes(await reader.read(at, stop))
                    except OffsetOutOfRange as error:
                        if COMPACTED not in info.attributes:
                            raise
                        at = self.offset = error.start  # what counts of all before it comes later
                        runs = tail.telling.cutter(at)
                        await reader.refresh()
                        continue
                    last = await self._send(*runs.take(at, data), info)
                    if last is not None:
                        return last
                    at += len(data)
                elif info.failure is not None:
                    raise StreamFailed(info.name, info.tail, info.failure)
                elif info.closed:
                    return await self._send(*runs.rest(), info) or tail.telling.closing(info)
                elif tail.tails.service.stopping:
                    raise Stopping
                elif tail.begin(reader, runs.offset):
                    return None
                elif tail.runs:  # which has not come as far as this reader yet
                    await tail.moved()
            return None
        finally:
            if not tail.has(reader):
                reader.close()

    async def _send(self, offset: int, run: bytes, info: StreamInfo) -> Last | None:
        """Send a run; or return it, where it is the last that is sent."""
        if not run:
            return None
        telling = self._tail.telling
        mark = max(self.mark, telling.mark(self._tail.tails.service.now()))
        self.offset = end = offset + len(run)
        piece = Piece(telling.joined([telling.part(offset, run)]) + telling.after(end, info, mark))
        if telling.is_end(end, info):
            return Last(piece, whole=True)
        if not self._line.write(piece):
            await self._wait_for_room()
        return None

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        self._tail.paused(self)
        try:
            await self._room
        finally:
            self._room = None


class PulledLine:
    """A line whose other end takes what was written, piece by piece: for plain ASGI. See `Line`."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.closed = False
        self._pieces: deque[Piece] = deque()
        self._taken = False
        self._ended = False
        self._whole = True
        self._aborted = False
        self._arrived: asyncio.Future[None] | None = None

    def write(self, piece: Piece) -> bool:
        """See `Line.write`: one piece at a time."""
        self._pieces.append(piece)
        self._wake()
        return False

    def finish(self, piece: Piece, *, whole: bool) -> None:
        """See `Line.finish`."""
        if piece.plain:
            self._pieces.append(piece)
        self._ended = True
        self._whole = whole
        self._wake()

    def abort(self) -> None:
        """See `Line.abort`."""
        self._aborted = True
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield what is written, to the end; the next piece is asked for when the last one has gone.

        Raises:
            Unfinished: the line was aborted, or its body is not whole.
        """
        try:
            while True:
                while not self._pieces and not self._ended and not self._aborted:
                    self._arrived = asyncio.get_running_loop().create_future()
                    await self._arrived
                if self._aborted:
                    raise Unfinished("the reader was cut off")
                if not self._pieces:
                    if not self._whole:
                        raise Unfinished("the stream had not come to its end")
                    return
                yield self._pieces.popleft().plain
                if not self._pieces and not self._ended and self.sink is not None:
                    self.sink.resumed()
        finally:
            self.closed = True
            if self.sink is not None:
                self.sink.lost()
