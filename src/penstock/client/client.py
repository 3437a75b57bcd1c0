"""The client: what a program does with the streams of a server."""

from __future__ import annotations

import json
import math
import os
import time
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, Unpack

from penstock._version import __version__
from penstock.client.appending import Appender, LiveDoor, RecordLike, RecordType, Sender, encode_record
from penstock.client.door import FilesDoor, Progress, no_progress
from penstock.client.downloads import DestinationLike, Download, Downloaded
from penstock.client.engine import Engine
from penstock.client.errors import ClientError
from penstock.client.feeds import GrowingFeed
from penstock.client.folders import at_once, files_in
from penstock.client.ledger import Entry, state_folder
from penstock.client.paths import path_of, query
from penstock.client.presence import Presence, presence_from_json
from penstock.client.reading import Reading, Version
from penstock.client.records import Closed, Record, Records, begins
from penstock.client.remote import RemoteStream, remote_from_headers, remote_from_json
from penstock.client.resuming import Resuming, described
from penstock.client.retry import Backoff, refuse
from penstock.client.sources import PathSource, Source, SourceLike, sliceable, source_of
from penstock.client.tailing import start_of_last_lines
from penstock.client.transfers import BodyLimit
from penstock.client.tus import NoTus, TusDoor
from penstock.client.uploads import SMALL, Upload, guess_content_type
from penstock.model import Appended, Chunk

if TYPE_CHECKING:
    import ssl

DEFAULT_URL: Final = "http://127.0.0.1:8080"
PAGE: Final = 1000
_MAX_SENDERS: Final = 1000
_TEXT: Final = {"content-type": "text/plain; charset=utf-8"}


class ClientOptions(TypedDict, total=False):
    """What a client can be told.

    Attributes:
        headers: fields for every request, ``Authorization`` for one.
        retries: how many failures in a row to put up with before giving up. 8 if not given, which bridges about
            half a minute; and a stream that is being followed is then waited for without end.
        timeout: seconds of silence after which a connection counts as broken; 60 if not given. Not for followers.
        tls: whether to verify the server's certificate, or an `ssl.SSLContext`; True if not given.
        files: the path of the files door; ``/files`` if not given.
        live: the path of the live door; ``/live`` if not given.
    """

    headers: Mapping[str, str]
    retries: int
    timeout: float
    tls: bool | ssl.SSLContext
    files: str
    live: str


class Client:
    """Streams of a penstock server: upload, download, follow, append, list.

    Broken connections and answers that say "later" are retried, downloads resume where they broke, and no retry
    writes anything twice. Whatever flows, memory stays small.

    Use it as an async context manager, on asyncio::

        async with Client("http://127.0.0.1:8080") as client:
            await client.put("big.iso", "images/big.iso")
            await client.get("images/big.iso", "copy.iso")

    Args:
        base_url: the server's address, with the path that the application is mounted at, if there is one.
        **options: see `ClientOptions`.

    Raises:
        ValueError: the address is not one of HTTP.
    """

    def __init__(self, base_url: str = DEFAULT_URL, **options: Unpack[ClientOptions]) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{base_url!r} is not the address of a server: it looks like {DEFAULT_URL}")
        retries = options.get("retries")
        engine = Engine(
            base_url.rstrip("/"),
            headers={"user-agent": f"penstock/{__version__}", **options.get("headers", {})},
            timeout=options.get("timeout", 60.0),
            tls=options.get("tls", True),
        )
        backoff = Backoff() if retries is None else Backoff(retries=retries)
        self._engine = engine
        self._files = FilesDoor(engine, options.get("files", "/files").rstrip("/"), backoff, Backoff(retries=retries))
        self._live = LiveDoor(engine, options.get("live", "/live").rstrip("/"), backoff)
        self._senders: dict[str, Sender] = {}

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._engine.__aexit__(kind, error, traceback)

    async def put(
        self,
        source: SourceLike,
        name: str,
        *,
        content_type: str | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
        ttl: float | None = None,
        verify: bool = True,
        progress: Progress = no_progress,
        parts: int = 1,
        max_body: int | None = None,
        key: str | None = None,
        resume: bool = True,
    ) -> RemoteStream:
        """Upload: what ``source`` gives becomes the closed stream ``name``, in one step.

        An upload goes on where the connection broke or the server crashed: what the server has is not sent again. That
        of a path goes on even after a crash of this program, when it is called again: the file is known again by its
        fingerprint, in a note in the user's state folder. What is small goes in one request, and is just sent again.

        Args:
            source: a path, bytes, a binary file, or a sync or async iterator of bytes. A sync one runs in a thread.
            name: what the stream will be called.
            content_type: its media type; guessed from the names if not given.
            if_none_match: only if there is no such stream.
            if_match: only if the stream's entity tag is this one.
            ttl: seconds without a change after which the stream expires.
            verify: compare the SHA-256 that the server computes of what arrives with that of what is sent.
            progress: is told how far it is.
            parts: into how many parts to split the source, which are sent at the same time and joined by the server.
                It must be able to give any of its bytes: a path, or bytes.
            max_body: the most bytes of a request; None for as many as the server and what is between allow.
            key: by what the upload can be found again, with `find`, or by a call with the same key from another
                machine, which goes on with it: up to 255 visible characters of ASCII.
            resume: keep a note of the upload of a path, and go on with what an earlier call has left.

        Raises:
            PreconditionFailed: a condition does not hold.
            StreamIsOpen: the name shows a stream that is still being written.
            SourceBusy: another program uploads the same file to the same name.
            CorruptTransfer: the server has other bytes than were sent.
            StorageFull: the server has no room.
            Unreachable: no retry was left. What has arrived of a path is kept, as an open stream, for the next call.
            OSError: the source cannot be read.
        """
        conditions = _conditions(if_match, if_none_match=if_none_match) | _ttl(ttl)
        kind = content_type or guess_content_type(source, name)
        given = source_of(source)
        slices = sliceable(given)
        length = given.length
        in_one = key is None and length is not None and length < min(SMALL, max_body or SMALL)
        if not in_one:
            tus = TusDoor(self._files)
            headers = described(conditions, name.rpartition("/")[2], kind)
            resuming = Resuming(tus, name, headers, key, verify, progress, BodyLimit(max_body))
            with suppress(NoTus):
                if slices is None:
                    return await resuming.passing(given)
                with self._entry(given, name, keep=resume) as entry:
                    return await resuming.slices(slices, parts, entry)
        return await Upload(self._files, name, given, conditions | {"content-type": kind}, verify, progress).run()

    async def put_growing(
        self,
        path: str | os.PathLike[str],
        name: str,
        *,
        ended: Callable[[], bool] = lambda: False,
        idle: float | None = None,
        content_type: str | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
        ttl: float | None = None,
        verify: bool = True,
        progress: Progress = no_progress,
        max_body: int | None = None,
        key: str | None = None,
        resume: bool = True,
    ) -> RemoteStream:
        """Upload a file that is still being written: what is added to it follows within a moment, until it is complete.

        It is complete when ``ended`` says so, when it did not grow for ``idle`` seconds, or when the path leads to
        another file or to none, as when a log is put away. Until then it can be followed at the server.

        Args:
            path: the file.
            name: what the stream will be called.
            ended: tells whether what is there is all that will come; it is asked several times a second.
            idle: seconds without growth after which the file counts as complete; None for never.
            content_type: as of `put`, and so are the others.
            if_none_match: only if there is no such stream.
            if_match: only if the stream's entity tag is this one.
            ttl: seconds without a change after which the stream expires.
            verify: compare the SHA-256 of what the server has with that of the file.
            progress: is told how far it is.
            max_body: the most bytes of a request.
            key: by what the upload can be found again.
            resume: keep a note of the upload, and go on with what an earlier call has left.

        Raises:
            SourceChanged: the file was truncated.
            NoTus: the server takes no uploads that resume.
        """
        source = PathSource(Path(path))
        headers = described(
            _conditions(if_match, if_none_match=if_none_match) | _ttl(ttl),
            name.rpartition("/")[2],
            content_type or guess_content_type(path, name),
        )
        resuming = Resuming(TusDoor(self._files), name, headers, key, verify, progress, BodyLimit(max_body))
        with self._entry(source, name, keep=resume) as entry, closing(GrowingFeed(source.path, ended, idle)) as feed:
            return await resuming.growing(source.path, feed, entry)

    async def put_folder(
        self,
        folder: str | os.PathLike[str],
        prefix: str,
        *,
        jobs: int = 4,
        if_none_match: bool = False,
        ttl: float | None = None,
        verify: bool = True,
        parts: int = 1,
        max_body: int | None = None,
        resume: bool = True,
    ) -> AsyncGenerator[RemoteStream, None]:
        """Upload the files in a folder and in those within it, several at once, and yield their streams in order.

        The first failure ends it; a further call sends again what is complete, and goes on with what is not.

        Args:
            folder: the folder.
            prefix: what the names begin with; a slash and the file's path within the folder follow.
            jobs: how many at once.
            if_none_match: as of `put`, and so are the others.
            ttl: seconds without a change after which each stream expires.
            verify: compare each SHA-256.
            parts: of a large file, how many parts at once.
            max_body: the most bytes of a request.
            resume: keep notes of uploads, and go on with what an earlier call has left.
        """
        works = [
            partial(
                self.put,
                path,
                name,
                if_none_match=if_none_match,
                ttl=ttl,
                verify=verify,
                parts=parts,
                max_body=max_body,
                resume=resume,
            )
            for path, name in files_in(Path(folder), prefix)
        ]
        async with aclosing(at_once(works, jobs)) as streams:
            async for stream in streams:
                yield stream

    def _entry(self, source: Source, name: str, *, keep: bool) -> AbstractContextManager[Entry]:
        """Return where an upload is noted: in a file, where it can be gone on with when this program has ended."""
        if not keep or not isinstance(source, PathSource):
            return nullcontext(Entry())
        return Entry.of(state_folder(), self._engine.url(self._files.prefix), name, str(source.path.resolve()))

    async def find(self, key: str) -> RemoteStream | None:
        """Return the caller's youngest upload of a key, complete or not, or None if there is none.

        Args:
            key: as `put` was given it.
        """
        return await self._files.backoff.persist(lambda: TusDoor(self._files).find(key))

    async def get(
        self,
        name: str,
        destination: DestinationLike,
        *,
        follow: bool = False,
        resume: bool = True,
        verify: bool = True,
        progress: Progress = no_progress,
    ) -> Downloaded:
        """Download a stream.

        To a path, the bytes are collected in ``<path>.part`` and appear under the path when they are complete and on
        the disk. A later call goes on with what an earlier one has left there. To a file that is already open, they
        are written as they come.

        Args:
            name: the stream's name.
            destination: a path (of a file, or of a folder), or a file open for writing in binary mode.
            follow: read on as the stream grows, until it is closed, over as many connections as it takes. Otherwise
                an open stream is downloaded as far as it goes now.
            resume: go on with a partial file.
            verify: compare the server's SHA-256 with that of what arrived. An open stream has none.
            progress: is told how far it is.

        Raises:
            StreamNotFound: there is no such stream.
            StreamFailed: the stream broke, so that its bytes are not the whole.
            StreamGone: it was replaced or deleted when some of it was already written to an open file.
            CorruptTransfer: the bytes are not those that the server has.
            Unreachable: no retry was left. What has arrived is kept for the next call.
            OSError: the destination cannot be written.
        """
        return await Download(self._files, name, follow, resume, verify, progress).run(destination)

    async def read(
        self, name: str, start: int = 0, stop: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Chunk, None]:
        """Yield a stream's bytes, with their offsets, as they arrive.

        To stop early, close the generator: ``async with contextlib.aclosing(client.read(...)) as chunks``.

        Args:
            name: the stream's name.
            start: the offset of the first byte.
            stop: the offset after the last byte; None for the end.
            follow: read on as the stream grows, until it is closed.

        Raises:
            StreamNotFound: there is no such stream.
            StreamFailed: the stream broke; what it has was yielded before.
            StreamGone: it was replaced or deleted meanwhile.
            OffsetOutOfRange: ``start`` is past its end.
            Unreachable: no retry was left.
        """
        if start < 0:
            raise ValueError(f"an offset counts from the start, and cannot be {start}")
        async with aclosing(Reading(self._files, name, start=start, stop=stop, follow=follow).chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def tail(self, name: str, lines: int = 10, *, follow: bool = False) -> AsyncGenerator[Chunk, None]:
        """Yield the last lines of a stream, and with ``follow`` what comes after them; else like `read`.

        Args:
            name: the stream's name.
            lines: how many.
            follow: read on as the stream grows, until it is closed.
        """
        stream = await self.info(name)
        version = Version(stream.incarnation, None)
        start = stream.tail
        if lines > 0:
            start = await start_of_last_lines(self._files, name, stream.tail, lines, version)
        stop = None if follow else stream.tail
        reading = Reading(self._files, name, start=start, stop=stop, follow=follow, version=version)
        async with aclosing(reading.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def records(
        self,
        name: str,
        start: int | None = None,
        *,
        last: int | None = None,
        since: str | float | None = None,
        follow: bool = True,
        ended: Callable[[Closed], None] = lambda _: None,
    ) -> AsyncGenerator[Record, None]:
        """Yield records as they come, each once, over as many connections as it takes, until the stream is closed.

        To stop early, close the generator, as that of `read`. Of a stream without records come pieces of its bytes.

        Args:
            name: the stream's name.
            start: the offset to begin at, where a record does; with none of these three, at the tail.
            last: begin so many records before it.
            since: begin with what was appended since then: Unix seconds, a date-time of RFC 3339 with its zone, or
                with a minus sign seconds ago. Of streams that know when their records came.
            follow: whether to wait for what is to come.
            ended: is told how it ended, when the stream was followed to its end.

        Raises:
            StreamNotFound: there is no such stream, or no live door.
            StreamFailed: the stream broke; what it has was yielded before.
            StreamGone: it was deleted or replaced meanwhile.
            OffsetOutOfRange: ``start`` is no place where a record begins, or what comes next was dropped.
            ServerError: there is no such place to begin: the stream has no records, or does not know their times.
            Unreachable: no retry was left.
        """
        place = begins(start, last, since)
        reading = Records(self._live, name, self._files.patience, place, follow=follow, ended=ended)
        async with aclosing(reading.items()) as records:
            async for record in records:
                yield record

    async def stop(self, name: str, reason: str = "") -> RemoteStream:
        """Tell whoever writes a stream that its readers have enough, and close it: the "stop generating" button.

        The producer's append raises `StreamStopped`, in the middle of a long one, too; the other readers come to the
        end. Of a stream that has ended already, nothing changes.

        Args:
            name: the stream's name.
            reason: a line of text, up to 500 characters, that the producer and the other readers are told.

        Raises:
            StreamNotFound: there is no such stream.
        """

        async def once() -> RemoteStream:
            path = f"{path_of(self._live.prefix, name)}?stop"
            async with self._engine.exchange("POST", path, body=reason.encode(), headers=_TEXT) as answer:
                if answer.status != 200:
                    raise refuse(await answer.refusal(name), now=time.time)
                return remote_from_headers(name, answer.url, answer.headers)

        return await self._live.backoff.persist(once)

    async def presence(self, name: str) -> Presence:
        """Return who is there of a stream: its readers and its producers, on all processes of the server.

        Raises:
            StreamNotFound: there is no such stream.
        """

        async def once() -> Presence:
            path = f"{path_of(self._live.prefix, name)}?presence"
            async with self._engine.exchange("GET", path) as answer:
                if answer.status != 200:
                    raise refuse(await answer.refusal(name), now=time.time)
                try:
                    return presence_from_json(json.loads(await answer.document()))
                except ValueError as error:
                    raise ClientError(f"{answer.url} does not tell who is there.") from error

        return await self._live.backoff.persist(once)

    async def append(
        self,
        name: str,
        record: RecordLike,
        *,
        kind: RecordType = "auto",
        close: bool = False,
        ttl: float | None = None,
    ) -> Appended:
        """Append one record, and create the stream if there is none. No retry appends it twice.

        For many records `appender` is faster.

        Args:
            name: the stream's name.
            record: a line of text (``str``, ``bytes``), or a value that becomes a JSON text.
            kind: ``json`` to take text and bytes as JSON texts.
            close: close the stream with this record.
            ttl: seconds without a change after which a stream that this creates expires.

        Returns:
            The stream and the offset after the record.

        Raises:
            InvalidRecord: it cannot be a record.
            StreamClosed: nothing more can be appended.
            ContentTypeMismatch: the stream holds records of another type.
            Unreachable: no retry was left; the record was appended, or it was not.
        """
        content_type, line = encode_record(record, kind)
        return await self._sender(name, ttl).send(content_type, line, close=close)

    async def close_stream(self, name: str) -> Appended:
        """Close an open stream: nothing more can be appended to it, and its followers come to its end."""
        return await self._sender(name, None).send(None, b"", close=True)

    def appender(
        self, name: str, *, kind: RecordType = "auto", close: bool = False, ttl: float | None = None
    ) -> Appender:
        """Return an `Appender`, an async context manager that appends records live.

        Args:
            name: the stream's name.
            kind: what the records are: ``text``, ``json``, or ``auto`` for what the first one's Python type suggests.
            close: close the stream at the end of the block, unless an exception ends it.
            ttl: seconds without a change after which a stream that this creates expires.
        """
        return Appender(Sender(self._live, name, _ttl(ttl)), kind=kind, close=close)

    async def list(self, prefix: str = "") -> AsyncGenerator[RemoteStream, None]:
        """Yield the streams whose names begin with ``prefix``, in the order of their names' UTF-8 bytes."""
        after: str | None = None
        while True:
            path = f"{self._files.prefix}/{query(prefix=prefix or None, after=after, limit=PAGE)}"
            page = await self._files.backoff.persist(partial(self._page, path))
            try:
                for document in page["streams"]:
                    yield remote_from_json(document, self._engine.base_url)
                after = page["next"]
            except (KeyError, TypeError, ValueError) as error:
                raise ClientError("The server's listing is not one of a penstock server.") from error
            if after is None:
                return

    async def info(self, name: str) -> RemoteStream:
        """Return the state of a stream, without reading it. See `RemoteStream` for what is not known of it this way.

        Raises:
            StreamNotFound: there is no such stream.
        """
        return await self._files.backoff.persist(lambda: self._files.head(name))

    async def delete(self, name: str, *, if_match: str | None = None) -> None:
        """Delete a stream.

        Args:
            name: the stream's name.
            if_match: only if the stream's entity tag is this one.

        Raises:
            StreamNotFound: there is no such stream.
            PreconditionFailed: its entity tag is another one.
        """
        headers = {} if if_match is None else {"if-match": if_match}
        tries = 0

        async def once() -> None:
            nonlocal tries
            tries += 1
            async with self._engine.exchange("DELETE", path_of(self._files.prefix, name), headers=headers) as answer:
                # Not there any more when asked again: the answer that told of the success was lost.
                if answer.status not in {200, 204} and not (answer.status == 404 and tries > 1):
                    raise refuse(await answer.refusal(name), now=time.time)

        await self._files.backoff.persist(once)

    async def _page(self, path: str) -> dict[str, Any]:
        async with self._engine.exchange("GET", path) as answer:
            if answer.status != 200:
                raise refuse(await answer.refusal(), now=time.time)
            try:
                page = json.loads(await answer.document())
            except ValueError as error:
                raise ClientError(f"{answer.url} is not a listing.") from error
        if not isinstance(page, dict):
            raise ClientError(f"{answer.url} is not a listing.")
        return page

    def _sender(self, name: str, ttl: float | None) -> Sender:
        sender = self._senders.get(name)
        if sender is None:
            if len(self._senders) >= _MAX_SENDERS:
                self._senders = {key: sender for key, sender in self._senders.items() if not sender.idle}
            sender = self._senders[name] = Sender(self._live, name, _ttl(ttl))
        return sender


def _conditions(if_match: str | None, *, if_none_match: bool) -> dict[str, str]:
    headers = {"if-none-match": "*"} if if_none_match else {}
    return headers if if_match is None else headers | {"if-match": if_match}


def _ttl(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"stream-ttl": str(math.ceil(seconds))}
