"""Where lines of a stream begin, looked for from its end."""

from __future__ import annotations

from penstock.core.ports import Reader

_BLOCK = 64 * 1024


async def lines_back(reader: Reader, stop: int, count: int, least: int) -> int:
    """Return where the line begins that is ``count`` before the one that ends or goes on at ``stop``.

    That is after the line feed number ``count``, counted backwards from ``stop`` and from 0. The search goes no further
    back than ``least``.
    """
    left = count
    while stop > least:
        start = max(least, stop - _BLOCK)
        block = await block_of(reader, start, stop)
        lines = block.count(b"\n")
        if lines > left:
            at = len(block)
            for _ in range(left + 1):
                at = block.rindex(b"\n", 0, at)
            return start + at + 1
        left -= lines
        stop = start
    return stop


async def line_from(reader: Reader, start: int, stop: int) -> int:
    """Return where the first line begins at or after ``start``; ``stop`` if none begins before that."""
    at = max(start - 1, reader.info.start)
    if at < start:
        while at < stop:
            block = await block_of(reader, at, min(at + _BLOCK, stop))
            found = block.find(b"\n")
            if found >= 0:
                return at + found + 1
            at += len(block)
    return min(max(start, at), stop)


async def block_of(reader: Reader, start: int, stop: int) -> bytes:
    """Return all bytes from ``start`` to ``stop``."""
    parts: list[bytes] = []
    while start < stop:
        data = bytes(await reader.read(start, stop))
        parts.append(data)
        start += len(data)
    return b"".join(parts)
