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
        if freezes:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask_forever(port), 2)
        else:
            for _ in range(50):
                assert (await request(port, "GET", "/ready")).status == 200


async def ask_forever(port: int) -> None:
    while True:  # at first the server may not have heard of it
        await request(port, "GET", "/ready")
