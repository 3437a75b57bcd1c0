"""Endings under the servers that people use: what each of them makes of a stop, and of a body that broke off."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conftest import missing
from servers import free_port
from wire import Broken, Connection

SERVERS = {
    "uvicorn": ["uvicorn", "--port", "{port}", "--log-level", "critical"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}", "--no-log"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}"],
}


@asynccontextmanager
async def running(server: str, notes: Path) -> AsyncIterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the live application under a server; yield its port and its process."""
    if importlib.util.find_spec(server) is None:
        missing(server)
    port = free_port()
    command = [argument.format(port=port) for argument in SERVERS[server]]
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts in no time, and is awaited in a thread
        [sys.executable, "-m", *command, "live_application:app"],
        cwd=Path(__file__).parent,
        env={**os.environ, "NOTES": str(notes)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    async with Connection(port) as connection:
                        await connection.request("GET", "/ready")
                        break
                except OSError:
                    assert process.poll() is None, f"{server} did not start"
                    await asyncio.sleep(0.05)
        yield port, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_a_stop_ends_live_streams_properly_and_lets_the_server_go(server: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with running(server, notes) as (port, process):
        async with Connection(port) as connection:
            await connection.begin("GET", "/events")
            await connection.head()
            body = connection.body()
            assert await anext(body) == b'data: {"n":1}\n\n'
            process.terminate()
            assert (
                b"".join([data async for data in body]) == b"retry: 1000\n\n"
            )  # with its last chunk: else this raises
        await asyncio.to_thread(process.wait, 20)
    assert notes.read_text().split() == ["closed", "stopping"]


@pytest.mark.parametrize("server", list(SERVERS))
async def test_a_body_that_failed_never_looks_complete(server: str, tmp_path: Path) -> None:
    async with running(server, tmp_path / "notes") as (port, _), Connection(port) as connection:
        with pytest.raises(Broken):
            await connection.request("GET", "/broken")
        assert connection.status == 200
