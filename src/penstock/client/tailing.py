"""Where the last lines of a stream begin."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from penstock.client.door import FilesDoor
from penstock.client.reading import Reading, Version

_BLOCK: Final = 256 * 1024


async def start_of_last_lines(door: FilesDoor, name: str, tail: int, lines: int, version: Version) -> int:
    """Return the offset at which the last lines begin, holding only one block of the stream at a time.

    A line end at the very end of the stream ends the last line; what comes after the last line end is a line, too.

    Args:
        door: where to read.
        name: the stream's name.
        tail: the offset of the end.
        lines: how many lines, more than 0.
        version: what is being read.
    """
    stop = tail
    left = lines
    while stop:
        start = max(0, stop - _BLOCK)
        block = await _block(door, name, start, stop, version)
        end = len(block) - (1 if stop == tail and block.endswith(b"\n") else 0)
        while (found := block.rfind(b"\n", 0, end)) >= 0:
            left -= 1
            if not left:
                return start + found + 1
            end = found
        stop = start
    return 0


async def _block(door: FilesDoor, name: str, start: int, stop: int, version: Version) -> bytes:
    block = bytearray()
    async with aclosing(Reading(door, name, start=start, stop=stop, version=version).chunks()) as chunks:
        async for chunk in chunks:
            block += chunk.data
    return bytes(block)
