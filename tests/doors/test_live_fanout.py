"""Many readers of one stream: they share its tail, and nobody's trouble is anybody else's."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from os import kill
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from applications import serving
from live_door import append
from penstock import Streams
from processes import anonymous, descriptors, owner_of, workers
from servers import Server
from wire import Broken, Connection, Event, Follower, events, request, until


@asynccontextmanager
async def following(port: int, path: str) -> AsyncIterator[tuple[Connection, AsyncIterator[Event]]]:
    async with Connection(port) as connection:
        await connection.begin("GET", path)
        assert await connection.head() == 200
        yield connection, events(connection)


async def test_readers_who_come_and_go_all_get_the_same(port: int, name: str) -> None:
    """Some come back at offsets within what is shared, some behind it, and every one sees every record once."""
    rng = random.Random(5)

    def rest() -> int | None:
        return rng.choice([1, 3, 17, 60, None])

    await append(port, name, *range(50))
    readers = [Follower(port, f"/live/{name}", rest) for _ in range(40)]
    running = [asyncio.create_task(reader.run()) for reader in readers]
    for number in range(50, 300, 5):
        await append(port, name, *range(number, number + 5))
    await append(port, name, close=True)
    await asyncio.gather(*running)
    for reader in readers:
        assert [int(event.data) for event in reader.events] == list(range(300))
    assert sum(reader.cuts for reader in readers) > 40


async def test_a_reader_who_takes_nothing_holds_up_nobody_and_misses_nothing(port: int, name: str) -> None:
    line = "x" * 20_000
    await append(port, name, -1)
    async with (
        Connection(port, receive_buffer=4096) as slow,
        following(port, f"/live/{name}?offset=0") as (_, quick),
    ):
        await slow.begin("GET", f"/live/{name}?offset=0")
        assert await slow.head() == 200
        for number in range(0, 1000, 20):  # 20 MB: more than the ring and all the buffers of the line
            await append(port, name, *({"n": index, "x": line} for index in range(number, number + 20)))
        await append(port, name, close=True)
        got = [event async for event in quick]
        assert [json.loads(event.data)["n"] for event in got[1:-1]] == list(range(1000))
        late = [event async for event in events(slow)]
        assert late == got


async def test_after_the_end_the_connection_takes_further_requests(port: int, name: str) -> None:
    await append(port, name, 1)
    async with Connection(port) as connection:
        for _ in range(2):
            await connection.begin("GET", f"/live/{name}?offset=0")
            assert await connection.head() == 200
            found = events(connection)
            assert (await anext(found)).data == "1"
            await append(port, name, close=True)
            assert (await anext(found)).kind == "end"
            assert [event async for event in found] == []
            assert (await connection.request("GET", f"/files/{name}")).body == b"1\n"
            await request(port, "DELETE", f"/files/{name}")
            await append(port, name, 1)


async def test_all_readers_are_told_of_a_deletion(port: int, name: str) -> None:
    await append(port, name, 1)

    async def follow(offset: str) -> Event:
        async with following(port, f"/live/{name}?offset={offset}") as (_, found):
            ready.release()
            *_, last = [event async for event in found]
            return last

    ready = asyncio.Semaphore(0)
    readers = [asyncio.create_task(follow(offset)) for offset in ("0", "now") * 10]
    for _ in readers:
        await ready.acquire()
    await request(port, "DELETE", f"/files/{name}")
    for last in await asyncio.gather(*readers):
        assert (last.kind, json.loads(last.data)["state"]) == ("error", "gone")


async def test_a_request_that_comes_before_the_end_is_answered_after_it(server: Server, name: str) -> None:
    await append(server.port, name, 1)
    async with Connection(server.port) as connection:
        await connection.begin("GET", f"/live/{name}?offset=0")
        await connection.head()
        found = events(connection)
        assert (await anext(found)).data == "1"
        await connection.begin("GET", f"/files/{name}")
        await append(server.port, name, 2, close=True)
        assert [event.data async for event in found if event.kind == "message"] == ["2"]
        assert (await connection.answer()).body == b"1\n2\n"


async def test_readers_without_a_record_cost_little_and_leave_nothing_behind(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        await append(server.port, "quiet", 1)
        async with following(server.port, "/live/quiet"):
            pass
        memory = anonymous(server.pid)
        connections = [await Connection(server.port).open() for _ in range(600)]
        for connection in connections:
            await connection.begin("GET", "/live/quiet")
        for connection in connections:
            assert await connection.head() == 200
        assert (anonymous(server.pid) - memory) / 600 < 40 * 1024
        await append(server.port, "quiet", 2)
        for connection in connections:
            assert (await anext(events(connection))).data == "2"
            connection.close()

        async def sockets() -> bool:
            return sum(target.startswith("socket:") for target in descriptors(server.pid)) < 20

        await until(sockets, True)
        async with following(server.port, "/live/quiet?offset=0") as (_, found):
            assert [(await anext(found)).data for _ in range(2)] == ["1", "2"]


async def test_a_worker_that_dies_cuts_its_readers_short_and_no_others(workers_of_two: Server, name: str) -> None:
    server = workers_of_two
    await append(server.port, name, 1)
    readers: list[tuple[Connection, AsyncIterator[Event]]] = []
    pids = workers(server.pid)
    owners: dict[int, int] = {}
    while set(owners.values()) != set(pids):
        connection = await Connection(server.port).open()
        await connection.begin("GET", f"/live/{name}?offset=0")
        assert await connection.head() == 200
        readers.append((connection, events(connection)))
        assert (await anext(readers[-1][1])).data == "1"
        owners = owner_of({index: reader.local_port for index, (reader, _) in enumerate(readers)}, pids)
    kill(pids[0], signal.SIGKILL)
    for index, (_, found) in enumerate(readers):
        if owners[index] == pids[0]:
            with pytest.raises((Broken, ConnectionError)):
                await anext(found)
    last = await append(server.port, name, 2)
    for index, (connection, found) in enumerate(readers):
        if owners[index] != pids[0]:
            assert await anext(found) == Event("message", "2", str(last))
        connection.close()


@pytest.fixture
def workers_of_two(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", "--workers", "2") as running:
        yield running


async def test_what_is_between_the_server_and_the_door_keeps_its_say_over_bodies(tmp_path: Path, name: str) -> None:
    """A middleware that builds messages of its own is not gone around."""

    async def shout(asked: Request, call_next: object) -> Response:
        response: Response = await call_next(asked)  # type: ignore[operator]  # Starlette's type of it is its own
        if asked.method == "POST":
            return response
        body = response.body_iterator  # type: ignore[attr-defined]  # of the class that Starlette makes of it

        async def louder() -> AsyncIterator[bytes]:
            async for data in body:
                yield data.upper()

        response.body_iterator = louder()  # type: ignore[attr-defined]  # the same
        return response

    streams = Streams(tmp_path / "data")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    app.add_middleware(BaseHTTPMiddleware, dispatch=shout)
    async with serving(app, http="penstock.server.lines:HandingOverProtocol") as port:
        await append(port, name, "quiet")
        async with following(port, f"/live/{name}?offset=0") as (connection, _):
            body = connection.body()
            while b"DATA" not in (data := await anext(body)):
                pass
            assert b'DATA: "QUIET"\n' in data


async def test_a_reader_who_takes_nothing_for_too_long_is_cut_off(tmp_path: Path, name: str) -> None:
    streams = Streams(tmp_path / "data")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(patience=0.2))
    async with (
        serving(app, http="penstock.server.lines:HandingOverProtocol") as port,
        Connection(port, receive_buffer=4096) as slow,
    ):
        await append(port, name, 1)
        await slow.begin("GET", f"/live/{name}?offset=0")
        await slow.head()
        for _ in range(10):
            await append(port, name, *("x" * 100_000 for _ in range(20)))
        await asyncio.sleep(0.5)  # the time is what is tested
        with pytest.raises((Broken, ConnectionError)):
            async for _ in slow.body():
                pass


async def test_what_is_written_never_reaches_another_connection(server: Server, name: str) -> None:
    """Readers hang up all the time, and others get their descriptors, while records are written to all."""
    await append(server.port, name, 0)
    over = asyncio.Event()

    async def come_and_go() -> None:
        while not over.is_set():
            async with following(server.port, f"/live/{name}") as (connection, found):
                await anext(found)
                await connection.write(b"\x00 no request \x00\r\n\r\n")  # which has the server close it, too

    async def ask() -> None:
        while not over.is_set():
            answer = await request(server.port, "GET", "/healthz")
            assert (answer.status, answer.json()) == (200, {"status": "ok"})

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(come_and_go())
            group.create_task(ask())
        for number in range(200):
            await append(server.port, name, number)
        over.set()
        for _ in range(20):  # who has just come waits for one more
            await append(server.port, name, -1)
            await asyncio.sleep(0.01)
