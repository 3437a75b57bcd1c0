"""A file, with the questions that browsers and download managers ask; and one that grows while it is sent."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from applications import CountedPieces, serving
from penstock import StreamedFile
from wire import Connection, request

SIZE = 3_000_000


class Growing:
    """A middleware in whose sight a file grows, once its length was told."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def growing(message: Message) -> None:
            if message["type"] == "http.response.start":
                with self.path.open("ab") as file:
                    file.write(b"more")
            await send(message)

        await self.app(scope, receive, growing)


def application(kind: Any, path: Path) -> FastAPI:
    path.write_bytes(bytes(SIZE))
    app = FastAPI()
    app.add_api_route("/it", lambda: kind(path), response_model=None)
    return app


@pytest.mark.parametrize(("kind", "status"), [(FileResponse, 200), (StreamedFile, 304)])
async def test_a_client_that_has_it_already(kind: Any, status: int, tmp_path: Path) -> None:
    async with serving(application(kind, tmp_path / "a")) as port:
        etag = (await request(port, "GET", "/it")).headers["etag"]
        assert (await request(port, "GET", "/it", headers={"if-none-match": etag})).status == status


@pytest.mark.parametrize(("kind", "status"), [(FileResponse, 400), (StreamedFile, 200)])
@pytest.mark.parametrize("value", ["lines=0-9", "bytes=nine", "bytes="])
async def test_a_range_that_does_not_count(kind: Any, status: int, value: str, tmp_path: Path) -> None:
    """A server ignores a Range of another unit, and may ignore one that is not valid (RFC 9110 section 14.2)."""
    async with serving(application(kind, tmp_path / "a")) as port:
        assert (await request(port, "GET", "/it", headers={"range": value})).status == status


@pytest.mark.parametrize(("kind", "whole"), [(FileResponse, False), (StreamedFile, True)])
async def test_a_file_that_grows(kind: Any, whole: bool, tmp_path: Path) -> None:
    app = application(kind, tmp_path / "a")
    app.add_middleware(Growing, path=tmp_path / "a")
    async with serving(app) as port, Connection(port) as connection:
        sizes: list[int] = []
        # The server hangs up over bytes past the announced length: at the latest, the next request gets no answer.
        with nullcontext() if whole else pytest.raises(ConnectionError):
            sizes = [len((await connection.request("GET", "/it")).body) for _ in range(2)]
    assert (sizes == [SIZE, SIZE + 4]) == whole


@pytest.mark.parametrize(("kind", "least", "most"), [(FileResponse, SIZE // 65536, 100), (StreamedFile, 1, 20)])
async def test_pieces(kind: Any, least: int, most: int, tmp_path: Path) -> None:
    """Each of stock's, of 64 KiB, is a hop to a thread and back."""
    app = application(kind, tmp_path / "a")
    app.add_middleware(CountedPieces)
    async with serving(app) as port:
        CountedPieces.count = 0
        await request(port, "GET", "/it")
    assert least <= CountedPieces.count <= most
