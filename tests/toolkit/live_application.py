"""An application with streams that never end, for the servers of `test_draining`."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from fastapi import FastAPI

from penstock.toolkit.responses.draining import draining
from penstock.toolkit.responses.streaming import StreamedEvents, StreamedText

notes = Path(os.environ["NOTES"])
app = FastAPI(lifespan=draining)


def note(text: str) -> None:
    with notes.open("a") as file:
        file.write(f"{text}\n")


async def endless() -> AsyncGenerator[dict[str, int], None]:
    try:
        yield {"n": 1}
        await asyncio.Event().wait()
    finally:
        note("closed")


async def broken() -> AsyncGenerator[str, None]:
    yield "x" * 1_100_000
    raise ValueError("out of luck")


@app.get("/events", response_class=StreamedEvents)
async def events() -> StreamedEvents:
    return StreamedEvents(endless(), on_close=note)


@app.get("/broken", response_class=StreamedText)
async def text() -> StreamedText:
    return StreamedText(broken())


@app.get("/ready")
async def ready() -> str:
    return "yes"
