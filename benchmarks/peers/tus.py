"""tuspyserver, as its documentation has it."""

import os

from fastapi import FastAPI
from tuspyserver import create_tus_router

app = FastAPI()
app.include_router(create_tus_router(prefix="files", files_dir=os.environ["BENCH_FOLDER"]))


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}
