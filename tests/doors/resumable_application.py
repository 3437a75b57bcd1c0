"""An endpoint that takes resumable uploads, for several processes: its folder is in the environment.

It writes a line to ``calls`` when it is called, and waits until there is a file ``go``.
"""

import asyncio
import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI

from penstock import StreamBody, Streams, stream_body

FOLDER = Path(os.environ["RESUMABLE_FOLDER"])
streams = Streams(FOLDER / "data")
app = FastAPI(lifespan=streams.lifespan)
uploads = streams.resumable()


def called() -> None:
    with (FOLDER / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\n")


def may_go() -> bool:
    return (FOLDER / "go").exists()


@uploads.put("/slow")
async def slow(body: Annotated[StreamBody, Depends(stream_body())]) -> dict[str, int]:
    called()
    while not may_go():  # noqa: ASYNC110 - who makes it is another process
        await asyncio.sleep(0.01)
    return {"size": len(await body.read())}


@app.get("/readyz")
async def readyz() -> dict[str, int]:
    return {"pid": os.getpid()}


app.include_router(uploads)
