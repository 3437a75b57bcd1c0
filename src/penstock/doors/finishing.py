"""The end of an upload that resumes: the application is told once, and its answer is given to whoever asks again."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.service import StreamService
from penstock.doors.hooks import Hooks
from penstock.doors.once import turn
from penstock.model import StreamInfo

ANSWER: Final = "answer"
"""The attribute that holds the answer, once the application was told; one without a status is the door's own."""


class Finishing:
    """Tells ``on_complete`` of uploads that resume, one process at a time, until it was told.

    The last request of an upload tells it; where that failed, or its process ended, the client that comes back does.

    Args:
        service: the streams.
        hooks: what is told.
    """

    def __init__(self, service: StreamService, hooks: Hooks) -> None:
        self._service = service
        self._hooks = hooks
        self._running: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    async def answer(self, info: StreamInfo, request: Request) -> Response | None:
        """Return the application's answer to the client of a complete upload, or None for the door's own.

        It is asked for the first time, or was kept. The request of a client that is gone is carried on nevertheless.
        """
        kept: Mapping[str, Any] | None = info.attributes.get(ANSWER)
        if kept is None:
            if self._hooks.on_complete is None:
                return None
            running = self._running.get(info.incarnation)
            if running is None:
                running = asyncio.create_task(self._told(info, request))
                self._running[info.incarnation] = running
                running.add_done_callback(lambda _: self._running.pop(info.incarnation, None))
            kept = await asyncio.shield(running)
        return restored(kept)

    async def _told(self, info: StreamInfo, request: Request) -> Mapping[str, Any]:
        async with turn(self._service, info) as ours:
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
