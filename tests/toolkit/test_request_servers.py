"""Bodies under the servers and behind the middleware that people use."""

from __future__ import annotations

import asyncio
import hashlib
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from asgi_servers import SERVERS, running
from form_bodies import END, TYPE, names_in, part
from wire import Answer, Connection, until

APPLICATION = Path(__file__).parent / "bodies_application.py"
DATA = random.Random(1).randbytes(3_000_000)


@pytest.mark.parametrize("middleware", ["", "1"], ids=["plain", "middleware"])
@pytest.mark.parametrize("server", list(SERVERS))
async def test_every_kind_of_body(server: str, middleware: str, tmp_path: Path) -> None:
    async def ask(method: str, path: str, body: bytes, **headers: str) -> Answer:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with Connection(port) as connection:
            return await connection.request(method, path, body, {"origin": "http://elsewhere", **fields})

    async def left() -> list[str]:
        return names_in(tmp_path)

    async with running(server, APPLICATION, FOLDER=str(tmp_path), MIDDLEWARE=middleware) as (port, _):
        saved: Any = {"size": len(DATA), "sha-256": hashlib.sha256(DATA).hexdigest()}
        assert (await ask("PUT", "/files/a", DATA)).json() == saved
        assert (await ask("PUT", "/files/b", zlib.compress(DATA), content_encoding="deflate")).json() == saved
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == DATA
        lines = b'{"a": 1}\n' * 100_000
        answer = await ask("POST", "/items", lines, content_type="application/x-ndjson")
        assert answer.json() == 100_000
        assert ("access-control-allow-origin" in answer.headers) == bool(middleware)
        form = part("title", b"t") + part("file", DATA, "c") + END
        assert (await ask("POST", "/form", form, content_type=TYPE)).json() == {"title": "t", "size": len(DATA)}
        assert (tmp_path / "c").read_bytes() == DATA
        assert (await ask("POST", "/parts", form, content_type=TYPE)).json() == {"title": 1, "file": len(DATA)}
        refused = await ask("POST", "/items", b"{", content_type="application/x-ndjson")
        assert (refused.status, refused.headers["content-type"]) == (422, "application/problem+json")
        wrong = f"sha-256=:{'A' * 43}=:"
        assert (await ask("PUT", "/files/d", DATA, content_digest=wrong)).json()["title"] == "The digest does not match"

        async with Connection(port) as connection:  # whoever is refused hears of it, and sends no more
            await connection.begin("PUT", "/files/e", {"content-length": str(10**9)})
            assert (await connection.answer()).status == 413

        async with Connection(port) as connection:  # whoever goes leaves nothing
            await connection.begin("PUT", "/files/f", {"content-length": str(len(DATA))})
            await connection.write(DATA[:1_000_000])
            async with asyncio.timeout(30):
                while not any(name.endswith(".part") for name in names_in(tmp_path)):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
        await until(left, ["a", "b", "c"])
