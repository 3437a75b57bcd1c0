"""Reading a stream from an offset, across as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from penstock.client.door import ALGORITHM, USUAL_SILENCE, WANT_DIGEST, FilesDoor
from penstock.client.engine import Answer
from penstock.client.errors import ClientError, Unreachable
from penstock.client.paths import path_of
from penstock.client.problems import Refusal
from penstock.client.remote import RemoteStream, remote_from_headers
from penstock.client.retry import Failures, NotNow, refuse
from penstock.errors import OffsetOutOfRange, StreamFailed, StreamGone, StreamNotFound
from penstock.model import Chunk
from penstock.protocols.ranges import parse_content_range


@dataclass(frozen=True, slots=True)
class Version:
    """What must not change while one reading goes over several connections.

    Attributes:
        incarnation: the stream's incarnation; empty where the server tells none.
        etag: the entity tag to resume with, or None where there is none that holds.
    """

    incarnation: str
    etag: str | None

    def same(self, other: Version) -> bool:
        """Tell whether the bytes of both are the same as far as they go.

        The incarnation decides: an entity tag may also change because an open stream grew.
        """
        if self.incarnation and other.incarnation:
            return self.incarnation == other.incarnation
        return self.etag is not None and self.etag == other.etag


class Reading:
    """The bytes of a stream from an offset on, as `chunks` yields them.

    It resumes where a connection broke, and never joins bytes of two versions of the stream.

    Args:
        door: where to read.
        name: the stream's name.
        start: the offset of the first byte.
        stop: the offset after the last byte; None for the end that the stream has at first, or, when following, for
            the end that it will have.
        follow: whether to read on as the stream grows, until it is closed.
        version: what an earlier reading has seen, to go on with; None for whatever there is.
        want_digest: whether to ask for the digest of the whole.

    Attributes:
        offset: where the next byte will come from.
        stop: the offset after the last byte, once it is known.
        version: what is being read, once the first answer is there.
        stream: what the last answer told of the stream.
        digest: the SHA-256 of the whole, where the server told it.
    """

    def __init__(
        self,
        door: FilesDoor,
        name: str,
        *,
        start: int = 0,
        stop: int | None = None,
        follow: bool = False,
        version: Version | None = None,
        want_digest: bool = False,
    ) -> None:
        self._door = door
        self._path = path_of(door.prefix, name) + ("?follow" if follow else "")
        self._name = name
        self._follow = follow
        self._want_digest = want_digest
        self.offset = start
        self.stop = stop
        self.version = version
        self.stream: RemoteStream | None = None
        self.digest: bytes | None = None

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield the bytes as they arrive. Close the generator (`contextlib.aclosing`) to close the connection.

        Raises:
            StreamNotFound: there is no such stream.
            StreamGone: it was deleted or replaced while it was being read.
            StreamFailed: it broke; all the bytes that it has were yielded.
            OffsetOutOfRange: it does not reach to ``start``.
            Unreachable: the connection broke, and no retry was left.
        """
        failures = Failures(self._door.backoff)
        while self.stop is None or self.offset < self.stop:
            begin = self.offset
            try:
                silence = None if self._follow else USUAL_SILENCE
                async with self._door.engine.exchange(
                    "GET", self._path, headers=self._headers(), silence=silence
                ) as answer:
                    skip = await self._accept(answer)
                    if skip is None:
                        return
                    if self._follow:
                        failures.backoff = self._door.patience
                    async for piece in answer.pieces():
                        failures.forget()
                        wanted = piece[skip:] if self.stop is None else piece[skip : skip + self.stop - self.offset]
                        skip = max(0, skip - len(piece))
                        if wanted:
                            chunk = Chunk(self.offset, wanted)
                            self.offset = chunk.end
                            yield chunk
                        if self.offset == self.stop:
                            return
                self._check_failure()
                if self.stop is None:
                    await self._check_end()
                    return
                if self.offset == begin:
                    raise Unreachable(f"The server sends nothing of {self._name!r} from offset {begin} on.")  # noqa: TRY301
            except (Unreachable, NotNow) as error:
                self._check_failure()
                await failures.add(error)

    def _headers(self) -> dict[str, str]:
        headers = dict(WANT_DIGEST) if self._want_digest else {}
        ends = self.stop is not None and not self._follow
        if self.offset or ends:
            headers["range"] = f"bytes={self.offset}-{self.stop - 1 if self.stop is not None and ends else ''}"
            if self.version is not None and self.version.etag is not None:
                headers["if-range"] = self.version.etag
        return headers

    async def _accept(self, answer: Answer) -> int | None:
        """Look at the head of an answer, and return how many bytes of its body to pass over; None if there are none."""
        if answer.status == 416:
            self._refused(await answer.refusal(self._name, offset=self.offset))
            return None
        if answer.status == 404 and self.version is not None:
            raise StreamGone(self._name, self.version.incarnation)
        if answer.status not in {200, 206}:
            raise refuse(await answer.refusal(self._name, offset=self.offset), now=time.time)
        skip, end = self._extent(answer)
        self.stream = self._checked(answer)
        self.digest = self.stream.digests.get(ALGORITHM, self.digest)
        # A follower's end shows when it comes; and of a failed stream there is no end, only a last byte.
        if not self._follow and not self._ends_badly() and end is not None:
            self.stop = end if self.stop is None else min(end, self.stop)
        return skip

    def _extent(self, answer: Answer) -> tuple[int, int | None]:
        """Return how many bytes of the body come before the offset, and where the stream ends, if that is told."""
        if answer.status == 200:
            # All of it, though a part was asked for: what the version is decides whether that can be used.
            length = answer.headers.get("content-length", "")
            return self.offset, int(length) if length.isascii() and length.isdigit() else None
        try:
            part, complete = parse_content_range(answer.headers.get("content-range", ""))
        except ValueError:
            part, complete = None, None
        if part is None or part.start != self.offset:
            raise ClientError(f"{answer.url} sent other bytes than those asked for, from offset {self.offset} on.")
        return 0, part.stop if complete is None else complete

    def _checked(self, answer: Answer) -> RemoteStream:
        """Return what an answer tells of the stream, having made sure that it is the one that is being read."""
        stream = remote_from_headers(self._name, answer.url, answer.headers)
        # While a stream grows, only the tag of a following answer stays the same.
        version = Version(stream.incarnation, stream.etag if self._follow or stream.closed else None)
        if self.version is not None and not self.version.same(version):
            raise StreamGone(self._name, self.version.incarnation)
        self.version = version
        return stream

    def _refused(self, refusal: Refusal) -> None:
        """A 416: the offset is the end, which is no error, or past it."""
        told = remote_from_headers(self._name, "", refusal.headers)
        if self.version is not None and told.incarnation and told.incarnation != self.version.incarnation:
            raise StreamGone(self._name, self.version.incarnation)
        error = refusal.error()
        tail = error.tail if isinstance(error, OffsetOutOfRange) else 0
        if told.failure is not None and self.offset >= tail:
            raise StreamFailed(self._name, tail, told.failure)
        if self.offset > tail:
            raise error
        if self._follow and not told.closed:
            raise NotNow(error, None)

    async def _check_end(self) -> None:
        """Make sure that a stream which was followed has ended: some proxies end a body properly that was broken off.

        Raises:
            Unreachable: there is more to come.
        """
        if not self._follow or self.stream is None or self.stream.closed:
            return
        try:
            shown = await self._door.head(self._name, digest=self._want_digest)
        except StreamNotFound:
            raise StreamGone(self._name, self.stream.incarnation) from None
        if self.version is None or not self.version.same(Version(shown.incarnation, shown.etag)):
            return  # a new one has the name by now, which says nothing about the one that was read
        self.stream = shown
        self._check_failure()
        if not shown.closed or shown.tail > self.offset:
            raise Unreachable(f"The connection ended at offset {self.offset} of {self._name!r}, before its end.")

    def _ends_badly(self) -> bool:
        """Whether the stream has failed, and it is not just a range within it that is being read."""
        stream = self.stream
        return stream is not None and stream.failure is not None and (self.stop is None or self.stop > stream.tail)

    def _check_failure(self) -> None:
        stream = self.stream
        if stream is not None and self._ends_badly() and self.offset >= stream.tail:
            raise StreamFailed(self._name, stream.tail, stream.failure or "")
