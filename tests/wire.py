"""HTTP/1.1 in as few lines as a test can see through: what is sent when, and how exactly an answer ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_MOST = 1024 * 1024


class Broken(ConnectionError):
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection: send a request with `begin` and `write`, then read with `head` and `body`, in turn.

    Whatever ends it early is a `ConnectionError`.
    """

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self._method = ""
        self.status = 0
        self.headers: dict[str, str] = {}

    async def open(self) -> Self:
        limit = self._receive_buffer or _MOST
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=limit)
        return self

    @property
    def local_port(self) -> int:
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    async def begin(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a request's head."""
        self._method = method
        fields = {"host": "127.0.0.1", **(headers or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        await self.write("\r\n".join([*lines, "\r\n"]).encode())

    async def write(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def write_chunk(self, data: bytes) -> None:
        """Send a chunk of a body with ``Transfer-Encoding: chunked``; an empty one is the last."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def ended(self) -> bool:
        """Wait for more, and tell whether the server has hung up instead."""
        return not await self._reader.read(1)

    async def head(self) -> int:
        """Read the answer's head."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise Broken("no answer") from None
        first, *lines = head.decode().rstrip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return self.status

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it comes; `Broken` if its framing says that there is more."""
        if self._method == "HEAD" or self.status in {204, 304}:
            return
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    yield (await self._reader.readexactly(size + 2))[:-2]
                await self._reader.readexactly(2)
                return
            left = int(self.headers["content-length"])
            while left:
                data = await self._reader.read(min(left, _MOST))
                if not data:
                    raise Broken(f"{left} bytes are missing")
                left -= len(data)
                yield data
        except asyncio.IncompleteReadError:
            raise Broken("the last chunk is missing") from None

    async def answer(self) -> Answer:
        """Read the whole answer, past those that only tell how things are going (1xx)."""
        while await self.head() < 200:
            pass
        return Answer(self.status, self.headers, b"".join([data async for data in self.body()]))

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        fields = dict(headers or {})
        if body is not None:
            fields["content-length"] = str(len(body))
        await self.begin(method, path, fields)
        if body:
            await self.write(body)
        return await self.answer()

    def close(self) -> None:
        """Hang up, without a word."""
        self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Make one request on a connection of its own."""
    async with Connection(port) as connection:
        return await connection.request(method, path, body, headers)


async def until(probe: Callable[[], Awaitable[T]], expected: T, seconds: float = 30.0) -> None:
    """Ask again and again, until the answer is the expected one."""
    deadline = time.monotonic() + seconds
    while (found := await probe()) != expected:
        assert time.monotonic() < deadline, f"still {found!r}, and not {expected!r}"
        await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    kind: str
    data: str
    id: str


async def events(connection: Connection) -> AsyncIterator[Event]:
    """Yield the events of an answer whose head was read."""
    rest = b""
    async for data in connection.body():
        *blocks, rest = (rest + data).split(b"\n\n")
        for block in blocks:
            fields: dict[str, str] = {}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            if "data" in fields:
                yield Event(fields.get("event", "message"), fields["data"], fields.get("id", ""))


class Follower:
    """A reader of a live stream that comes back with ``Last-Event-ID`` whenever it was cut.

    Args:
        port: the server's.
        path: the stream's.
        rest: called before each connection: after how many events to hang up, or None to stay.

    Attributes:
        events: what it was told, in order, over all of its connections.
        times: when each of them came (`time.perf_counter`).
        connection: the present one.
        cuts: how many connections ended before the stream did.
    """

    def __init__(self, port: int, path: str, rest: Callable[[], int | None] = lambda: None) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []
        self.connection: Connection | None = None
        self.cuts = 0
        self._port = port
        self._path = path
        self._rest = rest
        self._grown = asyncio.Event()

    async def run(self) -> None:
        """Follow to the end of the stream."""
        while True:
            with contextlib.suppress(OSError):
                if await self._follow():
                    return
            self.cuts += 1
            self.connection = None
            await asyncio.sleep(0.01)

    async def reach(self, count: int) -> None:
        """Return once there are this many events."""
        while len(self.events) < count:
            self._grown.clear()
            await self._grown.wait()

    async def _follow(self) -> bool:
        headers = {"last-event-id": self.events[-1].id} if self.events else {}
        left = self._rest()
        async with Connection(self._port) as connection:
            await connection.begin("GET", f"{self._path}?offset=0", headers)
            if await connection.head() == 204:
                return True
            if connection.status != 200:
                raise AssertionError(f"{self._path} was answered {connection.status}")
            self.connection = connection
            async for event in events(connection):
                if event.kind == "end":
                    return True
                self.events.append(event)
                self.times.append(time.perf_counter())
                self._grown.set()
                if left is not None:
                    left -= 1
                    if left <= 0:
                        return False
        return False
