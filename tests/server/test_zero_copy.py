"""Files that the server sends by itself: the same bytes as ever, whatever the client does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import processes
from applications import serving
from penstock import Streams
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.responses.zero_copy import EXTENSION
from wire import Broken, Connection, until

DATA = os.urandom(3_000_000)
OURS = "penstock.server.lines:HandingOverProtocol"


class Watched:
    """An application that notes what it sends."""

    def __init__(self, app: FastAPI) -> None:
        self.kinds: list[str] = []
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            self.kinds.append(message["type"])
            await send(message)

        await self._app(scope, receive, noting)


@asynccontextmanager
async def served(folder: Path, http: str = OURS, loop: str = "uvloop") -> AsyncIterator[tuple[int, Watched, Streams]]:
    streams = Streams(folder / "data")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    install_problem_handlers(app)
    watched = Watched(app)
    async with serving(watched, http=http, loop=loop) as port:
        async with await streams.replace("a") as draft:
            await draft.write([DATA])
            await draft.publish()
        yield port, watched, streams


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be worth it for one client, too."""
    monkeypatch.setattr("penstock.toolkit.responses.zero_copy._WORTH_IT", 1)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_all_of_a_file_and_parts_of_it(tmp_path: Path, loop: str) -> None:
    async with served(tmp_path, loop=loop) as (port, watched, _), Connection(port) as connection:
        for _ in range(3):  # on one connection
            assert (await connection.request("GET", "/files/a")).body == DATA
            part = await connection.request("GET", "/files/a", headers={"Range": "bytes=5-2000004"})
            assert part.body == DATA[5:2_000_005]
            several = await connection.request("GET", "/files/a", headers={"Range": "bytes=0-0,1000000-2500000"})
            assert DATA[1_000_000:2_500_001] in several.body
        assert (await connection.request("HEAD", "/files/a")).headers["content-length"] == str(len(DATA))
        assert EXTENSION in watched.kinds


@pytest.mark.usefixtures("always")
async def test_another_server_is_not_asked_to(tmp_path: Path) -> None:
    async with served(tmp_path, http="httptools") as (port, watched, _), Connection(port) as connection:
        assert (await connection.request("GET", "/files/a")).body == DATA
        assert EXTENSION not in watched.kinds


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_slow_client_gets_all_of_it(tmp_path: Path, loop: str) -> None:
    async with served(tmp_path, loop=loop) as (port, _, streams):
        async with await streams.replace("large") as draft:
            for _ in range(8):
                await draft.write([DATA])
            await draft.publish()
        async with Connection(port, receive_buffer=4096) as connection:
            await connection.begin("GET", "/files/large")
            assert await connection.head() == 200
            await asyncio.sleep(0.05)  # the socket's buffers are full by then, or are not: both must do
            assert b"".join([piece async for piece in connection.body()]) == DATA * 8


@pytest.mark.usefixtures("always")
@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc for open descriptors")
async def test_who_goes_away_leaves_nothing_open(tmp_path: Path) -> None:
    async with served(tmp_path) as (port, _, streams):
        async with await streams.replace("large") as draft:
            for _ in range(8):
                await draft.write([DATA])
            await draft.publish()

        # Not those of the catalog's connections, of which each thread gets one when it needs it.
        def opened() -> int:
            return sum(
                target.startswith("socket:") or "/blobs/" in target for target in processes.descriptors(os.getpid())
            )

        before = opened()

        async def as_before() -> bool:
            return opened() <= before

        for _ in range(5):
            async with Connection(port, receive_buffer=4096) as connection:
                await connection.begin("GET", "/files/large")
                await connection.head()
        await until(as_before, True)


@pytest.mark.usefixtures("always")
async def test_a_file_that_is_shorter_than_it_was_breaks_off(tmp_path: Path) -> None:
    async with served(tmp_path) as (port, _, _), Connection(port) as connection:
        (blob,) = (path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file())
        os.truncate(blob, 2_000_000)
        await connection.begin("GET", "/files/a")
        assert await connection.head() == 200
        with pytest.raises(Broken):
            assert b"".join([piece async for piece in connection.body()]) == b""


async def test_it_is_done_for_several_at_once_and_not_for_one(tmp_path: Path) -> None:
    async with served(tmp_path) as (port, watched, streams):
        async with await streams.replace("large") as draft:
            for _ in range(8):
                await draft.write([DATA])
            await draft.publish()
        async with Connection(port) as connection:
            await connection.request("GET", "/files/large")
        assert EXTENSION not in watched.kinds

        async def client() -> None:
            async with Connection(port) as connection:
                await connection.begin("GET", "/files/large")
                await connection.head()
                begun.release()
                await all_begun.wait()
                assert b"".join([piece async for piece in connection.body()]) == DATA * 8

        begun, all_begun = asyncio.Semaphore(0), asyncio.Event()
        clients = [asyncio.create_task(client()) for _ in range(4)]
        for _ in clients:
            await begun.acquire()
        all_begun.set()
        await asyncio.gather(*clients)
        assert EXTENSION in watched.kinds
