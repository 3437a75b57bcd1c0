"""Compressing a body while it is sent, without holding any of it back (RFC 9110 section 8.4).

What is sent together is compressed together and flushed, so that its reader can read it at once. ``gzip`` is always
there; ``br`` and ``zstd`` are with ``penstock[compression]``.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Scope, Send

from penstock.core.uninterrupted import uninterrupted
from penstock.model import Buffer
from penstock.toolkit.responses.ahead import in_pool
from penstock.toolkit.responses.media_types import is_compressed

TINY = 512
"""Bytes below which a whole body is sent as it is: compressed, it would hardly be smaller."""

_GZIP_LEVEL = 5
_BROTLI_QUALITY = 4
_ZSTD_LEVEL = 3

_WORTH_A_THREAD = 16 * 1024
_BODILESS = frozenset({204, 205, 206, 304})

_ELEMENT = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:;[ \t]*[Qq]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)


class Encoder(Protocol):
    """A coding under way."""

    def encode(self, data: Buffer) -> bytes:
        """Return what makes all of the data so far readable."""

    def finish(self) -> bytes:
        """Return the end."""


class _Gzip:
    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def encode(self, data: Buffer) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._compressor.flush()


class _Brotli:
    def __init__(self, library: Any) -> None:
        self._compressor = library.Compressor(quality=_BROTLI_QUALITY)

    def encode(self, data: Buffer) -> bytes:
        compressed: bytes = self._compressor.process(data) + self._compressor.flush()
        return compressed

    def finish(self) -> bytes:
        end: bytes = self._compressor.finish()
        return end


class _Zstandard:
    def __init__(self, library: Any) -> None:
        self._compressor = library.ZstdCompressor(level=_ZSTD_LEVEL)

    def encode(self, data: Buffer) -> bytes:
        compressed: bytes = self._compressor.compress(data, mode=self._compressor.FLUSH_BLOCK)
        return compressed

    def finish(self) -> bytes:
        end: bytes = self._compressor.flush()
        return end


@functools.cache
def encoders() -> Mapping[str, Callable[[], Encoder]]:
    """Return what makes an encoder, by the coding's name; the best for streams first."""
    found: dict[str, Callable[[], Encoder]] = {}
    zstd = _zstd()
    if zstd is not None:
        found["zstd"] = lambda: _Zstandard(zstd)
    try:
        import brotli  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        pass
    else:
        found["br"] = lambda: _Brotli(brotli)
    found["gzip"] = _Gzip
    return found


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:
            return None
    return zstd


def negotiated(accepted: str | None) -> str | None:
    """Return the coding that a client likes best, or None for no coding (RFC 9110 section 12.5.3).

    Args:
        accepted: the ``Accept-Encoding`` field, its lines joined; None for no field, which asks for no coding.
    """
    weights: dict[str, float] = {}
    for element in (accepted or "").split(","):
        match = _ELEMENT.fullmatch(element)
        if match is not None:
            weights[match[1].lower().removeprefix("x-")] = 1.0 if match[2] is None else float(match[2])
    other = weights.get("*", 0.0)
    best = max(encoders(), key=lambda name: weights.get(name, other))  # of equals, the first
    weight = weights.get(best, other)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


class Compression:
    """The compression of one response: sends what it is given to send, compressed if client and content are for it.

    Beware of secrets in one body with text from whoever sends the request: by its compressed size, it can be guessed.
    """

    def __init__(self) -> None:
        self._wanted = True
        self._encoder: Encoder | None = None
        self._unsent = b""

    def off(self) -> None:
        """Leave the response as it is; before its start."""
        self._wanted = False

    def around(self, scope: Scope, send: Send) -> Send:
        """Return what sends a response to that request, through ``send``."""
        accepted = ", ".join(Headers(scope=scope).getlist("accept-encoding")) or None
        coding = negotiated(accepted)
        head = scope["method"] == "HEAD"

        async def compress(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                message = {**message, "headers": list(message["headers"])}
                if self._applies(message, MutableHeaders(raw=message["headers"]), coding) and not head:
                    self._encoder = encoders()[coding or "gzip"]()
            elif kind == "http.response.body" and self._encoder is not None:
                message = await self._encoded(message, self._encoder)
            await send(message)
            # Only then: who is cancelled while it waits for the client is not through with it, and the next message
            # (a farewell) could not be read without it.
            self._unsent = b""

        return compress

    def _applies(self, start: Message, headers: MutableHeaders, coding: str | None) -> bool:
        """Tell whether the body is coded, and let the fields say so."""
        if "content-encoding" in headers or is_compressed(headers.get("content-type", "")):
            return False
        headers.add_vary_header("Accept-Encoding")
        if coding is None or not self._wanted or start["status"] in _BODILESS:
            return False
        headers["content-encoding"] = coding
        for name in ("content-length", "accept-ranges", "content-digest", "repr-digest"):
            del headers[name]  # they were of other bytes
        etag = headers.get("etag", "")
        if etag and not etag.startswith("W/"):
            headers["etag"] = f"W/{etag}"  # the same content, in other bytes
        return True

    async def _encoded(self, message: MutableMapping[str, Any], encoder: Encoder) -> Message:
        body = message.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)):  # what breaks a body off
            return message
        last = not message.get("more_body", False)
        if len(body) < _WORTH_A_THREAD:
            self._encode(encoder, body, last)
        else:  # to its end in any case: what was compressed and not sent would be missing for all that follows
            await uninterrupted(in_pool(self._encode, encoder, body, last))
        return {**message, "body": self._unsent}

    def _encode(self, encoder: Encoder, body: Buffer, last: bool) -> None:
        if body:
            self._unsent += encoder.encode(body)
        if last:
            self._unsent += encoder.finish()
