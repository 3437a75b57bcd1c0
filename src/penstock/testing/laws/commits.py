"""Commits: atomic, one after the other on each stream, and seen by everybody once they have returned."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from penstock.core.ports import Change, View
from penstock.errors import OffsetMismatch, PenstockError, StreamExists, StreamGone, StreamNotFound
from penstock.model import Buffer, Producer, ProducerState, StreamSpec, new_incarnation
from penstock.testing.driver import flow
from penstock.testing.harness import Lab, StoreHarness, law


class Refused(Exception):
    """What a decision raises in these tests: an error that no store knows."""


class CommitLaws(StoreHarness):
    """Atomicity, visibility, duplicates, buffers."""

    @law
    async def test_a_name_shows_nothing_before_its_stream_is_created(self, lab: Lab) -> None:
        assert await lab.store.load("s") is None
        assert await lab.store.open("s") is None
        assert await lab.view("s") == View(None, None, None)
        with pytest.raises(StreamNotFound):
            await lab.append("s", b"data")
        assert await lab.store.load("s") is None

    @law
    async def test_a_commit_returns_the_change_that_it_applied(self, lab: Lab) -> None:
        created = await lab.create("s", b"abc")
        assert created.info is not None
        assert created.info.tail == created.offset == 3
        assert created.info == await lab.info("s")
        appended = await lab.append("s", b"de")
        assert appended.info == await lab.info("s")
        assert appended.offset == 5
        assert not appended.duplicate
        assert (await lab.delete("s")).info is None

    @law
    async def test_load_open_refresh_and_list_show_a_commit_once_it_has_returned(self, lab: Lab) -> None:
        await lab.create("s")
        with await lab.reader("s") as old:
            for size in (1, 70_000, 3, 1_200_000, 9):
                before = old.info
                change = await lab.append("s", bytes(size))
                assert change.info is not None
                assert await lab.store.load("s") == change.info
                assert old.info == before
                assert await old.refresh() == old.info == change.info
                assert list(await lab.store.list("", "", 10)) == [change.info]
                with await lab.reader("s") as new:
                    assert new.info == change.info

    @law
    async def test_a_decision_that_raises_changes_nothing_and_its_error_passes_through(self, lab: Lab) -> None:
        await lab.create("s", b"abc", producer=Producer("p", 0, 0))
        before = await lab.all(), await lab.view("s", producer="p")

        def decide(view: View) -> Change:
            raise Refused

        for size in (0, 10, 100_000, 2_000_000):
            for name in ("s", "absent"):
                with pytest.raises(Refused):
                    await lab.store.commit(name, decide, producer="p", size=size)
        assert before == (await lab.all(), await lab.view("s", producer="p"))
        assert await lab.store.load("absent") is None
        await lab.append("s", b"d")
        assert await lab.content("s") == b"abcd"

    @law
    async def test_a_refused_large_append_leaves_nothing_between_the_bytes(self, lab: Lab) -> None:
        await lab.create("s")
        for size in (5, 3_000_000, 5):
            tail = (await lab.info("s")).tail
            with pytest.raises(OffsetMismatch):
                await lab.append("s", bytes(2_000_000), offset=tail + 1)
            await lab.append("s", flow("s", tail, size), offset=tail)
        assert await lab.content("s") == flow("s", 0, 3_000_010)

    @law
    async def test_data_close_and_producer_are_one_change(self, lab: Lab) -> None:
        await lab.create("s", b"abc", spec=StreamSpec(length=6))
        lab.now += 5
        await lab.append("s", b"def", close=True, producer=Producer("p", 4, 0))
        view = await lab.view("s", producer="p")
        assert view.target is not None
        assert (view.target.tail, view.target.closed, view.target.modified_at) == (6, True, lab.now)
        assert view.producer == ProducerState(Producer("p", 4, 0), 6)
        assert await lab.content("s") == b"abcdef"

    @law
    async def test_nobody_sees_bytes_without_the_close_that_came_with_them(self, lab: Lab) -> None:
        await lab.create("s")
        closing = asyncio.create_task(lab.append("s", bytes(1_500_000), close=True))
        while not closing.done():
            info = await lab.info("s")
            assert (info.tail, info.closed) in {(0, False), (1_500_000, True)}
            await asyncio.sleep(0)
        await closing

    @law
    async def test_a_stream_can_be_created_with_bytes_closed_and_with_a_producer(self, lab: Lab) -> None:
        data = flow("s", 0, 300_000)
        await lab.create("s", data[:7], data[7:], close=True, producer=Producer("p", 1, 0))
        view = await lab.view("s", producer="p")
        assert view.target is not None
        assert view.target.complete
        assert view.producer == ProducerState(Producer("p", 1, 0), 300_000)
        assert await lab.content("s") == data

    @law
    async def test_commits_from_many_tasks_serialise_and_each_decision_sees_the_latest(self, lab: Lab) -> None:
        await lab.create("s")
        sizes = [1, 40, 3, 70_000, 0, 500, 1_100_000, 8] * 8

        async def grow(size: int) -> tuple[int, int]:
            def decide(view: View) -> Change:
                assert view.target is not None
                tail = view.target.tail
                info = replace(view.target, tail=tail + size)
                return Change(info, data=[flow("s", tail, size)], offset=tail + size)

            change = await lab.store.commit("s", decide, size=size)
            return change.offset - size, change.offset

        spans = sorted(await asyncio.gather(*map(grow, sizes)))
        assert sorted(stop - start for start, stop in spans) == sorted(sizes)
        assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
        assert await lab.content("s") == flow("s", 0, sum(sizes))

    @law
    async def test_small_appends_do_not_keep_a_large_one_waiting_for_ever(self, lab: Lab) -> None:
        await lab.create("s")
        done = asyncio.Event()

        async def keep_appending() -> None:
            while not done.is_set():
                await lab.append("s", b"x" * 100)
                await asyncio.sleep(0)

        others = [asyncio.create_task(keep_appending()) for _ in range(8)]
        large = asyncio.create_task(lab.append("s", bytes(8_000_000)))
        await asyncio.wait([large], timeout=10)
        in_time = large.done()
        done.set()
        await asyncio.gather(large, *others)
        assert in_time

    @law
    async def test_of_many_who_append_at_one_offset_one_succeeds(self, lab: Lab) -> None:
        for size in (10, 200_000):
            name = f"s{size}"
            await lab.create(name)
            racers = [bytes([number]) * size for number in range(12)]
            results = await asyncio.gather(
                *(lab.append(name, data, offset=0) for data in racers), return_exceptions=True
            )
            winners = [data for data, result in zip(racers, results, strict=True) if isinstance(result, Change)]
            assert len(winners) == 1
            assert all(isinstance(result, Change | OffsetMismatch) for result in results)
            assert await lab.content(name) == winners[0]

    @law
    async def test_of_many_who_create_one_name_one_succeeds(self, lab: Lab) -> None:
        results = await asyncio.gather(
            *(lab.create("s", bytes([number])) for number in range(12)), return_exceptions=True
        )
        winners = [number for number, result in enumerate(results) if isinstance(result, Change)]
        assert len(winners) == 1
        assert sum(isinstance(result, StreamExists) for result in results) == 11
        assert await lab.content("s") == bytes(winners)

    @law
    async def test_an_append_and_a_delete_that_race_leave_no_half_stream(self, lab: Lab) -> None:
        for size in (10, 100_000):
            for turn in range(6):
                name = f"s{size}-{turn}"
                await lab.create(name)
                append = lab.append(name, bytes(size))
                delete = lab.delete(name)
                pair = (append, delete) if turn % 2 else (delete, append)
                results = await asyncio.gather(*pair, return_exceptions=True)
                assert all(isinstance(result, Change | StreamNotFound) for result in results)
                assert await lab.store.load(name) is None
                await lab.create(name, b"new")
                assert await lab.content(name) == b"new"

    @law
    async def test_commits_on_many_streams_at_once_do_not_mix(self, lab: Lab) -> None:
        names = [f"many/{number}" for number in range(150)]
        await asyncio.gather(*(lab.create(name, flow(name, 0, 5)) for name in names))
        for start, size in ((5, 200), (205, 1), (206, 3000)):
            await asyncio.gather(*(lab.append(name, flow(name, start, size), offset=start) for name in names))
        await asyncio.gather(*(lab.append(name, flow(name, 3206, 66_000)) for name in names[::10]))
        for index, name in enumerate(names):
            assert await lab.content(name) == flow(name, 0, 3206 if index % 10 else 69_206)

    @law
    async def test_a_duplicate_changes_nothing_whatever_the_change_holds(self, lab: Lab) -> None:
        await lab.create("s", b"abc", producer=Producer("p", 0, 0))
        before = await lab.all(), await lab.view("s", producer="p")

        def decide(view: View) -> Change:
            assert view.target is not None
            return Change(
                replace(view.target, tail=9, closed=True),
                data=[b"defghi"],
                producer=ProducerState(Producer("p", 9, 9), 9),
                duplicate=True,
                offset=3,
            )

        change = await lab.store.commit("s", decide, producer="p", size=6)
        assert (change.duplicate, change.offset) == (True, 3)
        assert before == (await lab.all(), await lab.view("s", producer="p"))

    @law
    async def test_a_repeated_append_is_answered_with_its_offset_and_writes_nothing(self, lab: Lab) -> None:
        await lab.create("s")
        for sequence, size in enumerate((4, 100_000, 4, 2_000_000)):
            start = (await lab.info("s")).tail
            data = flow("s", start, size)
            first = await lab.append("s", data, producer=Producer("p", 0, sequence))
            again = await lab.append("s", data, producer=Producer("p", 0, sequence))
            assert (first.offset, first.duplicate) == (start + size, False)
            assert (again.offset, again.duplicate, again.info) == (start + size, True, first.info)
        assert await lab.content("s") == flow("s", 0, 2_100_008)

    @law
    async def test_an_append_sent_many_times_at_once_is_written_once(self, lab: Lab) -> None:
        await lab.create("s")
        for sequence, size in enumerate((10, 150_000)):
            data = bytes([sequence]) * size
            changes = await asyncio.gather(
                *(lab.append("s", data, producer=Producer("p", 0, sequence)) for _ in range(8))
            )
            assert sum(not change.duplicate for change in changes) == 1
            assert len({change.offset for change in changes}) == 1
        assert await lab.content("s") == bytes(10) + b"\x01" * 150_000

    @law
    async def test_each_producer_has_a_state_of_its_own(self, lab: Lab) -> None:
        await lab.create("s")
        ids = ["", "p", "P", "p ", "ünïcode/\U0001f600", "'; --", "%", *(f"many-{number}" for number in range(40))]
        for number, name in enumerate(ids):
            await lab.append("s", b"x", producer=Producer(name, 2**53 - 1 - number, 0))
        await lab.append("s", b"y", producer=Producer("p", 2**53 - 2, 1))
        await lab.append("s", b"z")
        for number, name in enumerate(ids):
            last = Producer("p", 2**53 - 2, 1) if name == "p" else Producer(name, 2**53 - 1 - number, 0)
            offset = len(ids) + 1 if name == "p" else number + 1
            assert (await lab.view("s", producer=name)).producer == ProducerState(last, offset)
        assert (await lab.view("s", producer="unknown")).producer is None
        assert (await lab.view("s")).producer is None

    @law
    async def test_producers_of_a_deleted_incarnation_are_forgotten(self, lab: Lab) -> None:
        await lab.create("s", b"abc", producer=Producer("p", 7, 0))
        await lab.create("other", b"abc", producer=Producer("p", 3, 0))
        await lab.delete("s")
        assert (await lab.view("s", producer="p")).producer is None
        await lab.create("s")
        assert (await lab.view("s", producer="p")).producer is None
        assert (await lab.append("s", b"new", producer=Producer("p", 0, 0))).offset == 3
        assert (await lab.view("other", producer="p")).producer == ProducerState(Producer("p", 3, 0), 3)

    @law
    async def test_a_change_appends_its_buffers_of_any_type_in_order(self, lab: Lab) -> None:
        for size in (9, 40_000, 900_000):
            data = flow("s", 0, 6 * size)
            parts = [data[index * size : (index + 1) * size] for index in range(6)]
            buffers: list[Buffer] = [
                parts[0],
                bytearray(parts[1]),
                b"",
                memoryview(parts[2]),
                memoryview(bytearray(parts[3])),
                memoryview(b"--" + parts[4] + b"--")[2:-2],
                bytearray(),
                memoryview(b""),
                memoryview(parts[5]).toreadonly(),
            ]
            await lab.create(f"created-{size}", *buffers)
            await lab.create(f"appended-{size}", b"123")
            await lab.append(f"appended-{size}", *buffers)
            assert await lab.content(f"created-{size}") == data
            assert await lab.content(f"appended-{size}") == b"123" + data

    @law
    async def test_a_change_may_have_thousands_of_buffers(self, lab: Lab) -> None:
        data = flow("s", 0, 70_000)
        await lab.create("s", *(data[index : index + 7] for index in range(0, 70_000, 7)))
        await lab.append("s", *(data[index : index + 1] for index in range(3_000)))
        assert await lab.content("s") == data + data[:3_000]

    @law
    async def test_the_buffers_are_the_callers_again_when_a_commit_has_returned(self, lab: Lab) -> None:
        await lab.create("s")
        expected = b""
        for size in (10, 100_000, 2_000_000, 10):
            data = flow("s", len(expected), size)
            buffer = bytearray(data)
            await lab.append("s", buffer)
            buffer[:] = bytes(size)
            buffer.clear()  # raises BufferError where the store still holds a view
            expected += data
            assert await lab.content("s") == expected
        await lab.store.tidy()
        assert await lab.content("s") == expected

    @law
    async def test_an_append_of_nothing_moves_nothing_but_the_time(self, lab: Lab) -> None:
        created = await lab.create("s", b"abc")
        assert created.info is not None
        lab.now += 1
        for data in ((), (b"",), (b"", memoryview(b""))):
            await lab.append("s", *data)
            assert await lab.info("s") == replace(created.info, modified_at=lab.now)
        assert await lab.content("s") == b"abc"

    @law
    async def test_a_close_without_bytes_keeps_the_bytes(self, lab: Lab) -> None:
        await lab.create("empty")
        await lab.create("s", b"abc")
        for name, size in (("empty", 0), ("s", 3)):
            await lab.append(name, close=True)
            info = await lab.info(name)
            assert (info.closed, info.tail) == (True, size)
        assert await lab.content("empty") == b""
        assert await lab.content("s") == b"abc"

    @law
    async def test_a_failure_is_kept_with_its_reason(self, lab: Lab) -> None:
        await lab.create("s", b"abc")
        await lab.fail("s", "the sensor «7» broke\nbadly")
        info = await lab.info("s")
        assert (info.state, info.failure, info.tail) == ("failed", "the sensor «7» broke\nbadly", 3)
        assert await lab.content("s") == b"abc"

    @law
    async def test_a_commit_may_name_the_incarnation_that_its_name_shows(self, lab: Lab) -> None:
        created = await lab.create("s", b"abc", producer=Producer("p", 0, 0))
        assert created.info is not None
        incarnation = created.info.incarnation
        view = await lab.view("s", incarnation=incarnation, producer="p")
        assert view == View(created.info, created.info, ProducerState(Producer("p", 0, 0), 3))
        await lab.append("s", b"d", incarnation=incarnation)
        assert await lab.content("s") == b"abcd"

    @law
    async def test_a_commit_that_names_an_unknown_incarnation_has_no_target(self, lab: Lab) -> None:
        created = await lab.create("s", b"abc", producer=Producer("p", 0, 0))
        unknown = new_incarnation()
        assert await lab.view("s", incarnation=unknown, producer="p") == View(None, created.info, None)
        with pytest.raises(StreamGone):
            await lab.append("s", b"d", incarnation=unknown)
        assert await lab.content("s") == b"abc"

    @law
    async def test_an_incarnation_is_a_target_under_its_own_name_only(self, lab: Lab) -> None:
        first = await lab.create("first", b"abc", close=True)
        await lab.create("second")
        draft = await lab.begin("first")
        assert first.info is not None
        for incarnation in (first.info.incarnation, draft):
            assert (await lab.view("second", incarnation=incarnation)).target is None
            assert (await lab.view("absent", incarnation=incarnation)).target is None

    @law
    async def test_a_commit_that_need_not_be_durable_is_seen_like_any_other(self, lab: Lab) -> None:
        await lab.create("s")
        for size in (10, 100_000, 3):
            start = (await lab.info("s")).tail
            await lab.append("s", flow("s", start, size), durable=False)
            assert (await lab.info("s")).tail == start + size
        assert await lab.content("s") == flow("s", 0, 100_013)

    @law
    async def test_a_value_that_cannot_be_kept_is_refused_and_harms_no_others(self, lab: Lab) -> None:
        await lab.create("s")
        for spec in (
            StreamSpec(length=2**64),
            StreamSpec(content_type="\ud800"),
            StreamSpec(metadata={"key": "\ud800"}),
            StreamSpec(metadata={"\udfff": "value"}),
        ):
            await self._harms_no_others(lab, lab.create("odd", spec=spec))
            if await lab.store.load("odd") is not None:
                await lab.delete("odd")
        await lab.create("odd")
        await self._harms_no_others(lab, lab.append("odd", b"a", producer=Producer("p", 2**64, 0)))
        await self._harms_no_others(lab, lab.append("odd", b"a", producer=Producer("\ud800", 0, 0)))
        await self._harms_no_others(lab, lab.fail("odd", "no such file: \udcff"))

    async def _harms_no_others(self, lab: Lab, odd: Awaitable[Change]) -> None:
        first, result, last = await asyncio.gather(
            lab.append("s", b"a"), odd, lab.append("s", b"b"), return_exceptions=True
        )
        assert isinstance(first, Change)
        assert isinstance(last, Change)
        assert isinstance(result, Change | PenstockError)

    @law
    async def test_a_deleted_stream_is_gone_and_its_name_is_free(self, lab: Lab) -> None:
        for size in (0, 10, 2_000_000):
            old = await lab.create("s", bytes(size), spec=StreamSpec(metadata={"a": "b"}))
            await lab.delete("s")
            assert await lab.store.load("s") is None
            assert await lab.store.open("s") is None
            assert await lab.names() == []
            assert await lab.view("s") == View(None, None, None)
            new = await lab.create("s", b"new")
            assert old.info is not None
            assert new.info is not None
            with pytest.raises(StreamGone):
                await lab.append("s", b"late", incarnation=old.info.incarnation)
            assert await lab.content("s") == b"new"
            assert dict((await lab.info("s")).metadata) == {}
            await lab.delete("s")

    @law
    async def test_another_incarnation_takes_the_place_of_an_expired_target(self, lab: Lab) -> None:
        for size in (3, 500_000):
            old = await lab.create("s", bytes(size), spec=StreamSpec(ttl=10), producer=Producer("p", 1, 0))
            lab.now += 10
            assert (await lab.view("s")).target == old.info, "a store does not know what time it is"
            new = await lab.create("s", b"new")
            assert old.info is not None
            assert await lab.info("s") == new.info
            assert await lab.content("s") == b"new"
            assert (await lab.view("s", producer="p")).producer is None
            assert (await lab.view("s", incarnation=old.info.incarnation)).target is None
            assert await lab.names() == ["s"]
            await lab.delete("s")

    @law
    async def test_a_digest_that_is_added_later_is_kept(self, lab: Lab) -> None:
        before = await lab.create("s", b"abc", close=True)
        await lab.add_digest("s", "sha-256", b"\x00\xff" * 16)
        await lab.add_digest("s", "x-empty", b"")
        assert before.info is not None
        assert await lab.info("s") == replace(before.info, digests={"sha-256": b"\x00\xff" * 16, "x-empty": b""})
        assert await lab.content("s") == b"abc"

    @law
    async def test_tidy_is_harmless_at_any_time(self, lab: Lab) -> None:
        await lab.store.tidy()
        await lab.create("s", close=False)
        await lab.put("file", flow("file", 0, 100_000))
        draft = await lab.begin("file")

        async def write() -> None:
            for size in (10, 70_000, 5, 1_100_000, 30, 1, 65_536):
                tail = (await lab.info("s")).tail
                await lab.append("s", flow("s", tail, size), offset=tail)
                await lab.append("file", b"draft", incarnation=draft)

        writing = asyncio.create_task(write())
        while not writing.done():
            await lab.store.tidy()
            assert await lab.content("file") == flow("file", 0, 100_000)
            await asyncio.sleep(0)
        await writing
        await asyncio.gather(lab.store.tidy(), lab.store.tidy())
        await lab.publish("file", draft)
        await lab.store.tidy()
        assert await lab.content("s") == flow("s", 0, 1_235_582)
        assert await lab.content("file") == b"draft" * 7
