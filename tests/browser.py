"""A real browser: Chromium without a window, spoken to over two pipes in its DevTools protocol."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions"),
)


class Page:
    """One page of a browser. Commands are those of the DevTools protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self._session: str | None = None

    async def open(self) -> None:
        target = await self.command("Target.createTarget", url="about:blank")
        session = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = session["sessionId"]
        await self.command("Page.enable")

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if message.get("method") == "Page.loadEventFired":
                    self._loaded.set()
                waiting = self._waiting.pop(message.get("id", 0), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        for waiting in self._waiting.values():
            waiting.cancel()

    async def command(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        answer = await self._waiting[number]
        assert "error" not in answer, answer
        return answer["result"]

    async def go(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        self._loaded.clear()
        await self.command("Page.navigate", url=url)
        await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """Run a script (an expression, perhaps a promise), and return its value."""
        answer = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a file input, as a person does."""
        document = await self.command("DOM.getDocument")
        node = await self.command("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
        await self.command("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(file) for file in files])

    async def click(self, selector: str) -> None:
        """Click on what leads to another page, with the mouse, and wait until that is loaded."""
        self._loaded.clear()
        box = await self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        await self._loaded.wait()


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Page]:
    """Start a browser with an empty profile in a folder, and yield a page of it. Everything ends with the block."""
    program = shutil.which("chromium")
    assert program is not None
    loop = asyncio.get_running_loop()
    to_browser, from_browser = os.pipe(), os.pipe()
    # It reads from descriptor 3 and writes to 4, whatever these are called here.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_browser[0], from_browser[1])]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash"),
        *(program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"),
        pass_fds=ends,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    for end in (to_browser[0], from_browser[1], *ends):
        os.close(end)
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_browser[0], "rb")
    )
    outgoing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(to_browser[1], "wb"))
    page = Page(reader, asyncio.StreamWriter(outgoing, protocol, None, loop))
    listening = asyncio.create_task(page.listen())
    try:
        await page.open()
        yield page
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await listening
        incoming.close()
        outgoing.close()
