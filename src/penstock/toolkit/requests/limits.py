"""How slowly a body may arrive. A sender that holds a connection without sending is refused (408)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from penstock.toolkit.problems import RequestError

__all__ = ["Pace", "timely"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is expected of a body's sender. Only the time that the reader waits for bytes counts.

    Attributes:
        idle: seconds that may pass without a byte; None for no limit.
        min_rate: bytes a second that must arrive on average; None for no limit.
        grace: seconds that the sender may fall behind ``min_rate``: how long a pause or a slow start may be. Faster
            bytes make up for slower ones, up to this.
    """

    idle: float | None = None
    min_rate: float | None = None
    grace: float = 10.0


async def timely(chunks: AsyncGenerator[bytes, None], pace: Pace) -> AsyncGenerator[bytes, None]:
    """Yield what ``chunks`` yields, as long as it comes in time.

    Raises:
        RequestError: ``too-slow`` (408, RFC 9110 section 15.5.9). The connection is to be closed after it.
    """
    clock = asyncio.get_running_loop().time
    slack = pace.grace
    async with aclosing(chunks):
        while True:
            patience = pace.idle
            if pace.min_rate is not None:
                patience = slack if patience is None else min(patience, slack)
            begun = clock()
            try:
                async with asyncio.timeout(patience) as limit:
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not limit.expired():
                    raise
                raise _too_slow(pace, clock() - begun) from None
            if pace.min_rate is not None:
                slack = min(pace.grace, slack - (clock() - begun) + len(chunk) / pace.min_rate)
                if slack <= 0:
                    raise _too_slow(pace, 0)
            yield chunk


def _too_slow(pace: Pace, waited: float) -> RequestError:
    if pace.idle is not None and waited >= pace.idle:
        detail = f"Nothing arrived for {pace.idle:g} seconds."
    else:
        detail = f"The body arrives more slowly than {pace.min_rate:g} bytes a second, which is the least here."
    # A server must close the connection, since the rest of the body would be taken for the next request.
    return RequestError("too-slow", 408, detail, {"connection": "close"})
