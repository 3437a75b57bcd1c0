"""Uploads that resume: after a broken connection, a crash of the server, and a crash of this program."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import urllib.parse
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from penstock.client.ahead import settled
from penstock.client.door import ALGORITHM, LONG_SILENCE, Progress
from penstock.client.errors import CorruptTransfer, ServerError
from penstock.client.feeds import Feed, GrowingFeed, PassingFeed, SliceFeed
from penstock.client.fingerprints import Fingerprint
from penstock.client.ledger import Entry
from penstock.client.remote import RemoteStream
from penstock.client.sources import PathSource, Sliceable, Source
from penstock.client.transfers import BodyLimit, Transfer
from penstock.client.tus import KeyInUse, Standing, TusDoor
from penstock.errors import StreamGone, StreamNotFound
from penstock.model import Buffer

_MAX_RESTARTS: Final = 2
"""How often an upload is begun anew that the server has forgotten."""

_PART: Final = 1024 * 1024
"""A part of an upload has at least this many bytes."""

_NOT_ALLOWED: Final = frozenset({401, 403})

_GIVE_UP: Final = 5.0
"""Seconds for telling the server that an upload is given up."""


@dataclass(slots=True)
class Resuming:
    """An upload by tus, with all its tries.

    Attributes:
        tus: where to.
        name: what the stream will be called.
        headers: what is said of it at its creation.
        key: by what the caller finds the upload again, or None.
        verify: whether to compare the server's digest with one's own.
        progress: is told how far it is.
        limit: of the bodies of requests.
    """

    tus: TusDoor
    name: str
    headers: Mapping[str, str]
    key: str | None
    verify: bool
    progress: Progress
    limit: BodyLimit
    _path: str = ""
    _begun: list[str] = field(default_factory=list)

    # -- sources of known length ----------------------------------------------------------------------------------

    async def slices(self, source: Sliceable, parts: int, entry: Entry) -> RemoteStream:
        """Upload a source that can give any of its bytes again.

        Args:
            source: the bytes.
            parts: in how many parts to send them at once.
            entry: what was noted of the upload before, and where it is noted.

        Raises:
            PenstockError: whatever the server refused it for, or the last failure where no retry is left.
        """
        bounds = _bounds(source.length or 0, parts if source.shared else 1)
        fingerprint = await anyio.to_thread.run_sync(_fingerprint, source)
        whole = partial(source.slice, 0, source.length or 0)
        digest = asyncio.create_task(_digest(whole())) if self.verify and source.shared else None
        try:
            restarts = 0
            while True:
                noted = _noted(entry, fingerprint, len(bounds))
                try:
                    async with self._given_up(entry):
                        await self._bring(source, bounds, entry, noted, fingerprint)
                    break
                except (StreamNotFound, StreamGone):
                    # The server has forgotten it: it took too long.
                    entry.note()
                    restarts += 1
                    if restarts > _MAX_RESTARTS:
                        raise
            ours = await (digest or _digest(whole())) if self.verify else None
            return await self._verified(ours, source.length or 0, entry)
        finally:
            if digest is not None:
                await _ended(digest)

    async def _bring(
        self,
        source: Sliceable,
        bounds: Sequence[tuple[int, int]],
        entry: Entry,
        noted: _Noted | None,
        fingerprint: Fingerprint | None,
    ) -> None:
        key = self.key or (secrets.token_urlsafe(16) if noted is None else noted.key)
        several = len(bounds) > 1
        if several and self.key is not None and await self._is_joined(self.key, source):
            return
        sent = [0] * len(bounds)
        self._begun = paths = [] if noted is None else list(noted.paths)

        def note() -> None:
            known = None if fingerprint is None else fingerprint.as_json()
            entry.note(key=key, fingerprint=known, parts=len(bounds), paths=paths)

        def told(index: int, done: int) -> None:
            sent[index] = done
            self.progress(sum(sent), source.length)

        if noted is None:
            note()  # the key: should this program end before it knows the URL, the upload is found by it
        transfers = []
        for index, (start, stop) in enumerate(bounds):
            own_key = f"{key}.{index}" if several else key
            if index < len(paths):
                standing = await self._looked(paths[index])
            else:
                standing = await self._created(stop - start, own_key, part=several)
                paths.append(standing.path)
                note()
            feed = SliceFeed(source, start, stop)
            progress = partial(told, index)
            transfers.append(Transfer(self.tus, self.name, standing, feed, self.limit, progress))
        await _all(transfers)
        self._path = transfers[0].path
        if several:
            headers = {**self.headers, **({} if self.key is None else {"upload-key": self.key})}
            joined = await self.tus.door.backoff.persist(lambda: self.tus.join(self.name, paths, headers))
            self._path = joined.path

    async def _is_joined(self, key: str, source: Sliceable) -> bool:
        """Tell whether the parts were joined by somebody who did not hear of it; then this is the upload."""
        found = await self.tus.door.backoff.persist(lambda: self.tus.find(key))
        if found is None or found.state != "closed" or (found.name, found.tail) != (self.name, source.length):
            return False
        self._path = self.tus.path_of(found)
        return True

    async def _looked(self, path: str) -> Standing:
        return await self.tus.door.backoff.persist(lambda: self.tus.look(path, self.name))

    async def _created(self, length: int | None, key: str, *, part: bool = False) -> Standing:
        """Create an upload, or go on with the one of its key, of whose creation we (or somebody) did not hear."""
        headers = {**self.headers, "upload-key": key}

        async def once() -> Standing:
            try:
                return await self.tus.create(self.name, length, headers, partial=part)
            except KeyInUse as error:
                standing = await self.tus.look(error.path, self.name)
                # A caller may have used a key of its own for something else.
                if standing.length != length or (self.key is not None and self._name_in(error.path) != self.name):
                    raise error.error from None
                return standing

        return await self.tus.door.backoff.persist(once)

    # -- sources that show their length at their end ---------------------------------------------------------------

    async def passing(self, source: Source) -> RemoteStream:
        """Upload a source whose bytes come once. A broken connection is no end; that of this program is.

        Raises:
            PenstockError: as of `slices`.
        """
        digest = hashlib.sha256() if self.verify else None
        async with aclosing(source.pieces(digest)) as pieces, self._given_up():
            key = self.key or secrets.token_urlsafe(16)
            standing, feed = await self._created(None, key), PassingFeed(pieces)
            await self._carry(standing, feed)
            return await self._verified(None if digest is None else digest.digest(), feed.length or 0, Entry())

    async def growing(self, path: Path, feed: GrowingFeed, entry: Entry) -> RemoteStream:
        """Upload a file as it grows.

        Args:
            path: the file.
            feed: what comes of it.
            entry: what was noted of the upload before, and where it is noted.

        Raises:
            PenstockError: as of `slices`.
        """
        standing = await self._gone_on(path, entry)
        await self._carry(standing, feed)
        ours = await _digest(feed.body(0, feed.length, None)) if self.verify else None
        return await self._verified(ours, feed.length or 0, entry)

    async def _gone_on(self, path: Path, entry: Entry) -> Standing:
        """Return the upload that is noted of a file, or of another key a new one."""
        value = entry.value
        before = Fingerprint.from_json(value.get("fingerprint"))
        if before is not None and before.begins(path):
            with suppress(StreamNotFound, StreamGone):
                if value["paths"]:
                    return await self._looked(value["paths"][0])
                return await self._created(None, value["key"])
        key = self.key or secrets.token_urlsafe(16)
        about: dict[str, Any] = {"key": key, "fingerprint": Fingerprint.of(path).as_json(), "parts": 1}
        entry.note(**about, paths=[])
        standing = await self._created(None, key)
        entry.note(**about, paths=[standing.path])
        return standing

    async def _carry(self, standing: Standing, feed: Feed) -> None:
        self._path = standing.path
        self._begun = [standing.path]
        await Transfer(self.tus, self.name, standing, feed, self.limit, lambda done: self.progress(done, None)).run()

    @asynccontextmanager
    async def _given_up(self, entry: Entry | None = None) -> AsyncIterator[None]:
        """Tell the server if the block fails and nobody can go on with what it has."""
        try:
            yield
        except BaseException:
            if self.key is None and (entry is None or not entry.lasting):
                with anyio.move_on_after(_GIVE_UP, shield=True), suppress(Exception):
                    for path in self._begun:
                        await self.tus.delete(path, self.name)
            raise

    # -- the end --------------------------------------------------------------------------------------------------

    async def _verified(self, ours: bytes | None, size: int, entry: Entry) -> RemoteStream:
        """Return what the upload has become, and forget what was noted of it.

        Raises:
            CorruptTransfer: the server has other bytes than were sent.
        """
        try:
            stream = await self.tus.door.backoff.persist(lambda: self._shown(digest=ours is not None))
        except ServerError as error:
            if error.status not in _NOT_ALLOWED:
                raise
            stream = self._known(size)  # whoever may write need not be allowed to look
        entry.forget()
        theirs = stream.digests.get(ALGORITHM)
        if ours is not None and theirs is not None and ours != theirs:
            raise CorruptTransfer(stream.name, ALGORITHM, theirs, ours)
        return stream

    def _known(self, size: int) -> RemoteStream:
        plain, _, query = self._path.partition("?")
        return RemoteStream(
            name=self._name_in(plain),
            incarnation=urllib.parse.parse_qs(query).get("upload", [""])[0],
            tail=size,
            length=size,
            closed=True,
            url=self.tus.door.engine.url(plain),
        )

    async def _shown(self, *, digest: bool) -> RemoteStream:
        path = self._path.partition("?")[0]
        return await self.tus.door.head_of(path, self._name_in(path), digest=digest, silence=LONG_SILENCE)

    def _name_in(self, path: str) -> str:
        """Return the name of an upload's stream; the application may have chosen another one."""
        prefix = f"{self.tus.door.prefix}/"
        plain = path.partition("?")[0]
        return urllib.parse.unquote(plain.removeprefix(prefix)) if plain.startswith(prefix) else self.name


def described(headers: Mapping[str, str], filename: str, content_type: str) -> dict[str, str]:
    """Return the fields of a creation: what was said, and the file's name and type as tus says them."""
    pairs = {"filename": filename, "filetype": content_type}
    metadata = ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in pairs.items())
    return {**headers, "upload-metadata": metadata}


@dataclass(frozen=True, slots=True)
class _Noted:
    """What was noted of an upload that an earlier program began."""

    key: str
    paths: tuple[str, ...]


def _noted(entry: Entry, fingerprint: Fingerprint | None, parts: int) -> _Noted | None:
    """Return what was noted, if it was of the same bytes in as many parts."""
    value = entry.value
    same = fingerprint is not None and Fingerprint.from_json(value.get("fingerprint")) == fingerprint
    if not same or value.get("parts") != parts:
        return None
    try:
        return _Noted(str(value["key"]), tuple(map(str, value["paths"])))
    except (KeyError, TypeError):
        return None


def _fingerprint(source: Sliceable) -> Fingerprint | None:
    return Fingerprint.of(source.path) if isinstance(source, PathSource) else None


def _bounds(length: int, parts: int) -> list[tuple[int, int]]:
    """Return where the parts begin and end; fewer of them where they would be tiny."""
    count = max(1, min(parts, length // _PART))
    return [(length * index // count, length * (index + 1) // count) for index in range(count)]


async def _digest(pieces: AsyncGenerator[Buffer, None]) -> bytes:
    """Return the SHA-256 of a source, which is read once more for it: beside the upload, from the machine's cache."""
    digest = hashlib.sha256()
    async with aclosing(pieces):
        async for piece in pieces:
            await anyio.to_thread.run_sync(digest.update, piece)
    return digest.digest()


async def _all(transfers: Sequence[Transfer]) -> None:
    """Run them at once; the first failure ends the others."""
    tasks = [asyncio.create_task(transfer.run()) for transfer in transfers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            await _ended(task)


async def _ended(task: asyncio.Task[Any]) -> None:
    """End a task, and wait until it has, whatever it ends by."""
    task.cancel()
    await settled(task)
