"""Every kind of response under the servers that people use, alone and behind Starlette's middlewares."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from asgi_servers import SERVERS, running
from wire import Connection, request, until

APPLICATION = Path(__file__).parent / "served_application.py"
ROWS = 2000
FILE = bytes(range(256)) * 5000
ITEMS = [{"n": number} for number in range(ROWS)]


def lines(body: bytes) -> object:
    return [json.loads(line) for line in body.splitlines()]


def rows(body: bytes) -> object:
    return [{"n": int(row["n"])} for row in csv.DictReader(io.StringIO(body.decode()))]


def events(body: bytes) -> object:
    return [json.loads(block.removeprefix("data: ")) for block in body.decode().split("\n\n")[:-1]]


def unzipped(body: bytes) -> object:
    archive = zipfile.ZipFile(io.BytesIO(body))
    return {name: archive.read(name) for name in archive.namelist()}


WHOLE: dict[str, tuple[Callable[[bytes], object], object]] = {
    "text": (bytes.decode, "".join(f"{number}\n" for number in range(ROWS))),
    "bytes": (len, 1000 * ROWS),
    "file-object": (bytes, FILE),
    "ndjson": (lines, ITEMS),
    "ndjson-plain": (lines, ITEMS),
    "json": (json.loads, ITEMS),
    "csv": (rows, ITEMS),
    "events": (events, ITEMS),
    "compressed": (lines, ITEMS),
    "file": (bytes, FILE),
    "zip": (unzipped, {"folder/a": b"a" * 1000, "folder/b/c": b"c"}),
    "stream": (bytes, b"a line\n" * ROWS),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(FILE)
    (tmp_path / "folder" / "b").mkdir(parents=True)
    (tmp_path / "folder" / "a").write_bytes(b"a" * 1000)
    (tmp_path / "folder" / "b" / "c").write_bytes(b"c")
    return tmp_path


@pytest.mark.parametrize("layers", ["no", "yes"])
@pytest.mark.parametrize("server", list(SERVERS))
async def test_every_kind_of_response(server: str, layers: str, folder: Path) -> None:
    async with running(server, APPLICATION, FOLDER=str(folder), LAYERS=layers) as (port, _):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"origin": "http://a"}) as client:
            for kind, (read, expected) in WHOLE.items():
                for coding in ("gzip", "identity"):
                    answer = await client.get(f"/whole/{kind}", headers={"accept-encoding": coding})
                    assert answer.status_code == 200, kind
                    assert read(answer.content) == expected, kind
                    if layers == "yes":
                        assert answer.headers["x-passed"] == "yes"
                        assert answer.headers["access-control-allow-origin"] == "*"
                    if kind == "compressed" and coding == "gzip":
                        assert answer.headers["content-encoding"] == "gzip"
            part = await client.get("/whole/file", headers={"range": "bytes=100-199", "accept-encoding": "identity"})
            assert (part.status_code, part.content) == (206, FILE[100:200])
            head = await client.head("/whole/file", headers={"accept-encoding": "identity"})
            assert (head.status_code, head.content) in {(200, b""), (405, b"")}
            assert (await client.get("/refused")).status_code == 404
            for coding in ("gzip", "identity"):
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/broken", headers={"accept-encoding": coding})

        for number, kind in enumerate(("text", "plain", "events", "ndjson", "compressed"), 1):
            async with Connection(port) as connection:
                await connection.begin("GET", f"/endless/{kind}", {"accept-encoding": "gzip"})
                await connection.head()
                await anext(connection.body())

            async def ended() -> dict[str, int]:
                state = (await request(port, "GET", "/state")).json()
                return {"running": state["running"], **state["ended"]}

            await until(ended, {"running": 0, "disconnected": number})
