"""What is to be done once with a stream, whichever process is asked to, and however often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from penstock.core.rules import CLAIM
from penstock.core.service import StreamService
from penstock.errors import StreamGone, StreamNotFound
from penstock.model import StreamInfo, new_incarnation

__all__ = ["Turn", "turn"]

_CLAIMED: Final = 15.0
"""Seconds for which a process has it to itself; it asks for more while it takes its time. Then it has crashed."""


class Turn:
    """The right to do it now.

    Attributes:
        info: the stream, as it was when the turn came: whether it was done is to be seen in its attributes.
    """

    def __init__(self, service: StreamService, info: StreamInfo) -> None:
        self._service = service
        self.info = info

    async def end(self, **attributes: Any) -> None:
        """Say what became of it, durably, and let the next one look."""
        # Doing it may have been to delete the stream, or to move it elsewhere: then there is nothing more to say.
        with suppress(StreamGone, StreamNotFound):
            changes = {CLAIM: None, **attributes}
            self.info = await self._service.annotate(self.info.name, changes, incarnation=self.info.incarnation)


@asynccontextmanager
async def turn(service: StreamService, info: StreamInfo) -> AsyncIterator[Turn]:
    """Wait until nobody else is at it, and keep everybody else from it.

    Raises:
        StreamGone: the stream is gone.
        Stopping: the service is shutting down.
    """
    by = new_incarnation()
    while not await service.claim(info.name, by, _CLAIMED, incarnation=info.incarnation):
        await service.when(info.name, lambda now: _is_free(service, now), incarnation=info.incarnation)
    found = Turn(service, await service.info(info.name, incarnation=info.incarnation))
    renewing = asyncio.create_task(_renew(service, info, by))
    try:
        yield found
    finally:
        renewing.cancel()
        if CLAIM in found.info.attributes:
            await found.end()


def _is_free(service: StreamService, info: StreamInfo) -> bool:
    held = info.attributes.get(CLAIM)
    return held is None or held["until"] <= service.now()


async def _renew(service: StreamService, info: StreamInfo, by: str) -> None:
    with suppress(StreamGone, StreamNotFound):
        while True:
            await asyncio.sleep(_CLAIMED / 3)
            await service.claim(info.name, by, _CLAIMED, incarnation=info.incarnation)
