"""Passing on what another server streams, without holding it.

UPSTREAM=http://127.0.0.1:9000 uvicorn examples.proxy:app
curl http://127.0.0.1:8000/big.iso
"""

import os
from collections.abc import AsyncGenerator

import httpx
from fastapi import FastAPI, HTTPException

from penstock import StreamedBytes

UPSTREAM = os.environ["UPSTREAM"]
app = FastAPI()


async def upstream(path: str) -> AsyncGenerator[bytes, None]:
    async with httpx.AsyncClient() as client, client.stream("GET", f"{UPSTREAM}/{path}") as response:
        if response.status_code != 200:  # before the first byte: so this is what our client is answered, too
            raise HTTPException(response.status_code, "The other server refuses.")
        async for chunk in response.aiter_raw():
            yield chunk


@app.get("/{path:path}", response_class=StreamedBytes)
async def get(path: str) -> StreamedBytes:
    return StreamedBytes(upstream(path))
