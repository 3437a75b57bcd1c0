"""A server that is told to stop while an event stream is open."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from asgi_servers import running
from wire import Connection

APPLICATION = Path(__file__).parent / "stock_application.py"


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_stock_never_stops(server: str, tmp_path: Path) -> None:
    notes = str(tmp_path / "notes")
    async with running(server, APPLICATION, NOTES=notes) as (port, process), Connection(port) as connection:
        await connection.begin("GET", "/stock/events")
        await connection.head()
        await anext(connection.body())
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 2)


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_ours_gets_a_proper_end_and_lets_the_server_go(server: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with running(server, APPLICATION, NOTES=str(notes), DEADLINE="30") as (port, process):
        async with Connection(port) as connection:
            await connection.begin("GET", "/ours/events")
            await connection.head()
            body = connection.body()
            assert await anext(body) == b'data: {"n":1}\n\n'
            process.terminate()
            assert (
                b"".join([data async for data in body]) == b"retry: 1000\n\n"
            )  # with its last chunk: else this raises
        await asyncio.to_thread(process.wait, 20)
    assert notes.read_text().split() == ["closed", "stopping"]


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_what_has_no_end_for_too_long_is_broken_off(server: str, tmp_path: Path) -> None:
    async with running(server, APPLICATION, NOTES=str(tmp_path / "notes"), DEADLINE="0.3") as (port, process):
        async with Connection(port) as connection:
            await connection.begin("GET", "/ours/text")
            await connection.head()
            body = connection.body()
            await anext(body)
            process.terminate()
            with pytest.raises(ConnectionError):
                async for _ in body:
                    pass
        await asyncio.to_thread(process.wait, 20)
