"""The examples, and the Python in the README, do what they say."""

from __future__ import annotations

import asyncio
import io
import json
import runpy
import sqlite3
import zipfile
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from applications import serving
from browser import browsing
from conftest import tool
from wire import until

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


async def test_rows_come_out_in_two_formats() -> None:
    async with example("rows") as (client, url):
        assert (await client.get(f"{url}/readings.csv")).text == "sensor,celsius\r\nroof,21.5\r\n"
        assert (await client.get(f"{url}/readings.ndjson")).json() == {"sensor": "roof", "celsius": 21.5}


async def test_a_csv_goes_into_a_database_whole_or_without_what_is_wrong_as_one_says() -> None:
    rows = [f"s{number},{number / 10}" for number in range(10_000)]
    csv = {"content-type": "text/csv"}
    async with example("csv_import") as (client, url):
        body = "\n".join(["sensor,celsius", *rows])
        done = await client.post(f"{url}/readings", content=body, headers=csv)
        assert done.json() == {"inserted": 10_000, "skipped": 0, "errors": []}
        rows[8_000] = "s,warm"
        body = "\n".join(["sensor,celsius", *rows])
        refused = await client.post(f"{url}/readings", content=body, headers=csv)
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
        assert refused.json()["record"] == 8_001
        assert body.encode()[refused.json()["offset"] :].startswith(b"s,warm")
        with closing(sqlite3.connect("imported.db")) as database:
            assert database.execute("SELECT count(*), max(celsius) FROM readings").fetchone() == (10_000, 999.9)
            done = await client.post(f"{url}/readings?on_error=skip", content=body, headers=csv)
            assert (done.json()["inserted"], done.json()["skipped"]) == (9_999, 1)
            assert done.json()["errors"][0]["record"] == 8_001
            assert database.execute("SELECT count(*) FROM readings").fetchone() == (19_999,)


async def test_an_upload_in_chunks_can_be_watched() -> None:
    async with example("chunked_upload") as (client, url):
        data = bytes(range(256)) * 10_000
        done = await client.put(f"{url}/uploads/a", content=data)
        assert done.json() == {"size": len(data), "crc32": zlib.crc32(data)}
        live = (await client.get(f"{url}/live/progress/a?offset=0")).text
        assert f'data: {{"received":{len(data)},"total":{len(data)},"state":"complete"}}' in live


async def test_errors_are_answers_first_and_broken_bodies_later() -> None:
    async with example("errors") as (client, url):
        assert (await client.get(url)).text.endswith('{"row":4}\n{"end":{"reason":"complete","items":5,"bytes":50}}\n')
        assert (await client.get(f"{url}/?fail_at=0")).status_code == 404
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{url}/?fail_at=3")


async def test_a_chat_is_there_for_who_comes_later(tmp_path: Path) -> None:
    tool("chromium")
    async with example("chat") as (client, url), browsing(tmp_path / "profile") as page:
        assert (await client.post(f"{url}/rooms/lobby", json={"who": "me", "text": "hello"})).status_code == 200
        assert (await client.post(f"{url}/rooms/lobby", json={"who": "me"})).status_code == 422
        await page.go(f"{url}/")

        async def shown() -> str:
            return str(await page.run("document.querySelector('ul').textContent"))

        await until(shown, "me: hello")
        await page.run("document.forms[0][0].value = 'hi'; document.forms[0].requestSubmit()")
        await until(shown, "me: hellosomebody: hi")


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


async def test_sensors_reach_who_looks() -> None:
    async with example("sensors") as (client, url):
        reading = {"sensor": "roof", "celsius": 21.5}
        async with client.stream("GET", f"{url}/sensors") as response:
            assert (await client.post(f"{url}/sensors", json=reading)).json() == {"readers": 1}
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    assert json.loads(line[5:]) == reading
                    break


async def test_a_folder_is_a_zip(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.txt").write_text("one\n")
    async with example("zip_folder") as (client, url):
        archive = zipfile.ZipFile(io.BytesIO((await client.get(f"{url}/photos.zip")).content))
        assert archive.read("photos/1.txt") == b"one\n"


async def test_a_proxy_passes_on_bodies_and_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    async with example("large_files") as (client, upstream):
        await client.put(f"{upstream}/a.bin", content=b"x" * 1_000_000)
        monkeypatch.setenv("UPSTREAM", upstream)
        async with example("proxy") as (_, url):
            assert (await client.get(f"{url}/a.bin")).content == b"x" * 1_000_000
            assert (await client.get(f"{url}/b.bin")).status_code == 404


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*")}


async def test_the_video_is_saved_when_all_of_it_is_there() -> None:
    async with example("resumable_upload") as (client, url):
        begun = await client.post(f"{url}/videos?title=x", content=b"abc", headers={"upload-complete": "?0"})
        assert (begun.status_code, begun.headers["upload-offset"]) == (201, "3")
        assert contents("videos") == {}
        fields = {"upload-complete": "?1", "upload-offset": "3", "content-type": "application/partial-upload"}
        done = await client.patch(f"{url}{begun.headers['location']}", content=b"def", headers=fields)
        assert done.json() == {"title": "x", "size": 6}
        assert contents("videos") == {"x.mp4": b"abcdef"}
        plain = await client.post(f"{url}/videos?title=y", content=b"abc")
        assert plain.json() == {"title": "y", "size": 3}


# -- as printed -------------------------------------------------------------------------------------------------------


def commands_of(name: str) -> list[str]:
    """Return what an example's text says to type, after the server's start."""
    text = (ROOT / "examples" / f"{name}.py").read_text().split('"""')[1]
    lines = [line for line in text.splitlines() if line.startswith(("curl ", "mkdir ", "UPSTREAM=", "uvicorn "))]
    assert f"uvicorn examples.{name}:app" in lines[0]
    return lines[1:]


async def typed(command: str, port: int, folder: Path) -> int:
    """Run a command as a person types it, and return its exit code; of what runs on in the background, 0."""
    command, _, comment = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}").partition("  #")
    background = command.rstrip().endswith("&")
    options = "-sS --max-time 30" if "404" in comment else "-sS --max-time 30 --fail-with-body"
    process = await asyncio.create_subprocess_shell(
        command.rstrip(" &").replace("curl ", f"exec curl {options} ", 1), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    if background:
        assert await process.stdout.read(1)  # it is there, and gets something
        with pytest.raises(TimeoutError):  # and waits for more
            await asyncio.wait_for(process.wait(), 0.2)
        process.kill()
        await process.wait()
        return 0
    await process.stdout.read()
    return await process.wait()


EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
async def test_what_an_example_says_to_type_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("curl")
    (tmp_path / "readings.csv").write_text("sensor,celsius\nroof,21.5\n")
    for file in ("big.iso", "photo.jpg"):
        (tmp_path / file).write_bytes(b"x" * 100_000)
    async with AsyncExitStack() as stack:
        if name == "proxy":
            _, upstream = await stack.enter_async_context(example("large_files"))
            assert (
                await typed("curl -T big.iso http://127.0.0.1:8000/big.iso", httpx.URL(upstream).port or 0, tmp_path)
                == 0
            )
            monkeypatch.setenv("UPSTREAM", upstream)
        _, url = await stack.enter_async_context(example(name))
        running = []
        for command in commands_of(name):
            expected = 18 if "exit code 18" in command else 0
            if "-C -" in command:
                (tmp_path / "big.iso").write_bytes(b"x" * 50_000)
            done = asyncio.create_task(typed(command, httpx.URL(url).port or 0, tmp_path))
            if command.endswith("&"):
                running.append(done)  # it gets something when what comes next was typed
                await asyncio.sleep(0.2)
            else:
                assert await done == expected, command
        for done in running:
            assert await done == 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 40
