"""What a client sees of a generator that fails: of FastAPI's own streams, and of ours."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import suppress

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

from applications import serving
from penstock import StreamedEvents, StreamedText
from wire import Broken, Connection


async def breaking() -> AsyncGenerator[str, None]:
    yield "one"
    await asyncio.sleep(0.05)  # so that it was sent
    raise ValueError("out of luck")


async def refusing() -> AsyncGenerator[str, None]:
    raise HTTPException(404, "nothing here")
    yield ""


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/stock/events/{kind}", response_class=EventSourceResponse)
    async def stock_events(kind: str) -> AsyncIterable[str]:
        async for item in breaking() if kind == "breaking" else refusing():
            yield item

    @app.get("/ours/events/{kind}", response_class=StreamedEvents)
    async def our_events(kind: str) -> AsyncIterable[str]:
        async for item in breaking() if kind == "breaking" else refusing():
            yield item

    @app.get("/stock/text/refusing")
    async def stock_text() -> StreamingResponse:
        return StreamingResponse(refusing())

    @app.get("/ours/text/refusing")
    async def our_text() -> StreamedText:
        return StreamedText(refusing())

    return app


@pytest.mark.parametrize(("whose", "looks_complete"), [("stock", True), ("ours", False)])
async def test_events_that_failed_midway(whose: str, looks_complete: bool) -> None:
    async with serving(application()) as port, Connection(port) as connection:
        complete = False
        with suppress(Broken):
            await connection.request("GET", f"/{whose}/events/breaking")
            complete = True
        assert connection.status == 200
        assert complete == looks_complete


@pytest.mark.parametrize(("whose", "told"), [("stock", False), ("ours", True)])
@pytest.mark.parametrize("kind", ["events", "text"])
async def test_a_refusal_before_the_first_item(whose: str, kind: str, told: bool) -> None:
    async with serving(application()) as port, Connection(port) as connection:
        with suppress(Broken):
            await connection.request("GET", f"/{whose}/{kind}/refusing")
        assert (connection.status == 404) == told
