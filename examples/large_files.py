"""Large files in and out: streamed to the disk, verified, and served with ranges.

uvicorn examples.large_files:app
curl -T big.iso http://127.0.0.1:8000/big.iso
curl -C - -O http://127.0.0.1:8000/big.iso
"""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from penstock import StreamBody, StreamedFile, draining, install_problem_handlers, stream_body

FOLDER = Path("./files")
app = FastAPI(lifespan=draining)
install_problem_handlers(app)


def path_of(name: str) -> Path:
    if name.startswith("."):
        raise HTTPException(400, "A name does not begin with a dot.")
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / name


@app.put("/{name}")
async def upload(
    path: Annotated[Path, Depends(path_of)],
    body: Annotated[StreamBody, Depends(stream_body(max_size=100 * 1024**3))],
) -> dict[str, int]:
    return {"size": (await body.save(path)).size}


@app.get("/{name}", response_class=StreamedFile)
async def download(path: Annotated[Path, Depends(path_of)]) -> StreamedFile:
    return StreamedFile(path)
