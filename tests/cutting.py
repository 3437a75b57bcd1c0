"""A proxy that cuts connections at any byte, and keeps count of what goes through it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httptools

_PIECE = 64 * 1024


@dataclass(slots=True)
class Passed:
    """A request that went through, at least in part.

    Attributes:
        method: its method.
        path: its path and query.
        headers: its fields, by lower-case names.
        body: how many bytes of its body went through.
        status: that of the answer, or None if no answer went through.
        answer: the answer's fields.
        answered: whether the whole answer went through.
    """

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: int = 0
    status: int | None = None
    answer: dict[str, str] = field(default_factory=dict)
    answered: bool = False


class Cutting:
    """The proxy. An async context manager; it serves in the loop of the test.

    Args:
        port: the server's.
        cuts: after how many further bytes to cut a connection, both directions and all connections counted together;
            when they are used up, no connection is cut.

    Attributes:
        port: where it listens.
        requests: what went through, in order.
        cuts: how many connections were cut.
    """

    def __init__(self, port: int, cuts: Iterable[int]) -> None:
        self._to = port
        self._limits = list(cuts)
        self._left = self._limits.pop(0) if self._limits else None
        self.port = 0
        self.requests: list[Passed] = []
        self.cuts = 0
        self._tasks: list[asyncio.Task[None]] = []

    def check_offsets(self) -> None:
        """Make sure that no byte was sent again which the server had acknowledged: by tus, one upload or several."""
        told: dict[str, int] = {}  # the offset that the server told last, by the upload's URL
        for request in self.requests:
            if request.method == "PATCH":
                assert int(request.headers["upload-offset"]) == told.get(request.path, 0)
            if request.answered and "upload-offset" in request.answer:
                told[request.path] = int(request.answer["upload-offset"])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to)
        exchanges = _Exchanges(self.requests)
        pumps = [
            asyncio.ensure_future(self._pump(reader, inner_writer, exchanges.asked)),
            asyncio.ensure_future(self._pump(inner_reader, writer, exchanges.told)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            # The client is cut off hard. The server is left what went through: it is on its side of the network.
            writer.transport.abort()
            with suppress(ConnectionError):
                inner_writer.close()
                await inner_writer.wait_closed()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: Any) -> None:
        with suppress(ConnectionError):
            while data := await source.read(_PIECE):
                # At least one byte is held back: so what was cut off was not complete, and what was complete arrived.
                cut = self._left is not None and len(data) > self._left
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                sink.write(data)
                count(data)
                await sink.drain()
                if cut:
                    self.cuts += 1
                    self._left = self._limits.pop(0) if self._limits else None
                    return


class _Exchanges:
    """The requests of one connection, and the answers to them."""

    def __init__(self, requests: list[Passed]) -> None:
        self._requests = requests
        self._own: list[Passed] = []
        self._asking = httptools.HttpRequestParser(_Asking(self))
        self._telling: httptools.HttpResponseParser | None = None

    def asked(self, data: bytes) -> None:
        """Count what goes to the server."""
        self._asking.feed_data(data)

    def told(self, data: bytes) -> None:
        """Count what goes to the client."""
        if self._telling is None:
            self._telling = httptools.HttpResponseParser(_Telling(self))
        self._telling.feed_data(data)
        if self.last.method == "HEAD" and self.last.answered:
            self._telling = None  # which waits for a body, and there is none

    def begin(self, passed: Passed) -> None:
        self._own.append(passed)
        self._requests.append(passed)

    @property
    def last(self) -> Passed:
        return self._own[-1]

    def method(self) -> str:
        return self._asking.get_method().decode()

    def status(self) -> int:
        assert self._telling is not None
        return int(self._telling.get_status_code())


class _Asking:
    def __init__(self, exchanges: _Exchanges) -> None:
        self._exchanges = exchanges

    def on_message_begin(self) -> None:
        self._passed = Passed()

    def on_url(self, url: bytes) -> None:
        self._passed.path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._passed.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self._passed.method = self._exchanges.method()
        self._exchanges.begin(self._passed)

    def on_body(self, data: bytes) -> None:
        self._passed.body += len(data)


class _Telling:
    def __init__(self, exchanges: _Exchanges) -> None:
        self._exchanges = exchanges

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        passed = self._exchanges.last
        passed.status, passed.answer = self._exchanges.status(), self._headers
        passed.answered = passed.method == "HEAD"

    def on_message_complete(self) -> None:
        self._exchanges.last.answered = True
