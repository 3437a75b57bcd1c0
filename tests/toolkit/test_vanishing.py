"""Clients that vanish midway leave nothing: no open file, no running generator, no thread, no task."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

import processes
from asgi_servers import running
from wire import Connection, request, until

APPLICATION = Path(__file__).parent / "served_application.py"
KINDS = ("text", "plain", "events", "ndjson", "compressed", "file-object", "file", "zip", "follow")
CLIENTS = 1000
AT_ONCE = 50


async def vanish(port: int, kind: str, limit: asyncio.Semaphore) -> None:
    async with limit, Connection(port, receive_buffer=8192) as connection:
        await connection.begin("GET", f"/endless/{kind}", {"accept-encoding": "gzip"})
        assert await connection.head() == 200
        await anext(connection.body())
        await asyncio.sleep(random.random() * 0.02)


async def come_and_vanish(port: int, count: int) -> None:
    limit = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(vanish(port, KINDS[number % len(KINDS)], limit) for number in range(count)))


@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc")
async def test_a_thousand_clients_that_vanish_leave_nothing(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        os.truncate(file.fileno(), 500_000_000)
    async with running("uvicorn", APPLICATION, FOLDER=str(tmp_path), LAYERS="no") as (port, _):

        async def state() -> dict[str, Any]:
            found: dict[str, Any] = (await request(port, "GET", "/state")).json()
            return found

        async def settled() -> bool:
            now = await state()
            return bool(now["running"] == now["generating"] == 0 and now["tasks"] <= before["tasks"])

        before = await state()
        await come_and_vanish(port, 2 * AT_ONCE)  # so that the pools have their threads
        await until(settled, True)
        before = await state()
        await come_and_vanish(port, CLIENTS)
        await until(settled, True)
        after = await state()
        assert after["files"] <= before["files"]
        assert after["threads"] <= before["threads"] + 16  # of pools that are filled up as they are used
        assert sum(after["ended"].values()) - sum(before["ended"].values()) == sum(
            KINDS[number % len(KINDS)] in {"text", "plain", "events", "ndjson", "compressed", "file-object"}
            for number in range(CLIENTS)
        )
        assert set(after["ended"]) == {"disconnected"}
