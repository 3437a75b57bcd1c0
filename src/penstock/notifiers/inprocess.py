"""Wake-ups within one process. For one event loop: all methods are to be called on it."""

from __future__ import annotations

import asyncio


class InProcessNotifier:
    """See `Notifier`."""

    def __init__(self) -> None:
        self._watches: dict[str, set[InProcessWatch]] = {}

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """See `Notifier.stop`."""
        self.notify_all()

    def watch(self, name: str) -> InProcessWatch:
        """See `Notifier.watch`."""
        watch = InProcessWatch(self._watches, name)
        self._watches.setdefault(name, set()).add(watch)
        return watch

    def notify(self, name: str) -> None:
        """See `Notifier.notify`."""
        for watch in self._watches.get(name, ()):
            watch.hint()

    def notify_all(self) -> None:
        """See `Notifier.notify_all`."""
        for watches in self._watches.values():
            for watch in watches:
                watch.hint()


class InProcessWatch:
    """See `Watch`. One waiter at a time."""

    __slots__ = ("_hinted", "_name", "_waiter", "_watches")

    def __init__(self, watches: dict[str, set[InProcessWatch]], name: str) -> None:
        self._watches = watches
        self._name = name
        self._hinted = False
        self._waiter: asyncio.Future[None] | None = None

    def hint(self) -> None:
        """Note that something changed, and wake who waits for it."""
        self._hinted = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """See `Watch.clear`."""
        self._hinted = False

    async def wait(self, timeout: float) -> None:
        """See `Watch.wait`."""
        if self._hinted:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        # A timer and a future: less than asyncio.wait_for, which would make a task for each of as many readers.
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """See `Watch.close`."""
        watches = self._watches.get(self._name)
        if watches is not None:
            watches.discard(self)
            if not watches:
                del self._watches[self._name]
