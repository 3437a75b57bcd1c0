"""A chat room: what was said is kept, and everybody who comes, or comes back, reads it from where they left.

uvicorn examples.chat:app
curl -H 'Content-Type: application/json' -d '{"who": "me", "text": "hello"}' http://127.0.0.1:8000/rooms/lobby
curl -N 'http://127.0.0.1:8000/live/rooms/lobby?offset=0' &
curl http://127.0.0.1:8000/     # in a browser
"""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from penstock import Producer, Streams, StreamSpec

ROOM = StreamSpec(content_type="application/x-ndjson", ttl=30 * 24 * 3600)
PAGE = Path(__file__).with_name("chat.html").read_text()
streams = Streams("./data")
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.live(prefix="/live"))
app.get("/", response_class=HTMLResponse)(lambda: PAGE)


class Line(BaseModel):
    who: str
    text: str


@app.post("/rooms/{room}")
async def say(
    room: str, line: Line, producer_id: Annotated[str, Header()] = "", producer_seq: Annotated[int, Header()] = 0
) -> None:
    producer = Producer(producer_id, 0, producer_seq) if producer_id else None  # a line that is sent again comes once
    await streams.append(f"rooms/{room}", [line.model_dump_json().encode() + b"\n"], producer=producer, create=ROOM)
