"""The short way of small appends: its answers are those of the long way, and what is not plain goes that way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams
from penstock.doors.live.quick import STATE, QuickAppends
from penstock.errors import StorageFailed
from penstock.server.date import Dated
from penstock.toolkit.problems import install_problem_handlers
from wire import Connection, request

JSON = {"content-type": "application/json"}


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[int, list[str], Streams]]:
    """Serve an application that notes what takes the long way."""
    streams = Streams(folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with streams.lifespan(app):
            yield {STATE: QuickAppends(streams)}

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(Dated)
    app.include_router(streams.live())
    app.include_router(streams.files())
    install_problem_handlers(app)
    long: list[str] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            long.append(scope["path"])
        await app(scope, receive, send)

    async with serving(
        noting, http="penstock.server.quick:QuickProtocol", access_log=False, server_header=False, date_header=False
    ) as port:
        yield port, long, streams


async def raw(port: int, name: str, body: bytes, *fields: str) -> bytes:
    """Return an answer to a POST as it comes, without what may differ from one to the next."""
    async with Connection(port) as connection:
        answer = await connection.request("POST", f"/live/{name}", body, dict(field.split(": ") for field in fields))
    lines = [f"{key}: {value}" for key, value in answer.headers.items()]
    text = "\n".join([str(answer.status), *lines]).encode() + b"\n\n" + answer.body
    return re.sub(rb"date: [^\n]+ GMT|incarnation: \w+|name\":\"\w+", b"", text)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"a": [1, 2.50, "x"]}'),
        ("application/json; charset=utf-8", b"[1, 2]"),
        ("application/x-ndjson", b"1\n2\n"),
        ("text/plain", "grün".encode()),
        ("text/plain; charset=iso-8859-1", "grün".encode("latin-1")),
    ],
)
async def test_the_answers_are_the_same(tmp_path: Path, content_type: str, body: bytes) -> None:
    async with both(tmp_path / "data") as (port, long, streams):
        field = f"Content-Type: {content_type}"
        for name in ("quick", "other"):
            assert (await raw(port, name, body, field)).startswith(b"201")
        assert long == ["/live/quick", "/live/other"]
        answers = [await raw(port, "quick", body, field), await raw(port, "other", body, field, "X-Other: 1")]
        assert long[2:] == ["/live/other"]
        assert answers[0] == answers[1]
        assert answers[0].startswith(b"200")
        read = [b"".join([bytes(chunk.data) async for chunk in streams.read(name)]) for name in ("quick", "other")]
        assert read[0] == read[1]
        assert len(read[0]) == (await streams.info("quick")).tail > 0


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (b"{", ("Content-Type: application/json",), b"422"),
        (b"1", ("Content-Type: image/png",), b"415"),
        (b"1", (), b"415"),
        (b"line", ("Content-Type: text/plain",), b"409"),
        (b"1", ("Content-Type: application/json", "Content-Encoding: gzip"), b"415"),
        (b"1", ("Content-Type: application/json", "Stream-Closed: true"), b"200"),
        (b"1", ("Content-Type: application/json", "Producer-Id: a", "Producer-Epoch: 0", "Producer-Seq: 0"), b"200"),
    ],
)
async def test_what_is_not_plain_goes_the_long_way(
    tmp_path: Path, body: bytes, fields: tuple[str, ...], status: bytes
) -> None:
    async with both(tmp_path / "data") as (port, long, streams):
        await raw(port, "room", b"0", "Content-Type: application/json")
        long.clear()
        assert (await raw(port, "room", body, *fields)).startswith(status)
        assert long == ["/live/room"]
        if status != b"200":
            assert (await streams.info("room")).tail == 2


@pytest.mark.parametrize("path", ["/live/room?batch", "/live/r%6fom", "/live/"])
async def test_other_urls_go_the_long_way(tmp_path: Path, path: str) -> None:
    async with both(tmp_path / "data") as (port, long, _):
        await raw(port, "room", b"0", "Content-Type: application/json")
        long.clear()
        await request(port, "POST", path, b"1", JSON)
        assert len(long) == 1


async def test_a_closed_stream_is_refused_as_ever(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, _, streams):
        await raw(port, "room", b"0", "Content-Type: application/json", "Stream-Closed: true")
        refused = await request(port, "POST", "/live/room", b"1", JSON)
        assert (refused.status, refused.json()["type"].rpartition("/")[2]) == (409, "stream-closed")
        assert (await streams.info("room")).tail == 2


async def test_a_storage_that_fails_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def fail(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise StorageFailed("the disk is on fire")

    async with both(tmp_path / "data") as (port, long, streams):
        await raw(port, "room", b"0", "Content-Type: application/json")
        long.clear()
        monkeypatch.setattr(streams, "append", fail)
        refused = await request(port, "POST", "/live/room", b"1", JSON)
        assert (refused.status, refused.json()["type"].rpartition("/")[2]) == (503, "storage-failed")
        assert (tries, long) == (1, [])


async def test_requests_that_come_together_are_answered_in_their_order(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, long, streams):
        await raw(port, "room", b"0", "Content-Type: application/json")
        long.clear()
        async with Connection(port) as connection:
            one = b"POST /live/room HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n"
            rest = b"".join(one + b"%b\r\n%d" % (b"X-O: 1\r\n" * (n % 2), n) for n in range(2, 9))
            await connection.begin("POST", "/live/room", {**JSON, "content-length": "1"})
            await connection.write(b"1" + rest)
            offsets = [(await connection.answer()).json()["offset"] for _ in range(8)]
        assert offsets == list(range(4, 20, 2))
        assert len(long) == 7  # the first is under way when the others are there
        read = b"".join([bytes(chunk.data) async for chunk in streams.read("room")])
        assert read.split() == [b"%d" % n for n in range(9)]
