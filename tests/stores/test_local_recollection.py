"""What a process is told of its own commits, and that it is never told too little or too much."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock import Streams, StreamSpec
from penstock.core import follow
from penstock.errors import StreamGone
from penstock.stores.local.reader import LocalReader

TEXT = StreamSpec(content_type="text/plain")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Streams, LocalReader]]:
    async with Streams(folder) as streams:
        await streams.create("s", TEXT)
        reader = await streams.open("s")
        assert isinstance(reader, LocalReader)
        with reader:
            assert reader.recall(0) is None  # from here on it is kept
            yield streams, reader


async def test_own_commits_are_recalled_from_where_a_reader_stands(tmp_path: Path) -> None:
    async with opened(tmp_path) as (streams, reader):
        for line in (b"one\n", b"two\n"):
            await streams.append("s", [line])
        for offset, expected in ((0, b"one\ntwo\n"), (4, b"two\n")):
            recalled = reader.recall(offset)
            assert recalled is not None
            assert (recalled[0].tail, recalled[1]) == (8, expected)
        assert reader.recall(2) is None
        assert reader.recall(8) is None
        await streams.close("s")
        recalled = reader.recall(8)
        assert recalled is not None
        assert (recalled[0].closed, recalled[1]) == (True, b"")


async def test_nothing_is_recalled_across_what_another_process_did(tmp_path: Path) -> None:
    async with opened(tmp_path) as (streams, reader), Streams(tmp_path) as other:
        await streams.append("s", [b"here\n"])
        await other.append("s", [b"there\n"])
        await streams.append("s", [b"here\n"])
        assert reader.recall(0) is None
        recalled = reader.recall(11)
        assert recalled is not None
        assert recalled[1] == b"here\n"


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as (streams, reader):
        for _ in range(20):
            await streams.append("s", [b"x" * 4000])
        assert reader.recall(0) is None
        assert reader.recall(76_000) is not None
        await streams.append("s", [b"x" * 50_000])
        assert reader.recall(76_000) is None
        assert reader.recall(80_000) is None


async def test_a_deleted_stream_is_not_recalled(tmp_path: Path) -> None:
    async with opened(tmp_path) as (streams, reader):
        await streams.append("s", [b"gone\n"])
        await streams.delete("s")
        assert reader.recall(0) is None
        with pytest.raises(StreamGone):
            await reader.refresh()


async def test_followers_miss_nothing_of_two_processes_that_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "RECHECK", 60.0)  # so that nothing is found by chance
    rng = random.Random(3)
    async with Streams(tmp_path) as one, Streams(tmp_path) as two:
        await one.create("s", TEXT)

        async def follower(streams: Streams) -> bytes:
            return b"".join([bytes(chunk.data) async for chunk in streams.follow("s")])

        async def append(streams: Streams, letter: str) -> None:
            for number in range(100):
                await streams.append("s", [f"{letter}{number}\n".encode()])
                await asyncio.sleep(rng.choice([0, 0, 0.001]))

        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            following = [group.create_task(follower(streams)) for streams in (one, two, one)]
            async with asyncio.TaskGroup() as producing:
                producing.create_task(append(one, "a"))
                producing.create_task(append(two, "b"))
            await two.close("s")
        everything = b"".join([bytes(chunk.data) async for chunk in one.read("s")])
        assert everything.count(b"\n") == 200
        assert [task.result() == everything for task in following] == [True] * 3
