"""The service's uploads: taking over, being evicted, completing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock import Streams
from penstock.errors import (
    LengthMismatch,
    NotAnUpload,
    OffsetMismatch,
    PreconditionFailed,
    Stopping,
    StreamBusy,
    StreamClosed,
    StreamGone,
    StreamIsOpen,
    WriterEvicted,
)
from penstock.model import StreamInfo, StreamSpec


@pytest.fixture(params=["memory", "local"])
def streams(request: pytest.FixtureRequest, tmp_path: Path) -> Streams:
    return Streams(":memory:" if request.param == "memory" else tmp_path)


async def content(streams: Streams, name: str) -> bytes:
    return b"".join([bytes(chunk.data) async for chunk in streams.read(name)])


@asynccontextmanager
async def writing(
    streams: Streams, name: str, offset: int, *, incarnation: str | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Write a byte in another task, which then waits until it is interrupted."""
    written = asyncio.Event()

    async def write() -> None:
        async with streams.upload(name, incarnation=incarnation, offset=offset) as upload:
            await upload.write([b"x"])
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    waiting = asyncio.create_task(written.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield task
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.wait([task, waiting])


async def test_an_upload_is_written_by_one_request_after_another(streams: Streams) -> None:
    async with streams:
        begun = await streams.begin_upload("s", StreamSpec(length=9, content_type="text/plain"))
        assert (begun.published, begun.upload, begun.state) == (True, True, "open")
        for offset in (0, 3, 6):
            async with streams.upload("s", offset=offset) as upload:
                await upload.write([b"ab", b"c"])
                assert (await upload.flush()).tail == offset + 3
        assert (await streams.resume("s")).tail == 9
        async with streams.upload("s", offset=9) as upload:
            done = await upload.complete({"sha-256": b"1"})
        assert (done.complete, done.upload, done.digests) == (True, False, {"sha-256": b"1"})
        assert await content(streams, "s") == b"abcabcabc"
        assert await streams.resume("s") == done
        with pytest.raises(StreamClosed):
            async with streams.upload("s", offset=9):
                pass


async def test_who_comes_back_takes_over_and_who_was_there_is_interrupted(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        async with writing(streams, "s", 0) as first:
            assert (await streams.resume("s")).tail == 1
            with pytest.raises(WriterEvicted):
                await first
        async with writing(streams, "s", 1) as second, streams.upload("s", offset=2) as third:
            with pytest.raises(WriterEvicted):
                await second
            await third.write([b"yz"])
        assert (await streams.resume("s")).tail == 4


async def test_a_writer_that_is_evicted_writes_nothing_more(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")

        async def write_twice() -> None:
            async with streams.upload("s", offset=0) as upload:
                await upload.write([b"abc"])
                await streams.resume("s")
                await upload.write([b"def"])

        with pytest.raises(WriterEvicted):
            await write_twice()
        assert await content(streams, "s") == b"abc"


async def test_a_wrong_offset_evicts_nobody(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        async with writing(streams, "s", 0) as first:
            for offset in (0, 2):
                with pytest.raises(OffsetMismatch):
                    async with streams.upload("s", offset=offset):
                        pass
            assert not first.done()


async def test_deleting_an_upload_interrupts_its_writer(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        async with writing(streams, "s", 0) as first:
            await streams.delete("s")
            with pytest.raises(StreamGone):
                await first


async def test_a_cancelled_writer_is_cancelled_and_not_evicted(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        async with writing(streams, "s", 0) as first:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first


async def test_who_completes_an_upload_may_go_on_for_as_long_as_it_likes(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        async with streams.upload("s", offset=0) as upload:
            await upload.write([b"abc"])
            await upload.complete()
            await streams.annotate("s", {"seen": True})
            await streams.delete("s")
            await asyncio.sleep(0)


async def test_an_upload_over_a_closed_stream_is_hidden_until_it_is_complete(streams: Streams) -> None:
    async with streams:
        await streams.put("s", [b"old"])
        begun = await streams.begin_upload("s")
        assert not begun.published
        async with writing(streams, "s", 0, incarnation=begun.incarnation):
            assert await content(streams, "s") == b"old"
        assert (await streams.resume("s", incarnation=begun.incarnation)).tail == 1
        assert (await streams.resume("s")).tail == 3

        def unchanged(info: StreamInfo | None) -> None:
            if info is None or info.tail != 3:
                raise PreconditionFailed("s")

        async with streams.upload("s", incarnation=begun.incarnation, offset=1) as upload:
            await streams.put("s", [b"other"])
            with pytest.raises(PreconditionFailed):
                await upload.complete(condition=unchanged)
        assert await content(streams, "s") == b"other"
        async with streams.upload("s", incarnation=begun.incarnation, offset=1) as upload:
            await upload.complete()
        assert await content(streams, "s") == b"x"


async def test_the_length_may_be_declared_late_and_again_but_not_otherwise(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        async with streams.upload("s", offset=0) as upload:
            await upload.write([b"abc"])
        for wrong in (2, 0):
            with pytest.raises(LengthMismatch):
                async with streams.upload("s", offset=3, length=wrong):
                    pass
        for _ in range(2):
            async with streams.upload("s", offset=3, length=5):
                pass
        with pytest.raises(LengthMismatch):
            async with streams.upload("s", offset=3, length=6):
                pass
        async with streams.upload("s", offset=3) as upload:
            with pytest.raises(LengthMismatch):
                await upload.write([b"xyz"])
            with pytest.raises(LengthMismatch):
                await upload.complete()
            await upload.write([b"xy"])
            await upload.complete()
        assert await content(streams, "s") == b"abcxy"


async def test_an_upload_grows_by_its_own_writers_alone(streams: Streams) -> None:
    async with streams:
        await streams.begin_upload("s")
        with pytest.raises(StreamBusy):
            await streams.append("s", [b"x"])
        with pytest.raises(StreamBusy):
            await streams.close("s")
        await streams.create("live")
        with pytest.raises(StreamIsOpen):
            await streams.begin_upload("live")
        with pytest.raises(NotAnUpload):
            await streams.resume("live")
        with pytest.raises(NotAnUpload):
            async with streams.upload("live", offset=0):
                pass


async def test_an_upload_that_was_left_holds_its_name_for_nobody(streams: Streams) -> None:
    def none_yet(info: StreamInfo | None) -> None:
        if info is not None:
            raise PreconditionFailed("s")

    async with streams:
        left = await streams.begin_upload("s")
        again = await streams.begin_upload("s", condition=none_yet)
        assert (left.published, again.published) == (True, False)
        async with writing(streams, "s", 0) as first:
            async with streams.upload("s", incarnation=again.incarnation, offset=0) as second:
                await second.write([b"two"])
                await second.complete(condition=none_yet)
            with pytest.raises(StreamGone):
                await first
        assert await content(streams, "s") == b"two"

        await streams.delete("s")
        left = await streams.begin_upload("s")
        await streams.put("s", [b"three"], condition=none_yet)
        with pytest.raises(StreamGone):
            await streams.resume("s", incarnation=left.incarnation)
        assert await content(streams, "s") == b"three"


async def test_an_upload_is_found_by_its_key_and_counted(streams: Streams) -> None:
    async with streams:
        begun = await streams.begin_upload("s", StreamSpec(owner="ann", key="k", length=100))
        assert await streams.find("ann", "k") == begun
        assert await streams.find("bob", "k") is None
        usage = await streams.usage("ann")
        assert (usage.streams, usage.size) == (1, 100)


async def test_another_process_takes_over_at_once(tmp_path: Path) -> None:
    async with Streams(tmp_path) as here, Streams(tmp_path) as there:
        await here.begin_upload("s")
        async with writing(here, "s", 0) as first:
            assert (await there.resume("s")).tail == 1
            with pytest.raises(WriterEvicted):
                await first


async def test_what_is_to_be_done_once_is_claimed_by_one(streams: Streams) -> None:
    async with streams:
        info = await streams.create("s", data=[b"abc"], close=True)

        async def claimed(by: str, seconds: float = 60) -> bool:
            return await streams.claim("s", by, seconds, incarnation=info.incarnation)

        assert [await claimed("a"), await claimed("b"), await claimed("a")] == [True, False, True]
        await claimed("a", -1)  # its time is over
        assert [await claimed("b"), await claimed("a")] == [True, False]

        waiting = asyncio.create_task(
            streams.when("s", lambda info: "claim" not in info.attributes, incarnation=info.incarnation)
        )
        await streams.annotate("s", {"claim": None, "done": 1}, incarnation=info.incarnation)
        assert (await waiting).attributes == {"done": 1}
        assert await claimed("a")
        await streams.delete("s")
        with pytest.raises(StreamGone):
            await claimed("a")


async def test_who_waits_for_a_stream_is_told_that_it_is_gone_and_that_the_service_stops(streams: Streams) -> None:
    async with streams:
        info = await streams.create("s")
        waiting = asyncio.create_task(streams.when("s", lambda info: info.closed, incarnation=info.incarnation))
        await streams.delete("s")
        with pytest.raises(StreamGone):
            await waiting
        info = await streams.create("s")
        waiting = asyncio.create_task(streams.when("s", lambda info: info.closed, incarnation=info.incarnation))
        await asyncio.sleep(0)
        streams.drain()
        with pytest.raises(Stopping):
            await waiting
