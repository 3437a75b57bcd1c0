"""The same as `benchmarks.naive`, with penstock's responses in the handlers."""

from fastapi import FastAPI

from benchmarks.generators import async_lines, plain_lines, rows
from penstock.toolkit.responses.streaming import StreamedNDJSON, StreamedText

app = FastAPI()


@app.get("/lines/plain")
async def plain() -> StreamedText:
    return StreamedText(plain_lines())


@app.get("/lines/async")
async def asynchronous() -> StreamedText:
    return StreamedText(async_lines())


@app.get("/ndjson")
async def ndjson() -> StreamedNDJSON:
    return StreamedNDJSON(rows())


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}
