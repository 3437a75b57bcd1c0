"""Folders, and many uploads at once."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_AHEAD: Final = 64
"""How many may be over before what comes before them is."""


def files_in(folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files in a folder and in those within it, in order, with their names below ``name``.

    Links to files are followed, links to folders are not; what is neither, pipes and devices, is left out.
    """
    for where, folders, files in os.walk(folder):
        folders.sort()
        below = Path(where).relative_to(folder).as_posix()
        for file in sorted(files):
            path = Path(where, file)
            with suppress(OSError):  # a link that leads nowhere
                if stat.S_ISREG(path.stat().st_mode):
                    yield path, "/".join([name, file] if below == "." else [name, below, file])


async def at_once(works: Sequence[Callable[[], Awaitable[T]]], jobs: int) -> AsyncGenerator[T, None]:
    """Do several things at once, and yield what comes of each, in order. The first that fails ends the others."""
    free = asyncio.Semaphore(jobs)
    tasks: dict[int, asyncio.Task[T]] = {}

    async def do(work: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await work()

    begun = 0
    try:
        for index in range(len(works)):
            while begun < min(len(works), index + jobs + _AHEAD):
                tasks[begun] = asyncio.create_task(do(works[begun]))
                begun += 1
            result = await tasks[index]
            del tasks[index]
            yield result
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
