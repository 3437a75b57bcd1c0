"""A server that answers as a test says, faults included, and a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias


@dataclass(slots=True)
class Asked:
    """A request. Of a body that was not taken whole, what was taken."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        status: the HTTP status.
        headers: fields; the length is added.
        body: the body.
        cut: send this many bytes of the body, then break the connection.
        chunked: send the body in one chunk, without a length.
        silent: after the body, say no more, and leave the connection open; goes with ``chunked``.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    chunked: bool = False
    silent: bool = False


Script: TypeAlias = Callable[[Asked], Reply | None]
"""Answers a request, in the server's thread; None breaks the connection without an answer."""


class _Threaded:
    """An asyncio server in a thread."""

    port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # asyncio's own callback stumbles over it
            await self._serve(reader, writer)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close a turn of the loop later

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class ScriptedServer(_Threaded):
    """Answers every request as the script says.

    Args:
        script: the answers.
        takes: of the first requests with a body, how many bytes to take before the connection breaks; None for all.

    Attributes:
        asked: the requests so far.
    """

    def __init__(self, script: Script, takes: Sequence[int | None] = ()) -> None:
        self._script = script
        self._takes = list(takes)
        self.asked: list[Asked] = []

    def methods(self) -> list[str]:
        return [asked.method for asked in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        asked = Asked(method, path, headers)
        self.asked.append(asked)
        if method in {"PATCH", "PUT", "POST"} and headers.get("content-length") != "0":
            limit = self._takes.pop(0) if self._takes else None
            asked.body = await _body(reader, headers, limit)
            if limit is not None:
                return False
        reply = self._script(asked)
        if reply is None:
            return False
        length = "transfer-encoding: chunked" if reply.chunked else f"content-length: {len(reply.body)}"
        fields = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        body = reply.body[: reply.cut]
        if method == "HEAD":
            framed = b""
        elif reply.chunked:
            framed = (b"%x\r\n%b" % (len(reply.body), body) if body else b"") + b"\r\n0\r\n\r\n"[2 * (not body) :]
            short = reply.cut is not None or reply.silent
            framed = framed[: framed.index(body) + len(body)] if short else framed
        else:
            framed = body
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{length}\r\n{fields}\r\n".encode() + framed)
        await writer.drain()
        if reply.silent:
            await reader.read()
        if reply.cut is not None:
            await asyncio.sleep(0.02)  # an abort would take back what has not been sent yet
        return reply.cut is None


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str], limit: int | None) -> bytes:
    body = b""
    if "content-length" in headers:
        length = int(headers["content-length"])
        return await reader.readexactly(length if limit is None else min(limit, length))
    if headers.get("transfer-encoding") != "chunked":
        return body
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
        if limit is not None and len(body) >= limit:
            return body
    await reader.readexactly(2)
    return body


class CuttingProxy(_Threaded):
    """Passes connections on to a server, and breaks each after a number of bytes.

    Args:
        port: the server's port.
        limits: for one connection after the other, how many bytes may pass, both directions together. The connections
            after the last one are not cut.

    Attributes:
        cuts: how many connections were cut.
    """

    def __init__(self, port: int, limits: Sequence[int]) -> None:
        self._to = port
        self._limits = list(limits)
        self.cuts = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = [self._limits.pop(0) if self._limits else None]
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._to)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    if left[0] is not None and len(data) > left[0]:
                        sink.write(data[: left[0]])
                        await sink.drain()
                        await asyncio.sleep(0.02)  # an abort would take back what has not been sent yet
                        self.cuts += 1
                        return
                    left[0] = None if left[0] is None else left[0] - len(data)
                    sink.write(data)
                    await sink.drain()

        try:
            pumps = {
                asyncio.ensure_future(pump(reader, other_writer)),
                asyncio.ensure_future(pump(other_reader, writer)),
            }
            _, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        finally:
            writer.transport.abort()
            other_writer.transport.abort()
