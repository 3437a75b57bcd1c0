"""What only shows when several commits on one stream of the local store run at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock import Producer, StorageFailed, Streams
from penstock.model import StreamSpec


async def content(streams: Streams, name: str) -> bytes:
    return b"".join([bytes(chunk.data) async for chunk in streams.read(name)])


def test_a_large_append_that_is_repeated_at_once_is_there_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with Streams(tmp_path, durability="os") as streams:
            await streams.create("s")
            expected = b""
            for sequence in range(20):
                data = bytes([sequence]) * 200_000
                producer = Producer("p", 0, sequence)
                both = await asyncio.gather(*(streams.append("s", [data], producer=producer) for _ in range(2)))
                assert sorted(appended.duplicate for appended in both) == [False, True]
                expected += data
                assert await content(streams, "s") == expected

    asyncio.run(run())


def test_a_stream_is_folded_while_it_never_rests(tmp_path: Path) -> None:
    async def run() -> None:
        async with Streams(tmp_path, durability="os") as streams:
            await streams.create("s", StreamSpec(content_type="text/plain"))
            line = b"x" * 9_999 + b"\n"
            for _ in range(50):
                await asyncio.gather(*(streams.append("s", [line]) for _ in range(20)))
            assert await content(streams, "s") == line * 1000
        files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert len(files) == 1
        assert files[0].stat().st_size > len(line) * 1000 / 2

    asyncio.run(run())


def test_a_file_that_was_removed_by_hand_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    async def run() -> None:
        async with Streams(tmp_path, durability="os") as streams:
            await streams.create("s", data=[bytes(100_000)], close=True)
            for path in (tmp_path / "blobs").rglob("*"):
                if path.is_file():
                    path.unlink()
            with pytest.raises(StorageFailed, match="missing"):
                await content(streams, "s")

    asyncio.run(run())
