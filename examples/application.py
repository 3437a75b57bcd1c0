"""Streams in an application of one's own: files and live records, and a handler that appends to a stream.

uvicorn examples.application:app
curl -H 'X-Key: secret' -T photo.jpg http://127.0.0.1:8000/files/photos/photo.jpg
curl -X POST -H 'X-Key: secret' 'http://127.0.0.1:8000/readings?celsius=21.5'
curl -N 'http://127.0.0.1:8000/live/readings?offset=0' &
"""

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from penstock import StreamInfo, Streams, StreamSpec

NDJSON, TEXT = StreamSpec(content_type="application/x-ndjson"), StreamSpec(content_type="text/plain")
streams = Streams("./data")


def may(request: Request, action: str, name: str) -> bool:
    return action in {"read", "list"} or request.headers.get("x-key") == "secret"


async def uploaded(info: StreamInfo, _: Request) -> None:
    await streams.append("uploads", [f"{info.name}\n".encode()], create=TEXT)


async def keyed(x_key: str = Header("")) -> None:
    if x_key != "secret":
        raise HTTPException(401)


app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.files(prefix="/files", authorize=may, on_complete=uploaded))
app.include_router(streams.live(prefix="/live", authorize=may))


@app.post("/readings", dependencies=[Depends(keyed)])
async def reading(celsius: float) -> dict[str, int]:
    done = await streams.append("readings", [f'{{"celsius":{celsius}}}\n'.encode()], create=NDJSON)
    return {"offset": done.offset}
