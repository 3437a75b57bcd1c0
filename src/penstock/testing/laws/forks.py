"""Forks: streams that begin with another one's bytes, what becomes of those, and beginnings that are dropped."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from penstock.errors import ForkOutOfRange, ForksRemain, OffsetOutOfRange, StreamGone, StreamNotFound
from penstock.model import Origin, StreamSpec
from penstock.testing.driver import flow, read_range
from penstock.testing.harness import Lab, StoreHarness, law, law_if

SIZES = ((3, 4), (3, 1_200_000), (1_200_000, 5), (700_000, 600_000), (70_000, 0))


class ForkLaws(StoreHarness):
    """Origins, starts, and deleted streams that are kept."""

    @law
    async def test_a_fork_has_its_own_bytes_at_the_offsets_that_they_have_in_all(self, lab: Lab) -> None:
        for number, (inherited, own) in enumerate(SIZES):
            source, fork = f"source {number}", f"fork {number}"
            made = await lab.create(source, flow(source, 0, inherited + 10))
            assert made.info is not None
            data = flow(fork, inherited, own)
            change = await lab.fork(fork, source, inherited, data[: own // 2])
            assert change.offset == inherited + own // 2
            await lab.append(fork, data[own // 2 :], offset=change.offset)
            info = await lab.info(fork)
            assert (info.start, info.tail) == (inherited, inherited + own)
            assert info.origin == Origin(source, made.info.incarnation)
            await lab.store.tidy()
            with await lab.reader(fork) as reader:
                assert await read_range(reader, inherited, inherited + own) == data
                assert await read_range(reader, inherited + own // 3, inherited + own) == data[own // 3 :]
            assert await lab.content(source) == flow(source, 0, inherited + 10)

    @law
    async def test_a_fork_grows_in_pieces_of_all_sizes(self, lab: Lab) -> None:
        await lab.create("source", bytes(100))
        await lab.fork("fork", "source", 50)
        tail = 50
        for size in (7, 100_000, 7, 1_100_000, 30, 70_000):
            await lab.append("fork", flow("fork", tail, size), offset=tail)
            tail += size
            assert await lab.content("fork") == flow("fork", 50, tail - 50)
        await lab.append("fork", close=True)
        assert await lab.content("fork") == flow("fork", 50, tail - 50)

    @law
    async def test_a_source_that_is_deleted_stays_for_its_forks_alone(self, lab: Lab) -> None:
        for number, size in enumerate((10, 2_000_000)):
            name = f"source {number}"
            made = await lab.create(name, flow(name, 0, size))
            assert made.info is not None
            await lab.fork(f"{name}/one", name, 5)
            await lab.fork(f"{name}/two", name)
            deleted = await lab.delete(name)
            assert deleted.info is not None
            assert deleted.info.deleted
            assert name not in await lab.names()
            for work in (lab.append(name, b"x"), lab.delete(name), lab.fail(name, "x")):
                with pytest.raises(StreamGone):
                    await work
            for work in (lab.create(name), lab.put(name, b"x"), lab.fork("other", name)):
                with pytest.raises(ForksRemain):
                    await work
            kept = await lab.store.open(name, incarnation=made.info.incarnation)
            assert kept is not None
            with kept:
                assert await read_range(kept, 0, size) == flow(name, 0, size)
            assert list(await lab.store.orphans(10)) == []
            await lab.delete(f"{name}/one")
            assert (await lab.reap(name)).duplicate
            await lab.delete(f"{name}/two")
            assert [info.name for info in await lab.store.orphans(10)] == [name]
            assert (await lab.reap(name)).info is None
            assert await lab.store.load(name, incarnation=made.info.incarnation) is None
            assert list(await lab.store.orphans(10)) == []
            await lab.create(name, b"again")

    @law
    async def test_forks_of_forks_keep_the_whole_chain(self, lab: Lab) -> None:
        await lab.create("a", b"aaa")
        await lab.fork("b", "a", 3, b"bbb")
        await lab.fork("c", "b", 6, b"ccc")
        await lab.delete("a")
        await lab.delete("b")
        assert list(await lab.store.orphans(10)) == []
        await lab.delete("c")
        assert [info.name for info in await lab.store.orphans(10)] == ["b"]
        await lab.reap("b")
        assert [info.name for info in await lab.store.orphans(10)] == ["a"]

    @law
    async def test_a_stream_whose_place_is_taken_stays_for_its_forks(self, lab: Lab) -> None:
        for size in (10, 1_500_000):
            old = await lab.put("s", flow("s", 0, size))
            assert old.info is not None
            await lab.fork("fork", "s")
            await lab.put("s", b"new")
            assert await lab.content("s") == b"new"
            kept = await lab.store.open("s", incarnation=old.info.incarnation)
            assert kept is not None
            with kept:
                assert (kept.info.deleted, kept.info.published) == (True, False)
                assert await read_range(kept, 0, size) == flow("s", 0, size)
            await lab.delete("fork")
            assert [info.incarnation for info in await lab.store.orphans(10)] == [old.info.incarnation]
            await lab.reap("s", incarnation=old.info.incarnation)
            assert await lab.content("s") == b"new"

    @law
    async def test_an_expired_stream_stays_for_its_forks(self, lab: Lab) -> None:
        await lab.create("s", b"abc", spec=StreamSpec(ttl=10))
        await lab.create("t", b"abc", spec=StreamSpec(ttl=10))
        await lab.fork("of s", "s")
        await lab.fork("of t", "t")
        lab.now += 11
        expired = await lab.expire("s")
        assert expired.info is not None
        assert expired.info.deleted
        again = await lab.create("t", b"new")
        assert again.info is not None
        assert await lab.content("t") == b"new"
        assert list(await lab.store.expired(lab.now + 1000, 10)) == []

    @law
    async def test_of_a_fork_and_the_deletion_of_its_source_one_comes_first(self, lab: Lab) -> None:
        for number in range(20):
            name = f"s{number}"
            await lab.create(name, b"abc")
            forked, deleted = await asyncio.gather(
                lab.fork(f"{name}/fork", name), lab.delete(name), return_exceptions=True
            )
            assert not isinstance(deleted, BaseException)
            if isinstance(forked, BaseException):
                assert isinstance(forked, StreamNotFound)
                assert deleted.info is None
            else:
                assert deleted.info is not None
                assert deleted.info.deleted

    @law
    async def test_there_is_no_fork_past_the_tail_nor_of_nothing(self, lab: Lab) -> None:
        await lab.create("s", b"abc")
        with pytest.raises(ForkOutOfRange):
            await lab.fork("fork", "s", 4)
        with pytest.raises(StreamNotFound):
            await lab.fork("fork", "nothing")
        assert await lab.names() == ["s"]

    @law
    async def test_what_is_deleted_is_not_counted_nor_found(self, lab: Lab) -> None:
        await lab.create("s", b"abc", spec=StreamSpec(owner="ann", key="k"))
        await lab.fork("fork", "s")
        await lab.delete("s")
        assert (await lab.store.usage("ann")).streams == 0
        assert await lab.store.find("ann", "k") is None

    @law
    async def test_a_beginning_that_was_dropped_leaves_the_rest_at_its_offsets(self, lab: Lab) -> None:
        for number, sizes in enumerate(([10] * 20, [100_000] * 5, [10, 100_000, 10, 1_100_000, 10])):
            name = f"s{number}"
            await lab.create(name)
            tail = 0
            for size in sizes:
                await lab.append(name, flow(name, tail, size))
                tail += size
            for start in (5, sizes[0], sizes[0] + 15, tail // 2, tail):
                await lab.drop_beginning(name, start)
                assert (await lab.info(name)).start == start
                assert await lab.content(name) == flow(name, start, tail - start)
                await lab.append(name, flow(name, tail, 20))
                tail += 20
                assert await lab.content(name) == flow(name, start, tail - start)
            await lab.append(name, flow(name, tail, 1_100_000))
            assert await lab.content(name) == flow(name, start, tail + 1_100_000 - start)

    @law
    async def test_a_reader_gets_the_true_bytes_or_is_told_that_they_were_dropped(self, lab: Lab) -> None:
        for size in (30, 300_000):
            await lab.create("s", flow("s", 0, size))
            with await lab.reader("s") as reader:
                await lab.drop_beginning("s", size)
                with suppress(OffsetOutOfRange):
                    assert await read_range(reader, 0, size) == flow("s", 0, size)
                assert (await reader.refresh()).start == size
            await lab.delete("s")

    @law_if("persistent")
    async def test_forks_are_there_after_a_restart(self, lab: Lab) -> None:
        await self._survives(lab, crash=False)

    @law_if("persistent", "can_crash")
    async def test_forks_are_there_after_a_crash(self, lab: Lab) -> None:
        await self._survives(lab, crash=True)

    async def _survives(self, lab: Lab, *, crash: bool) -> None:
        for number, (inherited, own) in enumerate(SIZES):
            await lab.create(f"s{number}", flow("s", 0, inherited))
            await lab.fork(f"f{number}", f"s{number}", None, flow("f", inherited, own))
            await lab.delete(f"s{number}")
            await lab.create(f"d{number}", flow("d", 0, inherited))
            await lab.drop_beginning(f"d{number}", inherited - 2)
        before = await lab.all()
        await lab.delete("f0")
        before.pop("f0")
        await lab.reopen(crash=crash)
        assert await lab.all() == before
        assert [info.name for info in await lab.store.orphans(10)] == ["s0"]
        for number, (inherited, own) in enumerate(SIZES[1:], 1):
            await lab.append(f"f{number}", b"more", offset=inherited + own)
            assert await lab.content(f"f{number}") == flow("f", inherited, own) + b"more"
