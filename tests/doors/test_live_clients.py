"""Readers that others wrote: Chromium's EventSource and WebSocket, the npm package eventsource, curl, httpx."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from browser import Page, browsing
from conftest import JAVASCRIPT, node, tool
from live_door import NDJSON, append
from servers import Server
from wire import until


async def restart(server: Server) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


EVENT_SOURCE = """
new Promise((resolve, reject) => {
  const seen = window.seen = []
  const source = new EventSource('/live/STREAM?offset=0&event=type')
  source.onmessage = event => seen.push([event.lastEventId, JSON.parse(event.data)])
  source.addEventListener('join', event => seen.push(['join', JSON.parse(event.data).who]))
  source.addEventListener('end', event => { source.close(); resolve([...seen, JSON.parse(event.data).state]) })
})
"""

WEB_SOCKET = """
new Promise(resolve => {
  const seen = window.seen = []
  let offset = 0, sent = false
  const connect = () => {
    const socket = new WebSocket(`ws://${location.host}/live/STREAM?offset=${offset}`, 'penstock.v1')
    socket.onmessage = event => {
      const message = JSON.parse(event.data)
      if (message.end) return resolve([...seen, message.end.state, socket.protocol])
      if (message.records) { seen.push(...message.records); offset = message.offset }
      if (!sent) { sent = true; socket.send(JSON.stringify({ id: 1, append: ['from the page'] })) }
    }
    socket.onclose = () => setTimeout(connect, 100)
  }
  connect()
})
"""


async def seen_by(page: Page, count: int) -> None:
    async def seen() -> bool:
        return int(await page.run("window.seen ? window.seen.length : 0")) >= count

    await until(seen, True)


async def test_chromium_follows_and_survives_a_restart(tmp_path: Path) -> None:
    tool("chromium")
    with Server(tmp_path / "data") as server:
        await append(server, "log", 1, {"type": "join", "who": "ann"})
        async with browsing(tmp_path / "profile") as page:
            await page.go(f"{server.url}/healthz")
            following = asyncio.create_task(page.run(EVENT_SOURCE.replace("STREAM", "log")))
            await seen_by(page, 2)
            await restart(server)
            await append(server, "log", 2)
            await seen_by(page, 3)
            await append(server, "log", 3, close=True)
            assert await following == [["2", 1], ["join", "ann"], ["32", 2], ["34", 3], "closed"]


async def test_chromium_reads_and_appends_over_a_socket_and_survives_a_restart(tmp_path: Path) -> None:
    tool("chromium")
    with Server(tmp_path / "data") as server:
        await append(server, "log", 1)
        async with browsing(tmp_path / "profile") as page:
            await page.go(f"{server.url}/healthz")
            following = asyncio.create_task(page.run(WEB_SOCKET.replace("STREAM", "log")))
            await seen_by(page, 2)
            await restart(server)
            await append(server, "log", 2)
            await seen_by(page, 3)
            await append(server, "log", 3, close=True)
            assert await following == [1, "from the page", 2, 3, "closed", "penstock.v1"]


async def test_the_npm_package_eventsource_follows_and_survives_a_restart(tmp_path: Path) -> None:
    program = node()
    with Server(tmp_path / "data") as server:
        await append(server, "log", "a")
        reader = await asyncio.create_subprocess_exec(
            *(program, str(JAVASCRIPT / "eventsource.mjs"), f"{server.url}/live/log?offset=0"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert reader.stdout is not None
        assert json.loads(await reader.stdout.readline()) == {"id": "4", "data": '"a"'}
        await restart(server)
        await append(server, "log", "b", close=True)
        assert json.loads(await reader.stdout.readline()) == {"id": "8", "data": '"b"'}
        assert json.loads(await reader.stdout.readline()) == {"end": {"state": "closed", "offset": 8}}
        assert await reader.wait() == 0


async def test_curl_follows_events(server: Server, name: str) -> None:
    await append(server, name, 1, 2, close=True)
    curl = await asyncio.create_subprocess_exec(
        *(tool("curl"), "-sSN", f"{server.url}/live/{name}?offset=0"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await curl.communicate()
    assert curl.returncode == 0
    assert b"id: 2\ndata: 1\n\nid: 4\ndata: 2\n\nevent: end\n" in out


async def test_httpx_follows_lines(server: Server, name: str) -> None:
    await append(server, name, {"a": 1})
    async with httpx.AsyncClient() as client:
        url = f"{server.url}/live/{name}?offset=0&envelope"
        async with client.stream("GET", url, headers={"accept": NDJSON}) as response:
            lines = response.aiter_lines()
            found = [line async for line in _first(lines, 1)]
            await append(server, name, 2, close=True)
            found += [line async for line in lines if line]
    told = [json.loads(line) for line in found]
    assert told == [{"offset": 8, "data": {"a": 1}}, {"offset": 10, "data": 2}, {"state": "closed", "offset": 10}]


async def _first(lines: Any, count: int) -> Any:
    async for line in lines:
        if line:
            yield line
            count -= 1
            if not count:
                return
