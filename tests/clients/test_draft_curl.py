"""The IETF's resumable uploads by hand, with curl."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from conftest import tool
from servers import Server
from wire import request

SIZE = 3_000_000
VERSION = ("-H", "Upload-Draft-Interop-Version: 8")
PARTIAL = ("-H", "Content-Type: application/partial-upload")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(os.urandom(SIZE))
    return path


async def curl(*arguments: str, data: bytes | None = None, code: int = 0) -> str:
    """Run curl, and return what it prints: with ``-i``, the heads of all responses, in order."""
    process = await asyncio.create_subprocess_exec(
        tool("curl"), "-sS", "-i", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate(data)
    assert process.returncode == code
    return printed.decode()


def field(name: str, printed: str) -> str:
    found = re.findall(rf"^{name}: (.*?)\r$", printed, re.MULTILINE | re.IGNORECASE)
    return str(found[-1])


def statuses(printed: str) -> list[str]:
    return re.findall(r"^HTTP/1\.1 (\d+)", printed, re.MULTILINE)


async def test_in_one_request(server: Server, file: Path, name: str) -> None:
    url = f"{server.url}/files/{name}"
    printed = await curl("-T", str(file), *VERSION, "-H", "Upload-Complete: ?1", url)
    assert statuses(printed)[-1] == "201"
    assert "104" in statuses(printed)
    assert "HTTP/1.1 104 Upload Resumption Supported" in printed
    assert field("upload-complete", printed) == "?1"
    assert (await request(server.port, "GET", f"/files/{name}")).body == await asyncio.to_thread(file.read_bytes)


async def test_cut_paused_and_resumed(server: Server, file: Path, name: str) -> None:
    url = f"{server.url}/files/{name}"
    arguments = ("-T", str(file), *VERSION, "-H", "Upload-Complete: ?1", "--limit-rate", "300k", "--max-time", "2", url)
    printed = await curl(*arguments, code=28)  # its time is over before it has sent all
    location = field("location", printed)
    seen = await curl("-I", f"{server.url}{location}")
    offset = int(field("upload-offset", seen))
    assert 0 < offset < SIZE
    assert (field("upload-complete", seen), field("upload-length", seen)) == ("?0", str(SIZE))
    rest = (await asyncio.to_thread(file.read_bytes))[offset:]
    half = len(rest) // 2
    for data, at, complete in ((rest[:half], offset, "?0"), (rest[half:], offset + half, "?1")):
        appended = await curl(
            *("-X", "PATCH", "--data-binary", "@-", *PARTIAL),
            *("-H", f"Upload-Complete: {complete}", "-H", f"Upload-Offset: {at}", f"{server.url}{location}"),
            data=data,
        )
        assert statuses(appended)[-1] == ("204" if complete == "?0" else "201")
    assert (await request(server.port, "GET", f"/files/{name}")).body == await asyncio.to_thread(file.read_bytes)


async def test_created_by_post_and_cancelled(server: Server) -> None:
    printed = await curl("-X", "POST", "-H", "Upload-Complete: ?0", f"{server.url}/files/")
    assert statuses(printed) == ["201"]
    location = field("location", printed)
    assert statuses(await curl("-X", "DELETE", f"{server.url}{location}")) == ["204"]
    assert statuses(await curl("-I", f"{server.url}{location}")) == ["404"]
    assert "upload-limit" in await curl("-X", "OPTIONS", f"{server.url}/files/")
