"""Records from the live door, over connections that break, and what readers tell producers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams, StreamSpec
from penstock.client import Client, Closed, Record, ServerError, SyncClient
from penstock.client.retry import Backoff
from penstock.errors import OffsetOutOfRange, StreamFailed, StreamGone, StreamNotFound, StreamStopped
from scripted import CuttingProxy
from servers import Server
from wire import until


@pytest.fixture(autouse=True)
def _little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.02)


@pytest.fixture
def client(server: Server) -> Iterator[SyncClient]:
    with SyncClient(server.url) as client:
        yield client


def test_what_there_is_comes_from_wherever_one_says(client: SyncClient, name: str) -> None:
    lines = [b'{"n":1.50}', b'"two"', b"[3]"]  # in the spelling that they were appended in
    for line in lines:
        client.append(name, line, kind="json")
    ends = [11, 17, 21]
    expected = [Record(end, line) for end, line in zip(ends, lines, strict=True)]
    assert list(client.records(name, 0, follow=False)) == expected
    assert list(client.records(name, 11, follow=False)) == expected[1:]
    assert list(client.records(name, last=1, follow=False)) == expected[2:]
    assert list(client.records(name, last=10, follow=False)) == expected
    assert list(client.records(name, since=-3600, follow=False)) == expected
    assert list(client.records(name, since="2100-01-01T00:00:00Z", follow=False)) == []
    assert list(client.records(name, follow=False)) == []
    with pytest.raises(ValueError, match="give one of them"):
        list(client.records(name, 0, last=1))
    with pytest.raises(OffsetOutOfRange):
        list(client.records(name, 3, follow=False))
    with pytest.raises(StreamNotFound):
        list(client.records(name + "x", follow=False))


def test_text_and_bytes_are_what_they_were(client: SyncClient, name: str) -> None:
    client.put("10 %\r20 %\rdone\n  \u00e9  ".encode(), name, content_type="text/plain")
    ends: list[Closed] = []
    found = list(client.records(name, 0, ended=ends.append))
    assert [record.data.decode() for record in found] == ["10 %\r20 %\rdone", "  \u00e9  "]
    assert ends == [Closed(found[-1].offset)]
    data = random.Random(1).randbytes(3_000_000)
    client.put(data, name + "b", content_type="video/mp4")
    pieces = list(client.records(name + "b", 0))
    assert not any(piece.whole for piece in pieces)
    assert b"".join(piece.data for piece in pieces) == data
    with pytest.raises(ServerError, match="no records"):
        list(client.records(name + "b", last=1))


def test_more_than_one_poll_gives_comes_whole(client: SyncClient, name: str) -> None:
    lines = b"".join(b'{"n":%d,"x":"%b"}\n' % (number, b"x" * 1000) for number in range(4000))
    client.put(lines, name, content_type="application/x-ndjson")
    found = list(client.records(name, 0, follow=False))
    assert b"".join(record.data + b"\n" for record in found) == lines
    assert found[-1].offset == len(lines)


async def test_a_follower_whose_connections_break_gets_each_record_once(server: Server, name: str) -> None:
    chance = random.Random(11)
    limits = [chance.randrange(200, 3_000) for _ in range(40)]
    with CuttingProxy(server.port, limits) as proxy:
        async with Client(server.url) as writer, Client(proxy.url) as reader:
            await writer.append(name, {"n": 0})

            async def write() -> None:
                async with writer.appender(name, close=True) as appender:
                    for number in range(1, 600):
                        await appender.append({"n": number})
                        if number % 3 == 0:
                            await appender.flush()

            writing = asyncio.create_task(write())
            ends: list[Closed] = []
            found = [record.data async for record in reader.records(name, 0, ended=ends.append)]
            await writing
        assert proxy.cuts > 5
    assert found == [b'{"n":%d}' % number for number in range(600)]
    assert len(ends) == 1


async def test_who_waits_for_the_first_record_misses_none_over_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        async with Client(server.url) as client:
            await client.append("log", "old")
            async with aclosing(client.records("log")) as records:
                first = asyncio.ensure_future(anext(records))

                async def readers() -> int:
                    return (await client.presence("log")).readers

                await until(readers, 1)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                for line in ("one", "two"):
                    await client.append("log", line)
                assert [(await first).data, (await anext(records)).data] == [b"one", b"two"]


async def test_a_bad_end_is_an_error(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    spec = StreamSpec(content_type="application/x-ndjson")
    async with serving(app) as port, Client(f"http://127.0.0.1:{port}") as client:
        for stream in ("failed", "deleted", "anew"):
            await streams.append(stream, [b"1\n"], create=spec)
        async with aclosing(client.records("failed", 0)) as failed, aclosing(client.records("deleted", 0)) as deleted:
            assert (await anext(failed)).data == (await anext(deleted)).data == b"1"
            await streams.fail("failed", "the sensor broke")
            with pytest.raises(StreamFailed, match="the sensor broke"):
                await anext(failed)
            await streams.delete("deleted")
            with pytest.raises(StreamGone):
                await anext(deleted)
        with pytest.raises(StreamFailed, match="the sensor broke"):
            _ = [record async for record in client.records("failed", 0, follow=False)]
        async with aclosing(client.records("anew", 0)) as anew:
            assert (await anext(anew)).data == b"1"
            await streams.delete("anew")
            await streams.append("anew", [b"another one\n"], create=spec)
            with pytest.raises(StreamGone):
                await anext(anew)


async def test_readers_stop_a_producer_and_are_told_why(server: Server, name: str) -> None:
    async with Client(server.url) as client:
        await client.append(name, "one")
        ends: list[Closed] = []
        async with aclosing(client.records(name, 0, ended=ends.append)) as records:
            assert (await anext(records)).data == b"one"
            stopped = await client.stop(name, "enough, \u00e9nough")
            assert (stopped.state, stopped.stopped) == ("closed", "enough, \u00e9nough")
            assert [record async for record in records] == []
        assert ends == [Closed(4, "enough, \u00e9nough")]
        with pytest.raises(StreamStopped, match="enough"):
            await client.append(name, "two")
        assert (await client.stop(name, "again")).stopped == "enough, \u00e9nough"
        assert (await client.info(name)).stopped == "enough, \u00e9nough"
        with pytest.raises(StreamNotFound):
            await client.stop(name + "x")


async def test_who_is_there_is_told(server: Server, name: str) -> None:
    async with Client(server.url) as client:
        await client.append(name, "one")
        async with aclosing(client.records(name, 0)) as one, aclosing(client.records(name, 0)) as other:
            following = [asyncio.ensure_future(anext(one)), asyncio.ensure_future(anext(other))]
            await asyncio.gather(*following)
            waiting = [asyncio.ensure_future(anext(one)), asyncio.ensure_future(anext(other))]

            async def readers() -> int:
                return (await client.presence(name)).readers

            await until(readers, 2)
            there = await client.presence(name)
            assert (there.state, there.names, there.producers, there.vanished) == ("open", (), 0, False)
            assert there.modified_at > 0
            await client.close_stream(name)
            for end in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(end, StopAsyncIteration)
        with pytest.raises(StreamNotFound):
            await client.presence(name + "x")
