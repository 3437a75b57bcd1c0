"""Uploads that are put together out of parts, by the store and by copying."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from penstock import LengthMismatch, StreamClosed, StreamGone, StreamIsOpen, Streams, StreamSpec
from penstock.core.service import StreamService
from penstock.model import StreamInfo
from penstock.notifiers.inprocess import InProcessNotifier
from penstock.stores.local import LocalStore

SIZES = (0, 10, 100_000, 3_000_000, 70_000)


@pytest.fixture(params=["local", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Streams]:
    return lambda: Streams(tmp_path / "data" if request.param == "local" else ":memory:")


@asynccontextmanager
async def parts_in(streams: Streams) -> AsyncIterator[tuple[list[StreamInfo], bytes]]:
    parts, whole = [], b""
    for number, size in enumerate(SIZES):
        begun = await streams.begin_upload(f"part{number}", StreamSpec(length=size), shown=False)
        data = os.urandom(size)
        async with streams.upload(begun.name, incarnation=begun.incarnation, offset=0) as upload:
            for start in range(0, size, 65_536):
                await upload.write([data[start : start + 65_536]])
            parts.append(await upload.complete_part())
        whole += data
    yield parts, whole


async def content(streams: StreamService, name: str) -> bytes:
    return b"".join([bytes(chunk.data) async for chunk in streams.read(name)])


async def test_parts_are_joined_in_order_and_stay_hidden(opened: Callable[[], Streams]) -> None:
    async with opened() as streams, parts_in(streams) as (parts, whole):
        assert not (await streams.list()).streams
        assert all(part.closed and part.upload and not part.published for part in parts)
        for name, order in {"once": parts, "twice": [*parts, *parts], "none": []}.items():
            final = await streams.begin_upload(name, StreamSpec(length=sum(part.tail for part in order)))
            changed: list[str] = []
            streams.on_change = changed.append
            done = await streams.join(final, order)
            assert set(changed) == {name}
            assert (done.complete, done.upload, done.tail) == (True, False, sum(part.tail for part in order))
            assert await content(streams, name) == whole * (len(order) // len(parts))
        assert {info.name for info in (await streams.list()).streams} == {"none", "once", "twice"}
        with pytest.raises(StreamClosed):
            await streams.join(done, parts)


async def test_a_name_shows_the_old_stream_until_the_join(opened: Callable[[], Streams]) -> None:
    async with opened() as streams, parts_in(streams) as (parts, whole):
        await streams.put("x", [b"old"])
        final = await streams.begin_upload("x")
        assert await content(streams, "x") == b"old"
        assert (await streams.join(final, parts)).published
        assert await content(streams, "x") == whole


async def test_a_join_that_cannot_be_changes_nothing(opened: Callable[[], Streams]) -> None:
    async with opened() as streams, parts_in(streams) as (parts, whole):
        final = await streams.begin_upload("x", StreamSpec(length=len(whole) - 1))
        with pytest.raises(LengthMismatch):
            await streams.join(final, parts)
        gone = await streams.begin_upload("y")
        await streams.delete(parts[1].name, incarnation=parts[1].incarnation)
        with pytest.raises(StreamGone):
            await streams.join(gone, parts)
        assert (await streams.info("y")).closed is False
        await streams.delete("y")
        with pytest.raises(StreamGone):
            await streams.join(gone, parts[2:])
        assert [info.name for info in (await streams.list()).streams] == ["x"]


async def test_a_name_that_came_to_be_open_keeps_the_join_away(opened: Callable[[], Streams]) -> None:
    async with opened() as streams, parts_in(streams) as (parts, _):
        await streams.put("x", [b"old"])
        final = await streams.begin_upload("x")
        await streams.delete("x")
        await streams.create("x")
        with pytest.raises(StreamIsOpen):
            await streams.join(final, parts)


async def test_where_the_system_cannot_copy_it_is_done_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    async with Streams(tmp_path / "data") as streams, parts_in(streams) as (parts, whole):
        await streams.join(await streams.begin_upload("x"), parts)
        assert await content(streams, "x") == whole


async def test_what_was_joined_outlives_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "data"
    async with AsyncExitStack() as stack:
        store = LocalStore(path)
        streams = Streams(store, notifier=InProcessNotifier())
        await stack.enter_async_context(streams)
        async with parts_in(streams) as (parts, whole):
            final = await streams.begin_upload("x")
            await streams.join(final, parts)
            for part in parts:
                await streams.delete(part.name, incarnation=part.incarnation)
        store.abandon()
        async with Streams(path) as again:
            assert await content(again, "x") == whole
        blobs = [file for file in (path / "blobs").rglob("*") if file.is_file()]
        assert [file.name for file in blobs] == [final.incarnation]
