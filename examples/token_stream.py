"""Tokens of a language model that a page can be reloaded under: what was said is kept, and followed from anywhere.

uvicorn examples.token_stream:app
curl -X POST 'http://127.0.0.1:8000/answers?question=why'
curl -N 'http://127.0.0.1:8000/live/answers/1?offset=0'     # again and again, from other clients too
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator

from fastapi import FastAPI

from penstock import Streams, StreamSpec

streams = Streams("./data")
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.live(prefix="/live"))
numbers = itertools.count(1)
running: set[asyncio.Task[None]] = set()


async def model(question: str) -> AsyncGenerator[str, None]:
    for word in f"You ask {question!r} and I wonder too".split():
        await asyncio.sleep(0.05)
        yield word


async def answer(name: str, question: str) -> None:
    try:
        async for token in model(question):
            await streams.append(name, [f"{token}\n".encode()])
        await streams.close(name)
    except Exception as error:
        await streams.fail(name, f"The model failed: {error}")
        raise


@app.post("/answers", status_code=202)
async def ask(question: str) -> dict[str, str]:
    name = f"answers/{next(numbers)}"
    await streams.create(name, StreamSpec(content_type="text/plain; charset=utf-8", ttl=3600))
    task = asyncio.create_task(answer(name, question))
    running.add(task)
    task.add_done_callback(running.discard)
    return {"live": f"/live/{name}?offset=0"}
