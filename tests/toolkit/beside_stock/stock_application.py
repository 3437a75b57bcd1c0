"""Stock and ours side by side, for what needs a server in a process of its own: because it freezes, or never stops."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

from penstock import StreamedEvents, StreamedText, draining

notes = Path(os.environ["NOTES"])
deadline = os.environ.get("DEADLINE")
app = FastAPI(lifespan=draining.within(float(deadline)) if deadline else None)


def note(text: str) -> None:
    with notes.open("a") as file:
        file.write(f"{text}\n")


async def never_awaiting() -> AsyncGenerator[str, None]:
    while True:
        yield "x" * 1000


async def waiting() -> AsyncGenerator[dict[str, int], None]:
    try:
        yield {"n": 1}
        await asyncio.Event().wait()
    finally:
        note("closed")


@app.get("/stock/text")
async def stock_text() -> StreamingResponse:
    return StreamingResponse(never_awaiting())


@app.get("/ours/text")
async def our_text() -> StreamedText:
    return StreamedText(never_awaiting())


@app.get("/stock/events", response_class=EventSourceResponse)
async def stock_events() -> AsyncIterable[dict[str, int]]:
    async for item in waiting():
        yield item


@app.get("/ours/events")
async def our_events() -> StreamedEvents:
    return StreamedEvents(waiting(), on_close=note)


@app.get("/ready")
async def ready() -> str:
    return "yes"
