"""Reading: any range, while the stream grows, is tidied, and is deleted."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from contextlib import suppress

import pytest

from penstock.core.ports import Reader
from penstock.errors import StreamGone
from penstock.model import StreamSpec
from penstock.testing.driver import flow, read_range
from penstock.testing.harness import Lab, StoreHarness, law

KIB, MIB = 1024, 1024 * 1024
# Around every size at which a store may take bytes in another way, small ones between.
SIZES = [
    *(1, 2, 100, 4 * KIB - 1, 4 * KIB, 4 * KIB + 1, 3, 3),
    *(64 * KIB - 1, 7, 64 * KIB, 64 * KIB + 1, *[50] * 40, MIB - 1, 1, 1, MIB, 9, MIB + 1, 3 * MIB + 5, 11),
]


def edges(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges that begin and end at, before and after every seam between appends."""
    seams = [0, *itertools.accumulate(sizes)]
    points = sorted({point + by for point in seams for by in (-1, 0, 1) if 0 <= point + by <= seams[-1]})
    yield from itertools.pairwise(points)
    yield from zip(points, points[3:], strict=False)


def ranges(total: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of all lengths, the same in every run."""
    for number in range(count):
        words = hashlib.sha256(str(number).encode()).digest()
        start = int.from_bytes(words[:8]) % total
        length = 1 + int.from_bytes(words[8:16]) % 2 ** (words[16] % 22)
        yield start, min(total, start + length)


async def check(reader: Reader, start: int, stop: int) -> None:
    """Hold a range to what belongs there."""
    name = reader.info.name
    # Not compared in the assertion: pytest would show megabytes.
    right = await read_range(reader, start, stop) == flow(name, start, stop - start)
    assert right, f"wrong bytes between {start} and {stop} of {reader.info.tail}"


class ReadingLaws(StoreHarness):
    """What readers are promised."""

    async def _filled(self, lab: Lab, name: str, sizes: list[int]) -> int:
        await lab.create(name)
        tail = 0
        for size in sizes:
            change = await lab.append(name, flow(name, tail, size), offset=tail)
            tail = change.offset
        return tail

    @law
    async def test_every_range_over_the_seams_of_small_and_large_appends_is_right(self, lab: Lab) -> None:
        tail = await self._filled(lab, "s", SIZES)
        for tidied in (False, True):
            with await lab.reader("s") as reader:
                assert reader.info.tail == tail
                for start, stop in edges(SIZES):
                    await check(reader, start, stop)
                await check(reader, 0, tail)
            if not tidied:
                await lab.store.tidy()

    @law
    async def test_random_ranges_are_right_in_any_order(self, lab: Lab) -> None:
        tail = await self._filled(lab, "s", [1, 200_000, *[999] * 150, 1_000_000, *[17] * 100])
        with await lab.reader("s") as one, await lab.reader("s") as two:
            for number, (start, stop) in enumerate(ranges(tail, 150)):
                await check(two if number % 3 else one, start, stop)

    @law
    async def test_each_of_many_tiny_appends_is_whole_where_it_was_put(self, lab: Lab) -> None:
        await lab.create("s")
        parts = [flow(f"part {number}", 0, 1 + number % 331) for number in range(600)]
        changes = await asyncio.gather(*(lab.append("s", part) for part in parts))
        content = await lab.content("s")
        assert len(content) == sum(map(len, parts))
        for part, change in zip(parts, changes, strict=True):
            assert content[change.offset - len(part) : change.offset] == part

    @law
    async def test_a_read_returns_no_more_than_was_asked_for(self, lab: Lab) -> None:
        tail = await self._filled(lab, "s", [5, 100_000, 5, 2_000_000])
        with await lab.reader("s") as reader:
            for start in (0, 4, 5, 50_000, 100_005, 100_010, tail - 1):
                for stop in (start + 1, start + 2, start + 70_000, tail):
                    if stop <= tail:
                        data = await reader.read(start, stop)
                        assert 1 <= len(data) <= stop - start
                        assert bytes(data) == flow("s", start, len(data))

    @law
    async def test_what_one_read_returns_is_bounded(self, lab: Lab) -> None:
        await lab.create("s")
        tail = 0
        while tail < 64 * MIB:
            tail = (await lab.append("s", bytes(8 * MIB), durable=False)).offset
        with await lab.reader("s") as reader:
            assert len(await reader.read(0, tail)) <= 16 * MIB

    @law
    async def test_a_reader_keeps_to_what_it_saw_until_it_is_refreshed(self, lab: Lab) -> None:
        await lab.create("s", flow("s", 0, 10))
        with await lab.reader("s") as reader:
            tail = 10
            for size in (5, 100_000, 5, 1_200_000):
                await lab.append("s", flow("s", tail, size))
                assert reader.info.tail == tail
                await check(reader, 0, tail)
                tail += size
                assert (await reader.refresh()).tail == tail
                await check(reader, max(0, tail - size - 3), tail)

    @law
    async def test_a_follower_reads_every_byte_while_others_append_and_tidy(self, lab: Lab) -> None:
        await lab.create("s")

        async def write() -> None:
            for size in [10, 70_000, 3, 1_050_000, *[120] * 60, 66_000, 1]:
                tail = (await lab.info("s")).tail
                await lab.append("s", flow("s", tail, size))
                if size % 7 == 3:
                    await lab.store.tidy()
            await lab.append("s", close=True)

        async def follow() -> int:
            seen = 0
            with await lab.reader("s") as reader:
                while seen < reader.info.tail or not reader.info.closed:
                    await check(reader, seen, reader.info.tail)
                    seen = reader.info.tail
                    await reader.refresh()
                    await asyncio.sleep(0)
            return seen

        _, *seen = await asyncio.gather(write(), follow(), follow(), follow())
        assert set(seen) == {1_193_214}

    @law
    async def test_a_buffer_outlives_whatever_happens_to_the_stream(self, lab: Lab) -> None:
        tail = await self._filled(lab, "s", [100, 300_000, 100, 100, 1_500_000])
        reader = await lab.reader("s")
        kept = [(start, await reader.read(start, stop)) for start, stop in ranges(tail, 30)]
        kept += [(start, await reader.read(start, tail)) for start in (0, 100, 300_100, 300_300)]
        await lab.append("s", bytes(100_000), close=True)
        await lab.store.tidy()
        await lab.delete("s")
        await lab.store.tidy()
        reader.close()
        await lab.put("s", bytes(tail))
        await lab.store.tidy()
        for start, buffer in kept:
            assert bytes(buffer) == flow("s", start, len(buffer))

    @law
    async def test_a_reader_of_a_closed_stream_finishes_it_after_a_delete(self, lab: Lab) -> None:
        for sizes in ([3], [100_000], [2_000_000, 4], [4, 2_000_000], [10] * 20):
            name = f"s{sizes[0]}-{len(sizes)}"
            tail = await self._filled(lab, name, sizes)
            await lab.append(name, close=True)
            untouched, begun = await lab.reader(name), await lab.reader(name)
            await check(begun, 0, 1)
            await lab.delete(name)
            await lab.store.tidy()
            await lab.create(name, bytes(tail))
            for reader in (untouched, begun):
                await check(reader, 1, tail)
                await check(reader, 0, tail)
                with pytest.raises(StreamGone) as gone:
                    await reader.refresh()
                assert gone.value.incarnation == reader.info.incarnation
                reader.close()

    @law
    async def test_a_reader_of_a_stream_that_was_closed_a_moment_ago_finishes_it_too(self, lab: Lab) -> None:
        """Whatever a store still has to do with what was appended just now, a delete must not overtake it."""
        await lab.create("s")
        parts = [flow(f"part {number}", 0, 60_000) for number in range(80)]
        changes = await asyncio.gather(*(lab.append("s", part) for part in parts))
        await lab.append("s", close=True)
        with await lab.reader("s") as reader:
            await lab.delete("s")
            for part, change in zip(parts, changes, strict=True):
                assert await read_range(reader, change.offset - 60_000, change.offset) == part

    @law
    async def test_a_reader_of_an_open_stream_learns_that_it_was_deleted(self, lab: Lab) -> None:
        for size in (3, 100_000, 2_000_000):
            name = f"s{size}"
            await lab.create(name, flow(name, 0, size))
            with await lab.reader(name) as reader:
                await check(reader, 0, 1)
                await lab.delete(name)
                await lab.create(name, bytes(size))
                with pytest.raises(StreamGone) as gone:
                    await reader.refresh()
                assert (gone.value.name, gone.value.incarnation) == (name, reader.info.incarnation)
                with suppress(StreamGone):  # what it still has is its own, and not the new stream's
                    await check(reader, 0, size)

    @law
    async def test_a_reader_of_an_expired_open_stream_learns_that_it_was_replaced(self, lab: Lab) -> None:
        await lab.create("s", b"old", spec=StreamSpec(ttl=1))
        with await lab.reader("s") as reader:
            lab.now += 1
            await lab.create("s", b"new")
            with pytest.raises(StreamGone):
                await reader.refresh()
            with suppress(StreamGone):
                assert await read_range(reader, 0, 3) == b"old"

    @law
    async def test_a_reader_of_a_failed_stream_reads_what_there_is(self, lab: Lab) -> None:
        await lab.create("s", flow("s", 0, 100_000))
        await lab.fail("s", "broken")
        with await lab.reader("s") as reader:
            assert reader.info.failure == "broken"
            await lab.delete("s")
            await check(reader, 0, 100_000)

    @law
    async def test_a_reader_is_a_context_manager_and_may_be_closed_again(self, lab: Lab) -> None:
        await lab.create("s", b"abc")
        with await lab.reader("s") as reader:
            assert bytes(await reader.read(0, 1)) == b"a"
        reader.close()
        reader.close()
        with pytest.raises(ZeroDivisionError), await lab.reader("s"):
            raise ZeroDivisionError
        await lab.append("s", b"d")
        assert await lab.content("s") == b"abcd"

    @law
    async def test_an_empty_stream_can_be_opened_and_followed(self, lab: Lab) -> None:
        await lab.create("s")
        with await lab.reader("s") as reader:
            assert reader.info.tail == 0
            await lab.append("s", b"a")
            await reader.refresh()
            assert bytes(await reader.read(0, 1)) == b"a"
        await lab.put("empty")
        assert await lab.content("empty") == b""

    @law
    async def test_many_readers_of_one_stream_do_not_disturb_each_other(self, lab: Lab) -> None:
        tail = await self._filled(lab, "s", [100, 200_000, 100])
        readers = [await lab.reader("s") for _ in range(40)]
        spans = list(ranges(tail, 40))
        await asyncio.gather(*(check(reader, *span) for reader, span in zip(readers, spans, strict=True)))
        for reader in readers[::2]:
            reader.close()
        await asyncio.gather(*(check(reader, 0, tail) for reader in readers[1::2]))
        for reader in readers:
            reader.close()
