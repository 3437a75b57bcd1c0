"""tus-js-client, as it is published, against the server: in Node, and every way to upload that it has."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from conftest import JAVASCRIPT, node
from servers import Server
from wire import request

SIZE = 6 * 1024 * 1024


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "holiday film.mp4"
    path.write_bytes(os.urandom(SIZE))
    return path


async def run(server: Server, file: Path, **options: Any) -> tuple[int, Any]:
    """Run the client, and return its exit code and what it printed."""
    given = json.dumps({"endpoint": f"{server.url}/files/", "file": str(file), **options})
    process = await asyncio.create_subprocess_exec(
        node(), "tus-js-client.mjs", given, cwd=JAVASCRIPT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode or 0, json.loads(out) if out else None


async def uploaded(server: Server, file: Path, **options: Any) -> Any:
    """Upload, and check what the server has."""
    code, result = await run(server, file, **options)
    assert code == 0
    answer = await request(server.port, "GET", result["url"].removeprefix(server.url))
    assert answer.status == 200
    assert answer.body == await asyncio.to_thread(file.read_bytes)
    return result


WAYS: dict[str, dict[str, Any]] = {
    "in one request": {"pauseAt": 1},  # it tells of its progress ten times a second at most
    "in chunks": {"chunkSize": 1_000_000, "pauseAt": 2_500_000},
    "from memory": {"source": "buffer", "chunkSize": 1_000_000, "pauseAt": 2_500_000},
    "with the creation": {"uploadDataDuringCreation": True, "chunkSize": 2_000_000, "pauseAt": 2_500_000},
    "by POST": {"overridePatchMethod": True, "chunkSize": 2_000_000, "pauseAt": 2_500_000},
    "from a stream": {"source": "stream", "uploadSize": SIZE, "chunkSize": 1_000_000, "pauseAt": 2_500_000},
    "of a length that comes last": {
        "source": "stream", "uploadLengthDeferred": True, "chunkSize": 1_000_000, "pauseAt": 2_500_000,
    },
    "in parallel": {"parallelUploads": 4, "pauseAt": 1},
    "in parallel, in chunks": {"parallelUploads": 3, "chunkSize": 500_000, "pauseAt": 4_500_000},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_upload_pause_and_resume(server: Server, file: Path, way: str) -> None:
    metadata = {"filename": file.name, "filetype": "video/mp4"}
    result = await uploaded(server, file, metadata=metadata, **WAYS[way])
    assert result["paused"]
    assert any(answered.startswith("HEAD 200") for answered in result["requests"])
    info = await request(server.port, "HEAD", result["url"].removeprefix(server.url))
    assert info.headers["content-type"] == "video/mp4"
    listed = (await request(server.port, "GET", f"/files/?prefix={result['url'].rpartition('/')[2][:20]}")).json()
    assert listed["streams"][0]["metadata"]["filename"] == file.name


@pytest.mark.parametrize("way", ["in one request", "in chunks", "in parallel, in chunks"])
async def test_abort(server: Server, file: Path, way: str) -> None:
    code, result = await run(server, file, **WAYS[way], terminate=True)
    assert code == 0
    assert result["requests"].count("DELETE 204") == WAYS[way].get("parallelUploads", 1)
    if result["url"]:
        gone = await request(server.port, "HEAD", result["url"].removeprefix(server.url))
        assert gone.status == 404


@pytest.mark.parametrize("way", ["in one request", "in chunks", "in parallel, in chunks"])
async def test_another_process_goes_on(server: Server, file: Path, tmp_path: Path, way: str) -> None:
    options = {**WAYS[way], "storage": str(tmp_path / "urls.json"), "pauseAt": None}
    stop = 1 if way == "in one request" else 2_000_000
    assert await run(server, file, **options, stopAt=stop) == (7, None)
    result = await uploaded(server, file, **options)
    created = [answered for answered in result["requests"] if answered.startswith("POST")]
    assert len(created) == ("parallel" in way)  # of the parts, one more makes the whole


async def test_nothing_at_all(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    assert (await uploaded(server, file))["requests"] == ["POST 201"]


DRAFTS = ("ietf-draft-03", "ietf-draft-05")
DRAFT_WAYS: dict[str, dict[str, Any]] = {
    "in one request": {"pauseAt": 1},
    "in chunks": {"chunkSize": 1_000_000, "pauseAt": 2_500_000},
    "from memory": {"source": "buffer", "chunkSize": 1_000_000, "pauseAt": 2_500_000},
    "with the creation": {"uploadDataDuringCreation": True, "chunkSize": 2_000_000, "pauseAt": 2_500_000},
    "from a stream": {"source": "stream", "uploadSize": SIZE, "chunkSize": 1_000_000, "pauseAt": 2_500_000},
    "of a length that comes last": {
        "source": "stream", "uploadLengthDeferred": True, "chunkSize": 1_000_000, "pauseAt": 2_500_000,
    },
}  # fmt: skip


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("way", DRAFT_WAYS)
async def test_upload_pause_and_resume_by_the_drafts(server: Server, file: Path, draft: str, way: str) -> None:
    metadata = {"filename": file.name, "filetype": "video/mp4"}
    code, result = await run(server, file, protocol=draft, metadata=metadata, **DRAFT_WAYS[way])
    assert code == 0
    assert result["paused"]
    assert any(answered.startswith("HEAD 204") for answered in result["requests"])
    upload = result["url"].removeprefix(server.url)
    assert (await request(server.port, "HEAD", upload)).headers["upload-complete"] == "?1"
    stored = await request(server.port, "GET", upload.partition("?")[0])
    assert (stored.status, stored.headers["stream-state"]) == (200, "closed")
    assert stored.headers["content-type"] == "video/mp4"
    assert stored.body == await asyncio.to_thread(file.read_bytes)


@pytest.mark.parametrize("draft", DRAFTS)
async def test_abort_by_the_drafts(server: Server, file: Path, draft: str) -> None:
    code, result = await run(server, file, protocol=draft, **DRAFT_WAYS["in chunks"], terminate=True)
    assert code == 0
    assert result["requests"].count("DELETE 204") == 1
    upload = result["url"].removeprefix(server.url)
    assert (await request(server.port, "HEAD", upload)).status == 404
    assert (await request(server.port, "GET", upload.partition("?")[0])).status == 404


@pytest.mark.parametrize("draft", DRAFTS)
async def test_nothing_at_all_by_the_drafts(server: Server, tmp_path: Path, draft: str) -> None:
    file = tmp_path / "empty"
    file.touch()
    code, result = await run(server, file, protocol=draft)
    assert (code, result["requests"]) == (0, ["POST 201"])
    stored = await request(server.port, "GET", result["url"].removeprefix(server.url).partition("?")[0])
    assert (stored.status, stored.headers["stream-state"], stored.body) == (200, "closed", b"")
