"""Doubles: a store that refuses, stalls or breaks off when it is told to, and a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from penstock.core.ports import Change, Decide, Reader, Store
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import PenstockError
from penstock.model import Buffer, StreamInfo, Usage


class ManualClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


class Hold:
    """Commits that wait. See `FaultyStore.hold`."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def reached(self) -> None:
        """Return once a commit waits here, or has."""
        await self._reached.wait()

    def release(self) -> None:
        """Let those who wait go on, and stop nobody from now on."""
        self._released.set()

    async def pass_(self) -> None:
        """Wait for the release."""
        self._reached.set()
        await self._released.wait()


class FaultyStore:
    """A store around another one, with faults on demand. Without any it is as good as the other.

    ::

        store = FaultyStore(MemoryStore())
        store.refuse(StorageFull())            # the next commit
        hold = store.hold()                    # every commit from now on waits for hold.release()
        store.break_reads(StorageFailed("x"), at=4096)
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plan: deque[tuple[PenstockError | None, bool]] = deque()
        self._hold: Hold | None = None
        self._broken: tuple[PenstockError, int] | None = None
        self.commits = 0
        """How many commits have begun."""

    def refuse(self, error: PenstockError, *, skip: int = 0, times: int = 1, applied: bool = False) -> None:
        """Let commits raise ``error``.

        Args:
            error: usually `StorageFull` or `StorageFailed`.
            skip: how many commits succeed before, counted from those that are planned already.
            times: how many raise.
            applied: whether the change is made nevertheless, as when the disk's answer is lost.
        """
        self._plan.extend([(None, False)] * skip + [(error, applied)] * times)

    def hold(self) -> Hold:
        """Let every commit wait, before it decides, until the returned hold is released."""
        self._hold = Hold()
        return self._hold

    def break_reads(self, error: PenstockError, *, at: int = 0) -> None:
        """Let readers raise ``error`` once they reach offset ``at``; the bytes before it are read as they should."""
        self._broken = error, at

    def mend(self) -> None:
        """Take all faults back."""
        self._plan.clear()
        self._broken = None
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    async def start(self) -> None:
        """See `Store.start`."""
        await self._store.start()

    async def stop(self) -> None:
        """See `Store.stop`."""
        await self._store.stop()

    async def load(self, name: str, *, incarnation: str | None = None) -> StreamInfo | None:
        """See `Store.load`."""
        return await self._store.load(name, incarnation=incarnation)

    async def open(self, name: str, *, incarnation: str | None = None) -> Reader | None:
        """See `Store.open`."""
        reader = await self._store.open(name, incarnation=incarnation)
        return None if reader is None else _FaultyReader(reader, self)

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
        """See `Store.commit`. Like any store's it is not interrupted, not even while it is held."""
        self.commits += 1
        error, applied = self._plan.popleft() if self._plan else (None, False)
        hold = self._hold

        async def commit() -> Change:
            if hold is not None:
                await hold.pass_()
            if error is not None and not applied:
                raise error
            change = await self._store.commit(
                name, decide, incarnation=incarnation, producer=producer, size=size, durable=durable
            )
            if error is not None:
                raise error
            return change

        return await uninterrupted(commit())

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[StreamInfo]:
        """See `Store.list`."""
        return await self._store.list(prefix, after, limit)

    async def expired(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.expired`."""
        return await self._store.expired(now, limit)

    async def overdue(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.overdue`."""
        return await self._store.overdue(now, limit)

    async def orphans(self, limit: int) -> Sequence[StreamInfo]:
        """See `Store.orphans`."""
        return await self._store.orphans(limit)

    async def find(self, owner: str | None, key: str) -> StreamInfo | None:
        """See `Store.find`."""
        return await self._store.find(owner, key)

    async def usage(self, owner: str) -> Usage:
        """See `Store.usage`."""
        return await self._store.usage(owner)

    async def tidy(self) -> None:
        """See `Store.tidy`."""
        await self._store.tidy()

    def limit(self, start: int, stop: int) -> int:
        """Return how far a read from ``start`` comes, and raise if that is nowhere."""
        if self._broken is None:
            return stop
        error, at = self._broken
        if start >= at:
            raise error
        return min(stop, at)


class _FaultyReader:
    def __init__(self, reader: Reader, store: FaultyStore) -> None:
        self._reader = reader
        self._store = store

    @property
    def info(self) -> StreamInfo:
        return self._reader.info

    async def refresh(self) -> StreamInfo:
        return await self._reader.refresh()

    async def read(self, start: int, stop: int) -> Buffer:
        return await self._reader.read(start, self._store.limit(start, stop))

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
