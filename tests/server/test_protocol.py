"""Interim responses, by the server that sends them and by those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from applications import serving as serving_by
from penstock.toolkit.responses.interim import EXTENSION, interim_of
from wire import Answer, Connection

PROTOCOL = "penstock.server.protocol:InformationalProtocol"


@asynccontextmanager
async def serving(application: Any, http: str = PROTOCOL) -> AsyncIterator[int]:
    async with serving_by(application, http=http, lifespan="off", ws="none") as port:
        yield port


async def heads(connection: Connection) -> list[tuple[int, dict[str, str]]]:
    """Read responses up to the final one's head, and return the status and the fields of each."""
    found: list[tuple[int, dict[str, str]]] = []
    while not found or found[-1][0] < 200:
        found.append((await connection.head(), connection.headers))
    return found


def application(fields: Iterable[tuple[bytes, bytes]] = ((b"upload-offset", b"7"),), status: int = 104) -> Any:
    """An application that sends an interim response before it reads, one after, and one that comes too late."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        extension = scope.get("extensions", {}).get(EXTENSION)
        message = {"type": EXTENSION, "status": status, "headers": list(fields)}
        if extension is not None:
            await extension["send"](message)
        size = 0
        more = True
        while more:
            part = await receive()
            size += len(part.get("body", b""))
            more = part.get("more_body", False)
        if extension is not None:
            await extension["send"](message)
        await PlainTextResponse(str(size))(scope, receive, send)
        if extension is not None:
            await extension["send"](message)

    return app


async def test_interim_responses_come_before_the_answer_and_never_after_it() -> None:
    async with serving(application()) as port, Connection(port) as connection:
        for _ in range(2):  # a second request on the same connection finds nothing left of the first
            await connection.begin("PUT", "/", {"content-length": "3"})
            assert await connection.head() == 104
            assert connection.headers == {"upload-offset": "7"}
            await connection.write(b"abc")
            answers = await heads(connection)
            assert [status for status, _ in answers] == [104, 200]
            assert b"".join([data async for data in connection.body()]) == b"3"


async def test_the_status_line_has_the_phrase_of_the_draft() -> None:
    async with serving(application()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 104 Upload Resumption Supported\r\n"
        writer.close()
        await writer.wait_closed()


async def test_the_client_is_told_to_continue_all_the_same() -> None:
    async with serving(application()) as port, Connection(port) as connection:
        await connection.begin("PUT", "/", {"content-length": "3", "expect": "100-continue"})
        assert [await connection.head(), await connection.head()] == [104, 100]
        await connection.write(b"abc")
        assert [status for status, _ in await heads(connection)] == [104, 200]


async def test_pipelined_requests_have_their_own() -> None:
    async with serving(application()) as port, Connection(port) as connection:
        for size in (1, 2):
            await connection.begin("PUT", "/", {"content-length": str(size)})
            await connection.write(b"x" * size)
        for size in (1, 2):
            assert [status for status, _ in await heads(connection)] == [104, 104, 200]
            assert b"".join([data async for data in connection.body()]) == b"%d" % size


async def test_http_1_0_has_none() -> None:
    async with serving(application()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b" 104 " not in answer
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_server_that_offers_none_is_left_alone(http: str) -> None:
    async with serving(application(), http) as port, Connection(port) as connection:
        answer = await connection.request("PUT", "/", b"abc")
        assert (answer.status, answer.body) == (200, b"3")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"a b", b"c")], 104),
        ([(b"a", b"b\r\nc: d")], 104),
        ([(b"a", b"\0")], 104),
        ([(b"Content-Length", b"1")], 104),
        ([(b"transfer-encoding", b"chunked")], 104),
        ([], 101),
        ([], 100),
        ([], 200),
    ],
)
async def test_what_is_no_interim_response_is_an_error_of_the_application(
    fields: list[tuple[bytes, bytes]], status: int
) -> None:
    async with serving(application(fields, status)) as port, Connection(port) as connection:
        answer: Answer = await connection.request("PUT", "/", b"abc")
        assert answer.status == 500


async def test_they_pass_by_middleware_that_would_take_them_for_the_answer() -> None:
    app = FastAPI()

    @app.middleware("http")
    async def through(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    @app.put("/")
    async def put(request: Request) -> int:
        interim = interim_of(request.scope)
        assert interim is not None
        await interim.send(104, {"Upload-Offset": "7"})
        return len(await request.body())

    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("PUT", "/", {"content-length": "3"})
        await connection.write(b"abc")
        assert [status for status, _ in await heads(connection)] == [104, 200]


async def test_a_client_that_reads_nothing_holds_its_own_request_back_only() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["path"] == "/quick":
            await PlainTextResponse("here")(scope, receive, send)
            return
        extension = scope["extensions"][EXTENSION]
        for _ in range(10_000):
            await extension["send"]({"type": EXTENSION, "status": 104, "headers": [(b"x", b"y" * 4000)]})
            sent += 1
        await PlainTextResponse("done")(scope, receive, send)

    async with serving(app) as port, Connection(port, receive_buffer=1024) as slow:
        await slow.begin("GET", "/", {})
        async with Connection(port) as quick:
            before = -1
            while before != sent:  # until its sending stands still
                before = sent
                for _ in range(20):
                    answer = await quick.request("GET", "/quick")
                    assert answer.body == b"here"
        assert sent < 10_000


@pytest.mark.parametrize("field", ["via", "x-forwarded-for", "forwarded"])
def test_what_a_proxy_has_passed_on_gets_no_interim_response(field: str) -> None:
    scope = {"extensions": {EXTENSION: {"send": None}}, "headers": [(b"host", b"x")]}
    assert interim_of(scope) is not None
    assert interim_of({**scope, "headers": [(b"host", b"x"), (field.encode(), b"1.1 x")]}) is None
