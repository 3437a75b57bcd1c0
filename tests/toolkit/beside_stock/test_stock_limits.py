"""Senders without manners: stock has no limit and waits forever; ours has limits before anybody thinks of them."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request

from applications import serving
from penstock.toolkit.problems import install_problem_handlers
from penstock.toolkit.requests.body import BodyLimits
from penstock.toolkit.requests.dependency import StreamBody, stream_body
from penstock.toolkit.requests.forms import FormLimits, StreamForm, stream_form
from wire import Connection

CHUNKED = {"transfer-encoding": "chunked"}


def application() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    hasty = stream_body(idle=0.4, min_rate=1000.0, grace=0.4)

    @app.post("/stock")
    async def stock(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @app.post("/ours")
    async def ours(body: Annotated[StreamBody, Depends(stream_body())]) -> int:
        return sum([len(chunk) async for chunk in body])

    @app.post("/ours/hasty")
    async def ours_hasty(body: Annotated[StreamBody, Depends(hasty)]) -> int:
        return sum([len(chunk) async for chunk in body])

    @app.post("/ours/form")
    async def ours_form(form: Annotated[StreamForm, Depends(stream_form())]) -> int:
        return sum([1 async for _ in form])

    return app


async def status_of(connection: Connection, seconds: float) -> int | None:
    """Return the answer's status, or None if none comes in that time."""
    try:
        return await asyncio.wait_for(connection.head(), seconds)
    except TimeoutError:
        return None


@pytest.mark.parametrize(("path", "status"), [("/stock", None), ("/ours", 413)])
async def test_a_body_of_a_terabyte_is_announced(path: str, status: int | None) -> None:
    async with serving(application()) as port, Connection(port) as connection:
        await connection.begin("POST", path, {"content-length": str(10**12)})
        assert await status_of(connection, 0.5) == status


@pytest.mark.parametrize(("path", "status"), [("/stock", None), ("/ours/hasty", 408)])
@pytest.mark.parametrize("pause", [0.02, 10.0], ids=["a byte now and then", "silence"])
async def test_a_sender_holds_the_connection(path: str, status: int | None, pause: float) -> None:
    async def drip(connection: Connection) -> None:
        while True:
            await connection.write_chunk(b"x")
            await asyncio.sleep(pause)

    async with serving(application()) as port, Connection(port) as connection:
        await connection.begin("POST", path, CHUNKED)
        dripping = asyncio.create_task(drip(connection))
        assert await status_of(connection, 1.5) == status
        dripping.cancel()


def test_the_limits_are_there_by_default() -> None:
    for limits in (BodyLimits(), FormLimits()):
        assert limits.pace.idle is not None
        assert limits.pace.min_rate is not None
        assert limits.max_ratio is not None
    assert BodyLimits().max_size is not None
    assert None not in {FormLimits().max_file_size, FormLimits().max_field_size, FormLimits().max_files}
