"""Streams that shrink: what is overdue, what their readers get, and what a commit does that appends and drops."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from penstock.core import rules
from penstock.core.ports import Change, View
from penstock.errors import OffsetOutOfRange
from penstock.model import Retention, StreamSpec
from penstock.testing.driver import Driver, flow, read_range
from penstock.testing.harness import Lab, StoreHarness, law, law_if

SHRINKING = StreamSpec(retention=Retention(age=60, lines=False))


async def trim(driver: Driver, name: str, start: int) -> Change:
    """Drop a beginning as the service does."""
    now = driver.now
    return await driver.store.commit(name, lambda view: rules.trim(view, name, start, now=now), durable=False)


class RetentionLaws(StoreHarness):
    """`StreamInfo.trim_at`, and streams whose beginning is dropped while they are read."""

    @law
    async def test_overdue_streams_are_found_until_they_are_trimmed(self, lab: Lab) -> None:
        for name in ("a", "b", "c"):
            await lab.create(name, spec=SHRINKING)
            await lab.append(name, b"bytes")
            lab.now += 10
        await lab.create("other", b"bytes")
        begun = lab.now - 30
        assert await lab.store.overdue(begun + 59, 10) == []
        assert [info.name for info in await lab.store.overdue(begun + 72, 10)] == ["a", "b"]
        assert len(await lab.store.overdue(begun + 102, 2)) == 2
        await trim(lab, "a", 5)
        assert [info.name for info in await lab.store.overdue(begun + 102, 10)] == ["b", "c"]
        await lab.delete("b")
        assert [info.name for info in await lab.store.overdue(begun + 102, 10)] == ["c"]

    @law
    async def test_what_shrinks_is_never_read_as_anything_else(self, lab: Lab) -> None:
        for closed in (False, True):
            name = f"s {closed}"
            tail = 3_000_000
            await lab.create(name, flow(name, 0, tail), spec=SHRINKING, close=closed)
            for start in range(0, tail, 500_000):
                with await lab.reader(name) as reader:
                    await trim(lab, name, start + 400_000)
                    await lab.store.tidy()
                    await asyncio.sleep(0.01)  # for what is done in the background
                    for offset in range(start, tail, 700_000):
                        stop = min(offset + 500_000, tail)
                        if offset >= start + 400_000:
                            assert await read_range(reader, offset, stop) == flow(name, offset, stop - offset)
                            continue
                        with suppress(OffsetOutOfRange):
                            assert await read_range(reader, offset, stop) == flow(name, offset, stop - offset)

    @law
    async def test_an_append_and_a_drop_are_one_step(self, lab: Lab) -> None:
        for size in (100, 200_000):
            name = f"s{size}"
            await lab.create(name, flow(name, 0, size), spec=SHRINKING)
            data = flow(name, size, size // 2)

            def decide(view: View, name: str = name, size: int = size, data: bytes = data) -> Change:
                return rules.compact(view, name, data, now=lab.now, offset=size, start=size // 3)

            await lab.store.commit(name, decide, size=len(data))
            info = await lab.info(name)
            assert (info.start, info.tail) == (size // 3, size + size // 2)
            assert await lab.content(name) == flow(name, info.start, info.tail - info.start)

    @law_if("persistent")
    async def test_what_was_trimmed_is_so_after_a_restart(self, lab: Lab) -> None:
        await lab.create("s", flow("s", 0, 1_000_000), spec=SHRINKING)
        await lab.append("s", flow("s", 1_000_000, 10))
        await trim(lab, "s", 700_000)
        before = await lab.info("s")
        assert before.trim_at is not None
        await lab.reopen(crash=False)
        after = await lab.info("s")
        assert after == replace(before, attributes=after.attributes)
        assert after.retention == SHRINKING.retention
        assert await lab.content("s") == flow("s", 700_000, 300_010)
