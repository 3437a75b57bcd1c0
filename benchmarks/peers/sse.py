"""A fan-out with sse-starlette as its documentation has it: a queue for each subscriber."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from sse_starlette.sse import EventSourceResponse

app = FastAPI()
queues: set[asyncio.Queue[str]] = set()


@app.post("/live/{name}")
async def publish(name: str, request: Request) -> dict[str, str]:
    record = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(record)
    return {"name": name}


@app.get("/live/{name}")
async def subscribe(name: str) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            yield {"comment": name}
            while True:
                yield {"data": await queue.get()}
        finally:
            queues.discard(queue)

    return EventSourceResponse(events())


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ready"}
