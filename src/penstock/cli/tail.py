"""``penstock tail``: show the end of a stream, and what comes after it."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.options import Shared, shared_options

if TYPE_CHECKING:
    from penstock.model import Chunk

_MAX_LINE: Final = 16 * 1024 * 1024


@click.command("tail")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on as the stream grows, until it is closed.")
@click.option("--from", "start", type=click.IntRange(min=0), metavar="OFFSET", help="Begin at this offset in bytes.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Begin this many lines before the end (10).")
@shared_options
def command(shared: Shared, name: str, start: int | None, lines: int | None, *, follow: bool) -> None:
    """Write the last lines of the stream NAME to the standard output.

    With --json each line becomes a JSON document: the record, and the offset after it, at which --from goes on.
    """
    if start is not None and lines is not None:
        raise click.UsageError("--from and --lines both say where to begin: give one of them.")

    async def run() -> None:
        from penstock.client.ahead import WriteBehind
        from penstock.client.destinations import Pipe

        # The output may be a pipe that nobody reads from: it is written to beside the loop, and left on Ctrl-C.
        output = WriteBehind(Pipe(sys.stdout.buffer).write, at_least=1, abandon=True)
        async with shared.client() as client, output:
            if start is None:
                chunks = client.tail(name, 10 if lines is None else lines, follow=follow)
            else:
                chunks = client.read(name, start, follow=follow)
            async with aclosing(chunks):
                async for piece in _documents(chunks) if shared.json else _bytes(chunks):
                    await output.add(piece)

    asyncio.run(run())


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


def _document(line: bytes, end: int) -> bytes:
    document: dict[str, Any] = {"offset": end}
    try:
        document["record"] = line.decode()
    except UnicodeDecodeError:
        document["base64"] = b64encode(line).decode()
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"
