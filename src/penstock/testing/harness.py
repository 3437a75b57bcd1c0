"""What the suite has to know of a store to test it: how to make one, and what it can survive."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from penstock.core.ports import Store
from penstock.testing.driver import Driver


class StoreHarness:
    """How to make the store under test. Subclass it, with `make` at least.

    Attributes:
        persistent: whether another store that `make` returns for the same path has what the one before it had.
        shared: whether several stores may be at work on one path at a time.
        can_crash: whether the subclass has a `crash` of its own; found out, not to be set.
    """

    persistent = False
    shared = False
    can_crash = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Take out the laws that the subclass cannot be held to."""
        super().__init_subclass__(**options)
        cls.can_crash = cls.crash is not StoreHarness.crash
        for name in dir(cls):
            needs = getattr(getattr(cls, name), "needs", ())
            if name.startswith("test_") and not all(getattr(cls, need) for need in needs):
                setattr(cls, name, None)

    def make(self, path: Path) -> Store:
        """Return a store on the storage at ``path`` (an empty folder at first), not yet started."""
        raise NotImplementedError

    async def crash(self, store: Store) -> None:
        """End a persistent store as if its process had been killed: no commit is under way, but none is finished up."""
        raise NotImplementedError


class Lab(Driver):
    """A started store of a harness, and a driver of it. A law gets a new one.

    Attributes:
        harness: makes the stores.
        path: of the storage.
    """

    def __init__(self, harness: StoreHarness, path: Path) -> None:
        super().__init__(harness.make(path))
        self.harness = harness
        self.path = path
        self._others: list[Store] = []
        self._running = False

    async def start(self) -> None:
        """Start the store."""
        await self.store.start()
        self._running = True

    async def stop(self) -> None:
        """Stop the store, if it runs."""
        if self._running:
            self._running = False
            await self.store.stop()

    async def reopen(self, *, crash: bool) -> None:
        """End the store, cleanly or not, and start another in its place."""
        if crash:
            self._running = False
            await self.harness.crash(self.store)
        else:
            await self.stop()
        self.store = self.harness.make(self.path)
        await self.start()

    async def second(self) -> Driver:
        """Start a second store on the same storage."""
        store = self.harness.make(self.path)
        await store.start()
        self._others.append(store)
        return Driver(store, self.now)

    async def crash(self, second: Driver) -> None:
        """End a second store as if its process had been killed."""
        self._others.remove(second.store)
        await self.harness.crash(second.store)

    async def end(self) -> None:
        """Stop every store that runs."""
        await self.stop()
        while self._others:
            await self._others.pop().stop()


Law: TypeAlias = Callable[[Any, Lab], Awaitable[None]]


def law(test: Law) -> Callable[..., None]:
    """Make a test method for pytest of one that is given a `Lab`: with a loop of its own, and all ended afterwards."""

    def run(self: StoreHarness, tmp_path: Path) -> None:
        asyncio.run(_run(self, test, tmp_path))

    # No functools.wraps: pytest would look through it, and ask for a fixture named lab.
    run.__name__ = test.__name__
    run.__doc__ = inspect.getdoc(test)
    return run


def law_if(*needs: str) -> Callable[[Law], Callable[..., None]]:
    """Make a law that holds only for stores with these attributes of `StoreHarness`."""

    def decorate(test: Law) -> Callable[..., None]:
        run = law(test)
        run.needs = needs  # type: ignore[attr-defined]  # functions take attributes
        return run

    return decorate


async def _run(harness: StoreHarness, test: Law, path: Path) -> None:
    lab = Lab(harness, path / "storage")
    lab.path.mkdir()
    await lab.start()
    try:
        await test(harness, lab)
    finally:
        await lab.end()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        raise AssertionError(f"tasks that outlive their store: {left}")
