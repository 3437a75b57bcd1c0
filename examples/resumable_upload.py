"""An endpoint whose uploads go on where they were cut: it is called once, when all of the body is there.

uvicorn examples.resumable_upload:app --http penstock.server.protocol:InformationalProtocol
curl --data-binary @big.iso 'http://127.0.0.1:8000/videos?title=one-request'
curl -i -H 'Upload-Complete: ?0' --data-binary @big.iso 'http://127.0.0.1:8000/videos?title=parts'

The second tells the upload's Location: what a HEAD asks how far it is, and where the rest goes (docs/http.md).
"""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from penstock import StreamBody, Streams, install_problem_handlers, stream_body

FOLDER = Path("./videos")
streams = Streams("./data")  # where bodies wait until they are whole
app = FastAPI(lifespan=streams.lifespan)
install_problem_handlers(app)
uploads = streams.resumable(max_size=100 * 1024**3)


def path_of(title: str) -> Path:
    if "/" in title or title.startswith("."):
        raise HTTPException(400, "A title has no slash in it, and does not begin with a dot.")
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"{title}.mp4"


@uploads.post("/videos")
async def video(
    path: Annotated[Path, Depends(path_of)],
    body: Annotated[StreamBody, Depends(stream_body(max_size=None))],
) -> dict[str, str | int]:
    return {"title": path.stem, "size": (await body.save(path)).size}


app.include_router(uploads)
