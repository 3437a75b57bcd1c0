"""The examples, and the Python in the README, do what they say."""

from __future__ import annotations

import io
import json
import runpy
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from applications import serving

ROOT = Path(__file__).parent.parent
KEY = {"x-key": "secret"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # ./data is there


def readme_application() -> dict[str, Any]:
    """Run the README's Python, and return what it defines."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.split("```")[0], "README.md", "exec"), names)  # noqa: S102 - our own words
    return names


@asynccontextmanager
async def example(name: str) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """Serve an example, and yield a client and the URL."""
    app = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["app"]
    async with serving(app) as port, httpx.AsyncClient() as client:
        yield client, f"http://127.0.0.1:{port}"


async def test_the_readmes_application_stores_files_and_readings() -> None:
    async with serving(readme_application()["app"]) as port, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}"
        assert (await client.put(f"{url}/files/a.txt", content=b"hello")).status_code == 201
        assert (await client.get(f"{url}/files/a.txt")).text == "hello"
        assert (await client.post(f"{url}/readings?celsius=21.5")).json() == {"offset": 5}
        assert (await client.get(f"{url}/files/readings")).text == "21.5\n"


async def test_the_application_keeps_its_streams_and_its_key() -> None:
    async with example("application") as (client, url):
        assert (await client.put(f"{url}/files/a.txt", content=b"hello")).status_code == 403
        assert (await client.put(f"{url}/files/a.txt", content=b"hello", headers=KEY)).status_code == 201
        assert (await client.get(f"{url}/files/uploads")).text == "a.txt\n"
        assert (await client.post(f"{url}/readings?celsius=21.5")).status_code == 401
        assert (await client.post(f"{url}/readings?celsius=21.5", headers=KEY)).json() == {"offset": 17}
        assert (await client.get(f"{url}/files/readings")).json() == {"celsius": 21.5}


async def test_a_large_text_comes_whole() -> None:
    async with example("large_text") as (client, url):
        text = (await client.get(f"{url}/numbers?count=100000")).text
    assert text == "".join(f"{number}\n" for number in range(100_000))


async def test_large_files_go_up_and_come_down_in_ranges() -> None:
    async with example("large_files") as (client, url):
        content = bytes(range(256)) * 10_000
        assert (await client.put(f"{url}/a.bin", content=content)).json() == {"size": len(content)}
        assert (await client.get(f"{url}/a.bin")).content == content
        part = await client.get(f"{url}/a.bin", headers={"range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, content[1000:2000])
        assert (await client.get(f"{url}/b.bin")).status_code == 404
        assert (await client.put(f"{url}/.b", content=b"")).status_code == 400


async def test_rows_go_in_as_csv_and_come_out_in_two_formats() -> None:
    async with example("rows") as (client, url):
        body = "sensor,celsius\nroof,21.5\ncellar,9\n"
        csv = {"content-type": "text/csv"}
        assert (await client.post(f"{url}/readings", content=body, headers=csv)).json() == {"inserted": 2}
        assert (await client.get(f"{url}/readings.csv")).text == "sensor,celsius\r\nroof,21.5\r\ncellar,9.0\r\n"
        lines = (await client.get(f"{url}/readings.ndjson")).text.splitlines()
        assert json.loads(lines[1]) == {"sensor": "cellar", "celsius": 9.0}
        wrong = await client.post(f"{url}/readings", content="sensor,celsius\nroof,warm\n", headers=csv)
        assert wrong.status_code == 422
        assert wrong.headers["content-type"] == "application/problem+json"


async def test_errors_are_answers_first_and_broken_bodies_later() -> None:
    async with example("errors") as (client, url):
        assert (await client.get(url)).text.count("\n") == 5
        assert (await client.get(f"{url}/?fail_at=0")).status_code == 404
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{url}/?fail_at=3")


async def test_tokens_are_there_for_who_comes_back() -> None:
    async with example("token_stream") as (client, url):
        live = (await client.post(f"{url}/answers/1?question=why")).json()["events"]
        first = (await client.get(f"{url}{live}")).text  # follows to the end
        assert first.count("event: end") == 1
        assert 'data: "wonder"\n' in first
        assert (await client.post(f"{url}/answers/1?question=why")).json()["events"] == live
        assert (await client.get(f"{url}{live}")).text == first
        live = (await client.post(f"{url}/answers/2?question=why")).json()["events"]
        assert (await client.delete(f"{url}/answers/2")).status_code == 204
        assert "The question was withdrawn." in (await client.get(f"{url}{live}")).text


async def test_sensors_reach_who_looks_and_their_history_is_a_zip(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "a.csv").write_text("roof,21.5\n")
    async with example("sensors") as (client, url):
        reading = {"sensor": "roof", "celsius": 21.5}
        async with client.stream("GET", f"{url}/sensors") as response:
            assert (await client.post(f"{url}/sensors", json=reading)).json() == {"readers": 1}
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    assert json.loads(line[5:]) == reading
                    break
        archive = zipfile.ZipFile(io.BytesIO((await client.get(f"{url}/history.zip")).content))
        assert archive.read("history/a.csv") == b"roof,21.5\n"


async def test_a_proxy_passes_on_bodies_and_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    async with example("large_files") as (client, upstream):
        await client.put(f"{upstream}/a.bin", content=b"x" * 1_000_000)
        monkeypatch.setenv("UPSTREAM", upstream)
        async with example("proxy") as (_, url):
            assert (await client.get(f"{url}/a.bin")).content == b"x" * 1_000_000
            assert (await client.get(f"{url}/b.bin")).status_code == 404
