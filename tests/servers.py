"""A real server in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """``penstock serve`` on a folder. Start it again on the same folder as often as you like."""

    def __init__(
        self, data: Path, *options: str, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log or data.parent / f"{data.name}.log"
        self._options = options
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    def start(self) -> Self:
        """Start it, and wait until it takes requests."""
        command = [sys.executable, "-m", "penstock", "serve", "--port", str(self.port), "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # so that all of its processes can be killed at once
            )
        self._asked = False
        deadline = time.monotonic() + 30
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")
            time.sleep(0.02)
        return self

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:  # noqa: S310 - our own URL
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    @property
    def pid(self) -> int:
        """The process that was started; with several workers, their parent."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End all of its processes as a crash would."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._wait()

    def stop(self) -> int:
        """Ask it to stop, wait until it has, and return its exit code."""
        if self._process is not None and self._process.poll() is None and not self._asked:
            self._process.terminate()  # once: a second signal may end the interpreter in its last moments
        return self._wait()

    def terminate(self) -> None:
        """Ask it to stop, and return at once."""
        assert self._process is not None
        self._process.terminate()
        self._asked = True

    def _wait(self) -> int:
        if self._process is None:
            return 0
        return self._process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
