"""JSON lines that wait for something to happen, behind a proxy that buffers, and gives up on who says nothing."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
from collections.abc import AsyncIterable

import pytest
from fastapi import FastAPI, routing

from applications import serving
from penstock import StreamedNDJSON
from wire import Connection


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/stock")
    async def stock() -> AsyncIterable[dict[str, int]]:
        yield {"n": 1}
        await asyncio.Event().wait()

    @app.get("/ours")
    async def ours() -> StreamedNDJSON:
        return StreamedNDJSON(stock(), live=True, heartbeat=0.05)

    return app


@pytest.mark.parametrize(("path", "live"), [("/stock", False), ("/ours", True)])
async def test_silence(path: str, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_PING_INTERVAL", 0.05)  # of stock's events, for when its lines have heartbeats, too
    async with serving(application()) as port, Connection(port) as connection:
        await connection.begin("GET", path)
        await connection.head()
        body = connection.body()
        assert await anext(body) == b'{"n":1}\n'
        if live:
            assert await anext(body) == b"\n"
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(body), 0.5)
        names = {"cache-control", "x-accel-buffering", "incremental"}
        assert (names & set(connection.headers)) == (names if live else set())
