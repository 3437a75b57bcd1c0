"""What an application adds to the files door, for uploads of every protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from applications import serving
from penstock import NewUpload, StreamInfo, Streams
from wire import Connection, request


def application(**hooks: Any) -> tuple[FastAPI, Streams]:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(**hooks))
    return app, streams


@pytest.mark.parametrize("size", [10, 200_000])
async def test_on_create_renames_describes_and_limits(size: int) -> None:
    asked: list[NewUpload] = []

    def on_create(new: NewUpload, request: Request) -> NewUpload:
        asked.append(new)
        return replace(
            new,
            name=f"safe/{new.name}",
            content_type="text/plain",
            metadata={**new.metadata, "by": request.headers["x-who"]},
            max_size=size,
        )

    app, streams = application(on_create=on_create, owner=lambda request: request.headers["x-who"], max_size=10**6)
    fields = {"x-who": "me", "content-disposition": 'attachment; filename="a.txt"'}
    async with serving(app) as port:
        done = await request(port, "PUT", "/files/x", b"x" * size, fields)
        assert (done.status, done.headers["location"]) == (201, "/files/safe/x")
        info = await streams.info("safe/x")
        assert (info.content_type, info.metadata) == ("text/plain", {"filename": "a.txt", "by": "me"})
        refused = await request(port, "PUT", "/files/y", b"x" * (size + 1), fields)
        assert (refused.status, refused.json()["max_size"]) == (413, size)
    first = asked[0]
    assert (first.name, first.protocol, first.length, first.owner, first.max_size) == ("x", "plain", size, "me", 10**6)


async def test_on_create_refuses_before_anything_is_read() -> None:
    async def on_create(_: NewUpload, __: Request) -> None:
        raise HTTPException(402, "Pay first.")

    app, streams = application(on_create=on_create)
    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("PUT", "/files/x", {"content-length": "1000000", "expect": "100-continue"})
        answer = await connection.answer()
        assert (answer.status, answer.json()["detail"]) == (402, "Pay first.")
        assert not (await streams.list()).streams


async def test_on_create_cannot_choose_a_name_that_is_none() -> None:
    app, _ = application(on_create=lambda new, _: replace(new, name="../x"))
    async with serving(app) as port:
        assert (await request(port, "PUT", "/files/x", b"x")).status == 400


async def test_on_complete_answers() -> None:
    async def on_complete(info: StreamInfo, _: Request) -> Response:
        return JSONResponse({"id": 7, "size": info.tail}, 202, {"x-id": "7", "location": "/things/7"})

    app, _ = application(on_complete=on_complete)
    async with serving(app) as port:
        done = await request(port, "PUT", "/files/x", b"abc")
        assert (done.status, done.json(), done.headers["x-id"]) == (202, {"id": 7, "size": 3}, "7")
        assert done.headers["location"] == "/things/7"
        assert done.headers["stream-state"] == "closed"


@pytest.mark.parametrize("answer", ["text", StreamingResponse(iter(())), PlainTextResponse("x" * 65537)])
async def test_what_is_no_answer_is_an_error_of_the_hook(answer: Any) -> None:
    app, streams = application(on_complete=lambda *_: answer)
    async with serving(app) as port:
        assert (await request(port, "PUT", "/files/x", b"abc")).status == 500
        assert (await streams.info("x")).complete
