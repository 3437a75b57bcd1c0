"""The end of a stream, shared by all who follow it there.

Readers of one stream in one framing who stand at the same offset are sent the same bytes, built once (`SharedTail`):
one watch, one look into the store and one framing for all of them, however many they are. What came since a reader's
offset goes out in one write, to some readers in each turn of the event loop, so that appends are taken in between: what
they add goes along with the readers who have not had their turn yet. That is why a log beats a queue for each reader.

The latest pieces are kept in a ring of bounded size, and only while somebody needs them. A reader who is further back
(a replay, a slow line) reads from the store by itself (`penstock.doors.live.followers`) until it meets the ring. So the
store stays the truth, and a slow reader costs no memory and holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.live.following import HEARTBEAT, ending_of
from penstock.doors.live.signals import closing_of
from penstock.errors import OffsetOutOfRange, Stopping, StreamFailed, StreamGone
from penstock.model import StreamInfo
from penstock.protocols.framings import Framing, Kind, Runs, kind_of
from penstock.protocols.records import RecordTooLongError
from penstock.toolkit.responses.handover import Piece

if TYPE_CHECKING:
    from penstock.doors.live.followers import Follower

logger = logging.getLogger("penstock")

PATIENCE: Final = 120.0
"""Seconds after which a reader who takes nothing is given up. It comes back at its offset."""

RING: Final = 1024 * 1024
"""Bytes of pieces that a tail keeps at most, for readers who are a little behind."""

MOST: Final = 256 * 1024
"""Bytes that are joined for one write."""

SLICE: Final = 32
"""Readers that are written to in one turn of the event loop: each write is a system call."""


@dataclass(frozen=True, slots=True)
class Last:
    """How a response ends.

    Attributes:
        piece: what is sent last.
        whole: whether the body ends properly then; else it is broken off, so that nobody takes it for complete.
    """

    piece: Piece
    whole: bool


class SharedTails:
    """The tails that have readers now. For one event loop.

    Args:
        service: the streams.
        heartbeat: seconds of silence after which readers are sent a sign of life.
        patience: seconds after which a reader who takes nothing is given up.
    """

    def __init__(self, service: StreamService, *, heartbeat: float = HEARTBEAT, patience: float = PATIENCE) -> None:
        self.service = service
        self.heartbeat = heartbeat
        self.patience = patience
        self._tails: dict[tuple[str, Framing], SharedTail] = {}

    def of(self, info: StreamInfo, framing: Framing) -> SharedTail:
        """Return the tail of an incarnation in a framing."""
        key = (info.incarnation, framing)
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = SharedTail(self, info, framing)
        return tail

    def forget(self, tail: SharedTail) -> None:
        """Note that a tail has ended, or has no readers any more: the next reader gets a new one."""
        key = (tail.incarnation, tail.framing)
        if self._tails.get(key) is tail:
            del self._tails[key]


class SharedTail:
    """The tail of one incarnation in one framing.

    It runs while at least one reader has come as far as the tail: from the offset where the first one did.

    Attributes:
        name: of the stream.
        incarnation: which one.
        kind: what the stream holds.
        framing: how it is written.
        tails: where it belongs.
    """

    def __init__(self, tails: SharedTails, info: StreamInfo, framing: Framing) -> None:
        self.name = info.name
        self.incarnation = info.incarnation
        self.kind: Kind = kind_of(info.content_type)
        self.framing = framing
        self.tails = tails
        self._ring = _Ring(joins=framing.joins)
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
        runs = Runs(self.kind, start)
        last: Last | None = None
        try:
            with reader:
                chunks = self.tails.service.follow_reader(reader, start, idle=self.tails.heartbeat)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        if chunk is None:
                            self._beat()
                        else:
                            await self._add(*runs.take(chunk.offset, bytes(chunk.data)))
                await self._add(*runs.rest())
            last = self.closing(reader.info)
        except (OffsetOutOfRange, StreamFailed, StreamGone, RecordTooLongError, Stopping) as error:
            last = self.ending(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is: nobody may take what came so far for all
            logger.warning("The readers of %r were cut off: %s", self.name, error)
        self._end(last)

    def closing(self, info: StreamInfo) -> Last:
        """Return what readers are told of a stream that was closed."""
        return Last(Piece(self.framing.end(closing_of(info))), whole=True)

    def ending(self, error: Exception) -> Last:
        """Return what readers are told of any other end."""
        text = self.framing.farewell() if isinstance(error, Stopping) else self.framing.end(ending_of(error))
        return Last(Piece(text), whole=not self.framing.breaks_off)

    async def _add(self, offset: int, run: bytes) -> None:
        """Pass on a run; not before those who are not slow have most of what came before it."""
        if not run:
            return
        while self._behind and self._ring.size > RING // 2:
            self._swept.clear()
            await self._swept.wait()
        self._ring.add(offset, offset + len(run), Piece(self.framing.frame(offset, run)))
        self._behind.extend(self._current)
        self._current.clear()
        self._sweep_soon()
        self._wake_moved()

    def _beat(self) -> None:
        piece = Piece(self.framing.heartbeat())
        if piece.plain:
            # Not in slices: nobody appends anything now, and who has come since has just been written to.
            for follower in list(self._current):
                if not follower.write(piece):
                    del self._current[follower]
                    self.paused(follower)

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
        ring, behind, current = self._ring, self._behind, self._current
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
            piece, follower.offset = ring.since(follower.offset)
            if not follower.write(piece):
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


class _Ring:
    """The latest pieces, one after the other, and what joins them."""

    def __init__(self, *, joins: bool) -> None:
        self.end = 0
        self.size = 0
        self._joins = joins
        self._pieces: dict[int, tuple[int, Piece]] = {}  # by the offset where each begins: where it ends, and the bytes
        self._since: dict[int, tuple[Piece, int]] = {}

    def add(self, start: int, end: int, piece: Piece) -> None:
        self._pieces[start] = (end, piece)
        self.end = end
        self.size += len(piece.plain)
        self._since.clear()

    def has(self, offset: int) -> bool:
        return offset == self.end or offset in self._pieces

    def boundary(self, offset: int) -> int | None:
        """Return the first offset behind ``offset`` where a piece begins or ends."""
        for start, (end, _) in self._pieces.items():
            if start > offset:
                return start
            if end > offset:
                return end
        return self.end if self.end > offset else None

    def since(self, offset: int) -> tuple[Piece, int]:
        """Return what to send from an offset on, and the offset after it: all there is, up to `MOST` bytes."""
        known = self._since.get(offset)
        if known is None:
            known = self._since[offset] = self._joined(offset)
        return known

    def _joined(self, offset: int) -> tuple[Piece, int]:
        end, first = self._pieces[offset]
        parts, size = [first.plain], len(first.plain)
        while self._joins and end < self.end:
            following, piece = self._pieces[end]
            size += len(piece.plain)
            if size > MOST:
                break
            parts.append(piece.plain)
            end = following
        return (first if len(parts) == 1 else Piece(b"".join(parts))), end

    def trim(self, size: int) -> None:
        """Forget the oldest pieces, until there are at most so many bytes."""
        while self.size > size:
            start = next(iter(self._pieces))
            self.size -= len(self._pieces.pop(start)[1].plain)
            self._since.pop(start, None)
