"""Wake-ups within one process. For one event loop: all methods are to be called on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

_MOST_NAMES: Final = 10_000


class Hinted(Protocol):
    """Whom a hint of a name is for."""

    def hint(self, *, far: bool = True) -> None:
        """Note it."""


class InProcessNotifier:
    """See `Notifier`."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Hinted]] = {}
        self._groups: dict[str, set[InProcessGroupWatch]] = {}  # by the prefix that they watch

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

    def notify(self, name: str, *, far: bool = False) -> None:
        """See `Notifier.notify`; ``far`` tells that another process made the change."""
        for watch in self._watches.get(name, ()):
            watch.hint(far=far)
        if self._groups:
            for prefix in prefixes_of(name):
                for group in self._groups.get(prefix, ()):
                    group.hint_of(name)

    def watch_group(self, prefix: str | None, names: Sequence[str] = ()) -> InProcessGroupWatch:
        """See `Notifier.watch_group`."""
        group = InProcessGroupWatch()
        if prefix is not None:
            group.register(self._groups, prefix, group)
        for name in names:
            group.register(self._watches, name, _Member(group, name))
        return group

    def on_question(self, answer: Callable[[bytes], bytes]) -> None:
        """See `Notifier.on_question`: there is nobody to ask."""

    async def ask(self, question: bytes) -> Sequence[bytes]:
        """See `Notifier.ask`: there is nobody to ask."""
        return ()

    def notify_all(self) -> None:
        """See `Notifier.notify_all`."""
        for watches in self._watches.values():
            for watch in watches:
                watch.hint()
        for groups in self._groups.values():
            for group in groups:
                group.hint()


def prefixes_of(name: str) -> Iterator[str]:
    """Yield what a group may watch that a name is in: nothing, and each part of it up to a slash."""
    yield ""
    at = name.find("/")
    while at >= 0:
        yield name[: at + 1]
        at = name.find("/", at + 1)


class _Waiting:
    """One waiter at a time, and whether there is anything to wake it for."""

    def __init__(self) -> None:
        self._hinted = False
        self._far = False
        self._waiter: asyncio.Future[None] | None = None

    def hint(self, *, far: bool = True) -> None:
        """Note that something changed, perhaps ``far`` away in another process, and wake who waits for it."""
        self._hinted = True
        self._far |= far
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """See `Watch.clear`."""
        self._hinted = self._far = False

    async def wait(self, timeout: float) -> bool:
        """See `Watch.wait`."""
        if not self._hinted:
            await self._wait(timeout)
        return self._hinted and not self._far

    async def _wait(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        # A timer and a future: less than asyncio.wait_for, which would make a task for each of as many readers.
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None


class InProcessWatch(_Waiting):
    """See `Watch`. One waiter at a time."""

    def __init__(self, watches: dict[str, set[Hinted]], name: str) -> None:
        super().__init__()
        self._watches = watches
        self._name = name

    def close(self) -> None:
        """See `Watch.close`."""
        _unregister(self._watches, self._name, self)


class InProcessGroupWatch(_Waiting):
    """See `GroupWatch`. One waiter at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._names: set[str] | None = set()
        self._registered: list[Callable[[], None]] = []

    def register(self, table: dict[str, set[T]], key: str, entry: T) -> None:
        """Enter something into a table, until this is closed."""
        table.setdefault(key, set()).add(entry)
        self._registered.append(lambda: _unregister(table, key, entry))

    def hint(self, *, far: bool = True) -> None:
        """Note that anything may have changed."""
        self._names = None
        super().hint(far=far)

    def hint_of(self, name: str) -> None:
        """Note that a stream changed. Of many that nobody asks after, it is only kept that there are many."""
        if self._names is not None:
            self._names.add(name)
            if len(self._names) > _MOST_NAMES:
                self._names = None
        super().hint()

    def take(self) -> set[str] | None:
        """See `GroupWatch.take`."""
        names, self._names = self._names, set()
        self.clear()
        return names

    def close(self) -> None:
        """See `GroupWatch.close`."""
        while self._registered:
            self._registered.pop()()


class _Member:
    """Tells a group of one of its names."""

    def __init__(self, group: InProcessGroupWatch, name: str) -> None:
        self._group = group
        self._name = name

    def hint(self, *, far: bool = True) -> None:
        self._group.hint_of(self._name)


def _unregister(table: dict[str, set[T]], key: str, entry: T) -> None:
    entries = table.get(key)
    if entries is not None:
        entries.discard(entry)
        if not entries:
            del table[key]
