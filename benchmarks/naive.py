"""What one finds in tutorials: the contender to beat, as an application for uvicorn."""

import os
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse

FOLDER = Path(os.environ["BENCH_FOLDER"])
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


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}
