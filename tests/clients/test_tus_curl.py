"""tus by hand, with curl."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from conftest import tool
from servers import Server
from wire import request

TUS = ("-H", "Tus-Resumable: 1.0.0")
BYTES = (*TUS, "-H", "Content-Type: application/offset+octet-stream")


async def curl(*arguments: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        tool("curl"), "-sS", "-D", "-", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode()


def field(answer: str, name: str) -> str:
    found = re.search(rf"(?im)^{name}: (.*?)\r?$", answer)
    assert found is not None, answer
    return found[1]


async def test_upload_pause_resume_and_abort(server: Server, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "rest").write_bytes(data)
    endpoint = f"{server.url}/files/"
    created = await curl("-X", "POST", *TUS, "-H", "Upload-Length: 2000000", endpoint)
    url = endpoint + field(created, "location")
    # The connection ends in the middle: after a while, at a slow rate.
    sending = (*BYTES, "-H", "Upload-Offset: 0", "--limit-rate", "500K", "--max-time", "1")
    await curl("-X", "PATCH", *sending, "--data-binary", f"@{tmp_path / 'rest'}", url)
    offset = int(field(await curl("-I", *TUS, url), "upload-offset"))
    assert 0 < offset < len(data)
    (tmp_path / "rest").write_bytes(data[offset:])
    sent = await curl(
        "-X", "PATCH", *BYTES, "-H", f"Upload-Offset: {offset}", "--data-binary", f"@{tmp_path / 'rest'}", url
    )
    assert "HTTP/1.1 204" in sent  # after a 100
    assert (await request(server.port, "GET", url.removeprefix(server.url))).body == data
    assert (await curl("-X", "DELETE", *TUS, url)).startswith("HTTP/1.1 204")
    assert (await curl("-I", *TUS, url)).startswith("HTTP/1.1 404")
