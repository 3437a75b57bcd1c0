"""The plainest of uploads without the framework: a PUT of a small file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.core.service import Put, StreamService
from penstock.doors.fields import media_type_of, url_in
from penstock.doors.quick import CommittingDoor, QuickRequest
from penstock.doors.uploads import SMALL, stored
from penstock.errors import PenstockError
from penstock.model import StreamInfo, StreamSpec
from penstock.protocols.dates import format_date


@dataclass(slots=True)
class _Upload:
    """A file, and whether its name showed something before."""

    name: str
    data: bytes
    content_type: str
    found: bool = field(default=False)

    def look(self, info: StreamInfo | None) -> None:
        """See `Condition`."""
        self.found = info is not None


class QuickUploads(CommittingDoor[str, _Upload]):
    """Uploads to a files door that lets anybody write, and tells nobody.

    Args:
        service: the streams.
        prefix: where the files door is mounted.
        root_path: what the URLs that are told have before that.
        max_size: the most bytes of an upload, or None for no limit.
    """

    def __init__(
        self, service: StreamService, prefix: str = "/files", *, root_path: str = "", max_size: int | None = None
    ) -> None:
        super().__init__("PUT", prefix)
        self._service = service
        self._base = f"{root_path}{prefix}/"
        self._most = SMALL if max_size is None else min(SMALL, max_size)

    def meaning(self, fields: dict[bytes, bytes], *, numbered: bool) -> str | None:
        """See `QuickDoor.meaning`: the content type, as far as it is told."""
        if not numbered or not fields.keys() <= {b"content-type", b"content-length"}:
            return None
        declared = fields.get(b"content-type", b"").decode("latin-1")
        try:
            media_type_of(declared)
        except PenstockError:
            return None
        return declared

    def prepare(self, request: QuickRequest[str], body: bytes) -> _Upload:
        """See `CommittingDoor.prepare`."""
        if len(body) > self._most:
            raise PenstockError
        return _Upload(request.name, body, media_type_of(request.meaning, request.name))

    async def commit(self, items: Sequence[_Upload]) -> Sequence[StreamInfo | BaseException]:
        """See `CommittingDoor.commit`."""
        return await self._service.put_each(
            [
                Put(item.name, item.data, StreamSpec(content_type=item.content_type, length=len(item.data)), item.look)
                for item in items
            ]
        )

    def answer(self, item: _Upload, outcome: StreamInfo) -> bytes:
        """See `CommittingDoor.answer`."""
        answer = stored(outcome, url_in(self._base, item.name), 200 if item.found else 201)
        fields = b"".join([b"%b: %b\r\n" % each for each in answer.raw_headers])
        date = format_date(time.time()).encode()
        status = b"200 OK" if item.found else b"201 Created"
        return b"HTTP/1.1 %b\r\n%bdate: %b\r\n\r\n%b" % (status, fields, date, bytes(answer.body))
