"""What the servers stream in the benchmarks of generators."""

from collections.abc import AsyncGenerator, Generator

COUNT = 200_000
BYTES = b"".join(b"line %d\n" % number for number in range(COUNT // 10))


def plain_lines() -> Generator[str, None, None]:
    for number in range(COUNT):
        yield f"line {number}\n"


async def async_lines() -> AsyncGenerator[str, None]:
    for number in range(COUNT):
        yield f"line {number}\n"


async def rows() -> AsyncGenerator[dict[str, object], None]:
    for number in range(COUNT):
        yield {"id": number, "name": "sensor", "value": 20.5}
