from __future__ import annotations

from pathlib import Path

from penstock.core.ports import Store
from penstock.stores.local import LocalStore
from penstock.testing import StoreContract, StoreHarness, store_machine


class LocalHarness(StoreHarness):
    persistent = True
    shared = True

    def make(self, path: Path) -> Store:
        return LocalStore(path, "os")

    async def crash(self, store: Store) -> None:
        assert isinstance(store, LocalStore)
        store.abandon()


class SyncedHarness(LocalHarness):
    def make(self, path: Path) -> Store:
        return LocalStore(path, "fsync")


class TestLocalStore(LocalHarness, StoreContract):
    pass


class TestSyncedLocalStore(SyncedHarness, StoreContract):
    pass


TestLocalMachine = store_machine(LocalHarness()).TestCase
