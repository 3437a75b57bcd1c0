"""The live examples go on over a restart of their server, and their readers notice nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from browser import browsing
from conftest import tool
from servers import free_port
from wire import Follower, request, until

EXAMPLES = Path(__file__).parent.parent / "examples"


class Example:
    """An example under uvicorn, in a folder of its own, on one port for all of its life."""

    def __init__(self, name: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._name = name
        self._folder = folder
        self._process: Process | None = None

    async def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), f"{self._name}:app"),
                *("--port", str(self.port)),
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    async def stop(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        await self._process.wait()

    async def ready(self) -> None:
        async def answers() -> bool:
            with suppress(OSError):
                return (await request(self.port, "GET", "/openapi.json")).status == 200
            return False

        await until(answers, True)

    async def post(self, path: str, record: Any = None) -> None:
        """Send something until it is taken: as a client does that tries again."""
        async with httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.TransportError):
                    answer = await client.post(f"{self.url}{path}", json=record)
                    if answer.status_code < 300:
                        return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(name: str, folder: Path) -> AsyncIterator[Example]:
    example = Example(name, folder)
    await example.start()
    try:
        yield example
    finally:
        await example.stop()


async def over_a_restart(
    example: Example, path: str, before: int, after: int, send: Callable[[int], Awaitable[None]]
) -> list[str]:
    """Follow while things are sent, the server is restarted, and more is sent; return what a reader got."""
    for number in range(before):
        await send(number)
    follower = Follower(example.port, path)
    following = asyncio.create_task(follower.run())
    await follower.reach(before)
    await example.stop()
    await example.start()
    for number in range(before, before + after):
        await send(number)
    await follower.reach(before + after)
    following.cancel()
    assert follower.cuts >= 1
    return [event.data for event in follower.events]


@pytest.mark.parametrize(
    ("name", "path", "form"),
    [
        ("chat", "/rooms/lobby", lambda number: {"who": "me", "text": str(number)}),
        ("dashboard", "/readings", lambda number: {"sensor": f"s{number}", "celsius": float(number)}),
    ],
)
async def test_what_people_and_sensors_say_comes_once_each(
    tmp_path: Path, name: str, path: str, form: Callable[[int], Any]
) -> None:
    async with running(name, tmp_path) as example:
        seen = await over_a_restart(example, f"/live{path}", 3, 3, lambda number: example.post(path, form(number)))
    assert [json.loads(data) for data in seen] == [form(number) for number in range(6)]


async def test_the_tokens_of_an_answer_come_once_each(tmp_path: Path) -> None:
    async with running("token_stream", tmp_path) as example:
        await example.post("/answers/1?question=why")
        follower = Follower(example.port, "/live/answers/1")
        following = asyncio.create_task(follower.run())
        await follower.reach(2)
        await example.stop()  # which lets the answer be finished
        await example.start()
        await following
        tokens = [json.loads(event.data) for event in follower.events]
        assert "".join(tokens).replace(" ", "") == "Youask'why'andIwondertoo"


@asynccontextmanager
async def shown(example: Example, profile: Path, path: str, script: str = "") -> AsyncIterator[Callable[..., Any]]:
    """Open a page of an example in a browser, and yield what tells what it shows. It is loaded once, and stays."""
    tool("chromium")
    async with browsing(profile) as page:
        await example.ready()
        await page.go(f"{example.url}{path}")
        await page.run(f"window.stayed = true; {script}; true")

        async def text(expression: str = "document.body.innerText") -> Any:
            return await page.run(f"window.stayed && {expression}")

        yield text


async def test_a_page_of_the_chat_shows_and_says_each_line_once(tmp_path: Path) -> None:
    async with running("chat", tmp_path) as example, shown(example, tmp_path / "profile", "/") as page:

        async def say(text: str) -> None:
            await page(f"(document.forms[0][0].value = {text!r}, document.forms[0].requestSubmit(), true)")

        async def lines() -> str:
            return str(await page("document.querySelector('ul').textContent"))

        await say("one ")
        await until(lines, "somebody: one ")
        await example.stop()
        await say("two ")  # while there is no server
        await say("three ")
        await example.start()
        await until(lines, "somebody: one somebody: two somebody: three ")
        await example.post("/rooms/lobby", {"who": "me", "text": "four"})
        await until(lines, "somebody: one somebody: two somebody: three me: four")


async def test_a_page_of_the_dashboard_goes_on_showing_what_is_measured(tmp_path: Path) -> None:
    async with running("dashboard", tmp_path) as example, shown(example, tmp_path / "profile", "/") as page:

        async def rows() -> str:
            return str(await page("[...document.querySelectorAll('tr')].map(row => row.textContent).join()"))

        for sensor, celsius in (("roof", 21.0), ("cellar", 9.5)):
            await example.post("/readings", {"sensor": sensor, "celsius": celsius})
        await until(rows, "roof: 21 \u00b0C,cellar: 9.5 \u00b0C")
        for degrees in (22.0, 23.0):
            await example.stop()
            await example.start()
            await example.post("/readings", {"sensor": "roof", "celsius": degrees})
            await until(rows, f"roof: {degrees:.0f} \u00b0C,cellar: 9.5 \u00b0C")


async def test_a_browser_has_each_token_of_an_answer_once(tmp_path: Path) -> None:
    follow = """
        window.tokens = []
        const source = new EventSource('/live/answers/1?offset=0')
        source.onmessage = event => window.tokens.push(JSON.parse(event.data))
        source.addEventListener('end', () => { source.close(); window.tokens.push('(end)') })
    """
    async with running("token_stream", tmp_path) as example:
        await example.post("/answers/1?question=why")
        async with shown(example, tmp_path / "profile", "/openapi.json", follow) as page:

            async def said() -> bool:
                return len(await page("window.tokens")) >= 1

            await until(said, True)
            await example.stop()
            await example.start()

            async def tokens() -> str:
                return "".join(await page("window.tokens")).replace(" ", "")

            await until(tokens, "Youask'why'andIwondertoo(end)")
