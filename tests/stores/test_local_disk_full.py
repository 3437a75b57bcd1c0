"""The local store on a full disk: what fails changes nothing, the rest works, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from penstock.errors import StorageFull
from penstock.model import Buffer
from penstock.stores.local import LocalStore
from penstock.stores.local.catalog import Catalog
from penstock.testing import Driver
from penstock.testing.driver import flow

LARGE = 200_000
"""More than rides in the catalog."""


class Disk:
    """A disk that is full while ``full`` is set: writes to files fail, and the catalog cannot grow."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._room = 1000  # in files, of which a write takes the first part before it fails
        self._pwritev = os.pwritev
        self._begin = Catalog.begin
        disk = self

        def begin(catalog: Catalog, *, durable: bool, grow: bool = True) -> None:
            disk._begin(catalog, durable=durable, grow=grow)
            limit = 1 if disk.full else 1_000_000_000  # a limit below what there is stands for what there is
            catalog._db.execute(f"PRAGMA max_page_count = {limit}")

        patch.setattr(os, "pwritev", self.pwritev)
        patch.setattr(Catalog, "begin", begin)

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
        if not self.full:
            return self._pwritev(descriptor, buffers, offset)
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._pwritev(descriptor, [memoryview(buffers[0])[: self._room]], offset)
        self._room -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def run(path: Path, scenario: Callable[[Driver], Awaitable[None]]) -> None:
    async def main() -> None:
        store = LocalStore(path, "os")
        await store.start()
        try:
            await scenario(Driver(store))
        finally:
            await store.stop()

    asyncio.run(main())


def sizes(path: Path) -> list[int]:
    return sorted(file.stat().st_size for file in (path / "blobs").glob("*/*"))


async def fill(driver: Driver, name: str, tail: int, size: int) -> int:
    """Append until that fails, since some fits into the pages that there are; return the tail."""
    for _ in range(10_000):
        try:
            tail = (await driver.append(name, flow(name, tail, size))).offset
        except StorageFull:
            return tail
    raise AssertionError("it goes on and on")


@pytest.mark.parametrize("size", [300, 20_000])
def test_small_appends_fail_and_leave_what_was_acknowledged(tmp_path: Path, disk: Disk, size: int) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.create("s")
        await driver.create("other", b"abc")
        await driver.append("s", flow("s", 0, size))
        disk.full = True
        tail = await fill(driver, "s", size, size)
        for _ in range(3):
            with pytest.raises(StorageFull):
                await driver.append("s", flow("s", tail, size))
        assert await driver.content("s") == flow("s", 0, tail)
        assert await driver.content("other") == b"abc"
        disk.full = False
        await driver.append("s", flow("s", tail, size))
        assert await driver.content("s") == flow("s", 0, tail + size)

    run(tmp_path, scenario)


def test_large_appends_fail_and_leave_what_was_acknowledged(tmp_path: Path, disk: Disk) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.create("s")
        await driver.append("s", flow("s", 0, LARGE))
        await driver.append("s", flow("s", LARGE, 10))
        before = LARGE + 10
        disk.full = True
        for _ in range(2):
            with pytest.raises(StorageFull):
                await driver.append("s", flow("s", before, LARGE))
            assert sizes(tmp_path) == [LARGE]
            assert await driver.content("s") == flow("s", 0, before)
        disk.full = False
        await driver.append("s", flow("s", before, LARGE))
        assert await driver.content("s") == flow("s", 0, before + LARGE)

    run(tmp_path, scenario)


def test_a_disk_that_is_full_when_the_bytes_are_flushed_fails_the_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        store = LocalStore(tmp_path, "fsync")
        await store.start()
        driver = Driver(store)
        await driver.create("s")
        await driver.append("s", flow("s", 0, LARGE))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            with pytest.raises(StorageFull):
                await driver.append("s", flow("s", LARGE, LARGE))
        assert await driver.content("s") == flow("s", 0, LARGE)
        assert sizes(tmp_path) == [LARGE]
        await driver.append("s", flow("s", LARGE, 2 * LARGE))
        assert await driver.content("s") == flow("s", 0, 3 * LARGE)
        await store.stop()

    asyncio.run(main())


def test_nothing_stays_of_a_stream_that_did_not_fit(tmp_path: Path, disk: Disk) -> None:
    async def scenario(driver: Driver) -> None:
        disk.full = True
        with pytest.raises(StorageFull):
            await driver.put("large", bytes(LARGE))
        disk.full = False
        draft = await driver.begin("draft")
        disk.full = True
        with pytest.raises(StorageFull):
            await driver.append("draft", bytes(LARGE), incarnation=draft)
        await driver.discard("draft", draft)
        disk.full = False
        assert await driver.store.list("", "", 10) == []
        await driver.put("large", b"x" * LARGE)
        assert await driver.content("large") == b"x" * LARGE

    run(tmp_path, scenario)
    assert sizes(tmp_path) == [LARGE]


def test_a_full_disk_still_takes_closes_and_deletions(tmp_path: Path, disk: Disk) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.put("large", bytes(LARGE))
        await driver.create("small", b"abc")
        await driver.create("open", b"abc")
        disk.full = True
        await fill(driver, "open", 3, 1000)
        await driver.append("open", close=True)
        await driver.delete("large")
        await driver.delete("small")
        assert [info.name for info in await driver.store.list("", "", 10)] == ["open"]
        assert (await driver.info("open")).closed

    run(tmp_path, scenario)
    assert sizes(tmp_path) == []


def test_what_could_not_be_moved_to_its_file_is_moved_when_there_is_room(tmp_path: Path, disk: Disk) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.create("s")
        tail = 0
        while tail < 900_000:
            tail = (await driver.append("s", flow("s", tail, 60_000))).offset
        disk.full = True
        tail = await fill(driver, "s", tail, 60_000)
        assert await driver.content("s") == flow("s", 0, tail)
        disk.full = False
        for _ in range(20):
            tail = (await driver.append("s", flow("s", tail, 60_000))).offset
        assert await driver.content("s") == flow("s", 0, tail)

    run(tmp_path, scenario)


@pytest.mark.parametrize("crash", [False, True])
def test_a_store_opens_on_a_full_disk(tmp_path: Path, disk: Disk, *, crash: bool) -> None:
    async def main() -> None:
        store = LocalStore(tmp_path, "os")
        await store.start()
        driver = Driver(store)
        await driver.put("large", flow("large", 0, LARGE))
        await driver.create("small", b"abc")
        disk.full = True
        with pytest.raises(StorageFull):
            await driver.append("large", bytes(LARGE), incarnation=await driver.begin("large"))
        if crash:
            store.abandon()
        else:
            await store.stop()
        store = LocalStore(tmp_path, "os")
        await store.start()
        driver = Driver(store)
        assert await driver.content("large") == flow("large", 0, LARGE)
        assert await driver.content("small") == b"abc"
        disk.full = False
        await driver.append("small", b"def")
        await store.stop()

    asyncio.run(main())
