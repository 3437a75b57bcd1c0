"""The doubles in penstock.testing do what they say, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.core.ports import Store
from penstock.errors import StorageFailed, StorageFull
from penstock.stores.memory import MemoryStore
from penstock.testing import Driver, FaultyStore, ManualClock, StoreContract
from penstock.testing.driver import read_range


class TestWithoutFaults(StoreContract):
    def make(self, path: Path) -> Store:
        return FaultyStore(MemoryStore())


def test_chosen_commits_are_refused_and_change_nothing() -> None:
    async def scenario() -> None:
        store = FaultyStore(MemoryStore())
        driver = Driver(store)
        await driver.create("s", b"a")
        store.refuse(StorageFull(), skip=1, times=2)
        await driver.append("s", b"b")
        for _ in range(2):
            with pytest.raises(StorageFull):
                await driver.append("s", b"never")
        await driver.append("s", b"c")
        assert await driver.content("s") == b"abc"
        assert store.commits == 5

    asyncio.run(scenario())


def test_a_change_can_be_made_though_its_answer_is_lost() -> None:
    async def scenario() -> None:
        store = FaultyStore(MemoryStore())
        driver = Driver(store)
        await driver.create("s")
        store.refuse(StorageFailed("the disk did not answer"), applied=True)
        with pytest.raises(StorageFailed):
            await driver.append("s", b"a")
        assert await driver.content("s") == b"a"

    asyncio.run(scenario())


def test_held_commits_wait_for_their_release_even_when_cancelled() -> None:
    async def scenario() -> None:
        store = FaultyStore(MemoryStore())
        driver = Driver(store)
        await driver.create("s")
        hold = store.hold()
        one, two = asyncio.create_task(driver.append("s", b"a")), asyncio.create_task(driver.append("s", b"b"))
        await hold.reached()
        two.cancel()
        await asyncio.sleep(0)
        assert not one.done()
        assert not two.done()
        assert await driver.content("s") == b""
        hold.release()
        await asyncio.wait([one, two])
        assert two.cancelled()
        assert await driver.content("s") == b"ab"
        await driver.append("s", b"c")

    asyncio.run(scenario())


def test_reads_break_at_an_offset_until_the_store_is_mended() -> None:
    async def scenario() -> None:
        store = FaultyStore(MemoryStore())
        driver = Driver(store)
        await driver.create("s", b"abcdef")
        store.break_reads(StorageFailed("a bad sector"), at=4)
        with await driver.reader("s") as reader:
            assert await read_range(reader, 0, 4) == b"abcd"
            assert bytes(await reader.read(2, 6)) == b"cd"
            with pytest.raises(StorageFailed):
                await reader.read(4, 6)
        store.refuse(StorageFull())
        hold = store.hold()
        store.mend()
        assert await driver.content("s") == b"abcdef"
        await driver.append("s", b"g")
        hold.release()

    asyncio.run(scenario())


def test_a_manual_clock_goes_when_it_is_told_to() -> None:
    clock = ManualClock(10)
    assert clock.now() == 10
    clock.advance(2.5)
    assert clock.now() == 12.5
