"""Content codings of request bodies (RFC 9110 section 8.4): gzip, deflate, br and zstd, decoded within bounds.

A few kilobytes can decode to gigabytes. So what comes out is bounded in size and in proportion to what went in, and no
step of the work yields more than about a megabyte, whatever it is given.
"""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from types import ModuleType
from typing import Any, Final, Protocol

from penstock.core.uninterrupted import uninterrupted
from penstock.toolkit.problems import RequestError, bad_request

__all__ = ["available_codings", "codings_in", "decoded"]

MAX_RATIO: Final = 200
"""How many bytes one byte may decode to on average. Logs and tables reach some tens, bombs a thousand and more."""

_FREE: Final = 1024 * 1024
"""Bytes that may come out before their proportion counts: short bodies can be extreme without doing harm."""

_STEP: Final = 1024 * 1024
_INPUT: Final = 32 * 1024
_WORTH_A_THREAD: Final = 4 * 1024
_MOST_CODINGS: Final = 2
_ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the most that a sender may expect of a receiver (RFC 9659)


class Decoder(Protocol):
    """Decodes one body. Its errors are of the library's own kinds."""

    @property
    def finished(self) -> bool:
        """Whether the coding's end was reached, so that the body may end here."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Take in some bytes, and yield what they decode to, in pieces of bounded size."""


class _Zlib:
    """Gzip (RFC 1952), perhaps of several members, and deflate, which is zlib (RFC 1950)."""

    def __init__(self, bits: int, *, members: bool) -> None:
        self.finished = False
        self._bits = bits
        self._members = members
        self._inflater: Any = None
        self._begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        # In short slices, because zlib copies what is left of them at each member's and each piece's end.
        for start in range(0, len(data), _INPUT):
            yield from self._slice(data[start : start + _INPUT])

    def _slice(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflater is None:
                if self._begun and not self._members:
                    raise zlib.error("there is something after its end")
                self._inflater, self._begun, self.finished = zlib.decompressobj(self._bits), True, False
            full = True
            while full or data:
                piece = self._inflater.decompress(data, _STEP)
                if piece:
                    yield piece
                full = len(piece) == _STEP
                data = self._inflater.unconsumed_tail
                if self._inflater.eof:
                    data, self._inflater, self.finished = self._inflater.unused_data, None, True
                    break


class _Deflate:
    """What ``deflate`` means in practice: zlib as it should be (RFC 1950), or the bare format that some send."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: _Zlib | None = None

    @property
    def finished(self) -> bool:
        return self._inner is not None and self._inner.finished

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            is_zlib = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._inner = _Zlib(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS, members=False)
        yield from self._inner.decode(data)


class _Brotli:
    """Brotli (RFC 7932)."""

    def __init__(self, library: ModuleType) -> None:
        self._decompressor = library.Decompressor()
        self.finished = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._decompressor.process(data, output_buffer_limit=_STEP)
            data = b""
            self.finished = self._decompressor.is_finished()
            if piece:
                yield piece
            # It may have more even when it would take more, and says so by yielding something.
            if self.finished or (not piece and self._decompressor.can_accept_more_data()):
                return


class _Zstandard:
    """Zstandard (RFC 8878), perhaps of several frames."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._decompressor = self._new()
        self.finished = False

    def _new(self) -> Any:
        return self._library.ZstdDecompressor(
            options={self._library.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        )

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _INPUT):
            rest = data[start : start + _INPUT]
            while rest or not (self.finished or self._decompressor.needs_input):
                if self.finished:
                    self._decompressor, self.finished = self._new(), False
                piece = self._decompressor.decompress(rest, _STEP)
                rest = b""
                if self._decompressor.eof:
                    rest, self.finished = self._decompressor.unused_data, True
                if piece:
                    yield piece


@functools.cache
def _decoders() -> Mapping[str, tuple[Callable[[], Decoder], type[Exception]]]:
    """Return what there is, by the codings' names: what makes a decoder, and the errors that it raises."""
    gzip = (lambda: _Zlib(16 + zlib.MAX_WBITS, members=True), zlib.error)
    found: dict[str, tuple[Callable[[], Decoder], type[Exception]]] = {
        "gzip": gzip,
        "deflate": (lambda: _Deflate(), zlib.error),
    }
    brotli = _brotli()
    if brotli is not None:
        found["br"] = (lambda: _Brotli(brotli), brotli.error)
    zstd = _zstd()
    if zstd is not None:
        found["zstd"] = (lambda: _Zstandard(zstd), zstd.ZstdError)
    return found


def _brotli() -> ModuleType | None:
    try:
        import brotli  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    # Before 1.2 there was no way to bound what comes out.
    return brotli if hasattr(brotli.Decompressor, "can_accept_more_data") else None


def _zstd() -> ModuleType | None:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            return None
    return zstd  # type: ignore[no-any-return, unused-ignore]


def available_codings() -> tuple[str, ...]:
    """Return the names of the codings that can be decoded here; ``br`` and ``zstd`` with ``penstock[compression]``."""
    return tuple(_decoders())


def codings_in(value: str | None, *, allowed: bool = True) -> tuple[str, ...]:
    """Return the codings that a ``Content-Encoding`` field names, in the order in which they were applied.

    Args:
        value: the field, its lines joined; None for no field.
        allowed: whether any coding is taken at all.

    Raises:
        RequestError: ``unsupported-media-type`` (415) with ``Accept-Encoding`` (RFC 9110 section 12.5.3).
    """
    names = [name.strip().lower() for name in (value or "").split(",")]
    names = ["gzip" if name == "x-gzip" else name for name in names if name not in {"", "identity"}]
    available = available_codings() if allowed else ()
    if len(names) > _MOST_CODINGS or any(name not in available for name in names):
        accepted = ", ".join(available) or "identity"
        raise RequestError(
            "unsupported-media-type",
            415,
            f"The body is coded with {', '.join(names)[:80]!r}; what is taken here is {accepted}.",
            {"accept-encoding": accepted},
        )
    return tuple(names)


def decoded(
    chunks: AsyncGenerator[bytes, None], codings: tuple[str, ...], *, max_size: int | None, max_ratio: float | None
) -> AsyncGenerator[bytes, None]:
    """Yield what a body decodes to.

    Args:
        chunks: the body as it was sent.
        codings: see `codings_in`.
        max_size: the most bytes that may come out of each coding; None for no limit.
        max_ratio: how many bytes may come out for each that went in; None for no limit. The first MiB is free.

    Raises:
        RequestError: ``too-large`` (413) as soon as a bound is exceeded, ``bad-request`` (400) for what is not coded as
            it should be, ``body-incomplete`` (400) for what ends before the coding does.
    """
    for coding in reversed(codings):
        chunks = _decoded(chunks, coding, max_size, max_ratio)
    return chunks


async def _decoded(
    chunks: AsyncGenerator[bytes, None], coding: str, max_size: int | None, max_ratio: float | None
) -> AsyncGenerator[bytes, None]:
    make, kind = _decoders()[coding]
    decoder = make()
    taken = given = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            taken += len(chunk)
            pieces = decoder.decode(chunk)
            while True:
                try:
                    piece = await _step(pieces, len(chunk))
                except kind as error:
                    raise bad_request(f"The body is not valid {coding}: {error}.") from None
                if piece is None:
                    break
                given += len(piece)
                if max_size is not None and given > max_size:
                    detail = f"The body decodes to more than {max_size} bytes, which is the most here."
                    raise RequestError("too-large", 413, detail, max_size=max_size)
                if max_ratio is not None and given > max(_FREE, taken * max_ratio):
                    detail = f"The body decodes to more than {max_ratio:g} times its size."
                    raise RequestError("too-large", 413, detail, max_ratio=max_ratio)
                yield piece
    if not decoder.finished:
        raise RequestError("body-incomplete", 400, f"The body ends before its {coding} coding does.")


async def _step(pieces: Iterator[bytes], size: int) -> bytes | None:
    """Return the next piece, or None; in a thread where it is much work."""
    if size < _WORTH_A_THREAD:
        return next(pieces, None)
    return await uninterrupted(asyncio.to_thread(next, pieces, None))
