"""How often a plain generator hops to a thread and back, and in how many pieces a file object is sent."""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Any

import anyio.to_thread
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from applications import CountedPieces, serving
from penstock import StreamedBytes, StreamedText
from wire import request

LINES = 1000


def lines() -> Generator[str, None, None]:
    for _ in range(LINES):
        yield "a line\n"


@pytest.mark.parametrize(("kind", "hops"), [(StreamingResponse, LINES + 1), (StreamedText, 0)])
async def test_hops_to_a_thread(kind: Any, hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    original = anyio.to_thread.run_sync

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return await original(*arguments, **options)

    app = FastAPI()

    @app.get("/it")
    async def it() -> Response:
        response: Response = kind(lines())
        return response

    async with serving(app) as port:
        monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
        assert len((await request(port, "GET", "/it")).body) == 7 * LINES
    assert count == hops


@pytest.mark.parametrize(("kind", "least", "most"), [(StreamingResponse, LINES, LINES + 1), (StreamedBytes, 1, 3)])
async def test_pieces_of_a_file_object(kind: Any, least: int, most: int) -> None:
    app = FastAPI()
    app.add_middleware(CountedPieces)
    app.add_api_route("/it", lambda: kind(io.BytesIO(b"a line\n" * LINES)), response_model=None)
    async with serving(app) as port:
        CountedPieces.count = 0
        assert len((await request(port, "GET", "/it")).body) == 7 * LINES
    assert least <= CountedPieces.count <= most
