"""An application that takes bodies of every kind, for the tests that run it under real servers."""

# Without the future import: FastAPI must see the annotations of functions within functions.

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from pydantic import BaseModel, Json
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.dependency import MiB, StreamBody, stream_body
from penstock.toolkit.requests.form_fields import to_folder
from penstock.toolkit.requests.form_models import Form, form_model
from penstock.toolkit.requests.forms import StreamForm, UploadedFile, stream_form

FOLDER = Path(os.environ["FOLDER"])
MOST = 16 * MiB
app = FastAPI()
install_problem_handlers(app)


class Upload(BaseModel):
    title: str
    extra: Json[Any] = None
    file: Annotated[UploadedFile, to_folder(FOLDER, name=lambda part: part.filename, overwrite=True, fsync=False)]


Body = Annotated[StreamBody, Depends(stream_body(max_size=MOST))]
Brisk = Annotated[StreamBody, Depends(stream_body(max_size=MOST, idle=5.0, min_rate=1000.0, grace=1.0))]
Parts = Annotated[StreamForm, Depends(stream_form(max_file_size=MOST))]
UploadForm = Annotated[Form[Upload], Depends(form_model(Upload, max_file_size=MOST))]


@app.put("/files/{name}")
async def save(name: str, body: Body) -> dict[str, Any]:
    saved = await body.save(FOLDER / name, digests=["sha-256"])
    return {"size": saved.size, "sha-256": saved.digests["sha-256"].hex()}


@app.post("/unbounded")
async def unbounded(body: Annotated[StreamBody, Depends(stream_body(max_size=None))]) -> int:
    return len(await body.digest())


@app.post("/brisk")
async def brisk(body: Brisk) -> int:
    return len(await body.digest())


@app.post("/items")
async def items(body: Body) -> int:
    return sum([len(batch) async for batch in body.items().batches(1000)])


@app.post("/prefixed")
async def prefixed(body: Body) -> int:
    return sum([1 async for _ in body.length_prefixed()])


@app.post("/parts")
async def parts(form: Parts) -> dict[str, int]:
    return {part.name: len(await part.read(MOST)) async for part in form}


@app.post("/form")
async def form(form: UploadForm) -> dict[str, Any]:
    upload = await form.read()
    return {"title": upload.title, "size": upload.file.size}


@app.get("/ready")
async def ready() -> str:
    return "yes" * 1000  # long enough to be compressed


class Passing(BaseHTTPMiddleware):
    """What ``@app.middleware("http")`` makes of a function that does nothing."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


if os.environ.get("MIDDLEWARE"):
    app.add_middleware(GZipMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(Passing)
