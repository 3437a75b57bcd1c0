"""Resumable uploads on several worker processes of one server: which of them a request reaches does not matter."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import processes
from conftest import missing
from resuming import PARTIAL, Client, Told, told
from servers import Server, free_port
from wire import Connection, request, until

pytestmark = [
    pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc for which process has which connection"),
    pytest.mark.xdist_group("workers"),
]


async def elsewhere(port: int, pid: int, connection: Connection) -> Connection:
    """Open a connection to another worker than that of a connection that is open."""
    pids = processes.workers(pid)

    async def accepted() -> bool:
        return bool(processes.owner_of({0: connection.local_port}, pids))

    await until(accepted, True)
    home = processes.owner_of({0: connection.local_port}, pids)[0]
    for _ in range(300):
        other = await Connection(port).open()
        await other.request("GET", "/readyz")
        if processes.owner_of({0: other.local_port}, pids).get(0, home) != home:
            return other
        other.close()
    raise AssertionError("the connections do not reach other workers")


async def ask(connection: Connection, client: Client, method: str, path: str, fields: dict[str, str]) -> Told:
    await connection.begin(method, path, client.fields(None, **fields))
    return await told(connection)


async def test_who_asks_another_worker_takes_over_there(workers: Server, name: str) -> None:
    client = Client(workers.port)
    body = random.Random(6).randbytes(1_000_000)
    location = (await client.create(f"/files/{name}", b"", complete=False)).headers["location"]
    async with Connection(workers.port) as stale:
        fields = client.fields(True, content_type=PARTIAL, upload_offset="0", content_length=str(len(body)))
        await stale.begin("PATCH", location, fields)
        await stale.write(body[:400_000])

        async def tail() -> str:
            return (await request(workers.port, "HEAD", f"/files/{name}")).headers["stream-tail"]

        await until(tail, "400000")
        other = await elsewhere(workers.port, workers.pid, stale)
        seen = await ask(other, client, "HEAD", location, {})
        assert seen.headers["upload-offset"] == "400000"
        evicted = await asyncio.wait_for(told(stale), 10)  # at once, although nothing more comes on its connection
        assert (evicted.status, evicted.headers["upload-complete"]) == (409, "?0")
        other.close()
    done = await client.append(location, body[400_000:], 400_000)
    assert done.status == 201
    assert (await request(workers.port, "GET", f"/files/{name}")).body == body


async def test_who_cancels_at_another_worker_ends_it_there(workers: Server, name: str) -> None:
    client = Client(workers.port)
    location = (await client.create(f"/files/{name}", b"", complete=False)).headers["location"]
    async with Connection(workers.port) as stale:
        fields = client.fields(True, content_type=PARTIAL, upload_offset="0", content_length="1000000")
        await stale.begin("PATCH", location, fields)
        await stale.write(b"abc")
        other = await elsewhere(workers.port, workers.pid, stale)
        assert (await ask(other, client, "DELETE", location, {})).status == 204
        assert (await asyncio.wait_for(told(stale), 10)).status == 404
        other.close()


class Application:
    """An application with an endpoint of its own, in three processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--workers", "3", "--port", str(self.port)]
        command += ["--timeout-worker-healthcheck", "60"]  # or a slow machine's workers never get to begin
        command += ["--http", "penstock.server.protocol:InformationalProtocol", "resumable_application:app"]
        environment = {"RESUMABLE_FOLDER": str(folder), "PYTHONPATH": str(Path(__file__).parents[1] / "doors")}
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def calls(self) -> list[int]:
        """The processes in which the endpoint was called."""
        path = self.folder / "calls"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def go(self) -> None:
        (self.folder / "go").touch()

    async def ready(self) -> None:
        async def status() -> Any:
            with suppress(OSError):
                return (await request(self.port, "GET", "/readyz")).status
            return None

        await until(status, 200, 60)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    if not processes.AVAILABLE:
        missing("/proc")
    running = Application(tmp_path)
    try:
        asyncio.run(running.ready())
        yield running
    finally:
        running.kill()


async def called(application: Application, client: Client, connection: Connection) -> str:
    """Upload in one request, and return the upload's URL once the endpoint was called."""
    await connection.begin("PUT", "/slow", client.fields(True, content_length="3"))
    assert await connection.head() == 104
    await connection.write(b"abc")
    await until(lambda: _number(application), 1)
    return connection.headers["location"]


async def test_an_endpoint_is_called_once_whichever_worker_is_asked(application: Application) -> None:
    client = Client(application.port)
    async with Connection(application.port) as connection:
        location = await called(application, client, connection)
        other = await elsewhere(application.port, application.pid, connection)
    assert (await ask(other, client, "HEAD", location, {})).headers["upload-complete"] == "?0"
    fields = {"content_type": PARTIAL, "upload_offset": "3", "upload_complete": "?1", "content_length": "0"}
    waiting = asyncio.create_task(ask(other, client, "PATCH", location, fields))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    application.go()
    done = await waiting
    assert (done.status, done.answer.json(), done.headers["upload-complete"]) == (200, {"size": 3}, "?1")
    assert len(application.calls()) == 1
    other.close()


async def _number(application: Application) -> int:
    return len(await asyncio.to_thread(application.calls))


async def test_an_endpoint_whose_process_was_killed_is_called_again(application: Application) -> None:
    client = Client(application.port)
    async with Connection(application.port) as connection:
        location = await called(application, client, connection)
        [victim] = application.calls()
        os.kill(victim, signal.SIGKILL)
    application.go()
    seen = await client.look(location)
    assert (seen.headers["upload-offset"], seen.headers["upload-complete"]) == ("3", "?0")
    done = await client.append(location, b"", 3)  # once it is known that the other one is gone
    assert (done.status, done.answer.json()) == (200, {"size": 3})
    assert len(application.calls()) == 2
