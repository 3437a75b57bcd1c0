"""One connection, many streams: each record once, in the order of its stream, and ids that resume all of them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from websockets.asyncio.client import connect

from applications import serving
from live_door import NDJSON, append, events
from penstock import Streams, StreamSpec
from penstock.protocols.sse import Event
from servers import Server
from wire import Broken, Connection, request, until


@asynccontextmanager
async def listening(port: int, path: str, last_event_id: str | None = None) -> AsyncIterator[AsyncIterator[Event]]:
    async with Connection(port) as connection:
        await connection.begin(
            "GET", f"/live/{path}", {} if last_event_id is None else {"last-event-id": last_event_id}
        )
        assert await connection.head() == 200, path
        yield events(connection)


async def take(source: AsyncIterator[Event], count: int) -> list[tuple[str, Any]]:
    found = []
    for _ in range(count):
        told = json.loads((await anext(source)).data)
        found.append((told["name"], told.get("data", told.get("state"))))
    return found


async def test_streams_of_a_prefix_come_on_one_line_and_new_ones_join(server: Server, name: str) -> None:
    await append(server, f"{name}/a", 1)
    await append(server, f"{name}/b", 2)
    await append(server, f"{name}x", "another prefix")
    async with listening(server.port, f"{name}/*?offset=0") as source:
        assert sorted(await take(source, 2)) == [(f"{name}/a", 1), (f"{name}/b", 2)]
        await append(server, f"{name}/b", 3)
        assert await take(source, 1) == [(f"{name}/b", 3)]
        await append(server, f"{name}/deeper/c", 4)
        assert await take(source, 1) == [(f"{name}/deeper/c", 4)]
        end = await append(server, f"{name}/a", 5, close=True)
        assert await take(source, 1) == [(f"{name}/a", 5)]
        ended = await anext(source)
        assert (ended.event, json.loads(ended.data)) == ("end", {"state": "closed", "offset": end, "name": f"{name}/a"})


async def test_by_default_old_records_do_not_come_but_all_of_new_streams_do(server: Server, name: str) -> None:
    await append(server, f"{name}/a", "old")
    async with listening(server.port, f"{name}/*") as source:
        await append(server, f"{name}/a", "new")
        await append(server, f"{name}/b", "all", "of it")
        assert sorted(await take(source, 3)) == [
            *((f"{name}/a", "new"), (f"{name}/b", "all"), (f"{name}/b", "of it")),
        ]


async def test_several_names_those_that_are_yet_to_come_too_and_an_end(server: Server, name: str) -> None:
    await append(server, f"{name}/a", 1)
    query = f"?name={name}/a&name={name}/b&offset=0"
    async with listening(server.port, query) as source:
        assert await take(source, 1) == [(f"{name}/a", 1)]
        await append(server, f"{name}/c", "nobody asked")
        await append(server, f"{name}/b", 2, close=True)
        assert await take(source, 2) == [(f"{name}/b", 2), (f"{name}/b", "closed")]
        await append(server, f"{name}/a", close=True)
        assert await take(source, 1) == [(f"{name}/a", "closed")]
        (end,) = [event async for event in source]
    assert (end.event, json.loads(end.data)) == ("end", {"state": "closed"})
    done = await request(server.port, "GET", f"/live/{query}", headers={"last-event-id": end.id})
    assert done.status == 204


@pytest.mark.parametrize("workers_too", [False, True])
async def test_a_reader_who_is_cut_again_and_again_gets_each_record_once(
    server: Server, request: pytest.FixtureRequest, name: str, workers_too: bool
) -> None:
    if workers_too:
        server = request.getfixturevalue("workers")
    rng = random.Random(8)
    names = [f"{name}/{letter}" for letter in "abcdef"]
    count = 30

    async def produce(stream: str) -> None:
        for number in range(count):
            await append(server, stream, number)
            await asyncio.sleep(rng.random() * 0.01)

    seen: dict[str, list[int]] = {stream: [] for stream in names}
    last_event_id: str | None = None
    producing = asyncio.gather(*map(produce, names))
    while any(len(numbers) < count for numbers in seen.values()):
        async with listening(server.port, f"{name}/*?offset=0", last_event_id) as source:
            with suppress(StopAsyncIteration):
                for _ in range(rng.randrange(1, 30)):
                    if all(len(numbers) == count for numbers in seen.values()):
                        break
                    event = await anext(source)
                    last_event_id = event.id
                    told = json.loads(event.data)
                    seen[told["name"]].append(told["data"])
    await producing
    assert seen == {stream: list(range(count)) for stream in names}


async def test_a_stream_that_is_made_anew_comes_from_its_start(server: Server, name: str) -> None:
    await append(server, f"{name}/a", 1, 2)
    async with listening(server.port, f"{name}/*?offset=0") as source:
        assert await take(source, 2) == [(f"{name}/a", 1), (f"{name}/a", 2)]
        await request(server.port, "DELETE", f"/files/{name}/a")
        assert await take(source, 1) == [(f"{name}/a", "gone")]
        await append(server, f"{name}/a", 3)
        event = await anext(source)
        assert json.loads(event.data)["data"] == 3
    await request(server.port, "DELETE", f"/files/{name}/a")
    await append(server, f"{name}/a", 4, 5, 6)
    async with listening(server.port, f"{name}/*", event.id) as source:
        assert await take(source, 3) == [(f"{name}/a", number) for number in (4, 5, 6)]


async def test_half_a_record_is_not_skipped(server: Server, name: str) -> None:
    async with Connection(server.port) as uploader:
        await uploader.begin("PUT", f"/files/{name}/a", {"transfer-encoding": "chunked", "content-type": "text/plain"})
        await uploader.write_chunk(b"one\ntw")

        async def tail() -> str:
            return (await request(server.port, "HEAD", f"/files/{name}/a")).headers.get("stream-tail", "")

        await until(tail, "6")
        async with listening(server.port, f"{name}/*?offset=0") as source:
            await anext(source)
            await append(server, f"{name}/b", 1)
            event = await anext(source)
            assert json.loads(event.data)["name"] == f"{name}/b"
        async with listening(server.port, f"{name}/*", event.id) as source:
            await uploader.write_chunk(b"o\n")
            assert await take(source, 1) == [(f"{name}/a", "two")]


async def test_lines_of_ndjson_have_ids_too(server: Server, name: str) -> None:
    await append(server, f"{name}/a", 1, 2, close=True)
    path = f"/live/?name={name}/a&offset=0"
    answer = await request(server.port, "GET", path, headers={"accept": NDJSON})
    first, one, two, ended, end = [json.loads(line) for line in answer.body.splitlines()]
    assert (one["name"], one["offset"], one["data"]) == (f"{name}/a", 2, 1)
    assert (ended["name"], ended["state"], end["state"], "name" in end) == (f"{name}/a", "closed", "closed", False)
    for at, rest in ((first, [1, 2]), (one, [2]), (two, [])):
        path = f"/live/?name={name}/a&offset={at['id']}"
        answer = await request(server.port, "GET", path, headers={"accept": NDJSON})
        lines = [json.loads(line) for line in answer.body.splitlines()]
        assert [line["data"] for line in lines if "data" in line] == rest


async def test_one_socket_reads_and_appends_to_many(server: Server, name: str) -> None:
    await append(server, f"{name}/a")
    async with connect(f"ws://127.0.0.1:{server.port}/live/{name}/*") as socket:
        opening = json.loads(await socket.recv())
        assert opening["records"] == []
        await socket.send(json.dumps({"name": f"{name}/b", "append": [1], "id": 1}))
        messages = [json.loads(await socket.recv()) for _ in range(2)]
        assert {"ack": 1, "offset": 2, "duplicate": False} in messages
        (read,) = [message for message in messages if "records" in message]
        assert (read["name"], read["records"]) == (f"{name}/b", [1])
        for message, status in (({"append": [1]}, 422), ({"name": "elsewhere", "append": [1]}, 403)):
            await socket.send(json.dumps(message))
            assert json.loads(await socket.recv())["error"]["status"] == status
    await append(server, f"{name}/a", 2)
    async with connect(f"ws://127.0.0.1:{server.port}/live/{name}/*?offset={read['id']}") as socket:
        await socket.recv()
        message = json.loads(await socket.recv())
        assert (message["name"], message["records"]) == (f"{name}/a", [2])


@pytest.mark.parametrize(
    "path",
    ["/live/", "/live/a/*?name=b", "/live/a/*?offset=7", "/live/a/*?wait=1", "/live/a/*?offset=v1.AAAA", "/live//*"],
)
async def test_what_makes_no_sense_is_refused(server: Server, path: str) -> None:
    answer = await request(server.port, "GET", path)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")


async def test_too_many_streams_are_refused(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        for number in range(500):
            await streams.append(f"{name}/{number}", [b"1\n"], create=StreamSpec(content_type=NDJSON))
        async with listening(port, f"{name}/*") as source:
            await streams.append(f"{name}/one-more", [b"1\n"], create=StreamSpec(content_type=NDJSON))
            (event,) = [event async for event in source]
            assert event.event == "error"
            assert "More than 500" in event.data
        answer = await request(port, "GET", f"/live/{name}/*")
        assert (answer.status, answer.json()["type"].rpartition("/")[2]) == (400, "too-many-streams")


async def test_each_stream_is_asked_for(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)

    def authorize(_request: Request, action: str, stream: str) -> bool:
        if stream.endswith("/raises"):
            raise HTTPException(404)
        return "secret" not in stream and (action != "list" or stream == f"{name}/")

    app.include_router(streams.live(authorize=authorize))
    async with serving(app, log_level="critical") as port:
        for each in ("open", "secret", "raises"):
            await streams.append(f"{name}/{each}", [b"1\n"], create=StreamSpec(content_type=NDJSON))
        async with listening(port, f"{name}/*?offset=0") as source:
            assert await take(source, 1) == [(f"{name}/open", 1)]
            await streams.append(f"{name}/secret", [b"2\n"])
            await streams.append(f"{name}/secret-too", [b"2\n"], create=StreamSpec(content_type=NDJSON))
            await streams.append(f"{name}/open", [b"3\n"])
            assert await take(source, 1) == [(f"{name}/open", 3)]
        assert (await request(port, "GET", "/live/*")).status == 403
        assert (await request(port, "GET", f"/live/?name={name}/secret")).status == 403


async def test_readers_who_leave_let_everything_go(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        await streams.append(f"{name}/a", [b"1\n"], create=StreamSpec(content_type=NDJSON))
        before = len(asyncio.all_tasks())
        for _ in range(5):
            async with listening(port, f"{name}/*?offset=0") as source:
                await anext(source)

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        await until(tasks, before)


@pytest.mark.parametrize("http", ["penstock.server.lines:HandingOverProtocol", "httptools"])
@pytest.mark.parametrize("accept", ["text/event-stream", NDJSON])
async def test_a_reader_who_takes_nothing_for_too_long_is_cut_off(name: str, http: str, accept: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(patience=0.2))
    async with (
        serving(app, log_level="critical", http=http) as port,
        Connection(port, receive_buffer=4096) as slow,
    ):
        await streams.append(f"{name}/a", [b"1\n"], create=StreamSpec(content_type=NDJSON))
        await slow.begin("GET", f"/live/{name}/*?offset=0", {"accept": accept})
        assert await slow.head() == 200
        for _ in range(20):
            await streams.append(f"{name}/a", [json.dumps("x" * 1_000_000).encode() + b"\n"])

        async def readers() -> int:
            return int((await request(port, "GET", f"/live/{name}/a?presence")).json()["readers"])

        await until(readers, 0)
        with pytest.raises((Broken, ConnectionError)):
            async for _ in slow.body():
                pass


async def test_a_reader_of_many_who_is_slow_misses_nothing(server: Server, name: str) -> None:
    async with Connection(server.port, receive_buffer=4096) as slow:
        await append(server, f"{name}/a")
        await slow.begin("GET", f"/live/?name={name}/a&name={name}/b&offset=0", {"accept": NDJSON})
        assert await slow.head() == 200
        for number in range(20):
            await append(server, f"{name}/{'ab'[number % 2]}", {"n": number, "x": "x" * 500_000})
        for stream in "ab":
            await append(server, f"{name}/{stream}", close=True)
        body = b"".join([data async for data in slow.body()])
        told = [json.loads(line) for line in body.splitlines() if line]
        assert sorted(line["data"]["n"] for line in told if "data" in line) == list(range(20))
        assert told[-1]["state"] == "closed"
        assert (await slow.request("GET", f"/live/{name}/a?presence")).status == 200
