"""The doors that share tails in an application of one's own, for any server: its folder is in the environment."""

import os

from fastapi import FastAPI

from penstock import Streams

streams = Streams(os.environ["FANOUT_FOLDER"])
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.live())
app.include_router(streams.durable())
app.include_router(streams.files())


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    return {"ready": True}
