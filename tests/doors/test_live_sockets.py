"""A live stream over WebSocket: records out and in, resumed by offset, and an end that says what it is."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from applications import serving
from live_door import NDJSON, append
from penstock import Streams, StreamSpec
from servers import Server
from wire import request, until


@asynccontextmanager
async def connected(port: int, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{port}/live/{path}", max_size=None, **options) as socket:
        yield socket


async def told(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def refused(port: int, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as caught:
        async with connected(port, path, **options):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}")


async def test_records_come_with_the_offset_after_them(server: Server, name: str) -> None:
    first = await append(server, name, {"a": 1}, 1.5)
    async with connected(server.port, f"{name}?offset=0", subprotocols=[Subprotocol("penstock.v1")]) as socket:
        assert socket.subprotocol == "penstock.v1"
        assert await told(socket) == {"offset": 0, "records": []}
        assert await told(socket) == {"offset": first, "records": [{"a": 1}, 1.5]}
        second = await append(server, name, "two", close=True)
        assert await told(socket) == {"offset": second, "records": ["two"]}
        assert await told(socket) == {"end": {"state": "closed", "offset": second}}
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1000


async def test_the_first_message_tells_where_now_is(server: Server, name: str) -> None:
    end = await append(server, name, 1, 2, 3)
    async with connected(server.port, name) as socket:
        assert await told(socket) == {"offset": end, "records": []}
    async with connected(server.port, f"{name}?last=2") as socket:
        assert (await told(socket))["offset"] == 2
        assert (await told(socket))["records"] == [2, 3]


async def test_a_reader_who_comes_back_misses_nothing(server: Server, name: str) -> None:
    rng = random.Random(3)
    await append(server, name)

    async def produce() -> None:
        for number in range(0, 90, 3):
            await append(server, name, number, number + 1, number + 2)
        await append(server, name, close=True)

    producing = asyncio.create_task(produce())
    seen: list[int] = []
    offset, ended = 0, False
    while not ended:
        async with connected(server.port, f"{name}?offset={offset}") as socket:
            while not ended and rng.random() < 0.8:
                message = await told(socket)
                ended = "end" in message
                if not ended:
                    seen += message["records"]
                    offset = message["offset"]
    await producing
    assert seen == list(range(90))


async def test_appends_are_acknowledged_and_come_back_as_records(server: Server, name: str) -> None:
    async with connected(server.port, f"{name}?create") as socket:
        assert await told(socket) == {"offset": 0, "records": []}
        await socket.send('{"id": 7, "append": [{"n": 1.10}, "x"]}')
        messages = [await told(socket), await told(socket)]
        assert {"ack": 7, "offset": 15, "duplicate": False} in messages
        assert {"offset": 15, "records": [{"n": 1.1}, "x"]} in messages
    stored = await request(server.port, "GET", f"/files/{name}")
    assert (stored.body, stored.headers["content-type"]) == (b'{"n":1.10}\n"x"\n', NDJSON)


async def test_who_only_appends_reads_nothing_and_creates_the_stream(server: Server, name: str) -> None:
    async with connected(server.port, f"{name}?mode=append") as socket:
        await socket.send(json.dumps({"append": [1], "producer": "p", "epoch": 0, "seq": 0}))
        assert await told(socket) == {"ack": None, "offset": 2, "duplicate": False}
        await socket.send(json.dumps({"append": [1], "producer": "p", "epoch": 0, "seq": 0, "id": "again"}))
        assert await told(socket) == {"ack": "again", "offset": 2, "duplicate": True}
        await socket.send(json.dumps({"append": [9], "producer": "p", "epoch": 0, "seq": 5}))
        assert (await told(socket))["error"]["expected"] == 1
        await socket.send(json.dumps({"append": [], "close": True}))
        assert (await told(socket))["offset"] == 2
        await socket.send(json.dumps({"append": [2], "id": 3}))
        late = await told(socket)
        assert (late["ack"], late["error"]["type"]) == (3, "https://penstock.dev/problems/stream-closed")
    assert (await request(server.port, "GET", f"/files/{name}")).body == b"1\n"


async def test_lines_of_text_are_texts(server: Server, name: str) -> None:
    await request(server.port, "POST", f"/live/{name}", b"one", {"content-type": "text/plain"})
    async with connected(server.port, f"{name}?offset=0") as socket:
        await told(socket)
        assert await told(socket) == {"offset": 4, "records": ["one"]}
        for record, taken in (("two", True), ("a\nb", False), (7, False)):
            await socket.send(json.dumps({"append": [record]}))
            answers = [await told(socket)] + ([await told(socket)] if taken else [])
            assert any("error" in answer for answer in answers) != taken
    assert (await request(server.port, "GET", f"/files/{name}")).body == b"one\ntwo\n"


async def test_bytes_come_as_base64(server: Server, name: str) -> None:
    body = random.Random(4).randbytes(2_000_000)
    await request(server.port, "PUT", f"/files/{name}", body)
    data = b""
    async with connected(server.port, f"{name}?offset=0") as socket:
        await told(socket)
        while "bytes" in (message := await told(socket)):
            data += b64decode(message["bytes"], validate=True)
            assert message["offset"] == len(data)
    assert data == body


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"{}", 1003), ("{}", 1007), ("[1]", 1007), ('{"append": 1}', 1007), ("{", 1007), ('{"append": [1', 1007)],
)
async def test_what_is_no_message_ends_the_connection(
    server: Server, name: str, message: str | bytes, code: int
) -> None:
    async with connected(server.port, f"{name}?create") as socket:
        await told(socket)
        await socket.send(message)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == code


async def test_who_only_reads_cannot_append(server: Server, name: str) -> None:
    await append(server, name)
    async with connected(server.port, f"{name}?mode=read") as socket:
        await told(socket)
        await socket.send('{"append": [1]}')
        assert (await told(socket))["error"]["status"] == 403


async def test_what_cannot_be_followed_is_refused_with_a_problem(server: Server, name: str) -> None:
    assert (await refused(server.port, name))[0] == 404
    await append(server, name, 10)
    status, problem = await refused(server.port, f"{name}?offset=1")
    assert (status, problem["tail"]) == (410, 3)
    assert (await refused(server.port, f"{name}?offset=x"))[0] == 400
    assert (await refused(server.port, f"{name}?mode=sing"))[0] == 400


async def test_pages_of_other_sites_cannot_connect(server: Server, name: str) -> None:
    await append(server, name)
    status, problem = await refused(server.port, name, origin="https://evil.example")
    assert (status, problem["title"]) == (403, "Forbidden")
    async with connected(server.port, name, origin=server.url) as socket:
        assert await told(socket) == {"offset": 0, "records": []}


async def test_the_application_says_who_may_and_which_sites(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)

    async def authorize(request: Request, action: str, _name: str) -> bool:
        return action in request.query_params.get("may", "")

    app.include_router(streams.live(authorize=authorize, origins=["https://app.example"]))
    async with serving(app, log_level="critical", ws="websockets-sansio") as port:
        await streams.append(name, (), create=StreamSpec(content_type=NDJSON))
        assert (await refused(port, name))[0] == 403
        assert (await refused(port, f"{name}?may=read&mode=append"))[0] == 403
        assert (await refused(port, f"{name}?may=read&create"))[0] == 403
        async with connected(port, f"{name}?may=read", origin="https://app.example") as socket:
            await told(socket)
            await socket.send('{"append": [1]}')
            assert (await told(socket))["error"]["status"] == 403
        async with connected(port, f"{name}?may=read+write") as socket:
            await told(socket)
            await socket.send('{"append": [1]}')
            assert {"offset": 2, "records": [1]} in [await told(socket), await told(socket)]


async def test_how_a_stream_broke_is_told(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical", ws="websockets-sansio") as port:
        for spoil, code in (("fail", 4409), ("delete", 4410)):
            path = f"{name}/{spoil}"
            await streams.append(path, [b"1\n"], create=StreamSpec(content_type=NDJSON))
            async with connected(port, path) as socket:
                await told(socket)
                await (streams.fail(path, "out of smoke") if spoil == "fail" else streams.delete(path))
                end = (await told(socket))["end"]
                assert end["state"] == ("failed" if spoil == "fail" else "gone")
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == code


async def test_a_server_that_stops_sends_its_readers_away_for_a_moment(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        end = await append(server, "log", 1)
        async with connected(server.port, "log?offset=0") as socket, connected(server.port, "log?mode=append") as other:
            await told(socket)
            await told(socket)
            server.terminate()
            for each in (socket, other):
                with pytest.raises(ConnectionClosed):
                    await each.recv()
                assert each.close_code == 1012
        assert await asyncio.to_thread(server.stop) in {0, -15}
        await asyncio.to_thread(server.start)
        await append(server, "log", 2)
        async with connected(server.port, f"log?offset={end}") as socket:
            await told(socket)
            assert (await told(socket))["records"] == [2]


async def test_a_reader_that_takes_nothing_holds_nobody_up(server: Server, name: str) -> None:
    await append(server, name)
    record = "x" * 500_000
    async with connected(server.port, name, max_queue=1) as lazy, connected(server.port, name) as eager:
        await told(lazy)
        await told(eager)
        for _ in range(20):
            await append(server, name, record)
        seen = 0
        while seen < 20:
            seen += len((await told(eager))["records"])
        seen = 0
        while seen < 20:  # it slept, and has it all when it wakes
            seen += len((await told(lazy))["records"])


async def test_connections_that_go_leave_nothing_behind(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical", ws="websockets-sansio") as port:
        await streams.append(name, [b"1\n"], create=StreamSpec(content_type=NDJSON))
        before = len(asyncio.all_tasks())
        for clean in (True, False) * 3:
            socket = await connect(f"ws://127.0.0.1:{port}/live/{name}?offset=0")
            await told(socket)
            if clean:
                await socket.close()
            else:
                socket.transport.abort()
                await socket.wait_closed()

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        await until(tasks, before)


async def test_a_reader_that_takes_nothing_for_too_long_is_told_why(name: str) -> None:
    async with stalled(name, patience=1) as (port, socket):
        offsets = [json.loads(message)["offset"] async for message in messages(socket)]
        assert socket.close_code == 1013
        assert socket.close_reason == "nothing was taken for too long: come back at the offset"
        assert offsets == sorted(offsets)  # the last is where to come back
        tail = int((await request(port, "HEAD", f"/live/{name}")).headers["stream-tail"])
        assert 0 < offsets[-1] < tail


async def messages(socket: ClientConnection) -> AsyncIterator[str | bytes]:
    """Yield what comes, however it ends."""
    with suppress(ConnectionClosed):
        while True:
            yield await socket.recv()


async def test_a_reader_that_never_takes_anything_leaves_nothing_behind(name: str) -> None:
    async with stalled(name, patience=0.1):

        async def serving_it() -> int:
            return sum("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())

        await until(serving_it, 0)


@asynccontextmanager
async def stalled(name: str, *, patience: float) -> AsyncIterator[tuple[int, ClientConnection]]:
    """Yield a port, and a reader there that has stopped taking anything while more and more came, and was given up."""
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(patience=patience))
    async with serving(app, log_level="critical", ws="websockets-sansio") as port:
        await streams.append(name, [], create=StreamSpec(content_type=NDJSON))
        url = f"ws://127.0.0.1:{port}/live/{name}"
        socket = await connect(url, max_size=None, max_queue=1, compression=None)
        try:
            await told(socket)

            async def readers() -> int:  # a message that has room is taken: it is the next one that waits
                await streams.append(name, [json.dumps("x" * 500_000).encode() + b"\n"])
                return int((await request(port, "GET", f"/live/{name}?presence")).json()["readers"])

            await until(readers, 0)  # it was given up
            yield port, socket
        finally:
            socket.transport.abort()
