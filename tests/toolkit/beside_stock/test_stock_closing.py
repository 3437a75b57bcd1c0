"""What becomes of a generator whose client goes, and of everybody else's threads meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message

from applications import serving
from penstock import StreamedText
from wire import Connection, request

KINDS = [(StreamingResponse, False), (StreamedText, True)]
ANYIO_THREADS = 40


class Tracked:
    """A generator that notes its end."""

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self.ended = asyncio.Event()

    async def waiting(self) -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await asyncio.sleep(0)  # as giving a connection back takes an await
            self.ended.set()


def application(make: Callable[[], Response]) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/it", make, response_model=None)

    @app.get("/other")
    def other() -> str:  # in one of anyio's threads
        return "yes"

    return app


async def vanish(port: int) -> None:
    async with Connection(port) as connection:
        await connection.begin("GET", "/it")
        await connection.head()
        await anext(connection.body())


@pytest.mark.parametrize(("kind", "whole"), KINDS)
async def test_a_clean_up_with_await_is_run_to_its_end(kind: Any, whole: bool) -> None:
    tracked = Tracked()
    async with serving(application(lambda: kind(tracked.waiting()))) as port:
        await vanish(port)
        await tracked.ending.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert tracked.ended.is_set() == whole


@pytest.mark.parametrize(("kind", "closed"), KINDS)
async def test_a_generator_is_closed_and_not_left_to_the_garbage_collector(kind: Any, closed: bool) -> None:
    async def endless() -> AsyncGenerator[str, None]:
        while True:
            yield "x"
            await asyncio.sleep(0)

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client is gone")

    items: Any = endless()
    response = kind(items)
    with pytest.raises((OSError, ClientDisconnect)):
        await response({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert (items.ag_frame is None) == closed
    await items.aclose()


@pytest.mark.parametrize(("kind", "answers"), KINDS)
async def test_plain_generators_that_block_leave_the_threads_of_others_alone(kind: Any, answers: bool) -> None:
    go_on = threading.Event()

    def blocking() -> Generator[str, None, None]:
        yield "first"
        go_on.wait(30)

    async with serving(application(lambda: kind(blocking()))) as port, AsyncExitStack() as stack:
        stack.callback(go_on.set)
        for _ in range(ANYIO_THREADS):
            connection = await stack.enter_async_context(Connection(port))
            await connection.begin("GET", "/it")
            await connection.head()
            await anext(connection.body())
        if answers:
            assert (await request(port, "GET", "/other")).status == 200
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(request(port, "GET", "/other"), 0.5)
