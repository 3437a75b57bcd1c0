"""`StreamedFile` on a real server: validators, conditions, ranges, and files that change while they are sent."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import os
import random
import re
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from applications import serving
from conftest import tool
from penstock.model import Buffer
from penstock.toolkit.responses.files import StreamedFile, StreamedRanges
from penstock.toolkit.responses.sources import Identity
from wire import Broken, Connection, request, until

BODY = random.Random(3).randbytes(1_500_000)
MODIFIED = 1_750_000_000


def written(path: Path, body: bytes = BODY) -> Path:
    path.write_bytes(body)
    os.utime(path, (MODIFIED, MODIFIED))
    return path


def application(path: Path, kind: Any = StreamedFile, **options: Any) -> FastAPI:
    app = FastAPI()

    @app.api_route("/file", methods=["GET", "HEAD", "POST"])
    async def file() -> Response:
        response: Response = kind(path, **options)
        return response

    return app


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin")
    async with serving(application(path, filename="naïve.txt")) as port:
        answer = await request(port, "GET", "/file")
        head = await request(port, "HEAD", "/file")
        posted = await request(port, "POST", "/file", headers={"range": "bytes=0-1", "if-none-match": "*"})
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["content-length"] == str(len(BODY))
    assert re.fullmatch(r'"[0-9a-f-]+"', answer.headers["etag"])
    assert answer.headers["last-modified"] == "Sun, 15 Jun 2025 15:06:40 GMT"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (
        answer.headers["content-disposition"] == "attachment; filename=\"naive.txt\"; filename*=UTF-8''na%C3%AFve.txt"
    )
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**answer.headers, "date": ""}
    assert (posted.status, posted.body) == (200, BODY)  # its answer is the file, and not the state of /file


async def test_conditions(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin")
    async with serving(application(path)) as port:
        first = await request(port, "GET", "/file")
        etag, modified = first.headers["etag"], first.headers["last-modified"]
        for fields, status in [
            ({"if-none-match": etag}, 304),
            ({"if-none-match": f"W/{etag}"}, 304),
            ({"if-none-match": '"other"'}, 200),
            ({"if-modified-since": modified}, 304),
            ({"if-modified-since": modified, "if-none-match": '"other"'}, 200),
            ({"if-match": '"other"'}, 412),
            ({"if-match": etag}, 200),
            ({"if-unmodified-since": "Sun, 15 Jun 2025 15:06:39 GMT"}, 412),
            ({"if-unmodified-since": modified}, 200),
            ({"range": "bytes=0-9", "if-range": etag}, 206),
            ({"range": "bytes=0-9", "if-range": '"other"'}, 200),
        ]:
            answer = await request(port, "GET", "/file", headers=fields)
            assert answer.status == status, fields
            if status == 412:
                assert answer.headers["content-type"] == "application/problem+json"
            else:
                assert answer.headers["etag"] == etag
            if status == 304:
                assert not answer.body
        os.utime(path, (MODIFIED + 1, MODIFIED + 1))
        assert (await request(port, "GET", "/file", headers={"if-none-match": etag})).status == 200


async def test_ranges(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin")
    size = len(BODY)
    async with serving(application(path)) as port:
        for value, expected in [
            ("bytes=0-0", BODY[:1]),
            ("bytes=-5", BODY[-5:]),
            ("bytes=100-", BODY[100:]),
            ("bytes=300000-1400000", BODY[300000:1400001]),
            (f"bytes={size - 1}-99999999", BODY[-1:]),
        ]:
            answer = await request(port, "GET", "/file", headers={"range": value})
            assert (answer.status, answer.body) == (206, expected), value
        several = await request(port, "GET", "/file", headers={"range": "bytes=0-9,500000-1200000"})
        assert several.status == 206
        assert several.headers["content-type"].startswith("multipart/byteranges; boundary=")
        assert BODY[500000:1200001] in several.body
        assert BODY[:10] in several.body
        for ignored in ("lines=1-2", "bytes=5-2", "bytes=x", "none"):
            answer = await request(port, "GET", "/file", headers={"range": ignored})
            assert (answer.status, len(answer.body)) == (200, size), ignored
        beyond = await request(port, "GET", "/file", headers={"range": f"bytes={size}-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")


async def test_empty(tmp_path: Path) -> None:
    async with serving(application(written(tmp_path / "a.txt", b""))) as port:
        answer = await request(port, "GET", "/file", headers={"range": "bytes=0-"})
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("kind", ["missing", "folder", "below a file", "pipe"])
async def test_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path = written(path) / "more"
    before = open_files()
    async with serving(application(path)) as port:
        answer = await request(port, "GET", "/file")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert open_files() <= before


def test_just_written() -> None:
    """It may change again without its modification time telling so: then parts of both would be joined as one."""
    now = time.time_ns() // 10 * 10 + 1
    assert not Identity(1, 1, 10, now).settled()
    assert Identity(1, 1, 10, now - 1_000_000_000).settled()
    whole_seconds = now // 1_000_000_000 * 1_000_000_000
    assert not Identity(1, 1, 10, whole_seconds).settled()
    assert Identity(1, 1, 10, whole_seconds - 5_000_000_000).settled()


async def test_headers_of_the_handler(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin")
    app = FastAPI()
    ran: list[str] = []

    @app.get("/file")
    async def file() -> StreamedFile:
        response = StreamedFile(
            path,
            headers={"ETag": '"v1"', "Cache-Control": "max-age=60"},
            background=BackgroundTask(ran.append, "after"),
        )
        response.set_cookie("a", "1")
        return response

    async with serving(app) as port:
        answer = await request(port, "GET", "/file")
        unchanged = await request(port, "GET", "/file", headers={"if-none-match": '"v1"'})
    assert (answer.status, answer.headers["etag"], answer.headers["cache-control"]) == (200, '"v1"', "max-age=60")
    assert answer.headers["set-cookie"].startswith("a=1")
    assert (unchanged.status, unchanged.headers["cache-control"]) == (304, "max-age=60")
    assert ran == ["after", "after"]


async def test_digest(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin")
    expected = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    async with serving(application(path, digest=True)) as port:
        for _ in range(2):
            answer = await request(
                port, "GET", "/file", headers={"want-repr-digest": "sha-256=1", "range": "bytes=0-1"}
            )
            assert (answer.status, answer.headers["repr-digest"]) == (206, f"sha-256=:{expected}:")
        assert "repr-digest" not in (await request(port, "GET", "/file")).headers
    async with serving(application(path)) as port:
        answer = await request(port, "GET", "/file", headers={"want-repr-digest": "sha-256=1"})
    assert "repr-digest" not in answer.headers


LARGE = 24 * 1024 * 1024 + 1000


async def changed_meanwhile(path: Path, change: Any, kind: Any = StreamedFile) -> bytes:
    """Read a large file, change it after the first bytes, and return what comes."""
    await asyncio.to_thread(written, path, bytes(LARGE))
    async with serving(application(path, kind)) as port, Connection(port, receive_buffer=4096) as connection:
        await connection.begin("GET", "/file")
        assert await connection.head() == 200
        assert connection.headers["content-length"] == str(LARGE)
        body = connection.body()
        received = [await anext(body)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(change, path)
        received += [data async for data in body]
    return b"".join(received)


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x" * LARGE)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    other.replace(path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 100_000)


@pytest.mark.parametrize("change", [replace, append, Path.unlink])
async def test_what_was_there_is_sent(tmp_path: Path, change: Any) -> None:
    before = open_files()
    assert await changed_meanwhile(tmp_path / "a", change) == bytes(LARGE)
    assert open_files() <= before


@pytest.mark.parametrize("change", [truncate, overwrite])
async def test_what_is_not_there_any_more_breaks_off(tmp_path: Path, change: Any) -> None:
    before = open_files()
    with pytest.raises(Broken):
        await changed_meanwhile(tmp_path / "a", change)
    assert open_files() <= before


async def test_client_leaves(tmp_path: Path) -> None:
    path = await asyncio.to_thread(written, tmp_path / "a", bytes(LARGE))
    before = open_files()
    async with serving(application(path)) as port:
        for _ in range(20):
            async with Connection(port) as connection:
                await connection.begin("GET", "/file")
                await connection.head()

        async def left() -> bool:
            gc.collect()
            return open_files() <= before + 8  # the server's own

        await until(left, expected=True)
    assert open_files() <= before


async def test_curl_resumes(tmp_path: Path) -> None:
    curl = tool("curl")
    path = written(tmp_path / "a")
    part = tmp_path / "part"
    part.write_bytes(BODY[:700_001])
    async with serving(application(path)) as port:
        command = [curl, "-sSf", "-C", "-", "-o", str(part), f"http://127.0.0.1:{port}/file"]
        await asyncio.to_thread(subprocess.run, command, check=True)
    assert part.read_bytes() == BODY


class Bucket:
    """Somebody's object store."""

    def __init__(self) -> None:
        self.length = len(BODY)
        self.etag = '"object"'
        self.last_modified: float | None = None
        self.closed = 0
        self.fails = False

    async def read(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        try:
            while start < stop:
                await asyncio.sleep(0)
                data = memoryview(BODY)[start : min(start + 100_000, stop)]
                yield data
                start += len(data)
                if self.fails:
                    raise OSError("the bucket has a hole")
        finally:
            self.closed += 1


async def test_any_source() -> None:
    bucket = Bucket()
    entered: list[str] = []

    @asynccontextmanager
    async def open_object(name: str) -> AsyncIterator[Bucket]:
        if name != "there":
            raise FileNotFoundError(name)
        entered.append("in")
        try:
            yield bucket
        finally:
            entered.append("out")

    app = FastAPI()

    @app.get("/objects/{name}")
    async def get(name: str) -> StreamedRanges:
        return StreamedRanges(open_object(name), filename="o.bin")

    @app.get("/bare")
    async def bare() -> StreamedRanges:
        return StreamedRanges(bucket)

    async with serving(app) as port:
        whole = await request(port, "GET", "/objects/there")
        part = await request(port, "GET", "/bare", headers={"range": "bytes=99990-100009", "if-range": '"object"'})
        missing = await request(port, "GET", "/objects/missing")
        bucket.fails = True
        with pytest.raises(Broken):
            await request(port, "GET", "/objects/there")
    assert (whole.status, whole.body) == (200, BODY)
    assert "last-modified" not in whole.headers
    assert (part.status, part.body) == (206, BODY[99990:100010])
    assert missing.status == 404
    assert entered == ["in", "out"] * 2
    assert bucket.closed == 3


# -- beside Starlette's own -------------------------------------------------------------------------------------------


async def test_stock_knows_no_304(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    statuses = []
    for kind in (FileResponse, StreamedFile):
        async with serving(application(path, kind)) as port:
            etag = (await request(port, "GET", "/file")).headers["etag"]
            statuses.append((await request(port, "GET", "/file", headers={"if-none-match": etag})).status)
    assert statuses == [200, 304]


@pytest.mark.parametrize("value", ["lines=1-2", "bytes=5-2", "bytes=a-b"])
async def test_stock_refuses_ranges_that_do_not_count(tmp_path: Path, value: str) -> None:
    path = written(tmp_path / "a")
    statuses = []
    for kind in (FileResponse, StreamedFile):
        async with serving(application(path, kind)) as port:
            statuses.append((await request(port, "GET", "/file", headers={"range": value})).status)
    assert statuses == [400, 200]


async def test_stock_overruns_when_a_file_grows(tmp_path: Path) -> None:
    """More than Content-Length says is an error of the server's, at the end of an otherwise whole download."""
    with pytest.raises((Broken, AssertionError)):
        assert await changed_meanwhile(tmp_path / "a", append, FileResponse) == bytes(LARGE)
    assert await changed_meanwhile(tmp_path / "b", append) == bytes(LARGE)
