"""tuspy, as it is published, against the server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import requests
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

from servers import Server
from wire import request

SIZE = 3_000_000

pytestmark = [  # it leaves its files open for the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(os.urandom(SIZE))
    return path


def client(server: Server) -> Any:
    return TusClient(f"{server.url}/files/")


def options(file: Path) -> dict[str, Any]:
    return {"file_path": str(file), "chunk_size": 500_000, "metadata": {"filename": file.name}, "upload_checksum": True}


async def check(server: Server, url: str, file: Path) -> None:
    answer = await request(server.port, "GET", url.removeprefix(server.url))
    assert answer.body == await asyncio.to_thread(file.read_bytes)
    assert answer.headers["content-type"] == "text/csv"


async def test_upload_pause_and_resume(server: Server, file: Path) -> None:
    uploader = client(server).uploader(**options(file))
    await asyncio.to_thread(uploader.upload, stop_at=1_200_000)
    assert (uploader.offset, uploader.get_offset()) == (1_200_000, 1_200_000)
    await asyncio.to_thread(uploader.upload)
    await check(server, uploader.url, file)


async def test_another_process_goes_on_and_what_was_aborted_is_gone(server: Server, file: Path, tmp_path: Path) -> None:
    storage: Any = FileStorage(str(tmp_path / "urls.json"))  # type: ignore[no-untyped-call]  # theirs
    try:
        first = client(server).uploader(**options(file), store_url=True, url_storage=storage)
        await asyncio.to_thread(first.upload, stop_at=600_000)
        second = client(server).uploader(**options(file), store_url=True, url_storage=storage)
        assert (second.url, second.offset) == (first.url, 600_000)
        await asyncio.to_thread(second.upload)
        await check(server, second.url, file)
    finally:
        storage.close()
    # It has no call for this; its users send the request themselves.
    headers = {"Tus-Resumable": "1.0.0"}
    assert (await asyncio.to_thread(requests.delete, second.url, headers=headers, timeout=10)).status_code == 204
    assert (await request(server.port, "GET", second.url.removeprefix(server.url))).status == 404


async def test_the_asynchronous_one(server: Server, file: Path) -> None:
    uploader = client(server).async_uploader(**options(file))
    await uploader.upload(stop_at=600_000)
    await uploader.upload()
    await check(server, uploader.url, file)
