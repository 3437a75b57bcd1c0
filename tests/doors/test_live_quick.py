"""The short way of small appends: its answers are those of the long way, and what is not plain goes that way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams
from penstock.doors.live.quick import QuickAppends
from penstock.doors.quick import STATE
from penstock.errors import StorageFailed
from penstock.server.date import Dated
from penstock.toolkit.problems import install_problem_handlers
from wire import Connection, request, until

JSON = {"content-type": "application/json"}


@asynccontextmanager
async def both(folder: Path, **options: Any) -> AsyncIterator[tuple[int, list[str], Streams]]:
    """Serve an application that notes what takes the long way."""
    streams = Streams(folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with streams.lifespan(app):
            yield {STATE: [QuickAppends(streams)]}

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
        noting,
        http="penstock.server.quick:QuickProtocol",
        access_log=False,
        server_header=False,
        date_header=False,
        **options,
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
        await request(port, "POST", "/live/room", b"0", JSON)
        long.clear()
        monkeypatch.setattr(streams, "append_each", fail)
        refused = await request(port, "POST", "/live/room", b"1", JSON)
        assert (refused.status, refused.json()["type"].rpartition("/")[2]) == (503, "storage-failed")
        assert (tries, long) == (1, [])


async def test_requests_that_come_together_are_answered_in_their_order(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, long, streams), Connection(port) as connection:
        await connection.write(plain(1) + b"0")
        await connection.answer()
        long.clear()
        others = [plain(1, fields="X-Other: 1\r\n" * (n in {5, 7})) + b"%d" % n for n in range(1, 9)]
        await connection.write(b"".join(others))
        offsets = [(await connection.answer()).json()["offset"] for _ in range(8)]
        assert offsets == list(range(4, 20, 2))
        assert len(long) == 4  # from the first on that has another field
        read = b"".join([bytes(chunk.data) async for chunk in streams.read("room")])
        assert read.split() == [b"%d" % n for n in range(9)]


def plain(length: int, *, name: str = "room", fields: str = "") -> bytes:
    """Return the head of a plain append."""
    return (
        f"POST /live/{name} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{fields}"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


async def test_a_head_is_known_again_whatever_its_length_says(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, long, streams), Connection(port) as connection:
        for body in (b"1", b"22", b"333", b"4444444444"):
            await connection.write(plain(len(body)) + body)
            await connection.answer()
        assert long == ["/live/room"]
        assert (await streams.info("room")).tail == 20


async def test_a_body_may_come_later_than_its_head_and_in_pieces(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, long, _), Connection(port) as connection:
        await connection.write(plain(1) + b"0")
        await connection.answer()
        for piece in (plain(6), b"12", b"34", b"56"):
            await connection.write(piece)
        assert (await connection.answer()).json()["offset"] == 9
        assert long == ["/live/room"]


async def test_a_body_that_takes_long_goes_the_long_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.server.quick._PATIENCE", 0.01)
    async with both(tmp_path / "data") as (port, long, _), Connection(port) as connection:
        await connection.write(plain(1) + b"0")
        await connection.answer()
        await connection.write(plain(4) + b"12")

        async def gone() -> int:
            return len(long)

        await until(gone, 2)
        await connection.write(b"34")
        assert (await connection.answer()).json()["offset"] == 7


async def test_who_goes_away_in_the_middle_of_a_body_leaves_nothing(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, long, _):
        async with Connection(port) as connection:
            await connection.write(plain(1) + b"0")
            await connection.answer()
            await connection.write(plain(4) + b"12")
        async with Connection(port) as connection:
            await connection.write(plain(1) + b"1")
            assert (await connection.answer()).json()["offset"] == 4
        assert long == ["/live/room"]


@pytest.mark.parametrize(
    "head",
    [
        plain(2, fields="X-Other: 1\r\n"),
        plain(2).replace(b"application/json", b"text/plain"),
        plain(2).replace(b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 2"),
        plain(2).replace(b"Content-Length: 2", b"Transfer-Encoding: chunked\r\nContent-Length: 2"),
        plain(2).replace(b"HTTP/1.1", b"HTTP/1.0"),
        plain(2, name="other"),
        plain(2).replace(b"Host: x\r\n", b""),
        plain(2).replace(b"Host: x", b"Host: x\r\n y"),
        b"\r\n" + plain(2),
    ],
)
async def test_a_head_that_differs_is_not_taken_for_one_that_is_known(tmp_path: Path, head: bytes) -> None:
    async with both(tmp_path / "data") as (port, long, _):
        async with Connection(port) as connection:
            for body in (b"1", b"22"):
                await connection.write(plain(len(body)) + body)
                await connection.answer()
        assert long == ["/live/room"]
        async with Connection(port) as connection:
            await connection.write(head + b"22")
            answer = await connection.answer()
        assert len(long) == (2 if answer.status < 400 or answer.status == 409 else 1)


async def test_a_body_that_looks_like_a_head_teaches_nothing(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, long, streams):
        closing = plain(1, fields="Stream-Closed: true\r\n")
        async with Connection(port) as connection:
            await connection.write(plain(1, fields="X-Other: 1\r\n") + b"0")
            await connection.answer()
            # The last piece of a body, and after it a plain request with as many fields as that seems to have.
            await connection.write(plain(len(closing), fields="X-Other: 1\r\n"))

            async def begun() -> int:
                return len(long)

            await until(begun, 2)
            plainly = plain(1, fields="User-Agent: x\r\n")
            assert closing.count(b"\n") == plainly.count(b"\n")
            await connection.write(closing + plainly + b"1")
            assert [(await connection.answer()).status for _ in range(2)] == [422, 200]
        async with Connection(port) as connection:
            await connection.write(closing + b"2")
            assert (await connection.answer()).headers["stream-state"] == "closed"
        assert (await streams.info("room")).closed


async def test_a_known_head_with_a_body_that_is_refused_is_answered_the_long_way(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, _, streams), Connection(port) as connection:
        for body in (b"1", b"2"):
            await connection.write(plain(1) + body)
            await connection.answer()
        await connection.write(plain(1) + b"{" + plain(1) + b"3" + plain(0) + plain(1) + b"4")
        answers = [await connection.answer() for _ in range(4)]
        assert [answer.status for answer in answers] == [422, 200, 422, 200]
        assert (await streams.info("room")).tail == 8
        read = b"".join([bytes(chunk.data) async for chunk in streams.read("room")])
        assert read.split() == [b"1", b"2", b"3", b"4"]


async def test_many_connections_append_together(tmp_path: Path) -> None:
    async with both(tmp_path / "data") as (port, _, streams):
        await raw(port, "room", b"0", "Content-Type: application/json")

        async def client(number: int) -> None:
            async with Connection(port) as connection:
                for each in range(20):
                    await connection.write(plain(4) + b"%d%03d" % (number + 1, each))
                    assert (await connection.answer()).status == 200

        await asyncio.gather(*(client(number) for number in range(8)))
        read = b"".join([bytes(chunk.data) async for chunk in streams.read("room")]).split()
        for number in range(8):
            mine = [line for line in read if line.startswith(b"%d" % (number + 1)) and len(line) == 4]
            assert mine == [b"%d%03d" % (number + 1, each) for each in range(20)]


async def test_a_connection_that_is_idle_is_closed(tmp_path: Path) -> None:
    async with both(tmp_path / "data", timeout_keep_alive=1) as (port, long, _), Connection(port) as connection:
        for body in (b"1", b"2"):
            await connection.write(plain(1) + body)
            await connection.answer()
        assert len(long) == 1
        assert await asyncio.wait_for(connection.ended(), 10)
