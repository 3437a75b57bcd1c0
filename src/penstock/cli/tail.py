"""``penstock tail``: show the end of a stream, and what comes after it."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.options import Shared, shared_options
from penstock.errors import OffsetOutOfRange, PenstockError, StreamNotFound

if TYPE_CHECKING:
    from penstock.client import Client, Closed, Record
    from penstock.model import Chunk

_MAX_LINE: Final = 16 * 1024 * 1024
_LINES: Final = 10
_NOT_SO: Final = frozenset({400, 404, 405, 406})
"""Statuses of a live door that is not there, or has no answer for this stream."""


@click.command("tail")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on as the stream grows, until it is closed.")
@click.option("--from", "start", type=click.IntRange(min=0), metavar="OFFSET", help="Begin at this offset in bytes.")
@click.option(
    "-n", "--last", "--lines", "last", type=click.IntRange(min=0), help="Begin this many records before the end (10)."
)
@click.option("--since", metavar="TIME", help="Begin at a time: 2030-01-02T03:04:05Z, or -60 for a minute ago.")
@shared_options
def command(shared: Shared, name: str, start: int | None, last: int | None, since: str | None, *, follow: bool) -> None:
    """Write the last records of the stream NAME to the standard output.

    A connection that breaks is made anew, and nothing is missed. How a stream ended that was followed is told on the
    standard error output. Exit codes: 0 if it was closed, 6 if it failed, 4 if it was deleted or what came next had
    been dropped.

    With --json each record becomes a JSON document, with the offset after it, at which --from goes on; and so does the
    end, with its state.
    """
    if sum(value is not None for value in (start, last, since)) > 1:
        raise click.UsageError("--from, --last and --since all say where to begin: give one of them.")

    async def run() -> None:
        from penstock.client.ahead import WriteBehind
        from penstock.client.destinations import Pipe

        # The output may be a pipe that nobody reads from: it is written to beside the loop, and left on Ctrl-C.
        output = WriteBehind(Pipe(sys.stdout.buffer).write, at_least=1, abandon=True)
        ends: list[Closed] = []
        async with shared.client() as client, output:
            anywhere = start is None and last is None and since is None
            place = Place(start, _LINES if anywhere else last, since)
            async with aclosing(_pieces(client, name, place, ends, follow=follow, json=shared.json)) as pieces:
                async for piece in pieces:
                    await output.add(piece)
            if shared.json:
                for end in ends:
                    await output.add(_line(state="closed", offset=end.offset, reason=end.reason))
        for end in ends:
            shared.note(f"{name} was closed at offset {end.offset}{'' if end.reason is None else f': {end.reason}'}")

    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Place:
    """Where to begin: one of these, and the others None."""

    start: int | None
    last: int | None
    since: str | None


async def _pieces(
    client: Client, name: str, place: Place, ends: list[Closed], *, follow: bool, json: bool
) -> AsyncGenerator[bytes, None]:
    """Yield what is to be written: records by the live door, or what the files door has where that has no answer."""
    from penstock.client import Closed, ServerError

    begun = False
    records = client.records(name, place.start, last=place.last, since=place.since, follow=follow, ended=ends.append)
    try:
        async with aclosing(records):
            async for record in records:
                begun = True
                yield _shown(record, json=json)
    except PenstockError as error:
        # No live door, or none for this stream; or an offset within a record, from where there are bytes all the same.
        if place.since is not None and isinstance(error, ServerError) and error.status == 400:
            raise click.UsageError(f"--since: {error.detail}") from error
        if begun or place.since is not None or not _may_be_elsewhere(error):
            raise
    else:
        return
    if place.start is None:
        chunks = client.tail(name, place.last or 0, follow=follow)
    else:
        chunks = client.read(name, place.start, follow=follow)
    async with aclosing(chunks):
        async for piece in _documents(chunks) if json else _bytes(chunks):
            yield piece
    if follow:
        stream = await client.info(name)
        ends.append(Closed(stream.tail, stream.stopped))


def _may_be_elsewhere(error: PenstockError) -> bool:
    from penstock.client import ServerError

    if isinstance(error, ServerError):
        return error.status in _NOT_SO
    return isinstance(error, StreamNotFound | OffsetOutOfRange)


def _shown(record: Record, *, json: bool) -> bytes:
    if not json:
        return record.data + b"\n" if record.whole else record.data
    return _document(record.data, record.offset, text=record.whole)


async def _bytes(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        yield bytes(chunk.data)


async def _documents(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[bytes, None]:
    from penstock.protocols.records import LineSplitter

    splitter: LineSplitter | None = None
    async for chunk in chunks:
        if splitter is None:
            splitter = LineSplitter(_MAX_LINE, chunk.offset)
        documents = [_document(line, end) for end, line in splitter.numbered(bytes(chunk.data))]
        if documents:
            yield b"".join(documents)
    if splitter is not None and splitter.pending:
        yield _document(splitter.pending, splitter.offset + len(splitter.pending))


def _document(data: bytes, end: int, *, text: bool = True) -> bytes:
    if text:
        try:
            return _line(offset=end, record=data.decode())
        except UnicodeDecodeError:
            pass
    return _line(offset=end, base64=b64encode(data).decode())


def _line(**members: object) -> bytes:
    told = {name: value for name, value in members.items() if value is not None}
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"
