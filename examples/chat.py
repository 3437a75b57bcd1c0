"""A chat room: what was said is kept, and everybody who comes, or comes back, reads it from where they left.

uvicorn examples.chat:app
curl -H 'Content-Type: application/json' -d '{"who": "me", "text": "hello"}' http://127.0.0.1:8000/rooms/lobby
curl -N 'http://127.0.0.1:8000/live/rooms/lobby?offset=0' &
curl http://127.0.0.1:8000/     # in a browser
"""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from penstock import Streams, StreamSpec

ROOM = StreamSpec(content_type="application/x-ndjson", ttl=30 * 24 * 3600)
PAGE = """<!doctype html><title>Lobby</title><ul></ul><form><input autofocus></form><script>
new EventSource('/live/rooms/lobby?offset=0').onmessage = event => {  // it comes back by itself, with Last-Event-ID
  document.querySelector('ul').append(Object.values(JSON.parse(event.data)).join(': '), document.createElement('br'))
}
document.forms[0].onsubmit = event => {
  const body = JSON.stringify({ who: 'somebody', text: event.target[0].value })
  fetch('/rooms/lobby', { method: 'POST', body, headers: { 'content-type': 'application/json' } })
  return event.target.reset() || false
}
</script>"""
streams = Streams("./data")
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.live(prefix="/live"))
app.get("/", response_class=HTMLResponse)(lambda: PAGE)


class Line(BaseModel):
    who: str
    text: str


@app.post("/rooms/{room}")
async def say(room: str, line: Line) -> None:
    await streams.append(f"rooms/{room}", [line.model_dump_json().encode() + b"\n"], create=ROOM)
