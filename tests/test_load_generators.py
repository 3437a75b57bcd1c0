"""Our live door as a client that is not our own sees it: the C programs of the benchmarks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import tool
from servers import Server
from wire import request

SOURCES = Path(__file__).parent.parent / "benchmarks" / "native"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    compiler = tool("cc")
    for source in SOURCES.glob("*.c"):
        subprocess.run(
            [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", folder / source.stem, source], check=True
        )
    return folder


def run(program: Path, *arguments: object) -> dict[str, Any]:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


async def test_200_readers_get_every_record_in_order(built: Path, server: Server, name: str) -> None:
    await request(server.port, "POST", f"/live/{name}", b"0", JSON)
    done = run(built / "fanout", server.port, f"/live/{name}", f"/live/{name}", 200, 0.5)
    assert (done["out_of_order"], done["behind"]) == (0, 0)
    assert done["deliveries"] == 200 * done["records"] > 0


async def test_readers_of_several_processes_get_every_record_in_order(built: Path, workers: Server, name: str) -> None:
    await request(workers.port, "POST", f"/live/{name}", b"0", JSON)
    done = run(built / "fanout", workers.port, f"/live/{name}", f"/live/{name}", 100, 0.5)
    assert (done["out_of_order"], done["behind"]) == (0, 0)


async def test_what_was_accepted_is_there(built: Path, server: Server, name: str) -> None:
    done = run(built / "appends", server.port, f"/live/{name}-%d", 16, 0.5, 256)
    lines = 0
    for number in range(16):
        lines += (await request(server.port, "GET", f"/files/{name}-{number}")).body.count(b"\n")
    assert lines == done["appends"] > 0
