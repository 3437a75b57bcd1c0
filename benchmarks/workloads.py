"""What is measured: each workload has its contenders, ours first, and returns what one of them did in one round."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import contenders, native
from benchmarks.contenders import Contender, Running
from benchmarks.native import MissingError
from benchmarks.peers.generators import COUNT

Measure = Callable[[Running, "Sizes"], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is moved.

    Attributes:
        file: what goes up and down.
        seconds: how long what has no end is measured.
        readers: of a fan-out, and of one of those that wait.
        many: files of small uploads.
    """

    file: Path
    seconds: float
    readers: int
    idle: int
    many: int


@dataclass(frozen=True, slots=True)
class Workload:
    """One comparison.

    Attributes:
        name: for the command line and the results.
        title: for people.
        unit: of the first value of what `measure` returns, by which contenders are compared.
        measure: does it once.
        contenders: ours first; the limits last.
        lower: whether less is better.
        quick: whether it belongs to the short form.
        whole: whether a round moves the file once, so that it can be told what a gigabyte costs.
    """

    name: str
    title: str
    unit: str
    measure: Measure
    contenders: tuple[Contender, ...]
    lower: bool = False
    quick: bool = field(default=False)
    whole: bool = field(default=False)


# -- bytes ------------------------------------------------------------------------------------------------------------


def upload(server: Running, sizes: Sizes) -> Mapping[str, float]:
    return {"MB/s": _curl("-T", str(sizes.file), f"{server.url}/files/upload", "-w", "%{speed_upload}")}


def form(server: Running, sizes: Sizes) -> Mapping[str, float]:
    path = "/form" if server.name in {contenders.NAIVE.name, contenders.TOOLKIT.name} else "/files/"
    began = time.perf_counter()
    _curl("-F", f"file=@{sizes.file}", f"{server.url}{path}", "-w", "%{speed_upload}")
    return {"MB/s": sizes.file.stat().st_size / 1e6 / (time.perf_counter() - began)}


def tus(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """A creation, and one PATCH of everything."""
    size = sizes.file.stat().st_size
    request = urllib.request.Request(
        f"{server.url}/files/" if server.name != contenders.TUS_NODE.name else f"{server.url}/files",
        method="POST",
        headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(size), "Upload-Metadata": "filename YS5iaW4="},
    )
    with urllib.request.urlopen(request) as answer:
        location = urllib.request.urljoin(request.full_url, answer.headers["location"])
    began = time.perf_counter()
    fields = ("Tus-Resumable: 1.0.0", "Upload-Offset: 0", "Content-Type: application/offset+octet-stream")
    headers = [part for field in fields for part in ("-H", field)]
    _curl("-X", "PATCH", "-T", str(sizes.file), *headers, location, "-w", "%{speed_upload}")
    return {"MB/s": size / 1e6 / (time.perf_counter() - began)}


def download(server: Running, sizes: Sizes) -> Mapping[str, float]:
    _there(server, sizes.file)
    return {"MB/s": _curl(f"{server.url}/files/upload", "-w", "%{speed_download}")}


def cold_download(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """The same of a file that is not in memory."""
    _there(server, sizes.file)
    for path in server.folder.rglob("*"):
        if path.is_file() and path.stat().st_size >= sizes.file.stat().st_size:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return download(server, sizes)


def downloads(files: int) -> Measure:
    """32 downloads at once, of so many files, each of them a 32nd of the file."""

    def measure(server: Running, sizes: Sizes) -> Mapping[str, float]:
        size = sizes.file.stat().st_size // 32
        part = server.folder / "part"
        urls = [f"{server.url}/files/part{number % files}" for number in range(32)]
        if not part.exists():
            with sizes.file.open("rb") as file:
                part.write_bytes(file.read(size))
            for url in dict.fromkeys(urls):
                _curl("-T", str(part), url, "-w", "%{speed_upload}")
        began = time.perf_counter()
        outputs = [argument for url in urls for argument in ("-o", "/dev/null", url)]
        subprocess.run(
            ["curl", "-sS", "--fail", "--no-progress-meter", "--parallel", "--parallel-max", "32", *outputs], check=True
        )
        return {"MB/s": 32 * size / 1e6 / (time.perf_counter() - began)}

    return measure


def ranges(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """Ranges of 64 KiB at random places, on 32 connections."""
    if shutil.which("wrk") is None:
        raise MissingError("wrk: apt-get install wrk")
    _there(server, sizes.file)
    script = server.folder / "ranges.lua"
    blocks = sizes.file.stat().st_size // 65536
    script.write_text(
        f"request = function() local at = math.random(0, {blocks - 1}) * 65536\n"
        "return wrk.format('GET', '/files/upload', {Range = 'bytes=' .. at .. '-' .. at + 65535}) end\n"
    )
    done = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{sizes.seconds:.0f}s", "-s", script, server.url],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    return {"/s": float(found[1])}


def small_uploads(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """Files of 10 KiB, on 32 connections."""
    prefix = f"/files/round{random.getrandbits(40):x}-"
    done = native.run("appends", server.port, f"{prefix}%d", 32, sizes.many, 10240, "application/octet-stream", "PUT")
    return {"/s": done["appends_per_second"], "p99 ms": done["p99_ms"]}


def _there(server: Running, file: Path) -> None:
    """Upload the file if it is not there yet."""
    marker = server.folder / "there"
    if not marker.exists() and not server.name.startswith("limit"):
        _curl("-T", str(file), f"{server.url}/files/upload", "-w", "%{speed_upload}")
        marker.touch()


def _curl(*arguments: str) -> float:
    done = subprocess.run(
        ["curl", "-sS", "--fail", "-o", "/dev/null", *arguments], check=True, capture_output=True, text=True
    )
    return float(done.stdout) / 1e6


# -- generators -------------------------------------------------------------------------------------------------------


def _items(path: str) -> Measure:
    def measure(server: Running, _: Sizes) -> Mapping[str, float]:
        return {"/s": COUNT / (1e6 * _curl(f"{server.url}{path}", "-w", "%{time_total}"))}

    return measure


def file_response(server: Running, _: Sizes) -> Mapping[str, float]:
    return {"MB/s": _curl(f"{server.url}/file", "-w", "%{speed_download}")}


def file_object(server: Running, _: Sizes) -> Mapping[str, float]:
    return {"MB/s": _curl(f"{server.url}/file-object", "-w", "%{speed_download}")}


def zipped(server: Running, _: Sizes) -> Mapping[str, float]:
    return {"MB/s": _curl(f"{server.url}/zip", "-w", "%{speed_download}")}


# -- live -------------------------------------------------------------------------------------------------------------


def fan_out(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """Records of 250 bytes, appended by one client as fast as they are accepted, to all readers."""
    get, post = _live(server, "fan")
    done = native.run("fanout", server.port, get, post, sizes.readers, sizes.seconds, 250)
    return {"deliveries/s": done["deliveries_per_second"], "p50 ms": done["p50_ms"], "p99 ms": done["p99_ms"]}


def paced_fan_out(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """The same, ten records a second."""
    get, post = _live(server, "paced")
    done = native.run("fanout", server.port, get, post, sizes.readers, sizes.seconds, 250, 10)
    return {"p99 ms": done["p99_ms"], "p50 ms": done["p50_ms"]}


def idle_readers(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """Readers of a stream in which nothing happens, and then one record for all of them."""
    get, post = _live(server, "idle")
    arguments = (server.port, get, post)
    native.run("fanout", *arguments, 50, 0)  # so that what is made at the first use is not counted
    memo = server.folder / "before"
    if not memo.exists():  # later, what the readers of the round before left behind would be among it
        memo.write_text(str(server.resident()))
    before = int(memo.read_text())
    process = subprocess.Popen(
        [native.program("fanout"), *map(str, arguments), str(sizes.idle), "0", "250", "0", "hold"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    connected = json.loads(process.stdout.readline())["connected"]
    memory = (server.resident() - before) / connected
    process.stdin.write("\n")
    process.stdin.flush()
    done = json.loads(process.stdout.readline())
    process.wait()
    return {"KiB a reader": memory / 1024, "ms to the last one": done["max_ms"]}


def _appends(connections: int) -> Measure:
    def measure(server: Running, sizes: Sizes) -> Mapping[str, float]:
        _, post = _live(server, "append%d", range(connections))
        done = native.run("appends", server.port, post, connections, sizes.seconds, 256)
        return {"/s": done["appends_per_second"], "p50 ms": done["p50_ms"], "p99 ms": done["p99_ms"]}

    return measure


def streamed_appends(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """Records of 256 bytes in one long POST."""
    line = b'{"n":1,"x":"' + b"x" * 241 + b'"}\n'
    count = sizes.file.stat().st_size // 4 // len(line)
    lines = server.folder / "lines"
    if not lines.exists():
        lines.write_bytes(line * count)
    url = f"{server.url}/live/streamed?stream"
    began = time.perf_counter()
    _curl("-X", "POST", "-T", str(lines), "-H", "Content-Type: application/x-ndjson", url, "-w", "%{speed_upload}")
    return {"/s": count / (time.perf_counter() - began)}


def catch_up(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """A closed stream of NDJSON from its beginning."""
    if not (server.folder / "log").with_name("history").exists():
        line = b'{"n":1,"x":"' + b"x" * 241 + b'"}\n'
        history = server.folder / "history"
        history.write_bytes(line * (sizes.file.stat().st_size // len(line)))
        _curl("-T", str(history), f"{server.url}/files/history", "-H", "Content-Type: application/x-ndjson",
              "-w", "%{speed_upload}")  # fmt: skip
    url = f"{server.url}/live/history?offset=0"
    return {"MB/s": _curl("-H", "Accept: application/x-ndjson", url, "-w", "%{speed_download}")}


def mixed(server: Running, sizes: Sizes) -> Mapping[str, float]:
    """How much longer a record takes to 100 readers while a file goes up and another one down, again and again."""
    _there(server, sizes.file)
    get, post = _live(server, "mixed")
    arguments = ("fanout", server.port, get, post, 100, sizes.seconds, 250, 50)
    idle = native.run(*arguments)
    over = threading.Event()

    def transfer(*arguments: str) -> None:
        while not over.is_set():
            _curl("--limit-rate", "200M", *arguments, "-w", "%{speed_download}")

    bulk = [
        threading.Thread(target=transfer, args=("-T", str(sizes.file), f"{server.url}/files/bulk")),
        threading.Thread(target=transfer, args=(f"{server.url}/files/upload",)),
    ]
    for thread in bulk:
        thread.start()
    busy = native.run(*arguments)
    over.set()
    for thread in bulk:
        thread.join()
    return {
        "times the idle p99": busy["p99_ms"] / idle["p99_ms"],
        "idle p99 ms": idle["p99_ms"],
        "p99 ms": busy["p99_ms"],
    }


def _live(server: Running, name: str, numbers: range | None = None) -> tuple[str, str]:
    """Return the paths that a stream is read from and appended to, having created it where that is needed."""
    names = [name] if numbers is None else [name % number for number in numbers]
    if server.name == contenders.DURABLE_NODE.name:
        for each in names:
            _send("PUT", f"{server.url}/v1/stream/{each}")
        return f"/v1/stream/{name}?offset=now&live=sse", f"/v1/stream/{name}"
    if server.name == contenders.NCHAN.name:
        for each in names:
            _send("POST", f"{server.url}/publish/{each}")
        return f"/live/{name}", f"/publish/{name}"
    if not server.name.startswith("limit"):
        for each in names:
            _send("POST", f"{server.url}/live/{each}")
    return f"/live/{name}", f"/live/{name}"


def _send(method: str, url: str) -> None:
    body = None if method == "PUT" else b'{"n":0}'
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    urllib.request.urlopen(request).close()


def all_workloads(size: int) -> tuple[Workload, ...]:
    """Return them all, for a file of ``size`` bytes."""
    c = contenders
    limit = c.limit_of_bytes(size)
    fan = (c.PENSTOCK, c.NCHAN, c.SSE_STARLETTE, c.DURABLE_NODE, c.LIMIT, c.LIMIT_BATCHED)
    generated = (c.TOOLKIT, c.NAIVE)
    return (
        Workload("upload", "Raw upload by curl, to the disk", "MB/s", upload,
                 (c.PENSTOCK, c.PENSTOCK_OS, c.NGINX_DAV, c.NAIVE, limit), quick=True, whole=True),
        Workload("form", "Form upload by curl", "MB/s", form, (c.PENSTOCK, c.NAIVE), whole=True),
        Workload("tus", "tus upload: a creation and one PATCH", "MB/s", tus,
                 (c.PENSTOCK, c.TUS_NODE, c.TUSPYSERVER), whole=True),
        Workload("small-uploads", "Small uploads: 10 KiB each, 32 connections", "/s", small_uploads,
                 (c.PENSTOCK_CORES, c.NGINX_CORES)),
        Workload("download", "Download by curl, warm", "MB/s", download,
                 (c.PENSTOCK, c.NGINX, c.NGINX_SENDFILE, c.NAIVE, limit), quick=True, whole=True),
        Workload("cold-download", "Download by curl, not in memory", "MB/s", cold_download,
                 (c.PENSTOCK, c.NGINX, c.NGINX_SENDFILE, c.NAIVE), whole=True),
        Workload("downloads", "32 downloads at once, of one file", "MB/s", downloads(1),
                 (c.PENSTOCK, c.NGINX, c.NGINX_SENDFILE), whole=True),
        Workload("downloads-of-many", "32 downloads at once, of 32 files", "MB/s", downloads(32),
                 (c.PENSTOCK, c.NGINX, c.NGINX_SENDFILE), whole=True),
        Workload("ranges", "Ranges of 64 KiB, 32 connections", "/s", ranges,
                 (c.PENSTOCK, c.NGINX, c.NGINX_SENDFILE)),
        Workload("body", "A body into a file, by a handler", "MB/s", upload, generated, whole=True),
        Workload("body-form", "A form's file into a file, by a handler", "MB/s", form, generated, whole=True),
        Workload("file", "A file of one's own by curl", "MB/s", file_response, generated, whole=True),
        Workload("file-object", "A file object by curl", "MB/s", file_object, generated),
        Workload("zip", "A zip of files by curl", "MB/s", zipped, generated),
        Workload("plain-generator", "Short lines of a plain generator", "/s", _items("/lines/plain"), generated),
        Workload("async-generator", "Short lines of an async generator", "/s", _items("/lines/async"), generated),
        Workload("ndjson", "Dicts of an async generator as NDJSON", "/s", _items("/ndjson"), generated),
        Workload("fan-out", "Fan-out, one client flat out", "deliveries/s", fan_out, fan, quick=True),
        Workload("paced-fan-out", "Fan-out, ten records a second", "p99 ms", paced_fan_out, fan, lower=True),
        Workload("idle-readers", "Readers that wait", "KiB a reader", idle_readers,
                 (c.PENSTOCK_CORES, c.NCHAN, c.SSE_STARLETTE), lower=True),
        Workload("append", "Appends of 256 bytes, 1 connection", "/s", _appends(1),
                 (c.PENSTOCK, c.PENSTOCK_OS, c.DURABLE_NODE)),
        Workload("appends", "Appends of 256 bytes, 64 connections", "/s", _appends(64),
                 (c.PENSTOCK_CORES, c.PENSTOCK, c.DURABLE_NODE), quick=True),
        Workload("streamed-appends", "Records of 256 bytes in one POST", "/s", streamed_appends, (c.PENSTOCK,)),
        Workload("catch-up", "Catch-up of NDJSON by curl", "MB/s", catch_up, (c.PENSTOCK,), whole=True),
        Workload("mixed", "Live records while files go up and down", "times the idle p99", mixed, (c.PENSTOCK,),
                 lower=True),
    )  # fmt: skip


def disk(file: Path) -> float:
    """Return the MB/s of writing the file and syncing it: the other limit of an upload."""
    data = os.urandom(1024 * 1024)
    count = file.stat().st_size // len(data)
    target = file.with_name("written")
    began = time.perf_counter()
    with target.open("wb", buffering=0) as out:
        for _ in range(count):
            out.write(data)
        os.fsync(out.fileno())
    took = time.perf_counter() - began
    target.unlink()
    return count * len(data) / 1e6 / took
