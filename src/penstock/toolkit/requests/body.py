"""The body of a request as it arrives: its bytes, where they can go, and the items in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from penstock.core.digests import Hasher
from penstock.core.service import StreamService
from penstock.model import OCTETS, Buffer, StreamInfo, StreamSpec
from penstock.toolkit.problems import RequestError
from penstock.toolkit.requests.behind import keep_freed_memory
from penstock.toolkit.requests.bodies import batches, content_length, limited, too_large
from penstock.toolkit.requests.content import Content
from penstock.toolkit.requests.decoding import MAX_RATIO, codings_in, decoded
from penstock.toolkit.requests.integrity import check_digests, given_digests, hashed
from penstock.toolkit.requests.limits import Pace, timely
from penstock.toolkit.requests.progress import OnProgress, reported
from penstock.toolkit.requests.sinks import FileSink, SavedFile
from penstock.toolkit.responses.representations import joined

__all__ = ["BodyLimits", "GiB", "KiB", "MiB", "StreamBody"]

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB

DEFAULT_SIZE: Final = GiB
_PROGRESS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What is accepted of a body. What goes past it is refused as soon as that is known.

    Attributes:
        max_size: bytes, both as they were sent and as they decode (413); None for no limit.
        max_ratio: how many times its size a coded body may decode to (413); None for no limit.
        decode: whether content codings are taken and decoded; otherwise any is refused (415).
        pace: how slowly it may arrive (408).
    """

    max_size: int | None = DEFAULT_SIZE
    max_ratio: float | None = MAX_RATIO
    decode: bool = True
    pace: Pace = field(default_factory=lambda: Pace(idle=60.0, min_rate=64.0, grace=30.0))


def refusals_of(limits: BodyLimits) -> dict[int, str]:
    """Return why what statuses may be answered to a body, for the OpenAPI document."""
    refused = {
        400: "The body is incomplete, or not what it is said to be",
        408: "The body arrives too slowly",
        413: "The body is too large",
        415: "The body is in a coding or of a type that is not taken",
    }
    if limits.pace.idle is None and limits.pace.min_rate is None:
        del refused[408]
    if limits.max_size is None and limits.max_ratio is None:
        del refused[413]
    return refused


class StreamBody(Content[SavedFile]):
    """The body of a request, as it arrives: ``async for chunk in body``, or one of the methods. It is read once.

    What every way of reading does: the limits hold; a content coding is decoded; digests that the client sent are
    verified; a body that was cut is an error, never a short body. A slow reader holds the client back.

    Args:
        request: where the body comes from.
        limits: what is accepted.

    Raises:
        RequestError: from the constructor, for what the request's head tells already, and from reading:
            ``too-large`` (413), ``unsupported-media-type`` (415), ``too-slow`` (408), ``body-incomplete`` (400),
            ``bad-request`` (400).
        DigestMismatch: from reading, at the end: the bytes are not those whose digest was sent.
        ClientDisconnect: from reading: the client is gone.
    """

    def __init__(self, request: Request, limits: BodyLimits | None = None) -> None:
        self.request = request
        self.limits = limits or BodyLimits()
        self._length = content_length(request)
        self._chunks = limited(request, self.limits.max_size)
        self._codings = codings_in(joined(request, "content-encoding"), allowed=self.limits.decode)
        self._given = given_digests(request)
        self._on_progress: OnProgress | None = None
        self._every = _PROGRESS
        self._received = 0
        self._begun = False
        self._complete = False

    @property
    def content_type(self) -> str:
        """The media type that the client gave, with its parameters."""
        return self.request.headers.get("content-type") or OCTETS

    @property
    def length(self) -> int | None:
        """The bytes that were announced, as they are sent: before a coding is decoded. None if that is not known."""
        return self._length

    @property
    def received(self) -> int:
        """The bytes that arrived so far, as they were sent."""
        return self._received

    @property
    def complete(self) -> bool:
        """Whether the whole body was read, and verified."""
        return self._complete

    @property
    def spec(self) -> StreamSpec:
        """What there is to say of the body as a stream: its content type, and its length unless it is coded."""
        return StreamSpec(content_type=self.content_type, length=None if self._codings else self._length)

    def saved(self, sink: FileSink, digests: Mapping[str, bytes]) -> SavedFile:
        """Describe the file that the body became."""
        return SavedFile(sink.path, sink.size, digests)

    def _arriving(self) -> AsyncIterator[bytes]:
        return self.chunks()

    def on_progress(self, function: OnProgress, *, every: float = _PROGRESS) -> None:
        """Have a function told how far the reading has come; see `published_progress` for one.

        Args:
            function: is given a `Progress`.
            every: seconds between two calls, at the least.
        """
        self._on_progress, self._every = function, every

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body, decoded, in chunks as they arrive."""
        return self.chunks()

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, decoded, in chunks as they arrive. Close the generator if it is left early.

        Raises:
            RuntimeError: the body is being read already.
        """
        if self._begun:
            raise RuntimeError("A body is read once, and this one was begun before.")
        self._begun = True
        keep_freed_memory()
        return self._read()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        hasher = Hasher(self._given)
        chunks = self._counted(timely(self._chunks, self.limits.pace))
        if self._given:
            chunks = hashed(chunks, hasher)
        if self._on_progress is not None:
            chunks = reported(chunks, self._length, self._on_progress, self._every)
        limits = self.limits
        chunks = decoded(chunks, self._codings, max_size=limits.max_size, max_ratio=limits.max_ratio)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
        check_digests(self.request.url.path, self._given, hasher.digests())
        self._complete = True

    async def _counted(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(chunks):
            async for chunk in chunks:
                self._received += len(chunk)
                if chunk:
                    yield chunk
        # Servers tell when a client is gone, but whether all of them always do is not to be relied on.
        if self._length is not None and self._received != self._length:
            detail = f"The body has {self._received} bytes, and {self._length} were announced."
            raise RequestError("body-incomplete", 400, detail)

    # -- where it can go ------------------------------------------------------------------------------------------

    async def append_to(
        self, streams: StreamService, name: str, *, offset: int | None = None, close: bool = False
    ) -> StreamInfo:
        """Append the body to a stream that is there, as it arrives. What came before a cut is kept, and durable.

        Args:
            streams: where the stream is.
            name: its name.
            offset: where the tail must be; None appends wherever it is.
            close: whether to close the stream at the end.
        """

        async def joined_batches() -> AsyncGenerator[Buffer, None]:
            async with aclosing(batches(self.chunks())) as gathered:
                async for batch in gathered:
                    yield b"".join(batch)

        async with aclosing(joined_batches()) as chunks:
            return await streams.append_from(name, chunks, offset=offset, close=close)

    async def digest(self, algorithm: str = "sha-256") -> bytes:
        """Return the digest of the body, and keep nothing of it."""
        hasher = Hasher([algorithm])
        await self.pump(hasher.update)
        return hasher.digests()[algorithm]

    async def read(self, max_size: int = MiB) -> bytes:
        """Return the whole body, of at most ``max_size`` bytes.

        Raises:
            RequestError: ``too-large`` (413).
        """
        found = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                found += chunk
                if len(found) > max_size:
                    raise too_large(max_size)
        return bytes(found)
