"""Streams in an application of one's own: files and live records, and a handler that appends to a stream.

uvicorn examples.application:app
curl -T photo.jpg http://127.0.0.1:8000/files/photos/photo.jpg
curl -N 'http://127.0.0.1:8000/live/readings?offset=0' &
curl -X POST 'http://127.0.0.1:8000/readings?celsius=21.5'
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from penstock import StreamInfo, Streams, StreamSpec

streams = Streams("./data")


def may(request: Request, action: str, name: str) -> bool:
    """Let everybody read, and only who has the key write."""
    return action in {"read", "list"} or request.headers.get("x-key") == "secret"


async def uploaded(info: StreamInfo, _: Request) -> None:
    await streams.append("uploads", [f"{info.name}\n".encode()], create=StreamSpec(content_type="text/plain"))


async def keyed(x_key: Annotated[str, Header()] = "") -> None:
    if x_key != "secret":
        raise HTTPException(401, "Send the key in X-Key.")


app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.files(prefix="/files", authorize=may, on_complete=uploaded))
app.include_router(streams.live(prefix="/live", authorize=may))


@app.post("/readings", dependencies=[Depends(keyed)])
async def reading(celsius: float) -> dict[str, int]:
    spec = StreamSpec(content_type="application/x-ndjson")
    done = await streams.append("readings", [f'{{"celsius":{celsius}}}\n'.encode()], create=spec)
    return {"offset": done.offset}
