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
from penstock.client.errors import CorruptTransfer, Unreachable
from penstock.client.paths import file_name_for
from penstock.client.reading import Reading, Version
from penstock.client.remote import RemoteStream
from penstock.errors import StreamFailed, StreamGone

DestinationLike: TypeAlias = "str | os.PathLike[str] | BinaryWriter"
"""A path (of a file, or of a folder to put it in), or a file open for writing in binary mode."""

_MAX_RESTARTS: Final = 5
"""How often to begin again because the stream was replaced. Who replaces it faster than that never lets it be read."""


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
        path = _within(path, self.name)
        partial = await anyio.to_thread.run_sync(
            lambda: PartialFile(path, self.name, follow=self.follow, resume=self.resume)
        )
        with partial:
            return await self._into(partial, path)

    async def _into(self, destination: Destination, path: Path | None) -> Downloaded:
        restarts = 0
        while True:
            resumed_at = destination.size if destination.version is not None else 0
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
        # What is followed is wanted at once, and so is what goes to a pipe. A file is better written in large pieces.
        at_least = 1 if self.follow or not destination.patient else PIECE
        async with (
            aclosing(reading.chunks()) as chunks,
            WriteBehind(destination.write, at_least=at_least, abandon=not destination.patient) as writer,
        ):
            async for chunk in chunks:
                if known is None:
                    known = await self._begin(destination, reading)
                await writer.add(bytes(chunk.data))
                self.progress(chunk.end, reading.stop)
        if known is None:  # nothing came, as it does not where the stream is empty
            await self._begin(destination, reading)
        stream, told = await self._outcome(reading)
        if told is not None and told != destination.digest():
            raise CorruptTransfer(self.name, ALGORITHM, told, destination.digest())
        return stream, told

    async def _begin(self, destination: Destination, reading: Reading) -> Version:
        version = reading.version or Version("", None)
        await anyio.to_thread.run_sync(lambda: destination.begin(version, follow=self.follow))
        return version

    async def _outcome(self, reading: Reading) -> tuple[RemoteStream, bytes | None]:
        """Return what became of the stream, and its digest if it is known and wanted."""
        stream = reading.stream
        if stream is None or not (stream.closed or reading.stop is not None):
            # Nothing but the end of the body has told that the stream is closed, or nothing was missing of it. What
            # it is now is asked for once more: a proxy may end a body that broke off as if it were complete.
            stream = await self._asked(reading)
        digest = stream.digests.get(ALGORITHM, reading.digest)
        return stream, digest if self.verify else None

    async def _asked(self, reading: Reading) -> RemoteStream:
        now = await self.door.backoff.persist(lambda: self.door.head(self.name, digest=self.verify))
        version = Version(now.incarnation, now.etag)
        if reading.version is not None and not reading.version.same(version):
            if reading.stream is None:
                raise StreamGone(self.name, reading.version.incarnation)
            return reading.stream  # a new one has the name by now, which says nothing about the one that was read
        if now.failure is not None:
            raise StreamFailed(self.name, now.tail, now.failure)
        if self.follow and (now.tail > reading.offset or not now.closed):
            raise Unreachable(f"The server stopped sending {self.name!r} at offset {reading.offset}, before its end.")
        return now


def _within(path: Path, name: str) -> Path:
    return path / file_name_for(name) if path.is_dir() else path


def _is_special(path: Path) -> bool:
    """Whether there is a device, a socket or a named pipe: neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
