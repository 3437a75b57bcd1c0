"""What the servers stream in the benchmarks of generators."""

import random
from collections.abc import AsyncGenerator, Generator

COUNT = 200_000
BYTES = b"".join(b"line %d\n" % number for number in range(COUNT // 10))
MEMBERS = 128
MEMBER = random.Random(0).randbytes(1024 * 1024)
"""What a zip holds, so many times."""


def plain_lines() -> Generator[str, None, None]:
    for number in range(COUNT):
        yield f"line {number}\n"


async def async_lines() -> AsyncGenerator[str, None]:
    for number in range(COUNT):
        yield f"line {number}\n"


async def rows() -> AsyncGenerator[dict[str, object], None]:
    for number in range(COUNT):
        yield {"id": number, "name": "sensor", "value": 20.5}
