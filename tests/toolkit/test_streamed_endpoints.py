"""Streamed responses as FastAPI's own idioms use them: handlers with ``yield``, its events, its OpenAPI document."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
import io
import json
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.sse import ServerSentEvent
from openapi_spec_validator import OpenAPIV32SpecValidator, validate
from pydantic import BaseModel
from starlette.responses import Response

from applications import serving
from penstock.toolkit.responses.files import StreamedFile, StreamedRanges
from penstock.toolkit.responses.stream_downloads import StreamedStream
from penstock.toolkit.responses.streaming import (
    StreamedBytes,
    StreamedCSV,
    StreamedEvents,
    StreamedJSON,
    StreamedNDJSON,
    StreamedText,
)
from penstock.toolkit.responses.zipping import StreamedZip
from wire import Broken, Connection, request


class Row(BaseModel):
    n: int


# -- handlers with yield ----------------------------------------------------------------------------------------------


def yielding() -> FastAPI:
    app = FastAPI()

    @app.get("/async", response_class=StreamedNDJSON)
    async def asynchronous(first: int = 0) -> AsyncIterable[Row]:
        if first < 0:
            raise HTTPException(404, "There is no such row.")
        for number in range(first, 3):
            yield Row(n=number)

    @app.get("/plain", response_class=StreamedCSV)
    def plain() -> Iterable[dict[str, int]]:
        yield {"n": 1}

    @app.get("/events", response_class=StreamedEvents)
    async def events(last_event_id: Annotated[int, Header()] = 0) -> AsyncIterable[ServerSentEvent]:
        for number in range(last_event_id + 1, 4):
            yield ServerSentEvent(data=Row(n=number), id=str(number), event="row")

    return app


async def test_a_handler_may_yield_its_items() -> None:
    async with serving(yielding()) as port:
        answer = await request(port, "GET", "/async")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert answer.body == b'{"n":0}\n{"n":1}\n{"n":2}\n'
        assert (await request(port, "GET", "/plain")).body == b"n\r\n1\r\n"


async def test_what_a_handler_with_yield_raises_first_is_its_answer() -> None:
    async with serving(yielding()) as port:
        answer = await request(port, "GET", "/async?first=-1")
        assert (answer.status, answer.json()) == (404, {"detail": "There is no such row."})
        assert (await request(port, "GET", "/async?first=x")).status == 422


async def test_a_handler_yields_fastapis_own_events_and_resumes_at_the_last_event_id() -> None:
    async with serving(yielding()) as port:
        answer = await request(port, "GET", "/events", headers={"last-event-id": "2"})
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.body == b'event: row\nid: 3\ndata: {"n":3}\n\n'


async def test_a_handler_with_yield_is_closed_in_its_own_task_and_as_soon_as_its_client_goes() -> None:
    closed = asyncio.Event()
    tasks: list[object] = []
    app = FastAPI()

    @app.get("/it", response_class=StreamedText)
    async def endless() -> AsyncIterable[str]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield "x" * 1000  # never really awaits
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())
            closed.set()

    async with serving(app) as port:
        async with Connection(port) as connection:
            await connection.begin("GET", "/it")
            await connection.head()
        await closed.wait()
    assert tasks[0] is tasks[1]


async def test_a_handler_with_yield_that_fails_later_breaks_off() -> None:
    app = FastAPI()

    @app.get("/it", response_class=StreamedEvents)
    async def failing() -> AsyncIterable[str]:
        yield "one"
        raise ValueError

    async with serving(app) as port:
        with pytest.raises(Broken):
            await request(port, "GET", "/it")


# -- the OpenAPI document ---------------------------------------------------------------------------------------------


def documented() -> dict[str, Any]:
    app = FastAPI()
    kinds: list[Any] = [StreamedText, StreamedBytes, StreamedNDJSON, StreamedJSON, StreamedCSV, StreamedEvents]
    for kind in kinds:
        app.add_api_route(f"/bare/{kind.__name__}", lambda: None, response_class=kind)
        app.add_api_route(f"/row/{kind.__name__}", lambda: None, response_class=kind, responses=kind.docs(Row))
    files: list[Any] = [StreamedFile, StreamedRanges, StreamedZip, StreamedStream]
    for kind in files:
        app.add_api_route(f"/bare/{kind.__name__}", lambda: None, response_class=kind)
    app.add_api_route("/pdf", lambda: None, response_class=StreamedFile, responses=StreamedFile.docs("application/pdf"))
    document = app.openapi()
    # FastAPI writes itemSchema, a word of OpenAPI 3.2, and calls the document 3.1.
    validate({**document, "openapi": "3.2.0"}, cls=OpenAPIV32SpecValidator)
    return {path: item["get"]["responses"] for path, item in document["paths"].items()}


def test_the_document_shows_the_items() -> None:
    responses = documented()
    row = {"properties": {"n": {"type": "integer", "title": "N"}}, "type": "object", "required": ["n"], "title": "Row"}
    array = {"type": "array", "items": row}
    contents = {path: responses[f"/row/{path}"]["200"]["content"] for path in ("StreamedNDJSON", "StreamedJSON")}
    assert contents["StreamedNDJSON"] == {"application/x-ndjson": {"schema": array, "itemSchema": row}}
    assert contents["StreamedJSON"] == {"application/json": {"schema": array}}
    event = responses["/row/StreamedEvents"]["200"]["content"]["text/event-stream"]["itemSchema"]
    assert event["properties"]["data"] == {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": row,
    }
    assert responses["/bare/StreamedText"]["200"]["content"] == {"text/plain": {"schema": {"type": "string"}}}


def test_the_document_shows_what_a_file_may_be_answered_with() -> None:
    responses = documented()["/pdf"]
    assert set(responses) == {"200", "206", "304", "412", "416"}
    assert list(responses["206"]["content"]) == ["application/pdf"]


def test_the_items_have_the_shape_that_fastapis_own_streams_have() -> None:
    from fastapi.sse import EventSourceResponse

    app = FastAPI()

    @app.get("/stock", response_class=EventSourceResponse)
    async def stock() -> AsyncIterable[Row]:
        yield Row(n=1)

    app.add_api_route("/ours", stock, response_class=StreamedEvents, responses=StreamedEvents.docs(Row))
    paths = app.openapi()["paths"]
    found = [paths[path]["get"]["responses"]["200"]["content"]["text/event-stream"] for path in ("/stock", "/ours")]
    theirs, ours = (json.loads(json.dumps(content["itemSchema"])) for content in found)
    data = ours["properties"].pop("data")
    assert data["contentSchema"]["title"] == "Row"
    assert theirs["properties"].pop("data")["contentSchema"] == {"$ref": "#/components/schemas/Row"}
    assert ours == theirs


# -- file objects -----------------------------------------------------------------------------------------------------


class Noted(io.BytesIO):
    """A file that notes how it is read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads: list[tuple[int | None, str]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads.append((size, threading.current_thread().name))
        return super().read(size)


async def body_of(make: Any) -> bytes:
    app = FastAPI()
    app.add_api_route("/it", make, response_model=None)
    async with serving(app) as port:
        return (await request(port, "GET", "/it")).body


async def test_file_objects_are_sent_in_large_pieces_and_closed(tmp_path: Path) -> None:
    content = b"a line\n" * 200_000
    noted = Noted(content)
    assert await body_of(lambda: StreamedBytes(noted)) == content
    assert len(noted.reads) == 7
    assert {thread for _, thread in noted.reads} == {"penstock-generate"}
    assert noted.closed

    path = tmp_path / "text"
    path.write_text("zwölf\n" * 100_000)
    text = path.open(encoding="utf-8")
    assert await body_of(lambda: StreamedText(text)) == path.read_bytes()
    assert text.closed

    spooled = tempfile.SpooledTemporaryFile(max_size=100)  # noqa: SIM115 - the response closes it
    spooled.write(content)
    spooled.seek(7)
    assert await body_of(lambda: StreamedBytes(spooled)) == content[7:]

    anyio_file = await anyio.open_file(path, "rb")
    assert await body_of(lambda: StreamedBytes(anyio_file)) == path.read_bytes()
    assert anyio_file.wrapped.closed


async def test_a_file_object_is_closed_when_its_client_goes() -> None:
    closed = threading.Event()

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1, /) -> bytes:
            return bytes(size)

        def close(self) -> None:
            super().close()
            closed.set()

    app = FastAPI()
    app.add_api_route("/it", lambda: StreamedBytes(Endless()), response_model=None)
    async with serving(app) as port:
        async with Connection(port) as connection:
            await connection.begin("GET", "/it")
            await connection.head()
        assert await asyncio.to_thread(closed.wait, 10)


# -- turns ------------------------------------------------------------------------------------------------------------


async def test_a_generator_that_computes_lets_others_have_their_turn() -> None:
    finished = False

    async def busy() -> AsyncGenerator[str, None]:
        nonlocal finished
        for _ in range(2_000_000):
            yield ""
        finished = True
        yield "end"

    def one() -> Generator[str, None, None]:
        yield "yes"

    app = FastAPI()
    app.add_api_route("/busy", lambda: StreamedText(busy()), response_model=None)

    @app.get("/other")
    async def other() -> Response:
        return StreamedText(one())

    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("GET", "/busy")
        assert (await request(port, "GET", "/other")).body == b"yes"
        assert not finished
        assert (await connection.answer()).body == b"end"
