"""A client of the IETF's resumable uploads in as few lines as a test can see through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire import Answer, Connection

PARTIAL = "application/partial-upload"


@dataclass
class Told:
    """What was answered to a request: interim responses, then the answer."""

    interim: list[tuple[int, Mapping[str, str]]]
    answer: Answer

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.answer.headers

    @property
    def announced(self) -> Mapping[str, str]:
        """The first interim response."""
        return self.interim[0][1]


@dataclass
class Client:
    """Speaks one version of the draft, or none, to one server.

    Args:
        port: the server's.
        version: the interop version.
        headers: fields of every request.
    """

    port: int
    version: int | None = 8
    headers: Mapping[str, str] = field(default_factory=dict)

    def fields(self, complete: bool | None = None, **more: str) -> dict[str, str]:
        found = {**self.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        if self.version is not None:
            found["upload-draft-interop-version"] = str(self.version)
        if complete is not None and self.version == 3:
            found["upload-incomplete"] = "?0" if complete else "?1"
        elif complete is not None:
            found["upload-complete"] = "?1" if complete else "?0"
        return found

    def complete(self, headers: Mapping[str, str]) -> bool | None:
        """What a response says of completeness."""
        value = headers.get("upload-incomplete" if self.version == 3 else "upload-complete")
        return None if value is None else (value == "?1") != (self.version == 3)

    async def send(
        self, method: str, path: str, body: bytes | None, fields: Mapping[str, str], *, chunked: bool = False
    ) -> Told:
        """Make a request, and read all that comes."""
        async with Connection(self.port) as connection:
            if body is None:
                await connection.begin(method, path, fields)
            elif chunked:
                await connection.begin(method, path, {**fields, "transfer-encoding": "chunked"})
                for start in range(0, len(body), 100_000):
                    await connection.write_chunk(body[start : start + 100_000])
                await connection.write_chunk(b"")
            else:
                await connection.begin(method, path, {**fields, "content-length": str(len(body))})
                await connection.write(body)
            return await told(connection)

    async def create(
        self,
        path: str,
        body: bytes = b"",
        complete: bool = True,
        *,
        method: str = "PUT",
        chunked: bool = False,
        **fields: str,
    ) -> Told:
        return await self.send(method, path, body, self.fields(complete, **fields), chunked=chunked)

    async def look(self, location: str, method: str = "HEAD", **fields: str) -> Answer:
        return (await self.send(method, location, None, self.fields(None, **fields))).answer

    async def offset(self, location: str) -> int:
        return int((await self.look(location)).headers["upload-offset"])

    async def append(
        self,
        location: str,
        body: bytes,
        offset: int | None,
        complete: bool | None = True,
        *,
        chunked: bool = False,
        **fields: str,
    ) -> Told:
        given = {"content_type": PARTIAL, **fields}
        if offset is not None:
            given["upload_offset"] = str(offset)
        return await self.send("PATCH", location, body, self.fields(complete, **given), chunked=chunked)

    async def cancel(self, location: str, **fields: str) -> Answer:
        return (await self.send("DELETE", location, None, self.fields(None, **fields))).answer


async def told(connection: Connection) -> Told:
    """Read interim responses up to the answer, and the answer."""
    interim: list[tuple[int, Mapping[str, str]]] = []
    while await connection.head() < 200:
        interim.append((connection.status, connection.headers))
    body = b"".join([data async for data in connection.body()])
    return Told(interim, Answer(connection.status, connection.headers, body))
