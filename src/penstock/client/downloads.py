"""Downloads: a stream's bytes come to a file or a pipe, across broken connections and crashes, and are verified."""

from __future__ import annotations

import os
import stat
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import anyio.to_thread

from penstock.client.ahead import PIECE, WriteBehind
from penstock.client.destinations import BinaryWriter, Destination, PartialFile, Pipe
from penstock.client.door import ALGORITHM, FilesDoor, Progress
from penstock.client.errors import CorruptTransfer
from penstock.client.paths import file_name_for
from penstock.client.reading import Reading, Version
from penstock.client.remote import RemoteStream
from penstock.errors import StreamFailed, StreamGone, StreamNotFound

DestinationLike: TypeAlias = "str | os.PathLike[str] | BinaryWriter"
"""A path (of a file, or of a folder to put it in), or a file open for writing in binary mode."""

_MAX_RESTARTS: Final = 5
"""How often to begin again because the stream was replaced. One that is replaced faster than that is never read whole."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What a download came to.

    Attributes:
        stream: what the server told of the stream last.
        path: the file, or None where the bytes went to a pipe.
        size: how many bytes there are.
        resumed_at: how many of them an earlier, broken-off download had brought.
        digest: their SHA-256.
        verified: whether the server told that digest too.
    """

    stream: RemoteStream
    path: Path | None
    size: int
    resumed_at: int
    digest: bytes
    verified: bool


@dataclass(slots=True)
class Download:
    """One download, with all its tries.

    Attributes:
        door: where from.
        name: the stream's name.
        follow: whether to read on as the stream grows, until it is closed.
        resume: whether to go on with what an earlier download has left.
        verify: whether to compare the server's digest with one's own.
        progress: is told how far it is.
    """

    door: FilesDoor
    name: str
    follow: bool
    resume: bool
    verify: bool
    progress: Progress

    async def run(self, destination: DestinationLike) -> Downloaded:
        """Bring the bytes.

        Raises:
            PenstockError: what the server refused them for, or the last failure where no retry is left.
            OSError: the destination cannot be written.
        """
        if not isinstance(destination, str | os.PathLike):
            return await self._into(Pipe(destination), None)
        path = Path(destination)
        if _is_special(path):  # a device or a named pipe is written to, not replaced
            file = await anyio.to_thread.run_sync(lambda: path.open("wb", buffering=0), abandon_on_cancel=True)
            with file:
                return await self._into(Pipe(file), None)
        if path.is_dir():
            path = path / file_name_for(self.name)
        partial = await anyio.to_thread.run_sync(
            lambda: PartialFile(path, self.name, follow=self.follow, resume=self.resume)
        )
        with partial:
            return await self._into(partial, path)

    async def _into(self, destination: Destination, path: Path | None) -> Downloaded:
        restarts = 0
        while True:
            resumed_at = destination.size
            try:
                stream, told = await self._bring(destination)
                break
            except (StreamGone, CorruptTransfer) as error:
                # Replaced while it was being read; or what an earlier download had left was spoilt.
                hopeless = isinstance(error, CorruptTransfer) and not resumed_at
                if hopeless and destination.restartable:
                    destination.discard()
                restarts += 1
                if hopeless or not destination.restartable or restarts > _MAX_RESTARTS:
                    raise
                destination.version = None
        await anyio.to_thread.run_sync(destination.finish)
        return Downloaded(stream, path, destination.size, resumed_at, destination.digest(), told is not None)

    async def _bring(self, destination: Destination) -> tuple[RemoteStream, bytes | None]:
        """Bring what is missing; return what the stream is now, and the digest that was verified."""
        known = destination.version
        reading = Reading(
            self.door,
            self.name,
            start=destination.size if known else 0,
            follow=self.follow,
            version=known,
            want_digest=self.verify,
        )
        at_least = 1 if self.follow or path_is_live(destination) else PIECE
        async with (
            aclosing(reading.chunks()) as chunks,
            WriteBehind(destination.write, at_least=at_least, abandon=not destination.patient) as writer,
        ):
            async for chunk in chunks:
                if known is None and reading.version is not None:
                    known = reading.version
                    destination.begin(known, follow=self.follow)
                await writer.add(bytes(chunk.data))
                self.progress(chunk.end, self._total(reading))
        if known is None:  # nothing came, as it does not where the stream is empty
            destination.begin(reading.version or Version("", None), follow=self.follow)
        stream, told = await self._verified(reading)
        ...
