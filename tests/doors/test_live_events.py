"""A live stream as server-sent events: each record once, in order, and an end that says what it is."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from applications import serving
from live_door import append, events
from penstock import Streams, StreamSpec
from penstock.protocols.sse import Event
from servers import Server
from wire import Connection, request, until

JSON = "application/json"


@asynccontextmanager
async def listening(
    port: int, path: str, last_event_id: str | None = None
) -> AsyncIterator[tuple[Connection, AsyncIterator[Event]]]:
    async with Connection(port) as connection:
        await connection.begin("GET", path, {} if last_event_id is None else {"last-event-id": last_event_id})
        assert await connection.head() == 200, path
        yield connection, events(connection)


async def take(source: AsyncIterator[Event], count: int) -> list[Event]:
    return [await anext(source) for _ in range(count)]


async def read_all(port: int, path: str, last_event_id: str | None = None) -> list[Event]:
    async with listening(port, path, last_event_id) as (_, source):
        return [event async for event in source]


async def test_records_come_as_events_with_the_offset_after_them(server: Server, name: str) -> None:
    first = await append(server, name, {"a": 1})
    async with listening(server.port, f"/live/{name}?offset=0") as (connection, source):
        assert connection.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in connection.headers["cache-control"]
        assert connection.headers["stream-state"] == "open"
        assert (await anext(source)) == Event('{"a":1}', id=str(first))
        second = await append(server, name, [2])
        assert (await anext(source)) == Event("[2]", id=str(second))
        last = await append(server, name, 3, "four", close=True)
        three, four, end = [event async for event in source]
    assert (three, four) == (Event("3", id=str(second + 2)), Event('"four"', id=str(last)))
    assert (end.event, end.id, json.loads(end.data)) == ("end", str(last), {"state": "closed", "offset": last})


async def test_the_reconnection_time_comes_first(server: Server, name: str) -> None:
    await append(server, name, 1)
    async with Connection(server.port) as connection:
        await connection.begin("GET", f"/live/{name}")
        await connection.head()
        assert (await anext(connection.body())).startswith(b"retry: 1000\n\n")


@pytest.mark.parametrize("path", ["", "?offset=now"])
async def test_from_now_on_is_the_default(server: Server, name: str, path: str) -> None:
    await append(server, name, "old")
    async with listening(server.port, f"/live/{name}{path}") as (_, source):
        await append(server, name, "new")
        assert (await anext(source)).data == '"new"'


async def test_now_within_a_record_begins_with_that_record(server: Server, name: str) -> None:
    async with Connection(server.port) as uploader:
        await uploader.begin("PUT", f"/files/{name}", {"transfer-encoding": "chunked", "content-type": "text/csv"})
        half = b"a,b\n1,2\n" + b"3," * 50_000
        await uploader.write_chunk(half)

        async def tail() -> str:
            return (await request(server.port, "HEAD", f"/files/{name}")).headers.get("stream-tail", "")

        await until(tail, str(len(half)))
        async with listening(server.port, f"/live/{name}") as (_, source):
            await uploader.write_chunk(b"4\n5")
            await uploader.write_chunk(b"")
            got = [event async for event in source]
    assert [event.data for event in got[:-1]] == ["3," * 50_000 + "4", "5"]
    assert [event.id for event in got[:-1]] == [str(len(half) + 2), str(len(half) + 3)]
    assert got[-1].event == "end"


async def test_a_reader_who_comes_back_gets_what_is_missing_and_nothing_twice(server: Server, name: str) -> None:
    rng = random.Random(11)
    seen: list[str] = []
    last_event_id = ""

    async def produce() -> None:
        for index in range(0, 60, 3):
            await append(server, name, *(f"{number} {'ü' * rng.randrange(200)}" for number in range(index, index + 3)))
        await append(server, name, close=True)

    await append(server, name)
    producing = asyncio.create_task(produce())
    while True:
        async with Connection(server.port) as connection:
            fields = {"last-event-id": last_event_id}  # at first an empty one, which says nothing
            await connection.begin("GET", f"/live/{name}?offset=0", fields)
            if await connection.head() == 204:
                break
            async for event in events(connection):
                last_event_id = event.id
                if event.event == "message":
                    seen.append(event.data)
                if rng.random() < 0.2:
                    break  # hangs up, perhaps with more on the way
    await producing
    assert [int(json.loads(record).split()[0]) for record in seen] == list(range(60))


async def test_who_has_it_all_of_a_closed_stream_is_told_to_stay_away(server: Server, name: str) -> None:
    end = await append(server, name, 1, 2, close=True)
    assert [event.event for event in await read_all(server.port, f"/live/{name}?offset=0")] == ["message"] * 2 + ["end"]
    assert [event.event for event in await read_all(server.port, f"/live/{name}?offset=0", "2")] == ["message", "end"]
    assert [event.event for event in await read_all(server.port, f"/live/{name}")] == ["end"]
    for path in (f"/live/{name}", f"/live/{name}?offset=0"):
        done = await request(server.port, "GET", path, headers={"last-event-id": str(end)})
        assert (done.status, done.body, done.headers["stream-state"]) == (204, b"", "closed")


@pytest.mark.parametrize(
    ("offset", "status"), [("1", 410), ("9", 410), ("999999999999999", 410), ("-1", 400), ("1.5", 400), ("x", 400)]
)
async def test_an_offset_that_is_no_records_begin_is_refused(
    server: Server, name: str, offset: str, status: int
) -> None:
    await append(server, name, 10, 20)
    by_parameter = await request(server.port, "GET", f"/live/{name}?offset={offset}")
    by_field = await request(server.port, "GET", f"/live/{name}?offset=0", headers={"last-event-id": offset})
    assert (by_parameter.status, by_field.status) == (status, status)
    if status == 410:
        assert by_parameter.json()["type"] == "https://penstock.dev/problems/offset-out-of-range"
        assert by_parameter.json()["tail"] == 6


async def test_a_deleted_stream_ends_with_an_error(server: Server, name: str) -> None:
    await append(server, name, 1)
    async with listening(server.port, f"/live/{name}") as (_, source):
        await request(server.port, "DELETE", f"/files/{name}")
        (gone,) = [event async for event in source]
    assert (gone.event, json.loads(gone.data)["state"]) == ("error", "gone")
    assert (await request(server.port, "GET", f"/live/{name}", headers={"last-event-id": "2"})).status == 404


async def test_a_server_that_stops_ends_the_response_and_the_reader_goes_on_at_the_next(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        offset = await append(server, "log", 1)
        async with listening(server.port, "/live/log?offset=0") as (_, source):
            assert (await anext(source)).id == str(offset)
            server.terminate()
            assert [event async for event in source] == []  # neither an end nor an error
        assert await asyncio.to_thread(server.stop) in {0, -15}
        await asyncio.to_thread(server.start)
        await append(server, "log", 2)
        async with listening(server.port, "/live/log", str(offset)) as (_, source):
            assert (await anext(source)).data == "2"


async def test_an_uploaded_text_comes_line_by_line_whatever_ends_its_lines(server: Server, name: str) -> None:
    body = b"unix\nwindows\r\n\r\nold\rmac\n: comment\ndata: x\n\xc3\xa9\0\xff\nlast"
    await request(server.port, "PUT", f"/files/{name}", body, {"content-type": "text/plain"})
    *records, end = await read_all(server.port, f"/live/{name}?offset=0")
    assert [event.data for event in records] == [
        *("unix", "windows", "", "old\nmac", ": comment", "data: x", "é\0\ufffd", "last")
    ]
    assert [int(event.id) for event in records] == [5, 14, 16, 24, 34, 42, 47, len(body)]
    assert (end.event, end.id) == ("end", str(len(body)))
    for index, event in enumerate(records[:-1]):
        rest = await read_all(server.port, f"/live/{name}", event.id)
        assert rest == [*records[index + 1 :], end]


async def test_other_bytes_come_as_base64(server: Server, name: str) -> None:
    body = random.Random(2).randbytes(3_000_000)
    await request(server.port, "PUT", f"/files/{name}", body)
    *chunks, end = await read_all(server.port, f"/live/{name}?offset=5")
    assert {event.event for event in chunks} == {"bytes"}
    data, offset = b"", 5
    for event in chunks:
        data += b64decode(event.data, validate=True)
        assert int(event.id) == offset + len(data)
    assert data == body[5:]
    assert end.event == "end"


async def test_bytes_are_followed_as_they_arrive(server: Server, name: str) -> None:
    async with Connection(server.port) as uploader:
        await uploader.begin("PUT", f"/files/{name}", {"transfer-encoding": "chunked"})
        await uploader.write_chunk(b"\x00one")
        while (await request(server.port, "HEAD", f"/files/{name}")).headers.get("stream-tail") != "4":
            pass
        async with listening(server.port, f"/live/{name}") as (_, source):
            await uploader.write_chunk(b"\xfftwo")
            event = await anext(source)
            assert (event.event, b64decode(event.data), event.id) == ("bytes", b"\xfftwo", "8")
            uploader.close()
            gone = await anext(source)
            assert (gone.event, json.loads(gone.data)["state"]) == ("error", "gone")


async def test_a_failed_stream_ends_with_its_reason_and_without_half_a_record(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        await streams.append(name, [b"whole\nhal"], create=_text())
        async with listening(port, f"/live/{name}?offset=0") as (_, source):
            assert (await anext(source)).data == "whole"
            await streams.fail(name, "out of\nsmoke")
            (error,) = [event async for event in source]
        assert (error.event, error.id) == ("error", "9")
        assert json.loads(error.data) == {"state": "failed", "offset": 9, "reason": "out of\nsmoke"}
        assert (await request(port, "GET", f"/live/{name}", headers={"last-event-id": "9"})).status == 204


async def test_a_record_that_is_too_long_is_an_error_and_those_before_it_come(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        await streams.append(name, [b"short\n", b"x" * (16 * 1024 * 1024 + 1), b"\n"], create=_text())
        short, error = await read_all(port, f"/live/{name}?offset=0")
        assert (short.data, short.id) == ("short", "6")
        assert (error.event, "longer than" in error.data) == ("error", True)


async def test_silence_is_broken_by_comments(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(heartbeat=0.05))
    async with serving(app, log_level="critical") as port:
        await streams.append(name, [b"1\n"], create=_text())
        async with Connection(port) as connection:
            await connection.begin("GET", f"/live/{name}")
            await connection.head()
            body = connection.body()
            assert await anext(body) == b"retry: 1000\n\n"
            assert [await anext(body) for _ in range(3)] == [b":\n\n"] * 3
            await streams.append(name, [b"2\n"])
            while (data := await anext(body)) == b":\n\n":
                pass
            assert data == b"id: 4\ndata: 2\n\n"


async def test_listeners_who_leave_are_let_go(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        await streams.append(name, [b"1\n"], create=_text())
        before = len(asyncio.all_tasks())
        for _ in range(5):
            async with listening(port, f"/live/{name}?offset=0") as (_, source):
                await anext(source)

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        await until(tasks, before)


def _text() -> StreamSpec:
    return StreamSpec(content_type="text/plain; charset=utf-8")
