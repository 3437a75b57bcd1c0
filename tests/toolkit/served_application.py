"""An application with every kind of response, for `test_servers` and `test_vanishing`.

``LAYERS=yes`` puts Starlette's middlewares around it.
"""

import asyncio
import itertools
import os
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from penstock import (
    StreamedBytes,
    StreamedCSV,
    StreamedEvents,
    StreamedFile,
    StreamedJSON,
    StreamedNDJSON,
    StreamedStream,
    StreamedText,
    StreamedZip,
    Streams,
    StreamSpec,
    ZipFolder,
)

FOLDER = Path(os.environ["FOLDER"])  # with a file and a folder, and room for streams
ROWS = 2000

streams = Streams(FOLDER / "streams", durability="os")
ended: Counter[str] = Counter()
running: Counter[str] = Counter()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with streams.lifespan(app):
        await streams.put("whole", [b"a line\n" * ROWS])
        await streams.append("open", [b"a line\n" * ROWS], create=StreamSpec(content_type="text/plain"))
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(streams.live(prefix="/live"))

if os.environ["LAYERS"] == "yes":

    @app.middleware("http")  # a BaseHTTPMiddleware
    async def passing(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response

    app.add_middleware(GZipMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])


# -- what comes to its end --------------------------------------------------------------------------------------------


def plain() -> Generator[dict[str, int], None, None]:
    for number in range(ROWS):
        yield {"n": number}


async def asynchronous() -> AsyncGenerator[dict[str, int], None]:
    for number in range(ROWS):
        yield {"n": number}


def lines() -> Generator[str, None, None]:
    for number in range(ROWS):
        yield f"{number}\n"


WHOLE: dict[str, Callable[[], Response]] = {
    "text": lambda: StreamedText(lines()),
    "bytes": lambda: StreamedBytes(iter([b"x" * 1000] * ROWS)),
    "file-object": lambda: StreamedBytes((FOLDER / "file").open("rb")),
    "ndjson": lambda: StreamedNDJSON(asynchronous()),
    "ndjson-plain": lambda: StreamedNDJSON(plain()),
    "json": lambda: StreamedJSON(asynchronous()),
    "csv": lambda: StreamedCSV(plain()),
    "events": lambda: StreamedEvents(asynchronous()),
    "compressed": lambda: StreamedNDJSON(asynchronous(), compress=True),
    "file": lambda: StreamedFile(FOLDER / "file"),
    "zip": lambda: StreamedZip(ZipFolder(FOLDER / "folder")),
    "stream": lambda: StreamedStream(streams, "whole"),
}


@app.get("/whole/{kind}")
async def whole(kind: str) -> Response:
    return WHOLE[kind]()


# -- what fails -------------------------------------------------------------------------------------------------------


async def failing() -> AsyncGenerator[str, None]:
    yield "x" * 1_100_000
    raise ValueError("out of luck")


@app.get("/broken")
async def broken() -> StreamedText:
    return StreamedText(failing())


async def refusing() -> AsyncGenerator[str, None]:
    raise HTTPException(404)
    yield ""


@app.get("/refused")
async def refused() -> StreamedText:
    return StreamedText(refusing())


# -- what never ends --------------------------------------------------------------------------------------------------


async def never_awaiting() -> AsyncGenerator[str, None]:
    running["never_awaiting"] += 1
    try:
        while True:
            yield "x" * 1000
    finally:
        await asyncio.sleep(0)
        running["never_awaiting"] -= 1


async def waiting() -> AsyncGenerator[str, None]:
    running["waiting"] += 1
    try:
        yield "first"
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        running["waiting"] -= 1


counting = threading.Lock()


def in_thread() -> Generator[str, None, None]:
    with counting:
        running["in_thread"] += 1
    try:
        for number in itertools.count():
            yield f"{number}\n"
    finally:
        with counting:
            running["in_thread"] -= 1


def count(reason: str) -> None:
    ended[reason] += 1


ENDLESS: dict[str, Callable[[], Response]] = {
    "text": lambda: StreamedText(never_awaiting(), on_close=count),
    "plain": lambda: StreamedText(in_thread(), on_close=count),
    "events": lambda: StreamedEvents(waiting(), on_close=count),
    "ndjson": lambda: StreamedNDJSON(waiting(), live=True, on_close=count),
    "compressed": lambda: StreamedNDJSON(never_awaiting(), compress=True, on_close=count),
    "file-object": lambda: StreamedBytes(Path("/dev/zero").open("rb"), on_close=count),  # noqa: SIM115 - it is closed
    "file": lambda: StreamedFile(FOLDER / "large"),
    "zip": lambda: StreamedZip([FOLDER / "large"]),
    "follow": lambda: StreamedStream(streams, "open", follow=True),
}


@app.get("/endless/{kind}")
async def endless(kind: str) -> Response:
    return ENDLESS[kind]()


@app.get("/state")
async def state() -> dict[str, Any]:
    """Tell what there is in this process."""
    targets = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _there(number)]  # noqa: PTH115, PTH208 - of /proc
    return {
        "running": sum(running.values()),
        "ended": dict(ended),
        "tasks": len(asyncio.all_tasks()),
        "generating": sum(thread.name == "penstock-generate" for thread in threading.enumerate()),
        "threads": threading.active_count(),
        # Each thread that reads the catalog opens it once.
        "files": sum("catalog.sqlite3" not in target for target in targets),
    }


def _there(number: str) -> bool:
    return Path(f"/proc/self/fd/{number}").is_symlink()


@app.get("/ready")
async def ready() -> str:
    return "yes"
