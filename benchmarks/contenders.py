"""The servers that are compared, each in processes of its own on a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.native import MissingError, program
from benchmarks.peers.nginx import MODULES, write_conf

CORES = os.cpu_count() or 1
_NODE = Path(__file__).parent / "peers" / "node"

Command = list[str | Path]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to be compared.

    Attributes:
        name: how it is called in tables.
        command: returns its command line, for a port and a folder of its own.
        needs: raises `MissingError` if it is not there.
    """

    name: str
    command: Callable[[int, Path], Command]
    needs: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that runs.

    Attributes:
        name: the contender's.
        port: where it listens.
        pid: its first process.
        folder: what it was given to keep its data in.
    """

    name: str
    port: int
    pid: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resident(self) -> int:
        """Return the memory that its processes hold beside files' pages, in bytes."""
        told = [Path(f"/proc/{pid}/status").read_text() for pid in _tree(self.pid)]
        lines = [line.split() for text in told for line in text.splitlines()]
        return sum(int(line[1]) * 1024 for line in lines if line[0] == "RssAnon:")

    def processor(self) -> float:
        """Return the seconds of processor time that its processes have taken."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in _tree(self.pid)]
        return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def _penstock(name: str, *options: str) -> Contender:
    def command(port: int, folder: Path) -> Command:
        return [sys.executable, "-m", "penstock", "serve", "--port", str(port), "--data", folder / "data", *options]

    return Contender(name, command)


def _application(name: str, module: str, *packages: str) -> Contender:
    def command(port: int, _: Path) -> Command:
        options = ["--port", str(port), "--no-access-log", "--http", "httptools", "--loop", "uvloop"]
        return [sys.executable, "-m", "uvicorn", f"benchmarks.peers.{module}:app", *options]

    def needs() -> None:
        for package in packages:
            if importlib.util.find_spec(package.replace("-", "_")) is None:
                raise MissingError(f"{package}: {sys.executable} -m pip install {package}")

    return Contender(name, command, needs)


def _nginx(name: str, *, workers: int = 1, sendfile: bool = False, nchan: bool = False) -> Contender:
    def command(port: int, folder: Path) -> Command:
        conf = write_conf(folder, port, workers=workers, sendfile=sendfile, nchan=nchan)
        return ["nginx", "-p", folder, "-e", folder / "error.log", "-c", conf]

    def needs() -> None:
        if shutil.which("nginx") is None:
            raise MissingError("nginx: apt-get install nginx")
        if nchan and not (MODULES / "ngx_nchan_module.so").exists():
            raise MissingError("nchan: apt-get install libnginx-mod-nchan")

    return Contender(name, command, needs)


def _node(name: str, script: str) -> Contender:
    def command(port: int, folder: Path) -> Command:
        return ["node", _NODE / script, str(port), folder]

    def needs() -> None:
        if shutil.which("node") is None:
            raise MissingError("node: apt-get install nodejs npm")
        if not (_NODE / "node_modules").exists():
            raise MissingError(f"packages of node: npm install --prefix {_NODE}")

    return Contender(name, command, needs)


def _native(name: str, *arguments: str) -> Contender:
    def command(port: int, _: Path) -> Command:
        return [program(arguments[0]), str(port), *arguments[1:]]

    def needs() -> None:
        program(arguments[0])

    return Contender(name, command, needs)


PENSTOCK = _penstock("penstock")
PENSTOCK_OS = _penstock("penstock, no fsync", "--durability", "os")
PENSTOCK_CORES = _penstock(f"penstock, {CORES} workers", "--workers", str(CORES))
TOOLKIT = _application("FastAPI with penstock", "toolkit")
NAIVE = _application("FastAPI as in tutorials", "naive", "python-multipart")
SSE_STARLETTE = _application("sse-starlette", "sse", "sse-starlette")
TUSPYSERVER = _application("tuspyserver", "tus", "tuspyserver")
NGINX = _nginx("nginx")
NGINX_SENDFILE = _nginx("nginx, sendfile", sendfile=True)
NGINX_CORES = _nginx(f"nginx WebDAV, {CORES} workers, no fsync", workers=CORES)
NGINX_DAV = _nginx("nginx WebDAV, no fsync")
NCHAN = _nginx("nchan", nchan=True)
DURABLE_NODE = _node("@durable-streams/server, in memory", "durable.js")
TUS_NODE = _node("@tus/server", "tus.js")
LIMIT = _native("limit: a send a reader and record", "limit")
LIMIT_BATCHED = _native("limit: sends joined", "limit", "batched")


def limit_of_bytes(size: int) -> Contender:
    """Return the server that only moves bytes."""
    return _native("limit: no more than the bytes", "bytes", str(size))


@contextmanager
def running(contender: Contender, folder: Path, file: Path) -> Iterator[Running]:
    """Run a contender on a new folder; it may serve a file."""
    folder.mkdir(parents=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            contender.command(port, folder),
            env={**os.environ, "BENCH_FOLDER": str(folder), "BENCH_FILE": str(file)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(port, process, folder / "log")
        yield Running(contender.name, port, process.pid, folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tree(pid: int) -> list[int]:
    """Return a process and all that it started."""
    children = [
        child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(each for child in children for each in _tree(int(child)))]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except urllib.error.HTTPError:  # it answers, if only that it does not know of this
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{process.args} does not answer:\n{log.read_text()}")
