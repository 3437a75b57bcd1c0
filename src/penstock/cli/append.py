"""``penstock append``: append lines to a stream as they come."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Literal

import click

from penstock.cli.options import Shared, shared_options
from penstock.errors import InvalidRecord, PenstockError, StreamNotFound
from penstock.protocols.media_types import essence

if TYPE_CHECKING:
    from penstock.client import Client

_READ: Final = 256 * 1024
_MAX_LINE: Final = 16 * 1024 * 1024


@click.command("append")
@click.argument("name")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    show_default=True,
    help="What the lines are. 'auto' goes by the stream, or, where there is none yet, by the first line.",
)
@click.option("--close", is_flag=True, help="Close the stream at the end of the input.")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="For a new stream: expire without a change.")
@shared_options
def command(shared: Shared, name: str, kind: Literal["auto", "text", "json"], ttl: int | None, *, close: bool) -> None:
    """Append each line of the standard input to the stream NAME as soon as it is there.

    The stream is created if there is none. A line that had to be sent again is not written twice.
    """

    async def run() -> None:
        async with shared.client() as client:
            batches = lines_of_input()
            first = await anext(batches, None)
            decided = kind if kind != "auto" else await _kind(client, name, first)
            appender = client.appender(name, kind=decided, ttl=ttl, close=close)
            try:
                async with appender:
                    while first is not None:
                        for line in first:
                            if line or decided == "text":
                                await appender.append(line)
                        first = await anext(batches, None)
            except PenstockError as error:
                # Whoever sends the rest later must know where it begins.
                error.args = (f"{error} {appender.count} lines were appended.",)
                raise
        shared.document({"name": name, "offset": appender.offset, "records": appender.count})

    asyncio.run(run())


async def _kind(client: Client, name: str, first: list[bytes] | None) -> Literal["text", "json"]:
    try:
        media_type = essence((await client.info(name)).content_type)
    except StreamNotFound:
        return "json" if first and _is_json_object(first[0]) else "text"
    return "text" if media_type.startswith("text/") else "json"


def _is_json_object(line: bytes) -> bool:
    """Whether a line is a JSON object or array. A bare word or number is more likely a line of text."""
    try:
        return isinstance(json.loads(line), dict | list)
    except ValueError:
        return False


async def lines_of_input() -> AsyncGenerator[list[bytes], None]:
    """Yield the lines of the standard input without their ends: those that are there, as soon as they are.

    They are read in a thread of its own that does not keep the program alive: nothing can end the wait for a terminal.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[list[bytes] | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(4)

    def tell(item: list[bytes] | Exception | None) -> None:
        try:
            loop.call_soon_threadsafe(ready.put_nowait, item)
        except RuntimeError:
            return  # the program is over

    def read() -> None:
        rest = b""
        try:
            while piece := os.read(sys.stdin.fileno(), _READ):
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > _MAX_LINE:
                    raise InvalidRecord(f"A line of the input is longer than {_MAX_LINE} bytes.")  # noqa: TRY301
                if lines:
                    room.acquire()
                    tell([line.removesuffix(b"\r") for line in lines])
            if rest:
                tell([rest])
            tell(None)
        except Exception as error:  # noqa: BLE001 -- raised where it can be handled
            tell(error)

    threading.Thread(target=read, daemon=True, name="standard input").start()
    while (item := await ready.get()) is not None:
        if isinstance(item, Exception):
            raise item
        room.release()
        yield item
