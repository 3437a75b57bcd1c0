"""Clients that vanish leave nothing in the server: no descriptors, no tasks, no threads, no half files."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

import processes
from penstock.server.app import create_app
from penstock.server.settings import Settings
from servers import Server, free_port
from wire import Connection, request, until

LARGE = random.Random(1).randbytes(8 * 1024 * 1024)
CLIENTS = 200
AT_ONCE = 20

MOST_THREADS = 64
"""All pools of a server together."""


async def download(connection: Connection) -> None:
    await connection.begin("GET", "/files/large")
    await connection.head()
    await anext(connection.body())


async def ranges(connection: Connection) -> None:
    await connection.begin("GET", "/files/large", {"range": "bytes=0-2000000,4000000-6000000"})
    await connection.head()


async def upload(connection: Connection) -> None:
    await connection.begin("PUT", f"/files/vanished/{secrets.token_hex(8)}", {"content-length": "10000000"})
    await connection.write(LARGE[:300_000])


async def small_upload(connection: Connection) -> None:
    await connection.begin("PUT", f"/files/vanished/{secrets.token_hex(8)}", {"content-length": "1000"})
    await connection.write(LARGE[:500])


async def replacement(connection: Connection) -> None:
    await connection.begin("PUT", "/files/large", {"content-length": "10000000"})
    await connection.write(LARGE[:300_000])


async def live(connection: Connection) -> None:
    await connection.begin("GET", "/live/log?offset=0")
    await connection.head()
    await anext(connection.body())


async def follow(connection: Connection) -> None:
    await connection.begin("GET", "/files/log?follow")
    await connection.head()
    await anext(connection.body())


async def append(connection: Connection) -> None:
    await connection.begin(
        "POST", "/live/log", {"content-type": "application/json", "content-length": str(len(LARGE) // 4)}
    )
    await connection.write(LARGE[:1000])


VANISHING: list[Callable[[Connection], Awaitable[None]]] = [
    download,
    ranges,
    upload,
    small_upload,
    replacement,
    live,
    follow,
    append,
]


async def prepare(port: int) -> None:
    assert (await request(port, "PUT", "/files/large", LARGE)).status in {200, 201}
    answer = await request(port, "POST", "/live/log", b"1", {"content-type": "application/json"})
    assert answer.status in {200, 201}


async def come_and_vanish(port: int, act: Callable[[Connection], Awaitable[None]], count: int) -> None:
    limit = asyncio.Semaphore(AT_ONCE)

    async def client() -> None:
        async with limit, Connection(port) as connection:
            await act(connection)

    await asyncio.gather(*(client() for _ in range(count)))


def held(pid: int) -> Counter[str]:
    """Return the kinds of what a process has open, without the catalog, which each thread opens once."""
    kinds = (target.partition(":")[0] for target in processes.descriptors(pid) if "catalog.sqlite3" not in target)
    return Counter("file" if kind.startswith("/") else kind for kind in kinds)


async def names(port: int) -> list[str]:
    return sorted(stream["name"] for stream in (await request(port, "GET", "/files/")).json()["streams"])


@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc")
def test_vanishing_clients_leave_no_descriptors_and_threads(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async def is_over() -> bool:
            return held(server.pid) <= before

        await prepare(server.port)
        for act in VANISHING:  # so that the pools have their threads
            await come_and_vanish(server.port, act, AT_ONCE)
        await asyncio.sleep(0.5)
        before = held(server.pid)
        for act in VANISHING:
            await come_and_vanish(server.port, act, CLIENTS)
            await until(is_over, True)
        assert processes.threads(server.pid) < MOST_THREADS
        assert await names(server.port) == ["large", "log"]
        assert (await request(server.port, "GET", "/files/large")).body == LARGE
        assert (await request(server.port, "GET", "/files/log")).body == b"1\n"

    with Server(tmp_path / "data") as server:
        asyncio.run(scenario(server))
        assert server.stop() == 0
    assert [path.stat().st_size for path in (tmp_path / "data" / "blobs").glob("*/*")] == [len(LARGE)]


@asynccontextmanager
async def serving(data: Path) -> AsyncIterator[int]:
    """Run the server in this event loop, to see its tasks."""
    config = uvicorn.Config(
        create_app(Settings(data=os.fspath(data))), port=free_port(), log_level="critical", ws="none"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done()
        await asyncio.sleep(0.01)
    try:
        yield config.port
    finally:
        server.should_exit = True
        await running


def test_vanishing_clients_leave_no_tasks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def is_over() -> bool:
            return len(asyncio.all_tasks()) <= before

        async with serving(tmp_path / "data") as port:
            await prepare(port)
            before = len(asyncio.all_tasks())
            for act in VANISHING:
                await come_and_vanish(port, act, AT_ONCE)
                await until(is_over, True)

    asyncio.run(scenario())
