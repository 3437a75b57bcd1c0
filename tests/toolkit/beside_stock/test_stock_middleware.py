"""Whether a stream hears that its client is gone, under a middleware of ``@app.middleware("http")``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from applications import serving
from penstock import StreamedText
from wire import Connection


class PassThrough(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def vanish(app: FastAPI, done: asyncio.Event) -> None:
    app.add_middleware(PassThrough)
    async with serving(app) as port:
        async with Connection(port) as connection:
            await connection.begin("GET", "/it")
            await connection.head()
            await anext(connection.body())
        await done.wait()


async def test_stock_asks_in_vain() -> None:
    answers: list[bool] = []
    asked = asyncio.Event()

    async def asking(request: Request) -> AsyncGenerator[str, None]:
        yield "first"
        try:
            while True:
                await asyncio.sleep(0.05)
                answers.append(await request.is_disconnected())
                if len(answers) == 10:
                    return
        finally:
            asked.set()

    app = FastAPI()

    @app.get("/it")
    async def it(request: Request) -> StreamingResponse:
        return StreamingResponse(asking(request))

    await vanish(app, asked)
    assert not any(answers)


async def test_ours_is_closed() -> None:
    reasons: list[str] = []
    closed = asyncio.Event()

    async def waiting() -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    app = FastAPI()

    @app.get("/it")
    async def it() -> StreamedText:
        return StreamedText(waiting(), on_close=reasons.append)

    await vanish(app, closed)
    assert reasons == ["disconnected"]
