from __future__ import annotations

from pathlib import Path

from penstock.core.ports import Store
from penstock.stores.memory import MemoryStore
from penstock.testing import StoreContract, StoreHarness, store_machine


class MemoryHarness(StoreHarness):
    def make(self, path: Path) -> Store:
        return MemoryStore()


class TestMemoryStore(MemoryHarness, StoreContract):
    pass


TestMemoryMachine = store_machine(MemoryHarness()).TestCase
