"""The client and the server, together, over a network that breaks."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.client import Client, ServerError, SyncClient
from penstock.client.retry import Backoff
from penstock.errors import PreconditionFailed, StreamIsOpen, StreamNotFound
from scripted import CuttingProxy
from servers import Server


@pytest.fixture(autouse=True)
def _little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.02)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return f"client/{request.node.name}/é %2F?"


@pytest.fixture
def client(server: Server) -> Iterator[SyncClient]:
    with SyncClient(server.url) as client:
        yield client


def test_a_file_goes_up_and_comes_down(client: SyncClient, name: str, tmp_path: Path) -> None:
    data = os.urandom(5_000_001)
    (tmp_path / "source").write_bytes(data)
    stored = client.put(tmp_path / "source", name, content_type="application/x-test", ttl=1000)
    assert (stored.name, stored.tail, stored.state, stored.content_type) == (
        name,
        len(data),
        "closed",
        "application/x-test",
    )
    result = client.get(name, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert result.verified
    told = client.info(name)
    assert (told.etag, told.url, told.incarnation) == (stored.etag, stored.url, stored.incarnation)
    assert told.digests == stored.digests != {}
    assert told.expires_at is not None
    assert b"".join(bytes(chunk.data) for chunk in client.read(name, 1_000_000, 4_000_000)) == data[1_000_000:4_000_000]
    assert [stream.name for stream in client.list(name[:-2])] == [name]
    with pytest.raises(PreconditionFailed):
        client.put(b"x", name, if_none_match=True)
    replaced = client.put(b"x", name, if_match=stored.etag)
    with pytest.raises(PreconditionFailed):
        client.delete(name, if_match=stored.etag)
    client.delete(name, if_match=replaced.etag)
    for call in (client.info, client.delete):
        with pytest.raises(StreamNotFound):
            call(name)


def test_an_empty_file_goes_up_and_comes_down(client: SyncClient, name: str, tmp_path: Path) -> None:
    client.put(b"", name)
    assert client.get(name, tmp_path / "copy").verified
    assert (tmp_path / "copy").read_bytes() == b""
    assert list(client.read(name)) == []
    assert list(client.read(name, follow=True)) == []


def test_a_listing_goes_over_pages(client: SyncClient, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"client/pages/{number:03}" for number in range(25)]
    for one in names:
        client.put(b"", one)
    monkeypatch.setattr("penstock.client.client.PAGE", 10)
    assert [stream.name for stream in client.list("client/pages/")] == names
    assert list(client.list("client/nothing/")) == []


def test_records_are_appended_and_the_last_ones_shown(client: SyncClient, name: str) -> None:
    with client.appender(name, close=True) as appender:
        for number in range(100):
            appender.append({"n": number})
        appender.flush()
        assert appender.count == 100
        with pytest.raises(StreamIsOpen):
            client.put(b"x", name)
    last = b"".join(bytes(chunk.data) for chunk in client.tail(name, 3))
    assert last == b'{"n":97}\n{"n":98}\n{"n":99}\n'
    assert b"".join(bytes(chunk.data) for chunk in client.tail(name, 0)) == b""
    assert len(b"".join(bytes(chunk.data) for chunk in client.tail(name, 1000)).splitlines()) == 100


@pytest.mark.parametrize("lines", [1, 2, 7, 30])
def test_last_lines_are_found_across_blocks(
    client: SyncClient, name: str, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.tailing._BLOCK", 16)
    whole = [b"x" * (length % 40) + b"\n" for length in range(0, 400, 13)]
    for end in (b"", b"no line end"):
        client.put(b"".join(whole) + end, name)
        expected = [*whole, end] if end else whole
        assert b"".join(bytes(chunk.data) for chunk in client.tail(name, lines)) == b"".join(expected[-lines:])


def test_a_follower_sees_records_as_they_come(server: Server, name: str) -> None:
    async def run() -> None:
        async with Client(server.url) as client:
            await client.append(name, "zero")
            following = client.tail(name, 1, follow=True)
            assert bytes((await anext(following)).data) == b"zero\n"
            for line in ("one", "two"):
                await client.append(name, line, close=line == "two")
                assert bytes((await asyncio.wait_for(anext(following), 5)).data) == line.encode() + b"\n"
            assert [chunk async for chunk in following] == []

    asyncio.run(run())


def test_a_download_follows_an_upload(server: Server, name: str, tmp_path: Path) -> None:
    pieces = [os.urandom(200_000) for _ in range(5)]

    async def run() -> None:
        arrived = asyncio.Event()

        async def source() -> Iterator[bytes]:  # type: ignore[misc]
            for number, piece in enumerate(pieces):
                yield piece
                if number == 2:  # the rest is sent when these have come out at the other end
                    await asyncio.wait_for(arrived.wait(), 10)

        def progress(done: int, _total: int | None, /) -> None:
            if done == 600_000:
                arrived.set()

        async with Client(server.url) as client:
            upload = asyncio.create_task(client.put(source(), name))
            while True:
                try:
                    await client.info(name)
                    break
                except StreamNotFound:
                    await asyncio.sleep(0.01)
            result = await client.get(name, tmp_path / "copy", follow=True, progress=progress)
            assert result.verified
            await upload

    asyncio.run(run())
    assert (tmp_path / "copy").read_bytes() == b"".join(pieces)


def test_a_broken_network_loses_and_doubles_nothing(server: Server, name: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    data = chance.randbytes(3_000_000)

    async def run() -> None:
        with CuttingProxy(server.port, [chance.randrange(100, 2_000_000) for _ in range(6)]) as proxy:
            async with Client(proxy.url) as client:
                await client.put(data, name + "file")
            assert proxy.cuts >= 2
        with CuttingProxy(server.port, [chance.randrange(1000, 500_000) for _ in range(12)]) as proxy:
            async with Client(proxy.url) as client:
                await client.get(name + "file", tmp_path / "copy")
            assert proxy.cuts > 3
        limits = [chance.randrange(100, 8_000) for _ in range(40)]
        with CuttingProxy(server.port, limits) as proxy, CuttingProxy(server.port, limits[::-1]) as other:
            async with Client(proxy.url) as writer, Client(other.url) as reader:
                await writer.append(name, "0")

                async def write() -> None:
                    async with writer.appender(name, kind="text", close=True) as appender:
                        for number in range(1, 400):
                            await appender.append(str(number))
                            if number % 3 == 0:  # so that it takes many requests
                                await appender.flush()

                writing = asyncio.create_task(write())
                followed = b""
                async for chunk in reader.read(name, follow=True):
                    assert chunk.offset == len(followed)
                    followed += chunk.data
                await writing
            assert proxy.cuts > 5
        assert followed.split() == [b"%d" % number for number in range(400)]

    asyncio.run(run())
    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.slow
def test_a_follower_outlives_the_server(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server, SyncClient(server.url) as client:
        client.append("log", "one")
        seen: list[bytes] = []
        both = threading.Event()

        def follow() -> None:
            with SyncClient(server.url) as reader:
                for chunk in reader.read("log", follow=True):
                    seen.append(bytes(chunk.data))
                    both.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert both.wait(10)
        server.kill()
        server.start()
        client.append("log", "two")
        server.stop()
        server.start()
        client.append("log", "three", close=True)
        thread.join(20)
        assert b"".join(seen) == b"one\ntwo\nthree\n"


def test_another_path_and_fields_of_ones_own(server: Server) -> None:
    with SyncClient(server.url + "/", files="/nowhere/", headers={"x-mine": "1"}) as client:
        with pytest.raises(StreamNotFound):
            client.info("x")
        with pytest.raises(ServerError) as caught:
            list(client.list())
        assert caught.value.status == 404
