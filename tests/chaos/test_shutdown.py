"""SIGTERM: what is under way finishes, readers are let go so that they lose nothing, and the process ends."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from servers import Server
from wire import Broken, Connection, Event, events, request, until

LARGE = random.Random(1).randbytes(24 * 1024 * 1024)
GRACE = 20


async def begun(server: Server, stack: AsyncExitStack, path: str, receive_buffer: int = 0) -> Connection:
    """Send a GET, and read the head of its answer."""
    connection = await stack.enter_async_context(Connection(server.port, receive_buffer=receive_buffer))
    await connection.begin("GET", path)
    assert await connection.head() == 200
    return connection


async def append(server: Server, number: int) -> None:
    answer = await request(server.port, "POST", "/live/log", b"%d" % number, {"content-type": "application/json"})
    assert answer.status in {200, 201}


async def rest_of(reader: Connection) -> list[Event]:
    return [event async for event in events(reader)]


@pytest.mark.parametrize("count", [1, 4])
def test_what_is_under_way_finishes_and_readers_lose_nothing(tmp_path: Path, count: int) -> None:
    async def scenario(server: Server, stack: AsyncExitStack) -> None:
        assert (await request(server.port, "PUT", "/files/large", LARGE)).status == 201
        await append(server, 0)
        readers = [await begun(server, stack, "/live/log?offset=0") for _ in range(8)]
        followers = [await begun(server, stack, "/files/log?follow") for _ in range(8)]
        download = await begun(server, stack, "/files/large", receive_buffer=16 * 1024)
        upload = await stack.enter_async_context(Connection(server.port))
        await upload.begin("PUT", "/files/upload", {"content-length": str(len(LARGE))})
        await upload.write(LARGE[:1_000_000])
        await until(lambda: state(server, "/files/upload"), "open")
        await append(server, 1)

        server.terminate()
        asked = time.monotonic()
        seen = await asyncio.gather(*map(rest_of, readers))  # which end as they should
        for follower in followers:  # which do not look complete
            with pytest.raises((Broken, ConnectionResetError)):
                async for _ in follower.body():
                    pass
        assert time.monotonic() - asked < GRACE / 2
        for start in range(1_000_000, len(LARGE), 1_000_000):
            await upload.write(LARGE[start : start + 1_000_000])
            await asyncio.sleep(0.02)
        assert await upload.head() == 201
        assert b"".join([data async for data in download.body()]) == LARGE
        assert await asyncio.to_thread(server.stop) == 0
        assert time.monotonic() - asked < GRACE
        with pytest.raises(ConnectionRefusedError):
            await request(server.port, "GET", "/healthz")

        await asyncio.to_thread(server.start)
        answer = await request(server.port, "GET", "/files/upload")
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(LARGE).digest()
        await append(server, 2)
        for told in seen:
            assert [event.data for event in told] == ["0", "1"]
            again = await stack.enter_async_context(Connection(server.port))
            await again.begin("GET", "/live/log", {"last-event-id": told[-1].id})
            assert await again.head() == 200
            assert (await anext(events(again))).data == "2"

    async def state(server: Server, path: str) -> str:
        return (await request(server.port, "HEAD", path)).headers.get("stream-state", "")

    async def run(server: Server) -> None:
        async with AsyncExitStack() as stack:
            await scenario(server, stack)

    with Server(tmp_path / "data", "--workers", str(count), "--grace", str(GRACE)) as server:
        asyncio.run(run(server))


def test_what_does_not_finish_within_the_grace_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with Connection(server.port) as upload:
            await upload.begin("PUT", "/files/upload", {"content-length": "1000000"})
            await upload.write(bytes(500_000))
            await asyncio.sleep(0.2)
            assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)
        assert (await request(server.port, "GET", "/files/")).json()["streams"] == []
        assert not list((server.data / "blobs").glob("*/*"))

    with Server(tmp_path / "data", "--grace", "1") as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize("count", [1, 2])
def test_an_idle_server_stops_at_once(tmp_path: Path, count: int) -> None:
    with Server(tmp_path / "data", "--workers", str(count)) as server:
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 10
