from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from penstock.core.ports import Store
from penstock.stores.local import LocalStore
from penstock.testing import Driver, StoreContract, StoreHarness, store_machine
from penstock.testing.driver import flow


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

# Writes on and on, and says what was acknowledged, until it is killed.
WRITER = """
import asyncio, itertools, sys
from penstock.stores.local import LocalStore
from penstock.testing.driver import Driver, flow

async def fill(driver, name):
    info = await driver.store.load(name)
    tail = (await driver.create(name)).offset if info is None else info.tail
    for number in itertools.count():
        size = (10, 300, 70_000, 1, 4000, 1_100_000, 60_000)[(number + len(name)) % 7]
        tail = (await driver.append(name, flow(name, tail, size), offset=tail)).offset
        print("appended", name, tail, flush=True)

async def replace(driver, name):
    for number in itertools.count():
        draft = await driver.begin(name)
        size = (100_000, 50)[number % 2]
        await driver.append(name, flow(draft, 0, size), incarnation=draft)
        await driver.publish(name, draft)
        print("published", name, draft, flush=True)

async def both(driver):
    for number in itertools.count():
        await driver.append("shared", bytes([int(sys.argv[2])]) * 100)
        print("shared", sys.argv[2], number, flush=True)

async def main():
    store = LocalStore(sys.argv[1], "os")
    await store.start()
    driver, me = Driver(store), sys.argv[2]
    await asyncio.gather(fill(driver, "a" + me), fill(driver, "bb" + me), replace(driver, "r" + me), both(driver))

asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_when_two_writing_processes_are_killed(tmp_path: Path) -> None:
    async def prepare() -> None:
        store = LocalStore(tmp_path, "os")
        await store.start()
        await Driver(store).create("shared")
        await store.stop()

    asyncio.run(prepare())
    shared = {"1": 0, "2": 0}
    for _ in range(2):
        tails: dict[str, int] = {}
        published: dict[str, str] = {}
        for line in written_until_killed(tmp_path, lines=60):
            match line.split():
                case "appended", name, tail:
                    tails[name] = int(tail)
                case "published", name, draft:
                    published[name] = draft
                case "shared", who, _:
                    shared[who] += 1
        assert tails
        assert published
        asyncio.run(check(tmp_path, tails, published, shared))


def written_until_killed(path: Path, lines: int) -> list[str]:
    """Run two writers, kill them when each has said a number of lines, and return all that they said."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name], stdout=subprocess.PIPE, text=True)
        for name in ("1", "2")
    ]
    said: list[str] = []
    for writer in writers:
        assert writer.stdout is not None
        said += [writer.stdout.readline() for _ in range(lines)]
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        rest, _ = writer.communicate()
        said += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    return said


async def check(path: Path, tails: dict[str, int], published: dict[str, str], shared: dict[str, int]) -> None:
    store = LocalStore(path, "os")
    await store.start()
    driver = Driver(store)
    for name, tail in tails.items():
        content = await driver.content(name)
        assert len(content) >= tail
        assert content == flow(name, 0, len(content))
    for name, draft in published.items():
        info = await driver.info(name)
        assert info.complete
        content = await driver.content(name)
        assert content == flow(info.incarnation, 0, len(content))
        if info.incarnation != draft:  # published, and killed before it could be said
            assert (await driver.view(name, incarnation=draft)).target is None
    content = await driver.content("shared")
    for who, count in shared.items():
        assert content.count(bytes([int(who)])) >= count * 100
    assert not [info for info in await store.list("", "", 100) if info.provisional]
    await store.stop()
