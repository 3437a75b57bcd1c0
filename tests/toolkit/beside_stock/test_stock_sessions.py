"""A database session of a small pool, for streams whose readers take their time."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from applications import serving
from penstock import Deferred, StreamedText, deferred
from wire import Connection, request

READERS = 3


class Pool:
    """Lends a few sessions, and refuses who would have to wait."""

    def __init__(self, size: int) -> None:
        self.free = size

    async def session(self) -> AsyncGenerator["Session", None]:
        if not self.free:
            raise HTTPException(503, "The pool is exhausted.")
        self.free -= 1
        session = Session()
        try:
            yield session
        finally:
            session.open = False
            self.free += 1


class Session:
    open = True

    async def name(self) -> str:
        await asyncio.sleep(0)
        return "x" if self.open else "closed"


async def slow(prefix: str) -> AsyncGenerator[str, None]:
    yield prefix
    await asyncio.Event().wait()


async def slow_with(session: Session) -> AsyncGenerator[str, None]:
    yield await session.name()
    await asyncio.Event().wait()


async def page_by_page(sessions: Deferred[Session]) -> AsyncGenerator[str, None]:
    async with sessions.open() as session:
        page = await session.name()
    yield page
    await asyncio.Event().wait()


def application(pool: Pool) -> FastAPI:
    app = FastAPI()
    get: Any = pool.session

    @app.get("/stock/request")
    async def pinned(session: Annotated[Session, Depends(get)]) -> StreamingResponse:
        return StreamingResponse(slow(await session.name()))

    @app.get("/stock/function")
    async def closed(session: Annotated[Session, Depends(get, scope="function")]) -> StreamingResponse:
        return StreamingResponse(slow_with(session))

    @app.get("/ours/set-up")
    async def set_up(sessions: Annotated[Deferred[Session], Depends(deferred(get))]) -> StreamedText:
        async with sessions.open() as session:
            prefix = await session.name()
        return StreamedText(slow(prefix))

    @app.get("/ours/producing")
    async def producing(sessions: Annotated[Deferred[Session], Depends(deferred(get))]) -> StreamedText:
        return StreamedText(page_by_page(sessions))

    return app


@pytest.mark.parametrize(
    ("path", "statuses", "first"),
    [
        ("/stock/request", [200, 200, 503], b"x"),
        ("/stock/function", [200, 200, 200], b"closed"),
        ("/ours/set-up", [200, 200, 200], b"x"),
        ("/ours/producing", [200, 200, 200], b"x"),
    ],
)
async def test_more_slow_readers_than_sessions(path: str, statuses: list[int], first: bytes) -> None:
    pool = Pool(READERS - 1)
    async with serving(application(pool)) as port, AsyncExitStack() as stack:
        found = []
        for _ in range(READERS):
            connection = await stack.enter_async_context(Connection(port))
            await connection.begin("GET", path)
            found.append(await connection.head())
            if found[-1] == 200:
                assert await anext(connection.body()) == first
        assert found == statuses
        assert (await request(port, "GET", "/nowhere")).status == 404
    assert pool.free == READERS - 1
