"""The same as `benchmarks.peers.naive`, with penstock in the handlers."""

import io
import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI

from benchmarks.peers.generators import BYTES, MEMBER, MEMBERS, async_lines, plain_lines, rows
from penstock.toolkit.requests.dependency import StreamBody, stream_body
from penstock.toolkit.requests.forms import StreamForm, stream_form
from penstock.toolkit.responses.files import StreamedFile
from penstock.toolkit.responses.streaming import StreamedBytes, StreamedNDJSON, StreamedText
from penstock.toolkit.responses.zipping import StreamedZip, ZipEntry

FILE = os.environ["BENCH_FILE"]
FOLDER = Path(os.environ["BENCH_FOLDER"])
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


@app.put("/files/{name}")
async def put(name: str, body: Annotated[StreamBody, Depends(stream_body(max_size=None))]) -> dict[str, int]:
    return {"size": (await body.save(FOLDER / name)).size}


@app.post("/form")
async def form(form: Annotated[StreamForm, Depends(stream_form(max_file_size=None))]) -> dict[str, int]:
    return {part.name: (await part.save(FOLDER / "form")).size async for part in form}


@app.get("/zip")
async def zipped() -> StreamedZip:
    return StreamedZip([ZipEntry(f"{number}.bin", MEMBER) for number in range(MEMBERS)])


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}
