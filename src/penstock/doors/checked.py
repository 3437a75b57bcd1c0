"""Bodies of which nothing may be kept unless their checksum is right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from penstock.core.digests import Hasher
from penstock.core.service import StreamService
from penstock.model import Buffer, new_incarnation
from penstock.toolkit.requests.bodies import pump

_SMALL = 1024 * 1024
"""Bodies up to this many declared bytes wait in memory."""


async def pump_checked(
    service: StreamService,
    chunks: AsyncIterator[Buffer],
    length: int | None,
    write: Callable[[Sequence[Buffer]], Awaitable[None]],
    hasher: Hasher,
    check: Callable[[], None],
) -> None:
    """Write what ``chunks`` yields once it is all there and was checked.

    A large body waits in a hidden stream of its own, which goes with this call, or with this process.

    Args:
        service: where a large body waits.
        chunks: the bytes.
        length: how many there will be, if that is known.
        write: is given some buffers, in order.
        hasher: takes digests of all the bytes before ``check`` is called.
        check: raises if they are not right; then nothing is written.
    """
    if length is not None and length <= _SMALL:
        data = [chunk async for chunk in chunks]
        await hasher.update(data)
        check()
        await write(data)
        return
    async with await service.replace(new_incarnation(), shown=False) as waiting:
        await pump(chunks, waiting.write, hasher)
        check()
        with await service.open(waiting.info.name, incarnation=waiting.info.incarnation) as reader:
            offset = 0
            while offset < reader.info.tail:
                data = [await reader.read(offset, reader.info.tail)]
                await write(data)
                offset += len(data[0])
