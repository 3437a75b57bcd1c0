"""An async generator that never really awaits, and whose client is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asgi_servers import running
from wire import Connection, request

APPLICATION = Path(__file__).parent / "stock_application.py"


@pytest.mark.parametrize(("whose", "freezes"), [("stock", True), ("ours", False)])
async def test_others_are_served_after_its_client_vanished(whose: str, freezes: bool, tmp_path: Path) -> None:
    async with running("uvicorn", APPLICATION, NOTES=str(tmp_path / "notes")) as (port, _):
        async with Connection(port) as connection:
            await connection.begin("GET", f"/{whose}/text")
            await connection.head()
            await anext(connection.body())
        assert await is_frozen(port) == freezes


async def is_frozen(port: int) -> bool:
    """Ask again and again, because at first the server may not have heard that its client is gone."""
    for _ in range(50):
        try:
            await asyncio.wait_for(request(port, "GET", "/ready"), 3)
        except TimeoutError:
            return True
        await asyncio.sleep(0.02)
    return False
