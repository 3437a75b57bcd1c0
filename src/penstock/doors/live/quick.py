"""The plainest of appends without the framework: a POST of a record to a stream that is there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.core.service import Append, StreamService
from penstock.doors.live.appending import LARGE, RecordFormat
from penstock.doors.quick import CommittingDoor, QuickRequest
from penstock.errors import PenstockError
from penstock.model import Appended
from penstock.protocols.dates import format_date
from penstock.toolkit.responses.stream_fields import state_fields


class QuickAppends(CommittingDoor[RecordFormat, Append]):
    """Appends to a live door that lets anybody append.

    Args:
        service: the streams.
        prefix: where the live door is mounted.
    """

    def __init__(self, service: StreamService, prefix: str = "/live") -> None:
        super().__init__("POST", prefix)
        self._service = service

    def meaning(self, fields: dict[bytes, bytes], *, numbered: bool) -> RecordFormat | None:
        """See `QuickDoor.meaning`: how the content makes records."""
        if not numbered or fields.keys() != {b"content-type", b"content-length"}:
            return None
        try:
            return RecordFormat.of(fields[b"content-type"].decode("latin-1"))
        except PenstockError:
            return None

    def prepare(self, request: QuickRequest[RecordFormat], body: bytes) -> Append:
        """See `CommittingDoor.prepare`: the record, or the lines, that a body is."""
        if len(body) > LARGE:
            raise PenstockError
        (data,) = request.meaning.whole(body, batch=False)
        return Append(request.name, data, request.meaning.stream_type)

    async def commit(self, items: Sequence[Append]) -> Sequence[Appended | BaseException]:
        """See `CommittingDoor.commit`."""
        return await self._service.append_each(items)

    def answer(self, item: Append, outcome: Appended) -> bytes:
        """See `CommittingDoor.answer`, and `penstock.doors.live.appending.content_of`."""
        content = f'{{"name":"{item.name}","offset":{outcome.offset},"duplicate":false}}'
        fields = "".join([f"{field}: {value}\r\n" for field, value in state_fields(outcome.info).items()])
        return (
            f"HTTP/1.1 200 OK\r\n{fields}content-length: {len(content)}\r\ncontent-type: application/json\r\n"
            f"date: {format_date(time.time())}\r\n\r\n{content}"
        ).encode()
