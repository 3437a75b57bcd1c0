"""Uppy, as it is published, in a real browser, from another origin than the server's."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse

from applications import serving
from browser import Page, browsing
from conftest import JAVASCRIPT, node, tool
from servers import Server
from wire import request

SIZE = 12 * 1024 * 1024
PAGE = '<!doctype html><meta charset="utf-8"><title>Uppy</title><body><script src="/uppy.js"></script>'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle the page's script."""
    import subprocess

    node()
    path = tmp_path_factory.mktemp("uppy") / "uppy.js"
    esbuild = JAVASCRIPT / "node_modules" / ".bin" / "esbuild"
    subprocess.run(
        [esbuild, "uppy.js", "--bundle", "--log-level=error", f"--outfile={path}"], cwd=JAVASCRIPT, check=True
    )
    return path


@asynccontextmanager
async def page(bundle: Path, folder: Path, **options: Any) -> AsyncIterator[tuple[Page, Server]]:
    """Serve the page on one origin, the streams on another, and open it."""
    tool("chromium")
    app = FastAPI()
    app.get("/")(lambda: HTMLResponse(PAGE))
    app.get("/uppy.js")(lambda: FileResponse(bundle))
    async with serving(app) as port:
        origin = f"http://127.0.0.1:{port}"
        server = Server(folder / "data", "--cors", origin)
        try:
            await asyncio.to_thread(server.start)
            async with browsing(folder / "profile") as opened:
                await opened.go(origin)
                await opened.run(f"start({json.dumps(f'{server.url}/files')}, {json.dumps(options)})")
                yield opened, server
        finally:
            server.kill()


def make(folder: Path) -> tuple[Path, bytes]:
    path, data = folder / "film ü.mp4", os.urandom(SIZE)
    path.write_bytes(data)
    return path, data


@pytest.mark.parametrize(
    "options", [{}, {"chunkSize": 3_000_000}, {"parallelUploads": 3}], ids=["one request", "chunks", "parallel"]
)
async def test_upload_pause_and_resume(bundle: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    path, data = make(tmp_path)
    async with page(bundle, tmp_path, **options) as (opened, server):
        await opened.choose("#file", path)
        done = await opened.run("upload(true)")
        assert (done["failed"], done["paused"], len(done["urls"])) == (0, True, 1)
        url = urlsplit(done["urls"][0]).path
        assert (await request(server.port, "GET", url)).body == data
        info = (await request(server.port, "GET", "/files/")).json()["streams"]
        assert [stream["metadata"]["filename"] for stream in info] == [path.name]
        assert [stream["content_type"] for stream in info] == ["video/mp4"]


async def test_cancel(bundle: Path, tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    async with page(bundle, tmp_path, chunkSize=1_000_000) as (opened, server):
        await opened.choose("#file", path)
        assert "DELETE 204" in await opened.run("cancel()")
        assert (await request(server.port, "GET", "/files/")).json()["streams"] == []
