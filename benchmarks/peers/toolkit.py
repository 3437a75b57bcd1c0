"""The same as `benchmarks.peers.naive`, with penstock's responses in the handlers."""

import io
import os

from fastapi import FastAPI

from benchmarks.peers.generators import BYTES, async_lines, plain_lines, rows
from penstock.toolkit.responses.files import StreamedFile
from penstock.toolkit.responses.streaming import StreamedBytes, StreamedNDJSON, StreamedText

FILE = os.environ["BENCH_FILE"]
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


@app.get("/file")
async def file() -> StreamedFile:
    return StreamedFile(FILE)


@app.get("/file-object")
async def file_object() -> StreamedBytes:
    return StreamedBytes(io.BytesIO(BYTES))


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}
