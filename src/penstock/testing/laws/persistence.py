"""Persistence: what is there after a restart or a crash, and how several stores share one storage."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from penstock.core.ports import Change
from penstock.errors import OffsetMismatch, StreamGone
from penstock.model import Producer, ProducerState, StreamInfo
from penstock.testing.driver import Driver, flow
from penstock.testing.harness import Lab, StoreHarness, law_if
from penstock.testing.laws.values import NAMES, SPECS


async def fill(lab: Lab) -> dict[str, tuple[StreamInfo, bytes]]:
    """Make streams in all states, none of them provisional, and return what there is."""
    await lab.create("open", b"abc", producer=Producer("p", 3, 0))
    await lab.create("small appends")
    await lab.create("mixed appends")
    for number in range(60):
        await lab.append("small appends", str(number).encode())
        size = 70_000 if number % 20 == 7 else 30
        tail = (await lab.info("mixed appends")).tail
        await lab.append("mixed appends", flow("mixed appends", tail, size))
    await lab.create("large")
    await lab.append("large", flow("large", 0, 3_000_000))
    await lab.create("not durable")
    await lab.append("not durable", flow("not durable", 0, 40), durable=False)
    await lab.append("not durable", flow("not durable", 40, 400_000), durable=False)
    await lab.create("closed", bytes(100_000), close=True)
    await lab.create("broken", b"half")
    await lab.fail("broken", "the sensor broke")
    await lab.put("replaced", b"old")
    await lab.put("replaced", b"new", digests={"sha-256": b"digest"})
    draft = await lab.begin("replaced")
    await lab.append("replaced", b"newest" * 20_000, incarnation=draft)
    await lab.publish("replaced", draft)
    for name in ("deleted", "recreated"):
        await lab.create(name, bytes(1_200_000))
        await lab.delete(name)
    await lab.create("recreated", b"again")
    for name, spec in SPECS.items():
        await lab.create(f"spec/{name}", spec=spec)
    for name in NAMES:
        await lab.create(name, name.encode()[:10])
    return await lab.all()


class PersistenceLaws(StoreHarness):
    """Restarts, crashes, and neighbours."""

    @law_if("persistent")
    async def test_everything_is_there_after_a_restart(self, lab: Lab) -> None:
        before = await fill(lab)
        await lab.reopen(crash=False)
        assert await lab.all() == before

    @law_if("persistent", "can_crash")
    async def test_everything_acknowledged_is_there_after_a_crash(self, lab: Lab) -> None:
        before = await fill(lab)
        await lab.reopen(crash=True)
        assert await lab.all() == before
        assert (await lab.view("open", producer="p")).producer == ProducerState(Producer("p", 3, 0), 3)

    async def _goes_on(self, lab: Lab, *, crash: bool) -> None:
        await lab.create("s")
        await lab.create("other", b"x")
        tail = 0
        for sequence, size in enumerate((10, 100_000, 7, 2_000_000, 7, 7, 66_000)):
            data = flow("s", tail, size)
            change = await lab.append("s", data, offset=tail, producer=Producer("p", 1, sequence))
            if sequence % 3 == 1:
                await lab.store.tidy()
            await lab.reopen(crash=crash)
            again = await lab.append("s", data, offset=tail, producer=Producer("p", 1, sequence))
            assert (again.duplicate, again.offset) == (True, change.offset)
            with pytest.raises(OffsetMismatch):
                await lab.append("s", b"!", offset=tail)
            tail = change.offset
            assert (await lab.info("s")).tail == tail
        assert await lab.content("s") == flow("s", 0, tail)
        assert await lab.content("other") == b"x"

    @law_if("persistent")
    async def test_a_stream_goes_on_over_restarts(self, lab: Lab) -> None:
        await self._goes_on(lab, crash=False)

    @law_if("persistent", "can_crash")
    async def test_a_stream_goes_on_over_crashes(self, lab: Lab) -> None:
        await self._goes_on(lab, crash=True)

    async def _provisional_goes(self, lab: Lab, *, crash: bool) -> None:
        await lab.put("replaced", b"old")
        await lab.create("live", b"abc")
        await lab.create("once", b"abc")
        kept = await lab.begin("kept")
        await lab.append("kept", bytes(90_000), incarnation=kept)
        await lab.publish("kept", kept)
        broken = await lab.begin("broken")
        await lab.append("broken", b"half", incarnation=broken)
        await lab.fail("broken", "the client left", incarnation=broken)
        before = await lab.all()
        begun = [("replaced", await lab.begin("replaced")), ("new", await lab.begin("new"))]
        begun += [("replaced", await lab.begin("replaced")), ("empty", await lab.begin("empty"))]
        for name, incarnation in begun[:3]:
            await lab.append(name, bytes(10), incarnation=incarnation)
            await lab.append(name, bytes(100_000), incarnation=incarnation)
        await lab.reopen(crash=crash)
        assert await lab.all() == before
        for name, incarnation in begun:
            assert (await lab.view(name, incarnation=incarnation)).target is None
            with pytest.raises(StreamGone):
                await lab.append(name, b"late", incarnation=incarnation)
        await lab.store.tidy()
        assert await lab.all() == before

    @law_if("persistent")
    async def test_provisional_streams_go_at_a_restart(self, lab: Lab) -> None:
        await self._provisional_goes(lab, crash=False)

    @law_if("persistent", "can_crash")
    async def test_provisional_streams_go_after_a_crash(self, lab: Lab) -> None:
        await self._provisional_goes(lab, crash=True)

    @law_if("persistent", "can_crash")
    async def test_deletes_and_publications_are_not_undone_by_a_crash(self, lab: Lab) -> None:
        for name in ("deleted", "replaced", "expired"):
            await lab.create(name, bytes(200_000), close=True)
        await lab.delete("deleted")
        await lab.put("replaced", b"new")
        await lab.reopen(crash=True)
        assert await lab.names() == ["expired", "replaced"]
        assert await lab.content("replaced") == b"new"
        await lab.store.tidy()
        await lab.reopen(crash=True)
        assert await lab.names() == ["expired", "replaced"]
        assert await lab.content("replaced") == b"new"
        assert await lab.content("expired") == bytes(200_000)

    @law_if("persistent", "can_crash")
    async def test_a_new_storage_survives_a_crash_before_its_first_commit(self, lab: Lab) -> None:
        await lab.reopen(crash=True)
        await lab.reopen(crash=True)
        await lab.create("s", b"abc")
        assert await lab.content("s") == b"abc"

    @law_if("shared")
    async def test_two_stores_see_each_others_commits(self, lab: Lab) -> None:
        other = await lab.second()
        await lab.create("s", b"abc")
        with await other.reader("s") as reader:
            tail = 3
            for size, (one, two) in zip((5, 90_000, 5, 1_300_000), [(other, lab), (lab, other)] * 2, strict=True):
                data = bytes([size % 251]) * size
                change = await one.append("s", data, offset=tail)
                tail = change.offset
                assert await two.info("s") == change.info == await reader.refresh()
                assert await two.content("s") == await one.content("s")
                assert (await two.content("s")).endswith(data)
            await lab.delete("s")
            assert await other.store.load("s") is None
            assert await other.names() == []
            with pytest.raises(StreamGone):
                await reader.refresh()
        await other.create("s", b"new")
        assert await lab.content("s") == b"new"

    @law_if("shared")
    async def test_commits_of_two_stores_on_one_stream_serialise(self, lab: Lab) -> None:
        other = await lab.second()
        await lab.create("s")

        async def write(driver: Driver, mark: int) -> list[tuple[int, int, int]]:
            spans = []
            for number in range(25):
                size = 80_000 if number % 8 == 5 else 20
                change = await driver.append("s", bytes([mark]) * size)
                spans.append((change.offset - size, change.offset, mark))
                if number % 10 == 9:
                    await driver.store.tidy()
            return spans

        parts = await asyncio.gather(write(lab, 1), write(other, 2), write(lab, 3), write(other, 4))
        spans = sorted(span for part in parts for span in part)
        content = b"".join(bytes([mark]) * (stop - start) for start, stop, mark in spans)
        assert [start for start, _, _ in spans] == [0, *(stop for _, stop, _ in spans[:-1])]
        assert await lab.content("s") == content
        assert await other.content("s") == content

    @law_if("shared")
    async def test_of_two_stores_that_append_at_one_offset_one_succeeds(self, lab: Lab) -> None:
        other = await lab.second()
        for size in (10, 90_000):
            name = f"s{size}"
            await lab.create(name)
            for turn in range(8):
                results = await asyncio.gather(
                    lab.append(name, bytes([1]) * size, offset=turn * size),
                    other.append(name, bytes([2]) * size, offset=turn * size),
                    return_exceptions=True,
                )
                assert {type(result) for result in results} == {Change, OffsetMismatch}
            assert await lab.content(name) == await other.content(name)

    @law_if("shared")
    async def test_a_store_that_starts_leaves_the_provisional_streams_of_a_living_one(self, lab: Lab) -> None:
        await lab.put("replaced", b"old")
        draft, new = await lab.begin("replaced"), await lab.begin("new")
        await lab.append("new", b"abc", incarnation=new)
        other = await lab.second()
        await other.store.tidy()
        assert await other.content("new") == b"abc"
        await lab.append("replaced", b"draft", incarnation=draft)
        await lab.publish("replaced", draft)
        await lab.publish("new", new)
        assert await other.content("replaced") == b"draft"

    @law_if("shared", "can_crash")
    async def test_the_provisional_streams_of_a_crashed_neighbour_go_and_ones_own_stay(self, lab: Lab) -> None:
        await lab.put("replaced", b"old")
        mine = await lab.begin("replaced")
        crashed = await lab.second()
        theirs, new = await crashed.begin("replaced"), await crashed.begin("new")
        await crashed.append("new", bytes(90_000), incarnation=new)
        await crashed.create("kept", b"kept")
        await lab.crash(crashed)
        third = await lab.second()
        assert await lab.store.load("new") is None
        assert (await third.view("replaced", incarnation=theirs)).target is None
        assert await third.content("kept") == b"kept"
        await lab.append("replaced", b"mine", incarnation=mine)
        await lab.publish("replaced", mine)
        assert await third.content("replaced") == b"mine"

    @law_if("shared", "can_crash")
    async def test_a_provisional_stream_belongs_to_the_store_that_wrote_it_last(self, lab: Lab) -> None:
        first = await lab.second()
        new = await first.begin("new")
        await first.append("new", b"abc", incarnation=new)
        await lab.append("new", b"def", incarnation=new)
        before = await lab.info("new")
        await lab.crash(first)
        third = await lab.second()
        await third.store.tidy()
        assert await third.info("new") == before == replace(before, provisional=True)
        await lab.publish("new", new)
        assert await third.content("new") == b"abcdef"
