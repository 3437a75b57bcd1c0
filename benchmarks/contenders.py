"""The servers that are compared, each in a process of its own on a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PENSTOCK = "penstock"
PENSTOCK_OS = "penstock, no fsync"
NAIVE = "FastAPI, as in tutorials"
TOOLKIT = "FastAPI with penstock"
_APPLICATIONS = {NAIVE: "benchmarks.naive:app", TOOLKIT: "benchmarks.toolkit:app"}


def _command(contender: str, port: int, folder: Path) -> list[str]:
    if contender in _APPLICATIONS:
        options = ["--port", str(port), "--no-access-log", "--http", "httptools", "--loop", "uvloop"]
        return [sys.executable, "-m", "uvicorn", _APPLICATIONS[contender], *options]
    durability = "os" if contender == PENSTOCK_OS else "fsync"
    options = ["--port", str(port), "--data", str(folder), "--durability", durability]
    return [sys.executable, "-m", "penstock", "serve", *options]


@contextmanager
def running(contender: str, folder: Path, file: Path) -> Iterator[str]:
    """Run a contender, which may serve a file, and lend its URL."""
    folder.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        _command(contender, port, folder),
        env={**os.environ, "BENCH_FOLDER": str(folder), "BENCH_FILE": str(file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=1).close()  # noqa: S310 - our own URL
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{url} does not answer")
