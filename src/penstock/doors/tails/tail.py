"""One pump for all readers at the end of a stream, and their turns."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.tails.ring import RING, Ring
from penstock.doors.tails.telling import Last, Telling
from penstock.errors import OffsetOutOfRange, Stopping, StreamFailed, StreamGone
from penstock.model import StreamInfo
from penstock.protocols.records import RecordTooLongError
from penstock.toolkit.responses.handover import Piece

if TYPE_CHECKING:
    from penstock.doors.tails.followers import Follower

logger = logging.getLogger("penstock")

PATIENCE: Final = 120.0
"""Seconds after which a reader who takes nothing is given up. It comes back at its offset."""

SLICE: Final = 32
"""Readers that are written to in one turn of the event loop: each write is a system call."""

_SHORTEST: Final = 0.1


class SharedTails:
    """The tails that have readers now. For one event loop.

    Args:
        service: the streams.
        heartbeat: seconds of silence after which readers are sent a sign of life.
        patience: seconds after which a reader who takes nothing is given up.
        lifetime: seconds after which a reader has to come back; None for never.
        renews: whether to follow a stream puts off its expiry, if it has a time to live.
    """

    def __init__(
        self,
        service: StreamService,
        *,
        heartbeat: float,
        patience: float = PATIENCE,
        lifetime: float | None = None,
        renews: bool = False,
    ) -> None:
        self.service = service
        self.patience = patience
        self.lifetime = lifetime
        self.renews = renews
        self._heartbeat = heartbeat
        self._tails: dict[tuple[str, Telling], SharedTail] = {}

    def of(self, info: StreamInfo, telling: Telling) -> SharedTail:
        """Return the tail of an incarnation in a telling, for a reader who enters it at once."""
        key = (info.incarnation, telling)
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = SharedTail(self, info, telling)
        return tail

    def forget(self, tail: SharedTail) -> None:
        """Note that a tail has ended, or has no readers any more: the next reader gets a new one."""
        key = (tail.incarnation, tail.telling)
        if self._tails.get(key) is tail:
            del self._tails[key]

    def heartbeat(self, info: StreamInfo) -> float:
        """Return the seconds of silence after which readers of a stream are sent a sign of life, and it is renewed."""
        if not self.renews or info.ttl is None:
            return self._heartbeat
        return min(self._heartbeat, max(info.ttl / 2, _SHORTEST))


class SharedTail:
    """The tail of one incarnation in one telling.

    It runs while at least one reader has come as far as the tail: from the offset where the first one did.

    Attributes:
        name: of the stream.
        incarnation: which one.
        telling: how it is written.
        tails: where it belongs.
    """

    def __init__(self, tails: SharedTails, info: StreamInfo, telling: Telling) -> None:
        self.name = info.name
        self.incarnation = info.incarnation
        self.telling = telling
        self.tails = tails
        self._ring = Ring(telling, info)
        self._pump: asyncio.Task[None] | None = None
        self._reader: Reader | None = None
        self._last: Last | None = None  # what comes after all: set once the stream has ended
        self._aborted = False
        self._followers: set[Follower] = set()  # all of them, wherever they are
        self._current: dict[Follower, None] = {}  # those that have all there is, in the order of their turns
        self._behind: deque[Follower] = deque()  # those whose turn it is; some may have left
        self._sweeping = False
        self._swept = asyncio.Event()
        self._moved: list[asyncio.Future[None]] = []
        self._patience: asyncio.TimerHandle | None = None

    # -- for followers --------------------------------------------------------------------------------------------

    def enter(self, follower: Follower) -> None:
        """Note that a reader has come, wherever it stands."""
        self._followers.add(follower)

    def leave(self, follower: Follower) -> None:
        """Note that a reader has gone. Again is harmless."""
        self._followers.discard(follower)
        follower.left()
        self._current.pop(follower, None)
        if not self._followers:
            self.tails.forget(self)
            if self._pump is not None:
                self._pump.cancel()

    def begin(self, reader: Reader, offset: int) -> bool:
        """Start at an offset where a reader has all there is, and a record begins; False if it has started already.

        The tail takes the reader over, and closes it.
        """
        if self._pump is not None:
            return False
        self._ring.end = offset
        self._reader = reader
        self._pump = asyncio.create_task(self._run(reader, offset), name="penstock-tail")
        return True

    def has(self, reader: Reader) -> bool:
        """Tell whether the tail took a reader over."""
        return self._reader is reader

    @property
    def runs(self) -> bool:
        """Whether it has started, and not ended."""
        return self._pump is not None and self._last is None and not self._aborted

    def meets(self, offset: int) -> bool:
        """Tell whether the ring, or the tail, begins at an offset."""
        return self._pump is not None and self._ring.has(offset)

    def boundary(self, offset: int) -> int | None:
        """Return where the first piece ends that goes past an offset; None if the tail has not come that far."""
        return self._ring.boundary(offset) if self.runs else None

    def join(self, follower: Follower) -> None:
        """Take over a reader whose offset the ring, or the tail, `meets`."""
        if follower.offset == self._ring.end and self._last is None:
            self._current[follower] = None
        else:
            self._behind.append(follower)
            self._sweep_soon()

    async def moved(self) -> None:
        """Wait until the tail moves, or ends."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moved.append(waiter)
        await waiter

    def paused(self, follower: Follower) -> None:
        """Note that a reader's line takes no more for now."""
        follower.paused_at = asyncio.get_running_loop().time()
        if self._patience is None:
            self._look_after_slow_ones_later()

    # -- the pump -------------------------------------------------------------------------------------------------

    async def _run(self, reader: Reader, start: int) -> None:
        """Read what comes, frame it, and pass it on, until the stream ends."""
        runs = self.telling.cutter(start)
        last: Last | None = None
        try:
            with reader:
                chunks = self.tails.service.follow_reader(reader, start, idle=self.tails.heartbeat(reader.info))
                async with aclosing(chunks):
                    async for chunk in chunks:
                        self._ring.info = reader.info
                        if chunk is None:
                            if self.tails.renews:
                                await self.tails.service.renew(reader.info)
                            self._beat()
                        else:
                            await self._add(*runs.take(chunk.offset, bytes(chunk.data)))
                self._ring.info = reader.info
                await self._add(*runs.rest())
            last = self.telling.closing(reader.info)
        except (OffsetOutOfRange, StreamFailed, StreamGone, RecordTooLongError, Stopping) as error:
            last = self.telling.ending(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is: nobody may take what came so far for all
            logger.warning("The readers of %r were cut off: %s", self.name, error)
        self._end(last)

    async def _add(self, offset: int, run: bytes) -> None:
        """Pass on a run; not before those who are not slow have most of what came before it."""
        if not run:
            return
        while self._behind and self._ring.size > RING // 2:
            self._swept.clear()
            await self._swept.wait()
        self._ring.add(offset, offset + len(run), self.telling.part(offset, run))
        self._behind.extend(self._current)
        self._current.clear()
        self._sweep_soon()
        self._wake_moved()

    def _beat(self) -> None:
        present = self._present()
        pieces: dict[int, Piece] = {}
        # Not in slices: nobody appends anything now, and who has come since has just been written to.
        for follower in list(self._current):
            mark = max(follower.mark, present)
            piece = pieces.get(mark)
            if piece is None:
                piece = pieces[mark] = Piece(self.telling.heartbeat(self._ring.end, self._ring.info, mark))
            if piece.plain and not follower.write(piece):
                del self._current[follower]
                self.paused(follower)

    def _present(self) -> int:
        return self.telling.mark(self.tails.service.now())

    def _end(self, last: Last | None) -> None:
        self._last = last
        self._aborted = last is None
        self.tails.forget(self)
        if last is None:
            for follower in list(self._followers):
                follower.abort()
        self._behind.extend(self._current)
        self._current.clear()
        self._sweep_soon()
        self._wake_moved()

    def _wake_moved(self) -> None:
        moved, self._moved = self._moved, []
        for waiter in moved:
            if not waiter.done():
                waiter.set_result(None)

    # -- the readers' turns ---------------------------------------------------------------------------------------

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_soon(self._sweep)

    def _sweep(self) -> None:
        """Give some readers their turn, and the others theirs after the event loop had its own.

        The appends that are taken between two slices share the writes of those who come after. With slices of 100 or
        more an append waits too long for its turn, and with fewer than 16 the turns cost more than they bring.
        """
        ring, behind, current, present = self._ring, self._behind, self._current, self._present()
        for _ in range(min(SLICE, len(behind))):
            follower = behind.popleft()
            if follower.closed:
                continue
            if follower.offset == ring.end:
                if self._last is None:
                    current[follower] = None
                else:
                    follower.finish(self._last)
                continue
            if not ring.has(follower.offset):
                follower.catch_up()
                continue
            piece, follower.offset, last = ring.since(follower.offset, max(follower.mark, present))
            if last:
                follower.finish(Last(piece, whole=True))
            elif not follower.write(piece):
                self.paused(follower)
            elif follower.offset == ring.end and self._last is None:
                current[follower] = None
            else:
                behind.append(follower)
        self._sweeping = False
        if behind:
            self._sweep_soon()
        else:
            ring.trim(0 if len(current) == len(self._followers) else RING)
            self._swept.set()

    # -- slow readers ---------------------------------------------------------------------------------------------

    def _look_after_slow_ones_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(self.tails.patience / 4, self._look_after_slow_ones)

    def _look_after_slow_ones(self) -> None:
        self._patience = None
        now = asyncio.get_running_loop().time()
        slow = [follower for follower in self._followers if follower.paused_at]
        for follower in slow:
            if now - follower.paused_at > self.tails.patience:
                follower.abort()
        if slow:
            self._look_after_slow_ones_later()
