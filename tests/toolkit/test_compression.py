"""Streamed responses that are compressed as they are sent, on a real server."""

from __future__ import annotations

import asyncio
import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from applications import serving
from conftest import missing, tool
from penstock.toolkit.responses import compression
from penstock.toolkit.responses.compression import encoders, negotiated
from penstock.toolkit.responses.streaming import StreamedBytes, StreamedEvents, StreamedNDJSON, StreamedText
from wire import Broken, Connection, request

CODINGS = ("gzip", "br", "zstd")


def lines(count: int = 20_000) -> Iterator[str]:
    for number in range(count):
        yield f"line {number} of many\n"


LINES = "".join(lines()).encode()


class Decoder:
    """Decodes what came so far, as a browser does."""

    def __init__(self, coding: str) -> None:
        self.decode: Callable[[bytes], bytes]
        if coding == "gzip":
            self.decode = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress
        elif coding == "br":
            self._brotli = pytest.importorskip("brotli").Decompressor()
            self.decode = self._all_of_brotli
        else:
            self.decode = zstd().ZstdDecompressor().decompress

    def _all_of_brotli(self, data: bytes) -> bytes:
        """It gives out a piece at a time."""
        pieces = [self._brotli.process(data)]
        while pieces[-1]:
            pieces.append(self._brotli.process(b""))
        return b"".join(pieces)


def zstd() -> Any:
    library = compression._zstd()
    return library if library is not None else missing("zstd")


def needs(coding: str) -> None:
    if coding not in encoders():
        missing(coding)


def application(make: Callable[[], Response]) -> FastAPI:
    app = FastAPI()

    @app.api_route("/it", methods=["GET", "HEAD"])
    async def it() -> Response:
        return make()

    return app


def accepting(value: str) -> Mapping[str, str]:
    return {"accept-encoding": value}


@pytest.mark.parametrize("coding", CODINGS)
async def test_text(coding: str) -> None:
    needs(coding)
    app = application(lambda: StreamedText(lines(), compress=True, headers={"etag": '"v1"'}))
    async with serving(app) as port:
        answer = await request(port, "GET", "/it", headers=accepting(coding))
        head = await request(port, "HEAD", "/it", headers=accepting(coding))
        plain = await request(port, "GET", "/it")
    assert answer.headers["content-encoding"] == head.headers["content-encoding"] == coding
    assert Decoder(coding).decode(answer.body) == LINES
    assert len(answer.body) < len(LINES) / 4
    assert answer.headers["etag"] == 'W/"v1"'
    assert (plain.body, plain.headers["etag"]) == (LINES, '"v1"')
    assert "content-encoding" not in plain.headers
    assert answer.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("coding", ["identity", *CODINGS])
async def test_nothing_live_is_held_back(coding: str) -> None:
    needs("gzip" if coding == "identity" else coding)
    turn = asyncio.Semaphore(0)

    async def events() -> AsyncIterator[dict[str, int]]:
        number = 0
        while True:
            yield {"number": number}
            number += 1
            await turn.acquire()

    app = application(lambda: StreamedEvents(events(), compress=True, heartbeat=0.2))
    decode = bytes if coding == "identity" else Decoder(coding).decode
    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("GET", "/it", accepting(coding))
        assert await connection.head() == 200
        body = connection.body()
        for number in range(50):
            text = b""
            while f'{{"number":{number}}}'.encode() not in text:
                text += decode(await asyncio.wait_for(anext(body), 5))
            turn.release()
        text = b""
        while b"\n:" not in b"\n" + text:  # a heartbeat in the silence
            text += decode(await asyncio.wait_for(anext(body), 5))


@pytest.mark.parametrize("coding", CODINGS)
async def test_farewell_can_be_decoded(coding: str) -> None:
    """Also where the client was slow, and had much still to come."""
    needs(coding)
    noise = random.Random(6).randbytes(300_000).hex()
    made: list[StreamedEvents] = []

    async def events() -> AsyncIterator[str]:
        while True:
            yield noise
            await asyncio.sleep(0)

    def make() -> Response:
        made.append(StreamedEvents(events(), compress=True))
        return made[0]

    async with serving(application(make)) as port, Connection(port, receive_buffer=4096) as connection:
        await connection.begin("GET", "/it", accepting(coding))
        await connection.head()
        await asyncio.sleep(0.5)
        made[0].stop()
        decoder = Decoder(coding)
        text = b"".join([decoder.decode(data) async for data in connection.body()])
    first, *_ = text.split(b"\n\n")
    assert first == f"data: {noise}".encode()
    assert text.endswith(b"retry: 1000\n\n")
    assert not text.removesuffix(b"retry: 1000\n\n").replace(first + b"\n\n", b"")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("middleware", [None, "base", "gzip"])
async def test_failure_breaks_off(coding: str, middleware: str | None) -> None:
    needs(coding)

    def failing() -> Iterator[str]:
        yield from lines()
        raise ValueError("no more")

    app = application(lambda: StreamedNDJSON(failing(), compress=True, report=True))
    if middleware == "base":

        async def through(received: Any, call_next: Any) -> Any:
            return await call_next(received)

        app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    elif middleware == "gzip":
        app.add_middleware(GZipMiddleware)
    async with serving(app) as port, Connection(port) as connection:
        await connection.begin("GET", "/it", accepting(coding))
        await connection.head()
        assert connection.headers["content-encoding"] == coding
        decoder = Decoder(coding)
        text = b""
        with pytest.raises(Broken):  # noqa: PT012
            async for data in connection.body():
                text += decoder.decode(data)
    assert text.endswith(b'{"error":"no more"}\n')


async def test_not_what_is_compressed_or_tiny() -> None:
    picture = random.Random(1).randbytes(5000)
    cases: list[tuple[Callable[[], Response], bool]] = [
        (lambda: StreamedBytes([picture], media_type="image/jpeg", compress=True), False),
        (lambda: StreamedText(["tiny"], compress=True), True),
        (lambda: StreamedText(lines()), False),
    ]
    for make, varies in cases:
        async with serving(application(make)) as port:
            answer = await request(port, "GET", "/it", headers=accepting("gzip"))
        assert "content-encoding" not in answer.headers
        assert answer.body in {picture, b"tiny", LINES}
        assert ("vary" in answer.headers) == varies


async def test_not_what_the_handler_compressed() -> None:
    body = gzip.compress(LINES)
    fields = {"content-encoding": "gzip"}
    async with serving(application(lambda: StreamedBytes([body], headers=fields, compress=True))) as port:
        answer = await request(port, "GET", "/it", headers=accepting("br"))
    assert (answer.body, answer.headers["content-encoding"]) == (body, "gzip")


async def test_empty() -> None:
    async with serving(application(lambda: StreamedText([], compress=True))) as port:
        answer = await request(port, "GET", "/it", headers=accepting("gzip, br, zstd"))
    assert (answer.status, answer.body) == (200, b"")
    assert "content-encoding" not in answer.headers


async def test_curl() -> None:
    async with serving(application(lambda: StreamedText(lines(), compress=True))) as port:
        command = [tool("curl"), "-sSf", "--compressed", f"http://127.0.0.1:{port}/it"]
        result = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    assert result.stdout == LINES


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("gzip ; q=0.5 , br ; Q=0.8", "br"),
        ("gzip;q=0", None),
        ("*", "zstd"),
        ("*, zstd;q=0", "br"),
        ("*;q=0, gzip", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("gzip;q=2, br;q=x", None),
        ("gzip;level=1", None),
        ("deflate", None),
    ],
)
def test_negotiation(accepted: str | None, coding: str | None) -> None:
    for name in ("br", "zstd"):
        needs(name)
    assert negotiated(accepted) == coding


@given(st.text(max_size=60))
def test_negotiation_of_anything(accepted: str) -> None:
    assert negotiated(accepted) in {None, *encoders()}


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brotli", "backports", "compression"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(compression, "encoders", compression.encoders.__wrapped__)
    assert list(compression.encoders()) == ["gzip"]
    assert negotiated("br, zstd") is None
