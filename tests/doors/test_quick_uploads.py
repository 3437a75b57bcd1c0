"""The short way of small uploads: its answers are those of the long way, and so is what is stored."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams, StreamSpec
from penstock.doors.quick import STATE
from penstock.doors.quick_uploads import QuickUploads
from penstock.server.date import Dated
from penstock.toolkit.problems import install_problem_handlers
from wire import Answer, Connection


class Served:
    """An application that notes what takes the long way, and its clients."""

    def __init__(self, streams: Streams, port: int, long: list[str]) -> None:
        self.streams = streams
        self.long = long
        self.port = port

    async def put(self, name: str, body: bytes, fields: Mapping[str, str] | None = None) -> Answer:
        async with Connection(self.port) as connection:
            return await connection.request("PUT", f"/files/{name}", body, fields)

    async def learn(self, fields: Mapping[str, str] | None = None) -> None:
        await self.put("first", b"1", fields)
        self.long.clear()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    streams, long = Streams(folder), list[str]()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with streams.lifespan(app):
            yield {STATE: [QuickUploads(streams, max_size=50_000)]}

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(Dated)
    app.include_router(streams.files(max_size=50_000))
    install_problem_handlers(app)

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            long.append(scope["path"])
        await app(scope, receive, send)

    async with serving(
        noting, http="penstock.server.quick:QuickProtocol", access_log=False, server_header=False, date_header=False
    ) as port:
        yield Served(streams, port, long)


def told(answer: Answer) -> tuple[int, dict[str, str], str]:
    """Return an answer without what differs from one stream to the next."""
    own = r'"?\b[0-9a-f]{16}(-\d+)?"?|(?<=_at":)"[^"]+"|\b(one|two)\b'
    fields = {name: re.sub(own, "*", value) for name, value in answer.headers.items() if name != "date"}
    return answer.status, fields, re.sub(own, "*", answer.body.decode())


async def test_large_files_go_the_long_way_however_often_they_come(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as server:
        for times in range(1, 4):
            assert (await server.put("new", bytes(1_234_567))).status == 413
            assert len(server.long) == times


@pytest.mark.parametrize("name", ["report.csv", "a/b/c", "photo.JPEG", "no-suffix", "x.tar.gz"])
@pytest.mark.parametrize("fields", [{}, {"Content-Type": "text/plain; charset=utf-8"}])
async def test_the_answers_are_the_same(tmp_path: Path, name: str, fields: dict[str, str]) -> None:
    async with served(tmp_path / "data") as server:
        await server.learn(fields)
        for body in (b"new", b"replaced", bytes(50_000)):
            quick = await server.put(f"one/{name}", body, fields)
            assert not server.long
            slow = await server.put(f"two/{name}", body, {**fields, "X-Other": "1"})
            assert server.long == [f"/files/two/{name}"]
            server.long.clear()
            assert told(quick) == told(slow)
            infos = [await server.streams.info(f"{way}/{name}") for way in ("one", "two")]
            assert [(info.complete, info.tail, info.length) for info in infos] == [(True, len(body), len(body))] * 2
            assert infos[0].content_type == infos[1].content_type
            read = [bytes(chunk.data) async for chunk in server.streams.read(f"one/{name}")]
            assert b"".join(read) == body


@pytest.mark.parametrize(
    ("name", "body", "fields", "status"),
    [
        ("new", bytes(50_001), {}, 413),
        ("new", bytes(99_999), {}, 413),
        ("a/../b", b"1", {}, 400),
        ("a//b", b"1", {}, 400),
        ("gr%C3%BCn", b"1", {}, 201),
        ("new?x", b"1", {}, 201),
        ("new", b"1", {"If-None-Match": "*"}, 201),
        ("first", b"1", {"If-None-Match": "*"}, 412),
        ("new", b"1", {"Stream-TTL": "9"}, 201),
        ("new", b"1", {"Content-Digest": "sha-256=:AAAA:"}, 400),
        ("new", b"1", {"Content-Type": "nonsense"}, 400),
        ("open", b"1", {}, 409),
        ("new", b"1", {"Tus-Resumable": "1.0.0"}, 201),
        ("new", b"1", {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"}, 201),
    ],
)
async def test_what_is_not_plain_goes_the_long_way(
    tmp_path: Path, name: str, body: bytes, fields: dict[str, str], status: int
) -> None:
    async with served(tmp_path / "data") as server:
        await server.learn()
        await server.streams.create("open", StreamSpec())
        assert (await server.put(name, body, fields)).status == status
        assert len(server.long) == 1


async def test_many_small_files_come_in_together(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as server:
        await server.learn()

        async def client(number: int) -> None:
            async with Connection(server.port) as connection:
                for each in range(25):
                    body = b"%d-%d" % (number, each)
                    answer = await connection.request("PUT", f"/files/{number}/{each}", body)
                    assert answer.status == 201

        await asyncio.gather(*(client(number) for number in range(16)))
        assert not server.long
        page = await server.streams.list()
        assert len(page.streams) == 16 * 25 + 1
        for info in page.streams[:40]:
            if info.name != "first":
                read = [bytes(chunk.data) async for chunk in server.streams.read(info.name)]
                assert b"".join(read) == info.name.replace("/", "-").encode()
