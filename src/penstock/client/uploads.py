"""Uploads: a source of bytes becomes a closed stream, verified and tried again where that can be done."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from penstock.client.door import ALGORITHM, LONG_SILENCE, WANT_DIGEST, FilesDoor, Progress
from penstock.client.engine import Answer
from penstock.client.errors import ClientError, CorruptTransfer, ServerError, Unreachable
from penstock.client.paths import path_of
from penstock.client.remote import RemoteStream, digests_from, remote_from_json
from penstock.client.retry import Failures, NotNow, refuse
from penstock.client.sources import Digest, Source, SourceLike
from penstock.errors import PenstockError, PreconditionFailed, StreamIsOpen, StreamNotFound
from penstock.model import OCTETS

SMALL: Final = 1024 * 1024
"""Fewer bytes are sent at once, without asking first: to send them again costs no more than to ask where to go on."""


def guess_content_type(source: SourceLike, name: str) -> str:
    """Return the media type that the stream's name, or else the file's name, suggests."""
    for candidate in (name, os.fspath(source) if isinstance(source, str | os.PathLike) else ""):
        kind, encoding = mimetypes.guess_type(candidate.rpartition("/")[2], strict=False)
        if kind is not None and encoding is None:
            return kind
        if encoding is not None:
            return {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}.get(
                encoding, OCTETS
            )
    return OCTETS


@dataclass(slots=True)
class Upload:
    """One upload, with all its tries.

    Attributes:
        door: where to.
        name: what the stream will be called.
        source: the bytes.
        headers: fields that say what is wanted.
        verify: whether to compare the server's digest with one's own.
        progress: is told how far it is.
    """

    door: FilesDoor
    name: str
    source: Source
    headers: dict[str, str]
    verify: bool
    progress: Progress
    _sent: bytes | None = None  # the digest of a body that went out whole

    async def run(self) -> RemoteStream:
        """Send the bytes until the server has them all.

        Raises:
            PenstockError: whatever the server refused it for, or the last failure where no retry is left.
        """
        failures = Failures(self.door.backoff)
        while True:
            try:
                return await self._once()
            except (Unreachable, NotNow) as error:
                if not self.source.rewind():
                    raise (error.error if isinstance(error, NotNow) else error) from None
                await failures.add(error)
            except (StreamIsOpen, PreconditionFailed) as error:
                if not failures.count:
                    raise
                # What is in the way may be our own: a try that broke off shows until the server has noticed that, and
                # one that succeeded is there although its answer was lost.
                shown = await self._shown()
                if shown is not None and shown.digests.get(ALGORITHM, b"") == self._sent:
                    return shown
                in_the_way = isinstance(error, PreconditionFailed) and shown is not None and shown.closed
                if in_the_way or not self.source.rewind():
                    raise
                await failures.add(NotNow(error, None))

    async def _look(self) -> None:
        """Find out beforehand what the server would refuse: it may say so only when all the bytes are sent.

        Raises:
            StreamIsOpen, PreconditionFailed: as the server would.
            Unreachable, NotNow: it is worth trying again.
        """
        shown: RemoteStream | None = None
        try:
            shown = await self.door.head(self.name, digest=False)
        except StreamNotFound:
            pass
        except ServerError:
            return  # whoever may write need not be allowed to look
        if shown is not None and shown.state == "open":
            raise StreamIsOpen(self.name)
        if "if-none-match" in self.headers and shown is not None:
            raise PreconditionFailed(self.name)
        if "if-match" in self.headers and (shown is None or shown.etag != self.headers["if-match"]):
            raise PreconditionFailed(self.name)

    async def _once(self) -> RemoteStream:
        if self.source.length is None or self.source.length >= SMALL:
            await self._look()
        digest = hashlib.sha256() if self.verify else None
        headers = self.headers | (WANT_DIGEST if self.verify else {})
        if self.source.length is not None:
            headers["content-length"] = str(self.source.length)
        async with (
            aclosing(self._body(digest)) as body,
            self.door.engine.exchange(
                "PUT", path_of(self.door.prefix, self.name), headers=headers, body=body, silence=LONG_SILENCE
            ) as answer,
        ):
            if answer.status not in {200, 201, 204}:
                raise refuse(await answer.refusal(self.name), now=time.time)
            return await self._stored(answer, digest)

    async def _body(self, digest: Digest | None) -> AsyncGenerator[bytes, None]:
        done, total = 0, self.source.length
        self.progress(done, total)
        async with aclosing(self.source.pieces(digest)) as pieces:
            async for piece in pieces:
                yield piece  # type: ignore[misc]  # any buffer will do for what happens to it
                done += len(piece)
                self.progress(done, total)
        self._sent = digest.digest() if digest is not None else None

    async def _stored(self, answer: Answer, digest: Digest | None) -> RemoteStream:
        told = digests_from(answer.headers).get(ALGORITHM)
        if digest is not None and told is not None and told != digest.digest():
            raise CorruptTransfer(self.name, ALGORITHM, told, digest.digest())
        document = await answer.document()
        try:
            return remote_from_json(json.loads(document), self.door.engine.base_url)
        except ValueError as error:
            raise ClientError(f"{answer.url} took the bytes, but did not say so as a penstock server does.") from error

    async def _shown(self) -> RemoteStream | None:
        try:
            return await self.door.head(self.name)
        except (PenstockError, NotNow):
            return None
