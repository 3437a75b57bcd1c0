"""A body that broke off after its first megabyte, in the eyes of the clients that people use."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
import requests
from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

from applications import serving
from browser import browsing
from conftest import tool
from penstock import StreamedBytes, StreamedEvents, StreamedFile, StreamedJSON, StreamedNDJSON, StreamedText

KINDS: dict[str, Callable[..., Response]] = {
    "text": StreamedText,
    "ndjson": StreamedNDJSON,
    "json": StreamedJSON,
    "events": StreamedEvents,
}


async def items(fails: bool) -> AsyncGenerator[str, None]:
    for _ in range(1024):
        yield "x" * 1024
    if fails:
        raise ValueError("out of luck")


def application(folder: Path) -> FastAPI:
    app = FastAPI()

    @app.get("/page")
    async def page() -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>a page</title>")

    @app.get("/{kind}")
    async def get(kind: str, fails: bool) -> Response:
        if kind == "file":
            return cut(folder / "file") if fails else StreamedFile(folder / "file")
        if kind == "length":
            return StreamedBytes(items(fails), headers={"content-length": str(1024 * 1024 + fails)})
        return KINDS[kind](items(fails))

    return app


def cut(path: Path) -> Response:
    """Return a response for a file that is cut while it is sent."""

    class Cut(StreamedFile):
        async def __call__(self, scope: object, receive: object, send: object) -> None:
            async def cutting(message: dict[str, object]) -> None:
                if message["type"] == "http.response.start":
                    with path.open("r+b") as file:
                        file.truncate(1024 * 1024)
                await send(message)  # type: ignore[operator]  # it is what the server gives

            await super().__call__(scope, receive, cutting)  # type: ignore[arg-type]  # likewise

    return Cut(path)


def curl(url: str) -> bool:
    return subprocess.run([tool("curl"), "-s", "-o", "/dev/null", url], check=False).returncode == 0


def with_httpx(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.RemoteProtocolError:
        return False
    return True


def with_requests(url: str) -> bool:
    try:
        requests.get(url, timeout=30)
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        return False
    return True


@pytest.mark.parametrize("kind", [*KINDS, "length", "file"])
@pytest.mark.parametrize("fetch", [curl, with_httpx, with_requests])
async def test_clients_that_are_programs(fetch: Callable[[str], bool], kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 * 1024 * 1024))
    async with serving(application(tmp_path)) as port:
        assert await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/{kind}?fails=false")
        assert not await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/{kind}?fails=true")


async def test_a_browser(tmp_path: Path) -> None:
    tool("chromium")
    (tmp_path / "file").write_bytes(bytes(3 * 1024 * 1024))
    async with serving(application(tmp_path)) as port, browsing(tmp_path / "profile") as page:
        await page.go(f"http://127.0.0.1:{port}/page")

        async def fetched(kind: str, fails: str) -> str:
            script = f"fetch('/{kind}?fails={fails}').then(r => r.arrayBuffer()).then(() => 'whole', e => e.name)"
            return str(await page.run(script))

        for kind in [*KINDS, "length", "file"]:
            assert await fetched(kind, "false") == "whole", kind
            assert await fetched(kind, "true") == "TypeError", kind
