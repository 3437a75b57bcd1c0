"""The end of an upload: the application is told, and the answer for one that resumes is given to whoever asks again."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.service import StreamService
from penstock.doors.hooks import Hooks
from penstock.doors.once import turn
from penstock.doors.outbox import Outbox
from penstock.model import StreamInfo

ANSWER: Final = "answer"
"""The attribute that holds the answer, once the application was told; one without a status is the door's own."""


class Finishing:
    """Tells ``on_complete`` of a door's uploads: by the request that completes one, or later, until it was told.

    Of an upload that resumes, one process at a time does so, and the answer is kept.

    Args:
        service: the streams.
        hooks: what is told.
        door: tells this door from the service's others, also after a restart.
    """

    def __init__(self, service: StreamService, hooks: Hooks, door: str) -> None:
        self._service = service
        self._hooks = hooks
        self._running: dict[str, asyncio.Task[Mapping[str, Any]]] = {}
        self._outbox: Outbox | None = None
        if hooks.on_complete is not None:
            self._outbox = Outbox(service, door, self._again)
            service.companions.append(self._outbox)

    async def expect(self, name: str, incarnation: str, request: Request) -> None:
        """Note that an upload is about to be complete: from now on, the application will be told, come what may.

        To be awaited before each commit that completes one.
        """
        if self._outbox is not None:
            await self._outbox.expect(name, incarnation, request)

    async def tell(self, infos: Sequence[StreamInfo], request: Request) -> Response | None:
        """Tell of the uploads of a single request, for which nobody asks again; return the first answer, or None.

        Raises:
            Exception: what the hook raises.
        """
        if self._outbox is None:
            return None
        answers = []
        async with self._outbox.held(infos):
            for info in infos:
                async with self._outbox.telling(info):
                    answers.append(await self._hooks.completed(info, request))
        return next((answer for answer in answers if answer is not None), None)

    async def answer(self, info: StreamInfo, request: Request) -> Response | None:
        """Return the application's answer to the client of a complete upload, or None for the door's own.

        It is asked for the first time, or was kept. The request of a client that is gone is carried on nevertheless.
        """
        kept: Mapping[str, Any] | None = info.attributes.get(ANSWER)
        if kept is None:
            if self._outbox is None:
                return None
            running = self._running.get(info.incarnation)
            if running is None:
                running = asyncio.create_task(self._told(info, request, self._outbox))
                self._running[info.incarnation] = running
                running.add_done_callback(lambda _: self._running.pop(info.incarnation, None))
            kept = await asyncio.shield(running)
        return restored(kept)

    async def _again(self, info: StreamInfo, request: Request) -> None:
        try:
            await self.answer(info, request)
        except asyncio.CancelledError:  # the service stops
            if running := self._running.get(info.incarnation):
                running.cancel()
                await asyncio.wait([running])
            raise

    async def _told(self, info: StreamInfo, request: Request, outbox: Outbox) -> Mapping[str, Any]:
        async with outbox.telling(info), turn(self._service, info) as ours:
            told: Mapping[str, Any] | None = ours.info.attributes.get(ANSWER)
            if told is None:
                told = _kept(await self._hooks.completed(ours.info, request))
                await ours.end(**{ANSWER: told})
            return told


def answered(info: StreamInfo) -> bool:
    """Tell whether the application was told of a complete upload, and its answer, if it has one, is kept."""
    return ANSWER in info.attributes


def completed_by(answer: Response, fields: Mapping[str, str]) -> Response:
    """Return an application's answer with the door's fields, but for those that it has set itself."""
    for name, value in fields.items():
        answer.headers.setdefault(name, value)
    return answer


def _kept(answer: Response | None) -> dict[str, Any]:
    if answer is None:
        return {}
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.raw_headers]
    return {"status": answer.status_code, "headers": headers, "body": b64encode(bytes(answer.body)).decode()}


def restored(kept: Mapping[str, Any]) -> Response | None:
    """Return an answer that was kept; None if it is the door's own."""
    if "status" not in kept:
        return None
    answer = Response(b64decode(kept["body"]), kept["status"])
    answer.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept["headers"]]
    return answer
