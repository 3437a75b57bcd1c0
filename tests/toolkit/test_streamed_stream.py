"""`StreamedStream` in a handler: a stream as a file, while it grows and after."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from starlette.background import BackgroundTask

from applications import serving
from penstock import Streams, StreamSpec
from penstock.toolkit.responses.stream_downloads import StreamedStream
from wire import Broken, Connection, request

BODY = bytes(range(256)) * 2000


def application(streams: Streams) -> FastAPI:
    app = FastAPI(lifespan=streams.lifespan)
    app.state.ran = []

    @app.api_route("/get/{name}", methods=["GET", "HEAD"])
    async def get(name: str, follow: bool = False) -> StreamedStream:
        response = StreamedStream(
            streams,
            name,
            follow=follow,
            filename="it.bin",
            headers={"Cache-Control": "private"},
            background=BackgroundTask(app.state.ran.append, name),
        )
        response.set_cookie("seen", "1")
        return response

    return app


async def test_as_a_file() -> None:
    streams = Streams(":memory:")
    app = application(streams)
    async with serving(app) as port:
        await streams.create("a", StreamSpec(content_type="text/x-own"))
        await streams.append("a", [BODY], close=True)
        whole = await request(port, "GET", "/get/a")
        head = await request(port, "HEAD", "/get/a")
        etag = whole.headers["etag"]
        part = await request(port, "GET", "/get/a", headers={"range": "bytes=1000-1999", "if-range": etag})
        unchanged = await request(port, "GET", "/get/a", headers={"if-none-match": etag})
        failed = await request(port, "GET", "/get/a", headers={"if-match": '"other"'})
        beyond = await request(port, "GET", "/get/a", headers={"range": "bytes=999999999-"})
        missing = await request(port, "GET", "/get/missing")
    assert (whole.status, whole.body) == (200, BODY)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(BODY)))
    assert whole.headers["content-type"] == "text/x-own"
    assert whole.headers["content-disposition"] == 'attachment; filename="it.bin"'
    assert whole.headers["cache-control"] == "private"
    assert whole.headers["set-cookie"].startswith("seen=1")
    assert (part.status, part.body) == (206, BODY[1000:2000])
    assert [answer.status for answer in (unchanged, failed, beyond, missing)] == [304, 412, 416, 404]
    assert missing.headers["content-type"] == "application/problem+json"
    assert len(app.state.ran) == 7


async def test_follow() -> None:
    streams = Streams(":memory:")
    async with serving(application(streams)) as port, Connection(port) as connection:
        await streams.create("a", StreamSpec())
        await streams.append("a", [b"first "])
        now = await request(port, "GET", "/get/a")
        await connection.begin("GET", "/get/a?follow=1")
        assert await connection.head() == 200
        body = connection.body()
        assert await anext(body) == b"first "
        await asyncio.sleep(0.05)
        await streams.append("a", [b"second"], close=True)
        assert b"".join([data async for data in body]) == b"second"
    assert now.body == b"first "


async def test_deleted_meanwhile() -> None:
    streams = Streams(":memory:")
    async with serving(application(streams)) as port, Connection(port) as connection:
        await streams.create("a", StreamSpec())
        await streams.append("a", [b"first "])
        await connection.begin("GET", "/get/a?follow=1")
        await connection.head()
        body = connection.body()
        assert await anext(body) == b"first "
        await streams.delete("a")
        with pytest.raises(Broken):
            await anext(body)
