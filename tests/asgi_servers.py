"""An application under the servers that people use, each in a process of its own."""

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

from conftest import missing
from servers import free_port
from wire import Connection

SERVERS = {
    "uvicorn": ["uvicorn", "--port", "{port}", "--log-level", "critical", "--no-access-log"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}", "--no-log"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}"],
}


@asynccontextmanager
async def running(server: str, application: Path, **environment: str) -> AsyncIterator[tuple[int, Process]]:
    """Run the ``app`` of a file under a server; yield its port and its process. It answers ``GET /ready``."""
    if importlib.util.find_spec(server) is None:
        missing(server)
    port = free_port()
    command = [argument.format(port=port) for argument in SERVERS[server]]
    paths = os.pathsep.join([str(application.parent), *filter(None, sys.path)])
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts in no time, and is awaited in a thread
        [sys.executable, "-m", *command, f"{application.stem}:app"],
        cwd=application.parent,
        env={**os.environ, "PYTHONPATH": paths, **environment},
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


Process = subprocess.Popen[bytes]
