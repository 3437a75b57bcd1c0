"""Bodies that are sent to do harm: each is refused clearly, soon, and in bounded memory, by a real server."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped, unused-ignore]
import pytest
from backports import zstd

import processes
from asgi_servers import Process, running
from form_bodies import TYPE, B, part
from wire import Answer, Connection

MIB = 1024 * 1024
MOST = 64 * MIB
"""By how much the server may grow: 16 MiB is what the application takes, and 32 MiB of freed memory are kept."""

END = f"--{B}--\r\n".encode()
FILE = f'--{B}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'.encode()
CSV, JSON, LINES = "text/csv", "application/json", "application/x-ndjson"
CODED, OF = "content-encoding", "content-type"
LARGE, BAD, RECORD = "too-large", "bad-request", "invalid-record"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Process, Path]]:
    folder = tmp_path_factory.mktemp("hostile")
    application = Path(__file__).parent / "bodies_application.py"
    with asyncio.Runner() as runner:
        context = running("uvicorn", application, FOLDER=str(folder))
        port, process = runner.run(context.__aenter__())
        yield port, process, folder
        runner.run(context.__aexit__(None, None, None))


def bomb(compressor: Any) -> Iterable[bytes]:
    """Yield what decodes to 10 GB of zeros, as it is needed."""
    work: Callable[[bytes], bytes] = getattr(compressor, "process", None) or compressor.compress
    block = bytes(MIB)
    return (piece for _ in range(10_000) if (piece := work(block)))


def endless(head: bytes, piece: bytes) -> Iterable[bytes]:
    return itertools.chain([head or piece], itertools.repeat(piece * (64 * 1024 // len(piece) or 1)))


def once(*pieces: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: pieces


HOSTILE: dict[str, tuple[str, dict[str, str], Callable[[], Iterable[bytes]], int, str]] = {
    # the path, header fields, the body, and the status and type of its refusal
    # coded bodies
    "a gzip bomb": ("/files/x", {CODED: "gzip"}, lambda: bomb(zlib.compressobj(wbits=31)), 413, LARGE),
    "a deflate bomb": ("/files/x", {CODED: "deflate"}, lambda: bomb(zlib.compressobj()), 413, LARGE),
    "a bare deflate bomb": (
        "/files/x", {CODED: "deflate"}, lambda: bomb(zlib.compressobj(wbits=-15)), 413, LARGE,
    ),
    "a br bomb": ("/files/x", {CODED: "br"}, lambda: bomb(brotli.Compressor(quality=1)), 413, LARGE),
    "a zstd bomb": ("/files/x", {CODED: "zstd"}, lambda: bomb(zstd.ZstdCompressor()), 413, LARGE),
    "a bomb where no size is too large": (
        "/unbounded", {CODED: "gzip"}, lambda: bomb(zlib.compressobj(wbits=31)), 413, LARGE,
    ),
    "a bomb within a bomb": (
        "/files/x", {CODED: "gzip, gzip"},
        lambda: recompressed(bomb(zlib.compressobj(wbits=31))), 413, LARGE,
    ),
    "empty gzip members without end": (
        "/files/x", {CODED: "gzip"}, lambda: endless(b"", zipped(b"")), 413, LARGE,
    ),
    "zstd with a window of 2 GiB": (
        "/files/x", {CODED: "zstd"}, once(b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100)), 400, BAD,
    ),
    # sizes and times
    "a body without end": ("/files/x", {}, lambda: endless(b"", b"x"), 413, LARGE),
    "one byte a second": ("/brisk", {}, lambda: itertools.repeat(b"x"), 408, "too-slow"),
    # forms
    "100,000 fields": ("/parts", {}, lambda: [part("a", b"1") * 1000] * 100, 413, LARGE),
    "10,000 files": ("/parts", {}, lambda: [part("a", b"", "f") * 1000] * 10, 413, LARGE),
    "a header line of 1 MB": ("/parts", {}, once(part("a", b"", None, "X: " + "y" * 1_000_000)), 413, LARGE),
    "a header without end": ("/parts", {}, lambda: endless(part("a", b"")[:-4] + b"\r\nX", b"X"), 413, LARGE),
    "header lines without end": ("/parts", {}, lambda: endless(FILE[:-2], b"X: y\r\n"), 413, LARGE),
    "a broken boundary": ("/parts", {}, once(part("a", b"1").replace(B.encode(), b"bound-arx")), 400, BAD),
    "a delimiter with something after it": (
        "/parts", {}, once(FILE + f"x\r\n--{B}y\r\n".encode() + END), 400, BAD,
    ),
    "a part without end": ("/form", {}, once(part("title", b"t"), FILE, b"x" * 100_000), 400, "body-incomplete"),
    "a part that goes on forever": ("/form", {}, lambda: endless(part("title", b"t") + FILE, b"x"), 413, LARGE),
    "a part of nearly delimiters": (
        "/form", {}, lambda: endless(part("title", b"t") + FILE, b"\r\n--" + B.encode()[:-1] + b"_"), 413, LARGE,
    ),
    "a field that goes on forever": (
        "/form", {}, lambda: endless(b"\r\n".join(part("title", b"").split(b"\r\n")[:-1]), b"x"), 413, LARGE,
    ),
    "a preamble without end": ("/parts", {}, lambda: endless(b"", b"x\r\n"), 400, BAD),
    "an epilogue without end": ("/parts", {}, lambda: endless(part("a", b"1") + END, b"x"), 400, BAD),
    "deeply nested JSON in a field": (
        "/form", {}, once(part("title", b"t"), part("extra", b"[" * 500_000), FILE, END), 400, BAD,
    ),
    # records
    "a quotation mark that is never closed": ("/items", {OF: CSV}, once(b'a,b\n1,"2\n3,4\n'), 422, RECORD),
    "a row without end": ("/items", {OF: CSV}, lambda: endless(b'a\n"', b"x\n"), 413, LARGE),
    "a header of a table without end": ("/items", {OF: CSV}, lambda: endless(b"", b"x,"), 413, LARGE),
    "half a million columns": ("/items", {OF: CSV}, once(b"x," * 500_000 + b"\n"), 422, RECORD),
    "a line without end": ("/items", {OF: LINES}, lambda: endless(b"1\n", b"x"), 413, LARGE),
    "deeply nested lines": ("/items", {OF: LINES}, once(b"[" * 900_000 + b"\n"), 422, RECORD),
    "a number of a million digits": ("/items", {OF: LINES}, once(b"1" * 1_000_000 + b"\n"), 422, RECORD),
    "an array that opens forever": ("/items", {OF: JSON}, lambda: endless(b"", b"["), 422, RECORD),
    "a string without end": ("/items", {OF: JSON}, lambda: endless(b'["', b"x"), 413, LARGE),
    "a number without end": ("/items", {OF: JSON}, lambda: endless(b"[1, ", b"1"), 413, LARGE),
    "an element without end": ("/items", {OF: JSON}, lambda: endless(b'[{"a": [', b"1, "), 413, LARGE),
    "a record of 4 GiB": ("/prefixed", {}, once(b"\xff\xff\xff\xff", b"x" * 1000), 413, LARGE),
}  # fmt: skip


def zipped(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(data) + compressor.flush()


def recompressed(pieces: Iterable[bytes]) -> Iterable[bytes]:
    compressor = zlib.compressobj(wbits=31)
    return (out for piece in pieces if (out := compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)))


async def send(connection: Connection, pieces: Iterable[bytes], pause: float) -> None:
    """Send a body in chunks, until it ends or nobody takes it any more."""
    with suppress(ConnectionError):
        for piece in pieces:
            await connection.write_chunk(piece)
            await asyncio.sleep(pause)
        await connection.write_chunk(b"")


async def peak_of(pid: int) -> int:
    """Watch the memory of a process, and return its peak when cancelled."""
    peak = 0
    with suppress(asyncio.CancelledError):
        while True:
            peak = max(peak, processes.anonymous(pid))
            await asyncio.sleep(0.01)
    return peak


async def ask(port: int, path: str, headers: dict[str, str], pieces: Iterable[bytes], pause: float) -> Answer:
    if path in {"/parts", "/form"}:
        headers = {"content-type": TYPE, **headers}
    async with Connection(port) as connection:
        method = "PUT" if path.startswith("/files/") else "POST"
        await connection.begin(method, path, {"transfer-encoding": "chunked", **headers})
        sending = asyncio.create_task(send(connection, pieces, pause))
        try:
            return await connection.answer()
        finally:
            sending.cancel()
            await asyncio.wait([sending])


@pytest.mark.parametrize("kind", HOSTILE)
async def test_it_is_refused(server: tuple[int, Process, Path], kind: str) -> None:
    port, process, folder = server
    path, headers, pieces, status, slug = HOSTILE[kind]
    before = processes.anonymous(process.pid)
    watching = asyncio.create_task(peak_of(process.pid))
    async with asyncio.timeout(30):
        answer = await ask(port, path, headers, pieces(), 1.0 if kind == "one byte a second" else 0.0)
    watching.cancel()
    told = answer.json()
    assert (answer.status, told["type"].rpartition("/")[2]) == (status, slug), told
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["status"] == status
    assert len(told["detail"]) < 500
    if path == "/unbounded":
        assert told["max_ratio"] == 200
    elif slug == LARGE and path == "/items":  # of records, it is told which, and where
        assert {"record", "offset", "max_size"} <= told.keys()
    assert "Traceback" not in answer.body.decode()
    assert await watching - before < MOST
    async with Connection(port) as connection:  # it is well, and nothing is left
        assert (await connection.request("PUT", "/files/fine", b"1")).status == 200
    assert [path.name for path in folder.iterdir()] == ["fine"]
