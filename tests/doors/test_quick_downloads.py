"""The short way of plain downloads: its answers are those of the long way, and of what is there now."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams, StreamSpec
from penstock.doors.quick import STATE
from penstock.doors.quick_downloads import QuickDownloads
from penstock.server.date import Dated
from penstock.toolkit.problems import install_problem_handlers
from wire import Answer, Connection, until

DATA = os.urandom(300_000)


class Served:
    """An application that notes what takes the long way, and its clients."""

    def __init__(self, streams: Streams, port: int, long: list[str], downloads: QuickDownloads) -> None:
        self.streams = streams
        self.long = long
        self.downloads = downloads
        self.port = port

    async def get(self, name: str, fields: Mapping[str, str] | None = None) -> Answer:
        async with Connection(self.port) as connection:
            return await connection.request("GET", f"/files/{name}", headers=fields)

    async def warm(self, name: str, fields: Mapping[str, str] | None = None) -> None:
        """Ask for something until it goes the short way."""

        async def quick() -> bool:
            before = len(self.long)
            await self.get(name, fields)
            return len(self.long) == before

        await until(quick, True)
        self.long.clear()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    streams, long = Streams(folder), list[str]()
    downloads = QuickDownloads(streams)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with streams.lifespan(app):
            try:
                yield {STATE: [downloads]}
            finally:
                await downloads.stop()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(Dated)
    app.include_router(streams.files())
    install_problem_handlers(app)

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            long.append(scope["path"])
        await app(scope, receive, send)

    async with serving(
        noting, http="penstock.server.quick:QuickProtocol", access_log=False, server_header=False, date_header=False
    ) as port:
        yield Served(streams, port, long, downloads)


def told(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    return answer.status, {**answer.headers, "date": ""}, answer.body


@pytest.mark.parametrize("size", [100, 70_000, 250_000])
@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/html; charset=utf-8"])
async def test_the_answers_are_the_same(tmp_path: Path, size: int, content_type: str) -> None:
    async with served(tmp_path / "data") as server:
        spec = StreamSpec(content_type=content_type, ttl=1000.0)
        await server.streams.put("a", (DATA[:size],), spec)
        await server.warm("a")
        await server.warm("a", {"Range": "bytes=0-1"})
        for fields in (
            dict[str, str](),
            {"Range": "bytes=0-0"},
            {"Range": "bytes=5-"},
            {"Range": f"bytes=7-{size * 2}"},
        ):
            quick = await server.get("a", fields)
            assert not server.long
            slow = await server.get("a", {**fields, "X-Other": "1"})
            assert server.long == ["/files/a"]
            server.long.clear()
            assert told(quick) == told(slow)
            assert len(quick.body) == int(quick.headers["content-length"])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Range": f"bytes={len(DATA)}-"}, 416),
        ({"Range": "bytes=9-5"}, 200),
        ({"Range": "bytes=-5"}, 206),
        ({"Range": "bytes=0-1,4-5"}, 206),
        ({"Range": "lines=0-1"}, 200),
        ({"If-None-Match": "*"}, 304),
        ({"If-Range": '"x"', "Range": "bytes=0-1"}, 200),
        ({"Want-Repr-Digest": "sha-256=1"}, 200),
        ({"Range": "bytes=0-299999"}, 206),  # more than is sent at once
    ],
)
async def test_what_is_not_plain_goes_the_long_way(tmp_path: Path, fields: dict[str, str], status: int) -> None:
    async with served(tmp_path / "data") as server:
        await server.streams.put("a", (DATA,))
        await server.warm("a", {"Range": "bytes=0-1"})
        answers = [await server.get("a", fields) for _ in range(2)]
        assert [answer.status for answer in answers] == [status, status]
        assert server.long == ["/files/a", "/files/a"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
async def test_what_changed_is_seen_at_once(tmp_path: Path, elsewhere: bool) -> None:
    async with served(tmp_path / "data") as server, Streams(tmp_path / "data") as other:
        streams = other if elsewhere else server.streams
        for number in range(5):
            data = b"%d" % number * 1000
            await streams.put("a", (data,))
            for _ in range(4):
                assert (await server.get("a", {"Range": "bytes=0-9"})).body == data[:10]
            await server.warm("a", {"Range": "bytes=0-9"})
        await streams.delete("a")
        assert (await server.get("a", {"Range": "bytes=0-9"})).status == 404
        await streams.create("a", StreamSpec(content_type="text/plain"), data=(b"open",))
        for _ in range(3):
            assert (await server.get("a", {"Range": "bytes=0-"})).headers["stream-state"] == "open"
        assert len(server.long) >= 4


async def test_a_stream_whose_time_has_come_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path / "data") as server:
        await server.streams.put("a", (DATA[:100],), StreamSpec(ttl=1000.0))
        await server.warm("a")
        now = server.streams.now()
        monkeypatch.setattr(server.streams, "now", lambda: now + 1001)
        assert (await server.get("a")).status == 404


async def test_what_is_not_asked_for_any_more_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.doors.quick_downloads._SECONDS", 0.0)

    def open_files() -> list[str]:
        names = [str(Path(f"/proc/self/fd/{number}").resolve()) for number in range(256)]
        return [name for name in names if "/blobs/" in name]

    async with served(tmp_path / "data") as server:
        await server.streams.put("a", (DATA,))
        for _ in range(4):
            await server.get("a", {"Range": "bytes=0-9"})
        await until(partial(asyncio.to_thread, open_files), list[str]())


async def test_requests_that_come_together_are_answered_in_their_order(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as server:
        await server.streams.put("a", (DATA,))
        await server.warm("a", {"Range": "bytes=0-1"})
        head = b"GET /files/a HTTP/1.1\r\nhost: 127.0.0.1\r\nRange: bytes=%d-%d\r\n%b\r\n"
        async with Connection(server.port) as connection:
            for other in (b"", b"X-Other: 1\r\n"):
                await connection.write(b"".join(head % (n, n + n % 7, other * (n % 100 == 50)) for n in range(2000)))
                for n in range(2000):
                    assert (await connection.answer()).body == DATA[n : n + n % 7 + 1]


async def test_a_connection_that_waits_for_a_long_answer_is_not_kept_from_the_short_way(tmp_path: Path) -> None:
    """A client has all of an answer before the application has ended: its next request must not follow it."""
    async with served(tmp_path / "data") as server:
        await server.streams.put("a", (DATA,))
        await server.warm("a", {"Range": "bytes=0-1"})
        async with Connection(server.port) as connection:
            await connection.request("GET", "/files/a", headers={"X-Other": "1"})
            for _ in range(10):
                await connection.request("GET", "/files/a", headers={"Range": "bytes=0-1"})
        assert server.long == ["/files/a"]


async def test_what_is_asked_for_once_is_not_kept_open(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as server:
        for name in ("a", "b", "absent"):
            if name != "absent":
                await server.streams.put(name, (DATA,))
            await server.get(name, {"Range": "bytes=0-9"})
        assert server.downloads.kept == 0
        await server.warm("a", {"Range": "bytes=0-9"})
        assert server.downloads.kept == 1
