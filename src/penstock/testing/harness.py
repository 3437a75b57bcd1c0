"""What the suite has to know of a store to test it: how to make one, and what it can survive."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from penstock.core.ports import Store
from penstock.testing.driver import Driver


class StoreHarness:
    """How to make the store under test. Subclass it, with `make` at least.

    Attributes:
        persistent: whether another store that `make` returns for the same path has what the one before it had.
        shared: whether several stores may be at work on one path at a time.
    """

    persistent = False
    shared = False

    def make(self, path: Path) -> Store:
        """Return a store on the storage at ``path`` (an empty folder at first), not yet started."""
        raise NotImplementedError

    @property
    def can_crash(self) -> bool:
        """Whether the subclass has a `crash` of its own."""
        return type(self).crash is not StoreHarness.crash

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
        if not self.harness.persistent:
            pytest.skip("this store keeps nothing when it ends")
        if crash:
            if not self.harness.can_crash:
                pytest.skip("this store cannot be made to crash")
            self._running = False
            await self.harness.crash(self.store)
        else:
            await self.stop()
        self.store = self.harness.make(self.path)
        await self.start()

    async def second(self) -> Driver:
        """Start a second store on the same storage."""
        if not self.harness.shared:
            pytest.skip("this store works alone on its storage")
        store = self.harness.make(self.path)
        await store.start()
        self._others.append(store)
        return Driver(store, self.now)

    async def crash(self, second: Driver) -> None:
        """End a second store as if its process had been killed."""
        if not self.harness.can_crash:
            pytest.skip("this store cannot be made to crash")
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
