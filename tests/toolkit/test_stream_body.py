"""Request bodies as a parameter: read late, within limits, decoded, verified, and never a half taken for the whole."""

# Without the future import: FastAPI must see the annotations of functions within functions.

import asyncio
import base64
import errno
import hashlib
import os
import random
import subprocess
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import brotli  # type: ignore[import-untyped, unused-ignore]
import pytest
from backports import zstd
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request

from applications import serving
from conftest import tool
from disks import small_disk
from penstock import Streams
from penstock.toolkit.problems import ProblemRoute, install_problem_handlers
from penstock.toolkit.requests.dependency import KiB, MiB, StreamBody, stream_body
from penstock.toolkit.requests.progress import Progress, published_progress
from wire import Answer, Connection, request, until

CHUNKED = {"transfer-encoding": "chunked"}
DATA = b"".join(b"line %d of a body that compresses, as most do\n" % number for number in range(60_000))


def slug(answer: Answer) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


async def unauthorized() -> None:
    raise HTTPException(401, "Who are you?")


class Application:
    """An application, and what its handlers have seen."""

    def __init__(self, folder: Path, *, problems: bool = True, **options: Any) -> None:
        self.folder = folder
        self.streams = Streams(":memory:")
        self.app = FastAPI(lifespan=self.streams.lifespan)
        self.received = 0
        self.outcomes: list[str] = []
        self.progress: list[Progress] = []
        if problems:
            install_problem_handlers(self.app)
        body_of = stream_body(**{"max_size": 4 * MiB, **options})

        async def counted(request: Request) -> None:
            receive = request._receive

            async def counting() -> Any:
                message = await receive()
                self.received += len(message.get("body", b""))
                return message

            request._receive = counting

        async def body(body: Annotated[StreamBody, Depends(body_of)]) -> AsyncIterator[StreamBody]:
            try:
                yield body
            except BaseException as error:
                self.outcomes.append(type(error).__name__)
                raise
            self.outcomes.append("ok")

        Body = Annotated[StreamBody, Depends(body)]  # noqa: N806

        @self.app.post("/hash", dependencies=[Depends(counted)])
        async def hash_of(body: Body) -> str:
            return (await body.digest()).hex()

        @self.app.post("/chunks")
        async def chunks(body: Body) -> dict[str, Any]:
            size, check = 0, 0
            async for chunk in body:
                size += len(chunk)
                check = zlib.crc32(chunk, check)
            return {"size": size, "crc": check, "received": body.received, "complete": body.complete}

        @self.app.post("/read")
        async def read(body: Body) -> int:
            return len(await body.read(1000))

        @self.app.post("/twice")
        async def twice(body: Body) -> int:
            await body.read()
            return len(await body.read())

        @self.app.post("/save")
        async def save(body: Body, fsync: bool = False, overwrite: bool = True) -> dict[str, Any]:
            saved = await body.save(folder / "saved.bin", fsync=fsync, overwrite=overwrite, digests=["sha-256"])
            return {"size": saved.size, "sha-256": saved.digests["sha-256"].hex()}

        @self.app.post("/into")
        async def into(body: Body) -> dict[str, Any]:
            info = await body.into(self.streams, "it", digests=["sha-256"])
            return {"tail": info.tail, "state": info.state, "type": info.content_type}

        @self.app.post("/append")
        async def append(body: Body) -> dict[str, Any]:
            info = await body.append_to(self.streams, "log")
            return {"tail": info.tail, "state": info.state}

        @self.app.post("/progress")
        async def progress(body: Body) -> int:
            body.on_progress(self.progress.append, every=0)
            return len(await body.digest())

        @self.app.post("/published")
        async def published(body: Body) -> int:
            body.on_progress(published_progress(self.streams, "progress"), every=0)
            return len(await body.digest())

        @self.app.post("/private", dependencies=[Depends(counted), Depends(unauthorized)])
        async def private(body: Body) -> None:
            await body.read()

        @self.app.post("/early")
        async def early(body: Body) -> str:
            async for _ in body:
                break
            return "enough"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        async with serving(self.app) as port:
            yield port


@pytest.fixture
def application(tmp_path: Path) -> Application:
    return Application(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_001])
@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
async def test_every_byte_arrives(application: Application, size: int, declared: bool) -> None:
    body = random.Random(size).randbytes(size)
    async with application.running() as port, Connection(port) as connection:
        for path in ("/hash", "/chunks", "/save"):
            if declared:
                answer = await connection.request("POST", path, body)
            else:
                await connection.begin("POST", path, CHUNKED)
                for start in range(0, size, 700_001):
                    await connection.write_chunk(body[start : start + 700_001])
                await connection.write_chunk(b"")
                answer = await connection.answer()
            told = answer.json()
            if path == "/hash":
                assert told == hashlib.sha256(body).hexdigest()
            elif path == "/chunks":
                assert told == {"size": size, "crc": zlib.crc32(body), "received": size, "complete": True}
            else:
                assert told == {"size": size, "sha-256": hashlib.sha256(body).hexdigest()}
    assert (application.folder / "saved.bin").read_bytes() == body


# -- limits -------------------------------------------------------------------------------------------------------


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(application: Application) -> None:
    async with application.running() as port, Connection(port) as connection:
        await connection.begin("POST", "/hash", {"content-length": str(4 * MiB + 1)})
        answer = await connection.answer()
        assert (answer.status, slug(answer), answer.json()["max_size"]) == (413, "too-large", 4 * MiB)
        assert answer.headers["connection"] == "close"
    assert application.received == 0


async def test_a_body_that_never_ends_is_refused_and_the_sender_gets_the_answer(application: Application) -> None:
    curl = tool("curl")
    async with application.running() as port:
        command = f"yes | {curl} -sS -X POST -T - -H Expect: -w '%{{http_code}}' http://127.0.0.1:{port}/hash"
        process = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, errors = await process.communicate()
    assert out.endswith(b"413"), errors
    assert b"too-large" in out


async def test_whoever_goes_on_sending_after_the_answer_is_hung_up_on(application: Application) -> None:
    async with application.running() as port, Connection(port) as connection:
        await connection.begin("POST", "/hash", CHUNKED)
        sent = 0
        began = time.monotonic()
        with suppress(OSError):  # a reset, or a broken pipe
            while time.monotonic() - began < 30:
                await connection.write_chunk(bytes(64 * KiB))
                sent += 64 * KiB
                await asyncio.sleep(0.005)
        assert time.monotonic() - began < 20
        assert sent < 200 * MiB


async def test_a_client_that_waits_to_be_told_sends_nothing_when_it_is_refused(application: Application) -> None:
    async with application.running() as port, Connection(port) as connection:
        await connection.begin("POST", "/private", {"content-length": "1000000", "expect": "100-continue"})
        began = time.monotonic()
        answer = await connection.answer()
        assert answer.status == 401
        assert answer.headers["connection"] == "close"
        assert time.monotonic() - began < 1
    assert application.received == 0


async def test_the_whole_is_read_into_memory_only_up_to_a_limit(application: Application) -> None:
    async with application.running() as port:
        assert (await request(port, "POST", "/read", bytes(1000))).json() == 1000
        assert (await request(port, "POST", "/read", bytes(1001))).status == 413


async def test_an_answer_before_the_end_of_the_body_closes_the_connection(application: Application) -> None:
    async with application.running() as port, Connection(port) as connection:
        await connection.begin("POST", "/early", {"content-length": str(2 * MiB)})
        await connection.write(bytes(100))
        assert await connection.head() == 200
        assert connection.headers["connection"] == "close"
        assert [data async for data in connection.body()] == [b'"enough"']


async def test_a_body_is_read_once(application: Application) -> None:
    async with application.running() as port:
        assert (await request(port, "POST", "/twice", b"x")).status == 500
    assert application.outcomes == ["RuntimeError"]


@pytest.mark.parametrize(
    ("options", "pause", "word"),
    [
        ({"idle": 0.3, "min_rate": None}, 5.0, "Nothing arrived"),
        ({"idle": 5.0, "min_rate": 1000.0, "grace": 0.4}, 0.05, "bytes a second"),
        ({"idle": None, "min_rate": 1000.0, "grace": 0.4}, 5.0, "bytes a second"),
    ],
    ids=["silent", "a byte now and then", "no byte"],
)
async def test_a_body_that_does_not_come_in_time_is_refused(
    tmp_path: Path, options: dict[str, Any], pause: float, word: str
) -> None:
    async with Application(tmp_path, **options).running() as port, Connection(port) as connection:
        began = time.monotonic()
        await connection.begin("POST", "/hash", CHUNKED)

        async def drip() -> None:
            while True:
                await connection.write_chunk(b"x")
                await asyncio.sleep(pause)

        dripping = asyncio.create_task(drip())
        answer = await connection.answer()
        dripping.cancel()
        assert (answer.status, slug(answer), answer.headers["connection"]) == (408, "too-slow", "close")
        assert word in answer.json()["detail"]
        assert time.monotonic() - began < 4


async def test_a_route_of_problems_hangs_up_on_endless_senders_in_any_application(tmp_path: Path) -> None:
    app = FastAPI()
    router = APIRouter(route_class=ProblemRoute)

    @router.post("/refused")
    async def refused() -> None:
        raise HTTPException(403, "No.")

    app.include_router(router)
    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("POST", "/refused", CHUNKED)
        await connection.write_chunk(bytes(MiB))
        assert await connection.head() == 403
        assert connection.headers["connection"] == "close"
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 20:
                await connection.write_chunk(bytes(64 * KiB))
                await asyncio.sleep(0.01)
        assert time.monotonic() - began < 10


async def test_a_pause_within_the_grace_is_no_fault_and_neither_is_a_slow_reader(tmp_path: Path) -> None:
    application = Application(tmp_path, idle=1.0, min_rate=100_000.0, grace=0.6)

    @application.app.post("/slow-reader")
    async def slow_reader(body: Annotated[StreamBody, Depends(stream_body(idle=0.3, min_rate=1e6, grace=0.3))]) -> int:
        size = 0
        async for chunk in body:
            size += len(chunk)
            await asyncio.sleep(0.4)
        return size

    async with application.running() as port, Connection(port) as connection:
        await connection.begin("POST", "/hash", CHUNKED)
        for _ in range(4):
            await connection.write_chunk(bytes(60_000))
            await asyncio.sleep(0.4)
        await connection.write_chunk(b"")
        assert (await connection.answer()).status == 200
        await connection.begin("POST", "/slow-reader", {"content-length": "400000"})
        await connection.write(bytes(400_000))
        assert (await connection.answer()).json() == 400_000


# -- content codings ----------------------------------------------------------------------------------------------


def deflated(data: bytes, bits: int) -> bytes:
    compressor = zlib.compressobj(wbits=bits)
    return compressor.compress(data) + compressor.flush()


CODED = {
    "gzip": deflated(DATA, 31),
    "x-gzip": deflated(DATA, 31),
    "deflate": deflated(DATA, 15),
    "deflate ": deflated(DATA, -15),  # what some send under that name
    "br": brotli.compress(DATA, quality=5),
    "zstd": zstd.compress(DATA),
    "gzip, br": brotli.compress(deflated(DATA, 31), quality=1),
    "identity": DATA,
    " GZip": deflated(DATA[:1000], 31) + deflated(DATA[1000:], 31),  # two members
    "zstd ": zstd.compress(DATA[:1000]) + zstd.compress(DATA[1000:]),  # two frames
}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("piece", [None, 1009], ids=["whole", "pieces"])
async def test_codings_are_decoded(application: Application, coding: str, piece: int | None) -> None:
    body = CODED[coding]
    async with application.running() as port, Connection(port) as connection:
        await connection.begin("POST", "/chunks", {"content-encoding": coding, **CHUNKED})
        step = piece or len(body)
        for start in range(0, len(body), step):
            await connection.write_chunk(body[start : start + step])
            await asyncio.sleep(0)
        await connection.write_chunk(b"")
        told = (await connection.answer()).json()
    assert (told["size"], told["crc"]) == (len(DATA), zlib.crc32(DATA))
    assert told["received"] == len(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "deflate ", "br", "zstd"])
async def test_a_coded_body_that_is_cut_or_broken_is_refused(application: Application, coding: str) -> None:
    body = CODED[coding]
    async with application.running() as port:
        for broken, expected in (
            (body[:-1], {"body-incomplete"}),
            (body[:2000], {"body-incomplete"}),
            (b"", {"body-incomplete"}),
            (body[:1000] + bytes(100) + body[1100:], {"bad-request", "body-incomplete"}),
            (body + b"something else", {"bad-request"}),
        ):
            answer = await request(port, "POST", "/hash", broken, {"content-encoding": coding})
            assert (answer.status, slug(answer) in expected or slug(answer)) == (400, True)


@pytest.mark.parametrize("coding", ["compress", "exi", "gzip, gzip, gzip", "gzip;q=1"])
async def test_other_codings_are_refused_with_what_is_accepted(application: Application, coding: str) -> None:
    async with application.running() as port:
        answer = await request(port, "POST", "/hash", b"x", {"content-encoding": coding})
    assert (answer.status, slug(answer)) == (415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "gzip, deflate, br, zstd"


async def test_codings_can_be_refused(tmp_path: Path) -> None:
    async with Application(tmp_path, decode=False).running() as port:
        answer = await request(port, "POST", "/hash", b"x", {"content-encoding": "gzip"})
        assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")


# -- digests ------------------------------------------------------------------------------------------------------


def field_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize("field", ["content-digest", "repr-digest"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_digests_are_those_of_the_bytes_as_sent(application: Application, field: str, coding: str) -> None:
    body = CODED[coding]
    async with application.running() as port:
        for path in ("/chunks", "/save", "/into"):
            headers = {"content-encoding": coding}
            right = await request(port, "POST", path, body, {**headers, field: field_of(body)})
            assert right.status == 200
            wrong = await request(port, "POST", path, body, {**headers, field: field_of(body + b"x")})
            assert (wrong.status, slug(wrong)) == (400, "digest-mismatch")
        assert (await application.streams.info("it")).tail == len(DATA)
    assert [path.name for path in application.folder.iterdir()] == ["saved.bin"]


async def test_a_digest_that_cannot_be_read_is_refused(application: Application) -> None:
    async with application.running() as port:
        assert (await request(port, "POST", "/hash", b"x", {"content-digest": "sha-256=x"})).status == 400


# -- cut bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/chunks", "/save", "/into"])
@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
async def test_of_a_body_whose_client_goes_away_nothing_is_left(
    application: Application, path: str, declared: bool
) -> None:
    async def outcomes() -> list[str]:
        return application.outcomes

    async with application.running() as port:
        async with Connection(port) as connection:
            await connection.begin("POST", path, {"content-length": "3000000"} if declared else CHUNKED)
            data = bytes(1_000_000)
            await (connection.write(data) if declared else connection.write_chunk(data))
            await asyncio.sleep(0.2)
        await until(outcomes, ["ClientDisconnect"])
        assert list(application.folder.iterdir()) == []
        assert (await application.streams.list()).streams == ()


async def test_what_was_appended_before_a_cut_is_kept(application: Application) -> None:
    async def tail() -> int:
        return (await application.streams.info("log")).tail

    async with application.running() as port:
        await application.streams.create("log")
        async with Connection(port) as connection:
            await connection.begin("POST", "/append", CHUNKED)
            await connection.write_chunk(b"hello")
            await until(tail, 5)
        assert (await request(port, "POST", "/append", b" again")).json() == {"tail": 11, "state": "open"}


# -- sinks --------------------------------------------------------------------------------------------------------


async def test_a_file_is_replaced_only_by_a_whole_one_and_only_if_it_may_be(application: Application) -> None:
    saved = application.folder / "saved.bin"
    async with application.running() as port:
        assert (await request(port, "POST", "/save?fsync=1", b"one")).status == 200
        async with Connection(port) as connection:
            await connection.begin("POST", "/save", CHUNKED)
            await connection.write_chunk(bytes(1000))
            await asyncio.sleep(0.05)
            assert saved.read_bytes() == b"one"
        assert (await request(port, "POST", "/save?overwrite=0", b"two")).status == 500
        assert application.outcomes[-1] == "FileExistsError"
        assert saved.read_bytes() == b"one"
        assert (await request(port, "POST", "/save", b"three")).status == 200
    assert saved.read_bytes() == b"three"
    assert list(application.folder.iterdir()) == [saved]


async def test_a_stream_takes_the_body_and_its_type(application: Application) -> None:
    async with application.running() as port:
        answer = await request(port, "POST", "/into", DATA, {"content-type": "text/x-own"})
        assert answer.json() == {"tail": len(DATA), "state": "closed", "type": "text/x-own"}
        chunks = [bytes(chunk.data) async for chunk in application.streams.read("it")]
        assert b"".join(chunks) == DATA
        assert (await application.streams.info("it")).digests["sha-256"] == hashlib.sha256(DATA).digest()


async def test_a_full_disk_is_a_507_and_nothing_is_left(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writev(descriptor: int, buffers: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with application.running() as port:
        monkeypatch.setattr(os, "writev", writev)
        answer = await request(port, "POST", "/save", bytes(100_000))
        assert (answer.status, slug(answer)) == (507, "storage-full")
    assert list(application.folder.iterdir()) == []


async def test_a_disk_that_is_really_full_is_one_too(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        application = Application(disk)
        async with application.running() as port:
            answer = await request(port, "POST", "/save", bytes(3 * MiB))
            assert (answer.status, slug(answer)) == (507, "storage-full")
            assert (await request(port, "POST", "/save", bytes(1000))).status == 200
        assert [path.name for path in disk.iterdir()] == ["saved.bin"]


# -- progress -----------------------------------------------------------------------------------------------------


async def test_progress_is_told_up_to_the_end(application: Application) -> None:
    async with application.running() as port:
        await request(port, "POST", "/progress", DATA)
        seen = application.progress
        assert [progress.received for progress in seen] == sorted(progress.received for progress in seen)
        assert seen[-1] == Progress(len(DATA), len(DATA), "complete")
        assert {progress.state for progress in seen[:-1]} == {"receiving"}
        async with Connection(port) as connection:
            await connection.begin("POST", "/progress", CHUNKED)
            await connection.write_chunk(b"hello")
            await asyncio.sleep(0.05)

        async def last() -> Progress:
            return application.progress[-1]

        await until(last, Progress(5, None, "failed"))


async def test_progress_can_be_followed_by_others(application: Application) -> None:
    async with application.running() as port:
        await request(port, "POST", "/published", DATA)
        lines = b"".join([bytes(chunk.data) async for chunk in application.streams.follow("progress")]).splitlines()
        assert lines[-1] == b'{"received":%d,"total":%d,"state":"complete"}' % (len(DATA), len(DATA))


# -- without our handlers -----------------------------------------------------------------------------------------


async def test_without_our_handlers_errors_have_the_framework_s_form(tmp_path: Path) -> None:
    application = Application(tmp_path, problems=False)
    async with application.running() as port:
        for headers, status in (
            ({"content-encoding": "exi"}, 415),
            ({"content-digest": field_of(b"other")}, 400),
            ({"content-encoding": "gzip"}, 400),
        ):
            answer = await request(port, "POST", "/hash", b"x", headers)
            assert (answer.status, list(answer.json())) == (status, ["detail"])
            assert status != 415 or "gzip" in answer.headers["accept-encoding"]


# -- what the document says ---------------------------------------------------------------------------------------


def test_the_body_is_in_the_document() -> None:
    from pydantic import BaseModel

    class Inner(BaseModel):
        value: int

    class Reading(BaseModel):
        inner: Inner

    app = FastAPI()
    uploaded = stream_body(content={"application/x-ndjson": Reading, "application/json": Reading, "text/csv": None})

    @app.post("/readings", openapi_extra=uploaded.docs)
    async def readings(body: Annotated[StreamBody, Depends(uploaded)]) -> None: ...

    body = app.openapi()["paths"]["/readings"]["post"]["requestBody"]
    assert body["required"] is True
    assert body["content"]["text/csv"]["schema"] == {"type": "string", "format": "binary"}
    array = body["content"]["application/json"]["schema"]
    assert array["items"]["properties"]["inner"]["properties"]["value"]["type"] == "integer"
    assert "$ref" not in str(body)
