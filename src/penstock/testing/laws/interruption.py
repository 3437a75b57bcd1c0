"""Interruption: cancelled callers, and a stop while commits are under way."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from penstock.core import rules
from penstock.core.ports import Change, View
from penstock.errors import PenstockError
from penstock.testing.driver import Driver, flow, read_range
from penstock.testing.harness import Lab, StoreHarness, law, law_if

T = TypeVar("T")


async def turns(count: int) -> None:
    """Let the others run, ``count`` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int, work: Awaitable[T]) -> T | None:
    """Begin ``work``, cancel it after some turns of the loop, and return its result if it had one before."""
    task = asyncio.ensure_future(work)
    await turns(count)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


class InterruptionLaws(StoreHarness):
    """Cancellation and stopping."""

    @law
    async def test_a_cancelled_commit_is_there_as_a_whole_or_not_at_all(self, lab: Lab) -> None:
        for size in (10, 200_000, 1_100_000):
            name = f"s{size}"
            await lab.create(name)
            tail = 0
            for count in (*range(8), 12, 20, 50):
                change = await cancelled_after(count, lab.append(name, flow(name, tail, size)))
                after = (await lab.info(name)).tail
                assert after in {tail, tail + size}
                if change is not None:
                    assert after == change.offset == tail + size
                # It has finished: nothing of it comes later.
                await lab.append(name, flow(name, after, 1), offset=after)
                tail = after + 1
            assert await lab.content(name) == flow(name, 0, tail)

    @law
    async def test_a_commit_that_is_cancelled_while_it_decides_finishes_first(self, lab: Lab) -> None:
        await lab.create("s")

        def decide(view: View) -> Change:
            time.sleep(0.02)
            return rules.append(view, "s", [b"a"], now=lab.now)

        committing = asyncio.create_task(lab.store.commit("s", decide, size=1))
        await asyncio.sleep(0.005)
        for _ in range(3):
            committing.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([committing])
        tail = (await lab.info("s")).tail
        await asyncio.sleep(0.03)
        assert (await lab.info("s")).tail == tail
        assert (await lab.append("s", b"b")).offset == tail + 1

    @law
    async def test_cancelled_commits_disturb_no_others(self, lab: Lab) -> None:
        await lab.create("s")
        tasks = [asyncio.create_task(lab.append("s", bytes([number]) * 1000)) for number in range(60)]
        await turns(2)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.wait(tasks)
        content = await lab.content("s")
        blocks = [content[start : start + 1000] for start in range(0, len(content), 1000)]
        assert all(len(set(block)) == 1 for block in blocks)
        numbers = [block[0] for block in blocks]
        assert len(set(numbers)) == len(numbers)
        for number, task in enumerate(tasks):
            if not task.cancelled():
                assert numbers.index(number) * 1000 + 1000 == task.result().offset
        assert (await lab.append("s", b"x", offset=len(content))).offset == len(content) + 1

    @law
    async def test_a_cancelled_read_load_open_or_list_leaves_the_store_at_work(self, lab: Lab) -> None:
        await lab.put("s", flow("s", 0, 2_000_000))
        await lab.append("live", b"x") if await lab.store.load("live") else await lab.create("live", b"x")
        with await lab.reader("s") as reader:
            for count in range(6):
                await cancelled_after(count, read_range(reader, 0, 2_000_000))
                await cancelled_after(count, reader.refresh())
                await cancelled_after(count, lab.store.load("s"))
                opened = await cancelled_after(count, lab.store.open("s"))
                if opened is not None:
                    opened.close()
                await cancelled_after(count, lab.store.list("", "", 10))
                await cancelled_after(count, lab.store.expired(lab.now, 10))
                await cancelled_after(count, lab.store.tidy())
            assert await read_range(reader, 0, 2_000_000) == flow("s", 0, 2_000_000)
        await lab.append("live", b"y")
        assert await lab.content("live") == b"xy"
        await lab.delete("s")
        assert await lab.names() == ["live"]

    @law_if("persistent")
    async def test_stop_finishes_the_commits_under_way(self, lab: Lab) -> None:
        for delay in range(6):
            names = [f"{delay}/{number}" for number in range(20)]
            for number, name in enumerate(names):
                await lab.create(name)
                await lab.append(name, flow(name, 0, 70_000 if number % 2 else 9), durable=False)
            tails = {name: (await lab.info(name)).tail for name in names}
            tasks = {
                name: asyncio.create_task(lab.append(name, flow(name, tails[name], 100_000 if number % 4 < 2 else 10)))
                for number, name in enumerate(names)
            }
            await turns(delay)
            await lab.stop()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            strange = [result for result in results if not isinstance(result, Change | PenstockError)]
            assert not strange, "what came too late is refused in the words of the domain"
            await lab.reopen(crash=False)
            for name, result in zip(names, results, strict=True):
                content = await lab.content(name)
                assert content == flow(name, 0, len(content))
                if isinstance(result, Change):
                    assert len(content) == result.offset
                else:
                    assert len(content) == tails[name]

    def test_stop_releases_every_thread_and_file(self, tmp_path: Path) -> None:
        async def work(path: Path) -> None:
            lab = Driver(self.make(path))
            await lab.store.start()
            try:
                await lab.put("s", flow("s", 0, 2_000_000))
                await lab.create("live", b"abc")
                await lab.append("live", bytes(100_000))
                await lab.content("s")
                with await lab.reader("live") as reader:
                    await read_range(reader, 0, 100_003)
                await lab.delete("s")
            finally:
                await lab.store.stop()

        for number in range(2):  # the first run may load what a process loads once
            threads, files = threading.active_count(), open_files()
            path = tmp_path / str(number)
            path.mkdir()
            asyncio.run(work(path))
        assert threading.active_count() <= threads
        assert open_files() <= files

    @law_if("persistent")
    async def test_a_stopped_store_can_be_followed_by_another_on_the_same_storage(self, lab: Lab) -> None:
        await lab.stop()
        await lab.reopen(crash=False)
        await lab.create("s", b"abc")
        assert await lab.content("s") == b"abc"


def open_files() -> int:
    """Count the process's open files, where the system tells."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("this system does not tell which files are open")
    return len(os.listdir(folder))  # noqa: PTH208 - iterdir would keep the folder itself open
