"""The official tests of the Durable Streams protocol, all of them, against the local store."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from conftest import JAVASCRIPT, node
from servers import Server

TESTS = 338
LONG_POLL = 1
ENVIRONMENT = {"PENSTOCK_LONG_POLL": str(LONG_POLL), "PENSTOCK_LOCAL_WEBHOOKS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 4])
def test_the_official_tests_pass(tmp_path: Path, workers: int) -> None:
    report = tmp_path / "report.json"
    vitest = [node(), "node_modules/vitest/vitest.mjs", "run", "durable-conformance.test.js"]
    patience = "--testTimeout=60000"  # one test makes 100,000 assertions: on a busy machine, more than 5 seconds' work
    with Server(tmp_path / "data", "--workers", str(workers), environment=ENVIRONMENT) as server:
        run = subprocess.run(
            [*vitest, patience, "--reporter=json", f"--outputFile={report}"],
            cwd=JAVASCRIPT,
            env={**os.environ, "PENSTOCK_URL": server.url, "PENSTOCK_LONG_POLL": str(LONG_POLL)},
            capture_output=True,
            text=True,
            check=False,
        )
        log = server.log.read_text()
    result = json.loads(report.read_text()) if report.exists() else {}
    failed = [
        (test["fullName"], *test["failureMessages"])
        for file in result.get("testResults", ())
        for test in file["assertionResults"]
        if test["status"] != "passed"
    ]
    assert not failed
    assert (result.get("numPassedTests"), result.get("numTotalTests")) == (TESTS, TESTS), run.stderr + run.stdout
    assert run.returncode == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
async def test_the_official_client_follows_leaves_and_resumes(server: Server, name: str, mode: str) -> None:
    result = await _client(f"{server.url}/v1/stream/{name}", mode)
    assert result == {"seen": list(range(50)), "closed": True}


async def test_the_official_client_writes_and_reads(workers: Server, name: str) -> None:
    result = await _client(f"{workers.url}/v1/stream/{name}", "write")
    assert result["items"] == [{"n": n} for n in range(103)]
    assert result["rest"] == [{"n": n} for n in range(103, 106)]


async def _client(url: str, mode: str) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        node(), "durable-client.js", url, mode, cwd=JAVASCRIPT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    result: dict[str, object] = json.loads(out)
    return result
