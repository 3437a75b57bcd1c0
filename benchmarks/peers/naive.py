"""What one finds in tutorials: the contender to beat, as an application for uvicorn."""

import io
import os
import zipfile
from collections.abc import AsyncIterable
from pathlib import Path

from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import FileResponse, StreamingResponse

from benchmarks.peers.generators import BYTES, MEMBER, MEMBERS, async_lines, plain_lines, rows

FOLDER = Path(os.environ["BENCH_FOLDER"])
FILE = os.environ["BENCH_FILE"]
app = FastAPI()


@app.put("/files/{name}")
async def put(name: str, request: Request) -> dict[str, int]:
    size = 0
    with (FOLDER / name).open("wb") as file:
        async for chunk in request.stream():
            size += file.write(chunk)
    return {"size": size}


@app.get("/files/{name}")
async def get(name: str) -> FileResponse:
    return FileResponse(FOLDER / name)


@app.get("/lines/plain")
async def plain() -> StreamingResponse:
    return StreamingResponse(plain_lines(), media_type="text/plain")


@app.get("/lines/async")
async def asynchronous() -> StreamingResponse:
    return StreamingResponse(async_lines(), media_type="text/plain")


@app.get("/ndjson")
async def ndjson() -> AsyncIterable[dict[str, object]]:
    async for row in rows():
        yield row


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(FILE)


@app.get("/file-object")
async def file_object() -> StreamingResponse:
    return StreamingResponse(io.BytesIO(BYTES))


@app.get("/zip")
async def zipped() -> StreamingResponse:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(MEMBERS):
            archive.writestr(f"{number}.bin", MEMBER)
    return StreamingResponse(iter([out.getvalue()]), media_type="application/zip")


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/form")
async def form(file: UploadFile) -> dict[str, int]:
    size = 0
    with (FOLDER / "form").open("wb") as out:
        while chunk := await file.read(1024 * 1024):
            size += out.write(chunk)
    return {"size": size}
