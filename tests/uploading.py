"""Uploads that resume, by hand: what the requests of each protocol look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from wire import request


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol of uploads that resume.

    Attributes:
        name: what it is called.
        asking: the fields of a request that asks for the offset.
        sending: the fields of every append.
        last: further ones of an append that brings all of the rest.
    """

    name: str
    asking: Mapping[str, str]
    sending: Mapping[str, str]
    last: Mapping[str, str]
    creating: Mapping[str, str]

    async def create(self, port: int, length: int, path: str = "/files/") -> str:
        """Create an upload, and return its URL's path and query."""
        created = await request(port, "POST", path, b"", {**self.creating, "upload-length": str(length)})
        assert created.status == 201, created
        return urljoin(path, created.headers["location"])

    async def progress(self, port: int, url: str) -> tuple[int, bool]:
        """Return the offset that the server tells, and whether the upload is complete. It evicts whoever is sending."""
        answer = await request(port, "HEAD", url, headers=self.asking)
        assert answer.status in {200, 204}, answer
        offset = answer.headers["upload-offset"]
        complete = answer.headers.get("upload-complete", "?1" if offset == answer.headers["upload-length"] else "?0")
        return int(offset), complete == "?1"

    def appending(self, offset: int, size: int) -> dict[str, str]:
        """Return the fields of a request that brings all of the rest."""
        return {**self.sending, **self.last, "upload-offset": str(offset), "content-length": str(size)}


_TUS = {"tus-resumable": "1.0.0"}
_DRAFT = {"upload-draft-interop-version": "8"}

TUS = Dialect("tus", _TUS, {**_TUS, "content-type": "application/offset+octet-stream"}, {}, _TUS)
DRAFT = Dialect(
    "draft",
    _DRAFT,
    {**_DRAFT, "content-type": "application/partial-upload", "upload-complete": "?0"},
    {"upload-complete": "?1"},
    {**_DRAFT, "upload-complete": "?0"},
)
DIALECTS = {dialect.name: dialect for dialect in (TUS, DRAFT)}
