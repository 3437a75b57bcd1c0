"""Who is there, that a reader has enough, and that a producer is gone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from websockets.asyncio.client import connect

from applications import serving
from penstock import Streams
from penstock.errors import StreamStopped
from penstock.protocols.sse import Decoder
from servers import Server
from wire import Connection, request, until

NDJSON = "application/x-ndjson"
JSON = {"content-type": "application/json"}


async def who(server: Server | int, name: str) -> dict[str, Any]:
    port = server if isinstance(server, int) else server.port
    found: dict[str, Any] = (await request(port, "GET", f"/live/{name}?presence")).json()
    return found


async def test_readers_of_all_kinds_in_all_processes_are_counted(server: Server, name: str) -> None:
    with Server(server.data, log=server.data.parent / "other.log") as other:
        await request(server.port, "POST", f"/live/{name}", b"1", JSON)
        ports = [server.port, other.port] * 4
        connections = [await Connection(port).open() for port in ports]
        for number, connection in enumerate(connections):
            path = f"/live/?name={name}" if number % 3 == 2 else f"/live/{name}"
            await connection.begin("GET", path, {"accept": NDJSON} if number % 3 else {})
            await connection.head()

        async def readers() -> tuple[int, int]:
            return int((await who(server, name))["readers"]), int((await who(other, name))["readers"])

        async with connect(f"ws://127.0.0.1:{other.port}/live/{name}") as socket:
            await socket.recv()
            await until(readers, (9, 9))
        await until(readers, (8, 8))
        for connection in connections[:4]:
            connection.close()
        await until(readers, (4, 4))
        for connection in connections[4:]:
            connection.close()
        await until(readers, (0, 0))


async def test_the_application_says_who_the_readers_are(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)

    def identify(asked: Request) -> str | None:
        return asked.query_params.get("me")

    app.include_router(streams.live(identify=identify))
    async with serving(app, log_level="critical", ws="websockets-sansio") as port:
        await request(port, "POST", f"/live/{name}", b"1", JSON)
        paths = [f"/live/{name}?me=ann", f"/live/{name}?me=ann", f"/live/{name}", "/live/*?me=bob"]
        connections = [await Connection(port).open() for _ in paths]
        for connection, path in zip(connections, paths, strict=True):
            await connection.begin("GET", path)
            await connection.head()
            await anext(connection.body())
        found = await who(port, name)
        assert (found["readers"], found["names"]) == (4, ["ann", "bob"])
        for connection in connections[1:]:
            connection.close()

        async def names() -> list[str]:
            found: list[str] = (await who(port, name))["names"]
            return found

        await until(names, ["ann"])
        connections[0].close()


async def test_a_long_append_is_a_producer_and_silence_tells_that_it_is_gone(name: str) -> None:
    class Clock:
        time = 1_700_000_000.0

        def now(self) -> float:
            return self.time

    clock = Clock()
    streams = Streams(":memory:", clock=clock)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        async with Connection(port) as producer:
            headers = {
                "content-type": NDJSON,
                "transfer-encoding": "chunked",
                "stream-quiet-after": "30",
                "accept": NDJSON,
            }
            await producer.begin("POST", f"/live/{name}?stream", headers)
            await producer.write_chunk(b"1\n")
            await producer.head()
            clock.time += 100
            found = await who(port, name)
            assert (found["producers"], found["quiet_after"], found["vanished"]) == (1, 30, False)
            assert found["modified_at"].startswith("2023-11-14T22:13:20")

        async def vanished() -> tuple[int, bool]:
            found = await who(port, name)
            return found["producers"], found["vanished"]

        await until(vanished, (0, True))
        await request(port, "POST", f"/live/{name}", b"2", JSON)
        assert await vanished() == (0, False)
        clock.time += 31
        assert await vanished() == (0, True)
        await request(port, "POST", f"/live/{name}", b"", {"stream-closed": "true"})
        assert await vanished() == (0, False)


async def test_a_reader_stops_a_stream_and_everybody_hears_why(server: Server, name: str) -> None:
    async with Connection(server.port) as producer, Connection(server.port) as reader:
        headers = {"content-type": NDJSON, "transfer-encoding": "chunked", "accept": NDJSON}
        await producer.begin("POST", f"/live/{name}?stream", headers)
        await producer.write_chunk(b"1\n")
        assert await producer.head() == 201
        acknowledged = producer.body()
        await anext(acknowledged)
        await reader.begin("GET", f"/live/{name}")
        await reader.head()
        reading = reader.body()
        await anext(reading)
        stopped = await request(server.port, "POST", f"/live/{name}?stop", "genug, café".encode())
        assert (stopped.status, stopped.json()["reason"], stopped.json()["state"]) == (200, "genug, café", "closed")
        # The producer sends nothing, and hears of it.
        last = json.loads(await anext(acknowledged))
        assert (last["records"], last["error"]["reason"], last["error"]["status"]) == (1, "genug, café", 409)
        (end,) = Decoder().feed(await anext(reading))
        assert (end.event, json.loads(end.data)) == ("end", {"state": "closed", "offset": 2, "reason": "genug, café"})
    late = await request(server.port, "POST", f"/live/{name}", b"2", JSON)
    assert (late.status, late.json()["type"].rpartition("/")[2]) == (409, "stream-stopped")
    assert (late.json()["reason"], late.json()["tail"]) == ("genug, café", 2)
    again = await request(server.port, "POST", f"/live/{name}?stop", b"other")
    assert again.json()["reason"] == "genug, café"
    head = await request(server.port, "HEAD", f"/files/{name}")
    assert head.headers["stream-stopped"] == "genug, caf%C3%A9"


async def test_a_producer_in_the_application_sees_it_at_its_next_append_or_at_once(name: str) -> None:
    async with Streams(":memory:") as streams:
        info = await streams.create(name)
        waiting = asyncio.create_task(streams.when(name, lambda info: info.closed, incarnation=info.incarnation))
        await streams.append(name, [b"1"])
        assert not waiting.done()
        await streams.stop_stream(name, "enough")
        assert (await waiting).stopped == "enough"
        with pytest.raises(StreamStopped, match="enough") as caught:
            await streams.append(name, [b"2"])
        assert caught.value.reason == "enough"


async def test_only_who_may_can_stop(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(authorize=lambda _request, action, _name: action != "stop"))
    async with serving(app, log_level="critical") as port:
        await request(port, "POST", f"/live/{name}", b"1", JSON)
        assert (await request(port, "POST", f"/live/{name}?stop", b"")).status == 403
        assert (await who(port, name))["state"] == "open"


@pytest.mark.parametrize("reason", [b"\xff", b"two\nlines", b"x" * 501])
async def test_a_reason_is_a_line_of_text(server: Server, name: str, reason: bytes) -> None:
    await request(server.port, "POST", f"/live/{name}", b"1", JSON)
    assert (await request(server.port, "POST", f"/live/{name}?stop", reason)).status == 400
    assert (await request(server.port, "POST", f"/live/{name}/none?stop", b"")).status == 404


@pytest.mark.parametrize("seconds", ["0", "x", "86401", "1.5"])
async def test_how_long_it_may_be_quiet_is_a_number_of_seconds(server: Server, name: str, seconds: str) -> None:
    answer = await request(server.port, "POST", f"/live/{name}", b"1", {**JSON, "stream-quiet-after": seconds})
    assert answer.status == 400
