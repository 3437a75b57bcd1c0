"""The service as a whole: it starts and stops, and does the chores."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from penstock.core.keeper import Keeper
from penstock.core.ports import Clock, CollectingStore, GenerationStore, Notifier, Store
from penstock.core.presence import Attendance, Presence, together
from penstock.core.service.uploading import Uploading
from penstock.errors import PenstockError, StreamGone, StreamNotFound
from penstock.model import Origin, StreamInfo, check_name

logger = logging.getLogger("penstock")


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


class StreamService(Uploading):
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
        # Found out once: to ask a Protocol takes longer than what they do.
        self._collecting = store if isinstance(store, CollectingStore) else None
        self._generations = store if isinstance(store, GenerationStore) else None
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

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def presence(self, name: str) -> Presence:
        """Return who is there of a stream: on all processes of this machine that share it."""
        check_name(name)
        others = await self._notifier.ask(name.encode())
        return together([self.attendance.of(name), *others])

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
