"""How streamed responses end: with counts, with an error, by a stop; and who is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from starlette.background import BackgroundTask
from starlette.responses import Response

from applications import serving
from penstock.toolkit.responses.files import StreamedFile
from penstock.toolkit.responses.streaming import Streamed, StreamedEvents, StreamedNDJSON, StreamedText
from penstock.toolkit.responses.under_way import stop_live_responses, stop_responses
from wire import Broken, Connection, request


@dataclass
class Summary:
    rows: int


def two() -> Generator[dict[str, int], None, None]:
    yield {"n": 1}
    yield {"n": 2}


async def breaking() -> AsyncGenerator[dict[str, int], None]:
    yield {"n": 1}
    raise ValueError("out of luck")


async def waiting() -> AsyncGenerator[dict[str, int], None]:
    yield {"n": 1}
    await asyncio.Event().wait()


def application(make: Callable[[], Response]) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/it", make, response_model=None)
    return app


async def received(port: int) -> tuple[bytes, bool]:
    """Return the body as far as it came, and whether it is complete."""
    async with Connection(port) as connection:
        await connection.begin("GET", "/it")
        await connection.head()
        body = b""
        try:
            async for data in connection.body():
                body += data
        except Broken:
            return body, False
        return body, True


@pytest.mark.parametrize(
    ("make", "last"),
    [
        (lambda: StreamedNDJSON(two()), b'{"n":1}\n{"n":2}\n'),
        (lambda: StreamedNDJSON(two(), end=True), b'{"n":2}\n{"end":{"reason":"complete","items":2,"bytes":16}}\n'),
        (lambda: StreamedNDJSON(two(), end=lambda end: Summary(end.items)), b'{"n":2}\n{"rows":2}\n'),
        (lambda: StreamedNDJSON((), end=True), b'{"end":{"reason":"complete","items":0,"bytes":0}}\n'),
        (lambda: StreamedNDJSON(two(), live=True), b'{"end":{"reason":"complete","items":2,"bytes":16}}\n'),
        (lambda: StreamedEvents(two()), b'data: {"n":2}\n\n'),
        (lambda: StreamedEvents(two(), end=True), b'event: end\ndata: {"reason":"complete","items":2,"bytes":30}\n\n'),
        (lambda: StreamedEvents(two(), end=lambda end: Summary(end.items)), b'event: end\ndata: {"rows":2}\n\n'),
    ],
)
async def test_a_last_record_counts_the_items_where_it_is_wanted(make: Callable[[], Response], last: bytes) -> None:
    async with serving(application(make)) as port:
        body, complete = await received(port)
    assert complete
    assert body.endswith(last)


async def test_a_failure_has_no_end_record() -> None:
    for kind in (StreamedNDJSON, StreamedEvents):
        async with serving(application(lambda kind=kind: kind(breaking(), end=True))) as port:  # type: ignore[misc]  # mypy cannot infer such a lambda
            body, complete = await received(port)
        assert not complete
        assert b"reason" not in body


@pytest.mark.parametrize(
    ("make", "last"),
    [
        (lambda **hooks: StreamedEvents(breaking(), **hooks), b'event: error\ndata: {"code":7}\n\n'),
        (lambda **hooks: StreamedNDJSON(breaking(), report=True, **hooks), b'{"error":{"code":7}}\n'),
        (lambda **hooks: StreamedNDJSON(breaking(), **hooks), b'{"n":1}\n'),
    ],
)
async def test_on_error_is_given_the_error_and_says_what_the_reader_is_told(
    make: Callable[..., Response], last: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[Exception] = []

    def plain(error: Exception) -> dict[str, int]:
        given.append(error)
        return {"code": 7}

    async def asynchronous(error: Exception) -> dict[str, int]:
        return plain(error)

    for hook in (plain, asynchronous):
        async with serving(application(lambda hook=hook: make(on_error=hook))) as port:  # type: ignore[misc]  # as above
            body, complete = await received(port)
        assert not complete
        assert body.endswith(last)
    assert [str(error) for error in given] == ["out of luck"] * 2
    logged = [record for record in caplog.records if record.name == "penstock"]
    assert "GET /it: the streamed response failed after 1 items" in logged[0].getMessage()
    assert logged[0].levelno == logging.ERROR
    assert vars(logged[0])["items"] == 1


async def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(error: Exception) -> None:
        raise RuntimeError("the hook is broken, too")

    async with serving(application(lambda: StreamedEvents(breaking(), on_error=broken))) as port:
        body, complete = await received(port)
    assert not complete
    assert body.endswith(b'event: error\ndata: {"error":"ValueError"}\n\n')
    assert "the hook is broken, too" in caplog.text


async def test_an_error_that_is_an_answer_is_not_for_on_error() -> None:
    def refusing() -> Generator[str, None, None]:
        raise FileNotFoundError
        yield ""

    given: list[Exception] = []
    app = application(lambda: StreamedText(refusing(), on_error=given.append))

    async def answer(_: object, error: Exception) -> Response:
        return Response(status_code=410)

    app.add_exception_handler(FileNotFoundError, answer)
    async with serving(app) as port:
        assert (await request(port, "GET", "/it")).status == 410
    assert not given


async def stopped(make: Callable[[], Streamed], stop: Callable[[], None], first: bytes) -> tuple[bytes, bool]:
    """Return what comes after the first item, when the server stops then; and whether the body is complete."""
    reasons: list[str] = []
    made: list[Streamed] = []
    rest = b""
    complete = True

    def respond() -> Streamed:
        made.append(make())
        made[0]._on_close = reasons.append
        return made[0]

    async with serving(application(respond)) as port, Connection(port) as connection:
        await connection.begin("GET", "/it")
        await connection.head()
        body = connection.body()
        assert await anext(body) == first
        stop()
        try:
            async for data in body:
                rest += data
        except Broken:
            complete = False
    assert reasons == ["stopping"]
    return rest, complete


@pytest.mark.parametrize(
    ("make", "first", "farewell"),
    [
        (lambda: StreamedEvents(waiting(), retry=250), b'data: {"n":1}\n\n', b"retry: 250\n\n"),
        (
            lambda: StreamedEvents(waiting(), end=True),
            b'data: {"n":1}\n\n',
            b'retry: 1000\n\nevent: end\ndata: {"reason":"stopping","items":1,"bytes":15}\n\n',
        ),
        (
            lambda: StreamedNDJSON(waiting(), live=True),
            b'{"n":1}\n',
            b'{"end":{"reason":"stopping","items":1,"bytes":8}}\n',
        ),
    ],
)
async def test_live_streams_get_a_farewell(make: Callable[[], Streamed], first: bytes, farewell: bytes) -> None:
    assert await stopped(make, stop_live_responses, first) == (farewell, True)


async def test_live_records_without_a_farewell_are_broken_off() -> None:
    make = lambda: StreamedNDJSON(waiting(), live=True, end=False)  # noqa: E731 - it is passed on
    assert await stopped(make, stop_live_responses, b'{"n":1}\n') == (b"", False)


async def test_what_has_an_end_of_its_own_is_broken_off_at_the_deadline() -> None:
    assert await stopped(lambda: StreamedNDJSON(waiting()), stop_responses, b'{"n":1}\n') == (b"", False)
    told = b'{"end":{"reason":"stopping","items":1,"bytes":8}}\n'
    assert await stopped(lambda: StreamedNDJSON(waiting(), end=True), stop_responses, b'{"n":1}\n') == (told, True)


async def test_a_download_is_broken_off_at_the_deadline(tmp_path: Any) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    async with serving(application(lambda: StreamedFile(path))) as port, Connection(port) as connection:
        await connection.begin("GET", "/it")
        await connection.head()
        body = connection.body()
        await anext(body)
        stop_live_responses()
        await anext(body)
        stop_responses()
        with pytest.raises(Broken):
            async for _ in body:
                pass


async def test_live_records_have_heartbeats_and_the_fields_of_live_streams() -> None:
    make = lambda: StreamedNDJSON(waiting(), live=True, heartbeat=0.02)  # noqa: E731 - it is passed on
    async with serving(application(make)) as port, Connection(port) as connection:
        await connection.begin("GET", "/it")
        await connection.head()
        fields = connection.headers
        assert (fields["cache-control"], fields["x-accel-buffering"], fields["incremental"]) == ("no-store", "no", "?1")
        body = connection.body()
        assert [await anext(body) for _ in range(3)] == [b'{"n":1}\n', b"\n", b"\n"]


async def test_background_tasks_run_after_the_response() -> None:
    done: list[str] = []
    app = FastAPI()

    @app.get("/own")
    async def own() -> Response:
        return StreamedText(["a"], background=BackgroundTask(done.append, "own"))

    @app.get("/given")
    async def given(tasks: BackgroundTasks) -> Response:
        tasks.add_task(done.append, "given")
        return StreamedText(["a"])

    async with serving(app) as port:
        for path in ("/own", "/given"):
            assert (await request(port, "GET", path)).body == b"a"
    assert done == ["own", "given"]
