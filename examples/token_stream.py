"""Tokens of a language model that a page can be reloaded under: what was said is kept, and followed from anywhere.

uvicorn examples.token_stream:app
curl -X POST 'http://127.0.0.1:8000/answers/1?question=why'
curl -N 'http://127.0.0.1:8000/live/answers/1?offset=0'     # again and again, from other clients too
"""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import FastAPI

from penstock import Streams

streams = Streams("./data")
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.live(prefix="/live"))


async def model(question: str) -> AsyncGenerator[str, None]:
    for word in f"You ask {question!r} and I wonder too".split():
        await asyncio.sleep(0.05)
        yield word


@app.post("/answers/{name}", status_code=202)
async def ask(name: str, question: str) -> dict[str, str]:
    await streams.produce(f"answers/{name}", model(question), max_time=600, max_size=1_000_000)
    return {"events": f"/live/answers/{name}?offset=0"}


@app.delete("/answers/{name}", status_code=204)
async def cancel(name: str) -> None:
    await streams.fail(f"answers/{name}", "The question was withdrawn.")
