"""What is measured: each workload takes a server's URL and returns a rate; higher is better."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.generators import COUNT

RECORD = b'{"sensor": 1, "value": 20.5, "unit": "C", "note": "' + b"x" * 190 + b'"}'


def upload(url: str, file: Path) -> float:
    """MB/s of a PUT by curl, to the answer: for penstock with fsync, to the disk."""
    return _curl("-T", str(file), f"{url}/files/upload", "-w", "%{speed_upload}")


def download(url: str, file: Path) -> float:
    """MB/s of a GET by curl, of a file that is in memory."""
    del file  # what `upload` left
    return _curl(f"{url}/files/upload", "-w", "%{speed_download}")


def _curl(*arguments: str) -> float:
    done = subprocess.run(
        ["curl", "-sS", "--fail", "-o", "/dev/null", *arguments], check=True, capture_output=True, text=True
    )
    return float(done.stdout) / 1e6


def file_response(url: str, file: Path) -> float:
    """MB/s of a GET by curl of a file that is in memory, from a handler."""
    del file  # the servers were told of it
    return _curl(f"{url}/file", "-w", "%{speed_download}")


def file_object(url: str, file: Path) -> float:
    """MB/s of a GET by curl of a `BytesIO` of short lines."""
    del file
    return _curl(f"{url}/file-object", "-w", "%{speed_download}")


def plain_generator(url: str, file: Path) -> float:
    """Lines/s of a plain generator of short lines."""
    return _items(f"{url}/lines/plain", file)


def async_generator(url: str, file: Path) -> float:
    """Lines/s of an async generator of short lines."""
    return _items(f"{url}/lines/async", file)


def ndjson(url: str, file: Path) -> float:
    """Rows/s of an async generator of small dicts, as JSON lines."""
    return _items(f"{url}/ndjson", file)


def _items(url: str, file: Path) -> float:
    del file
    return COUNT / (1e6 * _curl(url, "-w", "%{time_total}"))


def appends_by_one(url: str, file: Path) -> float:
    """Appends/s over one connection, each waiting for its answer."""
    del file
    return asyncio.run(_append(url, connections=1, each=1500))


def appends_by_64(url: str, file: Path) -> float:
    """Appends/s over 64 connections to 64 streams."""
    del file
    return asyncio.run(_append(url, connections=64, each=150))


async def _append(url: str, connections: int, each: int) -> float:
    begin = time.perf_counter()
    await asyncio.gather(*(_append_on_one(url, f"bench-{number}", each) for number in range(connections)))
    return connections * each / (time.perf_counter() - begin)


async def _append_on_one(url: str, name: str, count: int) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /live/{name} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(RECORD) + RECORD
    for _ in range(count):
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer[9:11] != b"20":
            raise RuntimeError(answer.decode())
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
