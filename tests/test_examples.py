"""The examples, and the Python in the README, do what they say."""

from __future__ import annotations

import runpy
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


async def test_the_readmes_application_stores_files_and_readings() -> None:
    async with serving(readme_application()["app"]) as port, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}"
        assert (await client.put(f"{url}/files/a.txt", content=b"hello")).status_code == 201
        assert (await client.get(f"{url}/files/a.txt")).text == "hello"
        assert (await client.post(f"{url}/readings?celsius=21.5")).json() == {"offset": 5}
        assert (await client.get(f"{url}/files/readings")).text == "21.5\n"


async def test_the_application_keeps_its_streams_and_its_key() -> None:
    app = runpy.run_path(str(ROOT / "examples" / "application.py"))["app"]
    async with serving(app) as port, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}"
        assert (await client.put(f"{url}/files/a.txt", content=b"hello")).status_code == 403
        assert (await client.put(f"{url}/files/a.txt", content=b"hello", headers=KEY)).status_code == 201
        assert (await client.get(f"{url}/files/uploads")).text == "a.txt\n"
        assert (await client.post(f"{url}/readings?celsius=21.5")).status_code == 401
        assert (await client.post(f"{url}/readings?celsius=21.5", headers=KEY)).json() == {"offset": 17}
        assert (await client.get(f"{url}/files/readings")).json() == {"celsius": 21.5}
