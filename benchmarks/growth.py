"""How cost grows with what there is: the time a record takes in a long stream, and a look at one among many streams.

In the process itself, without HTTP: ``python -m benchmarks.growth [--streams 1000000] [--records 100000000] [FOLDER]``.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock import Streams, StreamSpec
from penstock.core.service import Append, Put

_TIMES = 200
_LINE = b'{"n":12345678}\n'
_LINES = StreamSpec(content_type="application/x-ndjson")


async def _median(what: Callable[[int], Awaitable[object]]) -> float:
    """Return the median of some calls, in microseconds."""
    took = []
    for number in range(_TIMES):
        began = time.perf_counter()
        await what(number)
        took.append(1e6 * (time.perf_counter() - began))
    return statistics.median(took)


async def grow_streams(streams: Streams, most: int) -> None:
    """Create streams, and look at some of them whenever there are ten times as many."""
    print(f"{'streams':>12} {'create':>10} {'open':>10} {'append':>10} {'list 100':>10}   (us)")
    count, stop = 0, 1000
    while stop <= most:
        began = time.perf_counter()
        created = stop - count
        for first in range(count, stop, 500):
            await streams.put_each(
                [Put(f"s/{number:09}", b"x", StreamSpec()) for number in range(first, min(first + 500, stop))]
            )
        create = 1e6 * (time.perf_counter() - began) / created
        count = stop

        async def look(number: int, count: int = count) -> None:
            (await streams.open(f"s/{number * 7919 % count:09}")).close()

        async def page(number: int, count: int = count) -> None:
            await streams.list("s/", after=f"s/{number * 7919 % count:09}", limit=100)

        name = f"live/{stop}"
        await streams.create(name, _LINES)

        async def append(_: int, name: str = name) -> None:
            await streams.append(name, (_LINE,))

        print(
            f"{count:>12,} {create:>10.0f} {await _median(look):>10.0f} {await _median(append):>10.0f}"
            f" {await _median(page):>10.0f}",
            flush=True,
        )
        stop *= 10


async def grow_records(streams: Streams, most: int) -> None:
    """Append records to a stream, and read some of them whenever there are ten times as many."""
    print(f"{'records':>12} {'batched':>10} {'one':>10} {'read last':>10}   (us; batched: ns a record)")
    await streams.create("log", _LINES)
    count, stop = 0, 10_000
    while stop <= most:
        began, appended = time.perf_counter(), stop - count
        while count < stop:
            size = min(100_000, stop - count)
            await streams.append("log", (_LINE * size,))
            count += size
        batched = 1e9 * (time.perf_counter() - began) / appended

        async def append(_: int) -> None:
            await streams.append_each([Append("log", _LINE)])

        one = await _median(append)
        count += _TIMES

        async def read(_: int) -> None:
            with await streams.open("log") as reader:
                await reader.read(reader.info.tail - 100 * len(_LINE), reader.info.tail)

        print(f"{count:>12,} {batched:>10.0f} {one:>10.0f} {await _median(read):>10.0f}", flush=True)
        stop *= 10


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="where the data goes for the while")
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=10_000_000)
    options = parser.parse_args()
    for measure, most in ((grow_streams, options.streams), (grow_records, options.records)):
        folder = tempfile.mkdtemp(prefix="growth-", dir=options.folder)
        try:
            async with Streams(folder) as streams:
                await measure(streams, most)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())
