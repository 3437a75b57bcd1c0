"""Following a growing file: every byte as it arrives, nothing else, and never an end where there is none."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from applications import serving
from conftest import tool
from penstock import Streams
from servers import Server
from wire import Broken, Connection, request, until

LARGEST = 2**53 - 1
FOLLOWS = [("?follow", {}), ("", {"range": f"bytes=0-{LARGEST}"})]


class Upload:
    """A PUT that is under way."""

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.path = f"/files/{name}"
        self.sent = 0
        self.connection = Connection(port)

    async def send(self, data: bytes) -> None:
        """Send some of the body, and wait until it can be read."""
        await self.connection.write_chunk(data)
        self.sent += len(data)
        await until(self._tail, str(self.sent))

    async def finish(self) -> None:
        await self.connection.write_chunk(b"")
        assert (await self.connection.answer()).status in {200, 201}

    async def _tail(self) -> str:
        return (await request(self.port, "HEAD", self.path)).headers.get("stream-tail", "")


@asynccontextmanager
async def uploading(server: Server, name: str, first: bytes) -> AsyncIterator[Upload]:
    upload = Upload(server.port, name)
    async with upload.connection:
        await upload.connection.begin("PUT", upload.path, {"transfer-encoding": "chunked", "content-type": "text/csv"})
        await upload.send(first)
        yield upload


@asynccontextmanager
async def following(
    port: int, path: str, headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[Connection, AsyncIterator[bytes]]]:
    async with Connection(port) as connection:
        await connection.begin("GET", path, headers)
        await connection.head()
        yield connection, connection.body()


async def take(body: AsyncIterator[bytes], size: int) -> bytes:
    """Read exactly so many bytes; whatever comes in one piece must not be more."""
    data = b""
    while len(data) < size:
        data += await anext(body)
    assert len(data) == size
    return data


@pytest.mark.parametrize(("query", "fields"), FOLLOWS, ids=["follow", "rfc8673"])
async def test_bytes_come_as_they_arrive_and_end_with_the_upload(
    server: Server, name: str, query: str, fields: dict[str, str]
) -> None:
    async with (
        uploading(server, name, b"one") as upload,
        following(server.port, upload.path + query, fields) as (connection, body),
    ):
        assert connection.status == (206 if fields else 200)
        assert connection.headers["stream-state"] == "open"
        assert "content-length" not in connection.headers
        assert "no-store" in connection.headers["cache-control"]
        if fields:
            assert connection.headers["content-range"] == f"bytes 0-{LARGEST}/*"
        assert await take(body, 3) == b"one"
        for data in (b"two", b"\0" * 10, b"x" * 100_000):
            await upload.send(data)
            assert await take(body, len(data)) == data
        await upload.finish()
        assert [data async for data in body] == []  # the end of the body, properly framed


@pytest.mark.parametrize("start", [0, 2, 3])
@pytest.mark.parametrize("end", ["", str(LARGEST), "99999999999999999999"])
async def test_following_begins_at_a_range(server: Server, name: str, start: int, end: str) -> None:
    query = "" if end else "?follow"
    async with (
        uploading(server, name, b"one") as upload,
        following(server.port, upload.path + query, {"range": f"bytes={start}-{end}"}) as (connection, body),
    ):
        assert connection.status == 206
        assert connection.headers["content-range"] == f"bytes {start}-{end or LARGEST}/*"
        await upload.send(b"two")
        assert await take(body, 6 - start) == b"onetwo"[start:]
        await upload.finish()
        assert [data async for data in body] == []


async def test_a_range_that_ends_within_what_is_to_come_ends_there(server: Server, name: str) -> None:
    async with (
        uploading(server, name, b"one") as upload,
        following(server.port, f"{upload.path}?follow", {"range": "bytes=1-4"}) as (connection, body),
    ):
        assert (connection.status, connection.headers["content-range"]) == (206, "bytes 1-4/*")
        assert connection.headers["content-length"] == "4"
        await upload.send(b"two")
        assert b"".join([data async for data in body]) == b"netw"


async def test_a_range_whose_end_never_comes_breaks_off(server: Server, name: str) -> None:
    async with (
        uploading(server, name, b"one") as upload,
        following(server.port, f"{upload.path}?follow", {"range": "bytes=1-40"}) as (_, body),
    ):
        assert await take(body, 2) == b"ne"
        await upload.finish()
        with pytest.raises(Broken):
            await anext(body)


async def test_a_range_past_the_tail_cannot_be_followed(server: Server, name: str) -> None:
    async with uploading(server, name, b"one") as upload:
        for path, value in ((f"{upload.path}?follow", "bytes=4-"), (upload.path, f"bytes=4-{LARGEST}")):
            refused = await request(server.port, "GET", path, headers={"range": value})
            assert (refused.status, refused.headers["content-range"]) == (416, "bytes */3")
            assert refused.headers["stream-state"] == "open"


@pytest.mark.parametrize(("query", "fields"), FOLLOWS, ids=["follow", "rfc8673"])
async def test_a_complete_file_is_just_sent(server: Server, name: str, query: str, fields: dict[str, str]) -> None:
    await request(server.port, "PUT", f"/files/{name}", b"whole")
    answer = await request(server.port, "GET", f"/files/{name}{query}", headers=fields)
    assert (answer.status, answer.body, answer.headers["content-length"]) == (206 if fields else 200, b"whole", "5")
    assert answer.headers.get("content-range") == ("bytes 0-4/5" if fields else None)


@pytest.mark.parametrize("query", ["?follow", ""], ids=["follow", "rfc8673"])
async def test_a_reader_who_was_cut_off_resumes_while_it_grows_and_when_it_is_complete(
    server: Server, name: str, query: str
) -> None:
    end = "" if query else str(LARGEST)
    async with uploading(server, name, b"one") as upload:
        async with following(server.port, upload.path + query, {"range": f"bytes=0-{end}"}) as (connection, body):
            etag = connection.headers["etag"]
            assert await take(body, 3) == b"one"
        await upload.send(b"two")
        resume = {"range": f"bytes=3-{end}", "if-range": etag}
        async with following(server.port, upload.path + query, resume) as (connection, body):
            assert (connection.status, connection.headers["etag"]) == (206, etag)
            assert await take(body, 3) == b"two"
        await upload.send(b"three")
        await upload.finish()
    resume["range"] = f"bytes=6-{end}"
    rest = await request(server.port, "GET", upload.path + query, headers=resume)
    assert (rest.status, rest.body) == (206, b"three")


async def test_whoever_followed_another_incarnation_gets_this_one_whole(server: Server, name: str) -> None:
    async with uploading(server, name, b"one") as upload:
        etag = (await request(server.port, "HEAD", f"{upload.path}?follow")).headers["etag"]
        await request(server.port, "DELETE", upload.path)
    resume = {"range": f"bytes=3-{LARGEST}", "if-range": etag}
    async with (
        uploading(server, name, b"another") as upload,
        following(server.port, f"{upload.path}?follow", resume) as (connection, body),
    ):
        assert connection.status == 200
        assert await take(body, 7) == b"another"


async def test_head_does_not_wait(server: Server, name: str) -> None:
    async with uploading(server, name, b"one") as upload:
        async with following(server.port, f"{upload.path}?follow") as (connection, _):
            wanted = dict(connection.headers)
        head = await request(server.port, "HEAD", f"{upload.path}?follow")
        wanted.pop("transfer-encoding")  # a server may leave out what depends on the body (RFC 9110 section 9.3.2)
        assert (head.status, head.headers) == (200, {**wanted, "date": head.headers["date"]})


@pytest.mark.parametrize(("query", "fields"), FOLLOWS, ids=["follow", "rfc8673"])
async def test_a_deleted_stream_breaks_off(server: Server, name: str, query: str, fields: dict[str, str]) -> None:
    async with (
        uploading(server, name, b"one") as upload,
        following(server.port, upload.path + query, fields) as (_, body),
    ):
        assert await take(body, 3) == b"one"
        assert (await request(server.port, "DELETE", upload.path)).status == 204
        with pytest.raises(Broken):
            await anext(body)


async def test_an_upload_whose_client_goes_away_breaks_off_for_its_readers(server: Server, name: str) -> None:
    async with (
        uploading(server, name, b"one") as upload,
        following(server.port, f"{upload.path}?follow") as (_, body),
    ):
        assert await take(body, 3) == b"one"
        upload.connection.close()
        with pytest.raises(Broken):
            await anext(body)


async def test_a_server_that_stops_breaks_off_and_the_reader_resumes_at_the_next(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        await request(server.port, "POST", "/live/log", b"one", {"content-type": "text/plain"})
        async with following(server.port, "/files/log?follow") as (connection, body):
            etag = connection.headers["etag"]
            assert await take(body, 4) == b"one\n"
            server.terminate()
            with pytest.raises(Broken):
                await anext(body)
        assert await asyncio.to_thread(server.stop) in {0, -15}
        await asyncio.to_thread(server.start)
        await request(server.port, "POST", "/live/log", b"two", {"content-type": "text/plain"})
        resume = {"range": "bytes=4-", "if-range": etag}
        async with following(server.port, "/files/log?follow", resume) as (connection, body):
            assert connection.status == 206
            assert await take(body, 4) == b"two\n"


@pytest.mark.parametrize(
    ("query", "fields", "status", "sent", "whole"),
    [
        ("", {}, 200, b"broken", False),
        ("?follow", {}, 200, b"broken", False),
        ("", {"range": "bytes=2-"}, 206, b"oken", False),
        ("", {"range": f"bytes=2-{LARGEST}"}, 206, b"oken", False),
        ("", {"range": "bytes=2-40"}, 206, b"oken", False),
        ("", {"range": "bytes=-2"}, 206, b"en", False),
        ("", {"range": "bytes=2-4"}, 206, b"oke", True),
        ("", {"range": "bytes=2-5"}, 206, b"oken", True),
    ],
)
async def test_a_failed_stream_is_served_as_far_as_it_goes_then_broken_off(
    name: str, query: str, fields: dict[str, str], status: int, sent: bytes, whole: bool
) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    async with serving(app, log_level="critical") as port:
        await streams.create(name, data=[b"broken"])
        await streams.fail(name, "the sensor\nwent up in smoke: 🔥")
        async with following(port, f"/files/{name}{query}", fields) as (connection, body):
            assert (connection.status, connection.headers["stream-state"]) == (status, "failed")
            assert connection.headers["stream-failure"].isascii()
            assert await take(body, len(sent)) == sent
            if whole:
                assert [data async for data in body] == []
            else:
                with pytest.raises(Broken):
                    await anext(body)
        # Where nothing is to be sent, there is nothing to break off.
        assert (await request(port, "HEAD", f"/files/{name}{query}")).status == 200


async def test_a_stream_that_fails_while_it_is_followed_breaks_off(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    async with serving(app, log_level="critical") as port:
        await streams.create(name, data=[b"one"])
        async with following(port, f"/files/{name}?follow") as (_, body):
            assert await take(body, 3) == b"one"
            await streams.append(name, [b"two"])
            await streams.fail(name, "that was all")
            assert await take(body, 3) == b"two"
            with pytest.raises(Broken):
                await anext(body)


async def test_readers_who_leave_are_let_go(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    async with serving(app, log_level="critical") as port:
        await streams.create(name, data=[b"one"])
        before = len(asyncio.all_tasks())
        for _ in range(5):
            async with following(port, f"/files/{name}?follow") as (_, body):
                assert await take(body, 3) == b"one"

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        await until(tasks, before)


async def test_two_readers_and_a_slow_one_get_the_same_bytes(server: Server, name: str) -> None:
    rng = random.Random(5)
    pieces = [rng.randbytes(rng.randrange(1, 300_000)) for _ in range(20)]

    async def follow(path: str, buffer: int) -> bytes:
        async with Connection(server.port, receive_buffer=buffer) as connection:
            await connection.begin("GET", f"{path}?follow")
            await connection.head()
            return b"".join([data async for data in connection.body()])

    async with uploading(server, name, b"x") as upload, asyncio.TaskGroup() as group:
        readers = [group.create_task(follow(upload.path, buffer)) for buffer in (0, 0, 4096)]
        for piece in pieces:
            await upload.connection.write_chunk(piece)
        await upload.finish()
    assert [await reader for reader in readers] == [b"x" + b"".join(pieces)] * 3


async def test_curl_sees_that_a_body_broke_off(server: Server, name: str) -> None:
    async def curl(path: str) -> tuple[int, bytes]:
        url = f"{server.url}{path}"
        process = await asyncio.create_subprocess_exec(
            tool("curl"), "--silent", "--no-buffer", "--fail", url, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        first = await process.stdout.readexactly(3)
        await request(server.port, "DELETE", path.partition("?")[0])
        rest = await process.stdout.read()
        return await process.wait(), first + rest

    async with uploading(server, name, b"one") as upload:
        assert await curl(f"{upload.path}?follow") == (18, b"one")  # "partial file"
