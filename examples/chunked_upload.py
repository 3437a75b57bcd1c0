"""Upload of a large file in chunks: each is handled as it comes, and how far it is can be followed live by anybody.

uvicorn examples.chunked_upload:app
curl -T big.iso http://127.0.0.1:8000/uploads/big
curl -N 'http://127.0.0.1:8000/live/progress/big?offset=0'
"""

import zlib
from typing import Annotated

from fastapi import Depends, FastAPI

from penstock import StreamBody, Streams, install_problem_handlers, published_progress, stream_body

streams = Streams("./data")
app = FastAPI(lifespan=streams.lifespan)
install_problem_handlers(app)
app.include_router(streams.live(prefix="/live"))
large = stream_body(max_size=100 * 1024**3, idle=30, min_rate=10_000, content=["application/octet-stream"])


@app.put("/uploads/{name}")
async def upload(name: str, body: Annotated[StreamBody, Depends(large)]) -> dict[str, int]:
    body.on_progress(published_progress(streams, f"progress/{name}"))
    size = checksum = 0
    async for chunk in body:  # as it arrives; a client that goes away is an exception here, never a short body
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
    return {"size": size, "crc32": checksum}
