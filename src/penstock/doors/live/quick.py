"""The plainest of appends without the framework: a POST of a record to a stream that is there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final

from penstock.core.service import Append, StreamService
from penstock.doors.live.appending import LARGE, RecordFormat
from penstock.doors.quick import Exchange, QuickDoor, QuickRequest
from penstock.errors import PenstockError
from penstock.model import Appended
from penstock.protocols.dates import format_date
from penstock.toolkit.responses.stream_fields import state_fields

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ ]?(([0-9]{1,5}))\r\n", re.IGNORECASE)


class QuickAppends(QuickDoor[RecordFormat]):
    """Appends to a live door that lets anybody append.

    Args:
        service: the streams.
        prefix: where the live door is mounted.
    """

    def __init__(self, service: StreamService, prefix: str = "/live") -> None:
        super().__init__("POST", prefix, _LENGTH)
        self._service = service
        self._waiting: list[tuple[Append, QuickRequest[RecordFormat], Exchange]] = []
        self._appending: asyncio.Task[None] | None = None

    def meaning(self, fields: dict[bytes, bytes]) -> RecordFormat | None:
        """See `QuickDoor.meaning`: how the content makes records."""
        if fields.keys() != {b"content-type", b"content-length"} or not 0 < int(fields[b"content-length"]) <= LARGE:
            return None
        try:
            return RecordFormat.of(fields[b"content-type"].decode("latin-1"))
        except PenstockError:
            return None

    def length(self, numbers: Sequence[bytes]) -> int:
        """See `QuickDoor.length`."""
        return int(numbers[0])

    def take(self, request: QuickRequest[RecordFormat], body: bytes, exchange: Exchange) -> None:
        """Append the record, or the lines, that a body is.

        What comes while others are being committed is appended together.
        """
        name, format_ = request.plain.name, request.plain.meaning
        try:
            (data,) = format_.whole(body, batch=False)
        except PenstockError:
            exchange.refuse()
            return
        self._waiting.append((Append(name, data, format_.stream_type), request, exchange))
        if self._appending is None:
            self._appending = asyncio.get_running_loop().create_task(self._append_all())

    async def _append_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            outcomes: Sequence[Appended | BaseException]
            try:
                outcomes = await self._service.append_each([append for append, _, _ in waiting])
            except BaseException as error:  # noqa: BLE001 - who waits has to hear of it
                outcomes = [error] * len(waiting)
            for (_, request, exchange), outcome in zip(waiting, outcomes, strict=True):
                if isinstance(outcome, Appended):
                    exchange.answer(_answer(request.plain.quoted, outcome))
                else:
                    exchange.refuse(outcome)
        self._appending = None


def _answer(name: str, appended: Appended) -> bytes:
    """Return the answer to an append: see `penstock.doors.live.appending.content_of`."""
    content = f'{{"name":{name},"offset":{appended.offset},"duplicate":false}}'
    fields = "".join([f"{field}: {value}\r\n" for field, value in state_fields(appended.info).items()])
    return (
        f"HTTP/1.1 200 OK\r\n{fields}content-length: {len(content)}\r\ncontent-type: application/json\r\n"
        f"date: {format_date(time.time())}\r\n\r\n{content}"
    ).encode()
