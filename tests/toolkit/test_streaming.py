"""Streamed responses on a real server: what reaches the client, and what becomes of the generator."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.sse import ServerSentEvent
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from applications import serving
from penstock.toolkit.responses import producers
from penstock.toolkit.responses.streaming import (
    Streamed,
    StreamedBytes,
    StreamedCSV,
    StreamedEvents,
    StreamedJSON,
    StreamedNDJSON,
    StreamedText,
)
from penstock.toolkit.responses.under_way import stop_live_responses
from wire import Answer, Broken, Connection

Make = Callable[[], Response]


@asynccontextmanager
async def connected(make: Make, *middleware: Any) -> AsyncIterator[Connection]:
    """Serve a response at ``/``, and connect to it."""
    app = FastAPI()
    for each in middleware:
        app.add_middleware(each)

    async def respond() -> Response:
        return make()

    app.add_api_route("/", respond, response_model=None, methods=["GET", "HEAD"])
    async with serving(app) as port, Connection(port) as connection:
        yield connection


async def answer_of(make: Make, *middleware: Any) -> Answer:
    async with connected(make, *middleware) as connection:
        return await connection.request("GET", "/")


def plain(*items: Any) -> Iterator[Any]:
    yield from items


async def asynchronous(*items: Any) -> AsyncGenerator[Any, None]:
    for item in items:
        yield item


@pytest.mark.parametrize("generate", [plain, asynchronous])
@pytest.mark.parametrize(
    ("kind", "items", "media_type", "body"),
    [
        (StreamedText, ["one ", "zwölf"], "text/plain; charset=utf-8", "one zwölf".encode()),
        (StreamedBytes, [b"\x00", bytearray(b"\x01"), memoryview(b"\x02")], "application/octet-stream", b"\0\1\2"),
        (StreamedNDJSON, [{"a": 1}, [2]], "application/x-ndjson", b'{"a":1}\n[2]\n'),
        (StreamedNDJSON, [], "application/x-ndjson", b""),
        (StreamedJSON, [{"a": 1}, None], "application/json", b'[{"a":1},null]'),
        (StreamedJSON, [], "application/json", b"[]"),
        (StreamedCSV, [{"a": 1, "b": "x,y"}], "text/csv; charset=utf-8; header=present", b'a,b\r\n1,"x,y"\r\n'),
        (StreamedEvents, ["hi", {"n": 1}], "text/event-stream", b'data: hi\n\ndata: {"n":1}\n\n'),
    ],
)
async def test_every_format_is_written_from_plain_and_from_async_generators(
    generate: Callable[..., Any], kind: Callable[..., Streamed], items: list[Any], media_type: str, body: bytes
) -> None:
    answer = await answer_of(lambda: kind(generate(*items)))
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, media_type, body)


async def test_csv_rows_follow_the_given_columns() -> None:
    rows = [{"b": 'q"', "a": 1}, {"a": None}, ["x", "y"]]
    answer = await answer_of(lambda: StreamedCSV(plain(*rows), columns=["a", "b"]))
    assert list(csv.reader(io.StringIO(answer.body.decode()))) == [["a", "b"], ["1", 'q"'], ["", ""], ["x", "y"]]
    empty = await answer_of(lambda: StreamedCSV(plain(), columns=["a"]))
    assert empty.body == b"a\r\n"


async def test_fastapis_own_events_are_written_as_fastapi_writes_them() -> None:
    events = [
        ServerSentEvent(data={"n": 1}, event="tick", id="7", retry=100),
        ServerSentEvent(raw_data="as it is"),
        ServerSentEvent(data="quoted"),
        ServerSentEvent(comment="hello"),
    ]
    answer = await answer_of(lambda: StreamedEvents(plain(*events)))
    assert answer.body == (
        b'event: tick\nid: 7\nretry: 100\ndata: {"n":1}\n\ndata: as it is\n\ndata: "quoted"\n\n: hello\n\n'
    )


async def test_what_comes_fast_is_whole_and_in_order() -> None:
    lines = [f"line {number}\n" for number in range(50_000)]

    for generate in (plain, asynchronous):
        answer = await answer_of(lambda generate=generate: StreamedText(generate(*lines)))  # type: ignore[misc]  # mypy cannot infer such a lambda
        assert answer.body == "".join(lines).encode()


@pytest.mark.parametrize("latency", [0.0, 0.005])
async def test_an_item_that_comes_alone_is_sent_while_the_next_is_awaited(latency: float) -> None:
    go_on = asyncio.Event()
    go_on_in_thread = threading.Event()

    async def slowly() -> AsyncGenerator[str, None]:
        yield "first"
        await go_on.wait()
        yield "second"

    def slowly_in_thread() -> Generator[str, None, None]:
        yield "first"
        go_on_in_thread.wait()
        yield "second"

    for items, release in ((slowly(), go_on.set), (slowly_in_thread(), go_on_in_thread.set)):
        async with connected(lambda items=items: StreamedText(items, latency=latency)) as connection:  # type: ignore[misc]  # as above
            await connection.begin("GET", "/")
            await connection.head()
            body = connection.body()
            assert await anext(body) == b"first"
            release()
            assert b"".join([data async for data in body]) == b"second"


# -- errors -----------------------------------------------------------------------------------------------------------


async def refused() -> AsyncGenerator[str, None]:
    raise HTTPException(404, "nothing here")
    yield ""


def refused_in_thread() -> Generator[str, None, None]:
    raise HTTPException(404, "nothing here")
    yield ""


@pytest.mark.parametrize("generate", [refused, refused_in_thread])
@pytest.mark.parametrize("kind", [StreamedText, StreamedNDJSON, StreamedEvents])
async def test_an_error_before_the_first_item_is_an_errors_answer(
    generate: Callable[[], Any], kind: Callable[..., Streamed]
) -> None:
    answer = await answer_of(lambda: kind(generate()))
    assert (answer.status, answer.json()) == (404, {"detail": "nothing here"})


async def broken() -> AsyncGenerator[str, None]:
    yield "x" * 1_100_000
    raise ValueError("out of luck")


def broken_in_thread() -> Generator[str, None, None]:
    yield "x" * 1_100_000
    raise ValueError("out of luck")


@pytest.mark.parametrize("generate", [broken, broken_in_thread])
@pytest.mark.parametrize("middleware", [(), ("base",), ("gzip",)])
async def test_a_failure_after_the_first_byte_never_looks_complete(
    generate: Callable[[], Any], middleware: tuple[str, ...]
) -> None:
    class PassThrough(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    layers = [{"base": PassThrough, "gzip": GZipMiddleware}[name] for name in middleware]

    async with connected(lambda: StreamedText(generate()), *layers) as connection:
        with pytest.raises(Broken):
            await connection.request("GET", "/", headers={"accept-encoding": "gzip"})
        assert connection.status == 200


async def test_events_and_ndjson_tell_of_a_failure_in_their_own_words_too() -> None:
    for response, last in (
        (lambda: StreamedEvents(broken()), b'event: error\ndata: {"error":"ValueError"}\n\n'),
        (lambda: StreamedNDJSON(broken(), report=True), b'{"error":"out of luck"}\n'),
    ):
        async with connected(response) as connection:
            await connection.begin("GET", "/")
            await connection.head()
            received = b""
            with suppress(Broken):
                async for data in connection.body():
                    received += data
                pytest.fail("the body looks complete")
            assert received.endswith(last)


# -- the end of the generator -----------------------------------------------------------------------------------------


class Tracked:
    """Generators that note how they end."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.reasons: list[str] = []
        self._loop = asyncio.get_running_loop()

    async def endless(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "x" * 1000
        finally:
            await asyncio.sleep(0)  # an await in the clean-up must not be cut short
            self.closed.set()

    async def waiting(self) -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.closed.set()

    def endless_in_thread(self) -> Generator[str, None, None]:
        try:
            while True:
                yield "x" * 1000
        finally:
            self._loop.call_soon_threadsafe(self.closed.set)

    def on_close(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.mark.parametrize("name", ["endless", "waiting", "endless_in_thread"])
async def test_a_generator_is_closed_when_its_client_goes(name: str) -> None:
    tracked = Tracked()
    app = FastAPI()

    @app.get("/")
    async def get() -> Response:
        return StreamedText(getattr(tracked, name)(), on_close=tracked.on_close)

    @app.get("/alive")
    async def alive() -> str:
        return "yes"

    async with serving(app) as port:
        async with Connection(port) as connection:
            await connection.begin("GET", "/")
            await connection.head()
            await anext(connection.body())
        await tracked.closed.wait()
        async with Connection(port) as connection:  # and nobody else is kept waiting
            assert (await connection.request("GET", "/alive")).status == 200
    assert tracked.reasons == ["disconnected"]


async def test_a_slow_client_holds_its_generator_back() -> None:
    produced = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal produced
        while True:
            produced += 1
            yield bytes(10_000)

    async with connected(lambda: StreamedBytes(endless())) as connection:
        await connection.begin("GET", "/")
        await connection.head()
        before = -1
        while before != produced:  # until the buffers of the sockets are full
            before = produced
            await asyncio.sleep(0.2)
        assert produced < 5_000  # 50 MB would be no bound at all


async def test_on_close_is_told_of_a_complete_stream_and_of_a_failed_one() -> None:
    reasons: list[str] = []

    async def on_close(reason: str) -> None:
        reasons.append(reason)

    await answer_of(lambda: StreamedText(plain("a"), on_close=on_close))
    with pytest.raises(Broken):
        await answer_of(lambda: StreamedText(broken(), on_close=on_close))
    assert reasons == ["complete", "failed"]


async def test_plain_generators_take_turns_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "THREADS", 2)
    running = most = 0

    def counted() -> Generator[str, None, None]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        yield from (str(number) for number in range(1000))
        running -= 1

    app = FastAPI()
    app.add_api_route("/", lambda: StreamedText(counted()), response_model=None)
    async with serving(app) as port:

        async def one() -> int:
            async with Connection(port) as connection:
                return len((await connection.request("GET", "/")).body)

        sizes = await asyncio.gather(*(one() for _ in range(12)))
    assert len(set(sizes)) == 1
    assert most <= 2


# -- live formats -----------------------------------------------------------------------------------------------------


async def test_a_silent_live_stream_is_answered_and_kept_alive() -> None:
    async def silent() -> AsyncGenerator[str, None]:
        await asyncio.Event().wait()
        yield ""

    make = lambda: StreamedEvents(silent(), patience=0.01, heartbeat=0.02)  # noqa: E731 - it is passed on
    async with connected(make) as connection:
        await connection.begin("GET", "/")
        assert await connection.head() == 200
        assert connection.headers["cache-control"] == "no-store"
        assert connection.headers["x-accel-buffering"] == "no"
        body = connection.body()
        assert await anext(body) == b":\n\n"
        assert await anext(body) == b":\n\n"


async def test_live_streams_are_ended_properly_when_the_server_stops() -> None:
    tracked = Tracked()
    make = lambda: StreamedEvents(tracked.waiting(), on_close=tracked.on_close)  # noqa: E731 - it is passed on
    async with connected(make) as connection:
        await connection.begin("GET", "/")
        await connection.head()
        body = connection.body()
        assert await anext(body) == b"data: first\n\n"
        stop_live_responses()
        assert b"".join([data async for data in body]) == b"retry: 1000\n\n"  # the framing is complete
        await tracked.closed.wait()
    assert tracked.reasons == ["stopping"]


async def test_a_head_request_has_the_fields_and_no_body() -> None:
    async with connected(lambda: StreamedNDJSON(plain({"a": 1}))) as connection:
        answer = await connection.request("HEAD", "/")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        answer = await connection.request("GET", "/")
        assert json.loads(answer.body) == {"a": 1}
