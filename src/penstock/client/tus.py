"""The client's side of tus 1.0.0: one request for each method. See `penstock.protocols.tus`.

Only what a penstock server says beyond the protocol is used beside it: the stream's state, a limit for bodies, a key.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.client.door import LONG_SILENCE, FilesDoor
from penstock.client.engine import Answer
from penstock.client.errors import ClientError, ServerError
from penstock.client.paths import path_of, query
from penstock.client.remote import RemoteStream, remote_from_json
from penstock.client.retry import refuse
from penstock.errors import PenstockError
from penstock.protocols import tus
from penstock.protocols.resumable import Limits

_NO_TUS: Final = frozenset({404, 405, 501})
"""What a server without the protocol answers to a creation."""

_VERSION: Final = {"tus-resumable": tus.VERSION}


class NoTus(ClientError):
    """The server does not speak the protocol here."""

    def __init__(self) -> None:
        super().__init__("The server takes no uploads that resume (by tus 1.0.0).")


class KeyInUse(ClientError):
    """There is an upload of that key already. It stays within this package: the caller sees ``error``."""

    def __init__(self, path: str, error: PenstockError) -> None:
        self.path = path
        self.error = error
        super().__init__(str(error))


class BodyRefused(ClientError):
    """Something on the way refuses a body of that size. It stays within this package: the caller sees ``error``."""

    def __init__(self, error: PenstockError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an upload is, as the server tells.

    Attributes:
        path: its URL, from the server's base URL on.
        offset: how many bytes the server has.
        length: how many there will be, or None if that was not declared.
        complete: whether it has become a closed stream.
        most: the most bytes that a request should have, or None for any.
    """

    path: str
    offset: int
    length: int | None
    complete: bool
    most: int | None = None


@dataclass(frozen=True, slots=True)
class TusDoor:
    """The files door of a server, for uploads by tus.

    Attributes:
        door: the door.
    """

    door: FilesDoor

    async def create(
        self, name: str, length: int | None, headers: Mapping[str, str], *, partial: bool = False
    ) -> Standing:
        """Create an upload without any bytes, trying once.

        Args:
            name: what the stream will be called.
            length: how many bytes it will have; None to declare it later.
            headers: ``Upload-Metadata`` and what else is to be said.
            partial: whether it is a part of an upload that is to be joined.

        Raises:
            NoTus: the server does not speak the protocol.
            KeyInUse: there is an upload of the ``Upload-Key`` that was given.
            PenstockError: what the server refuses it for.
        """
        fields = {**_VERSION, **headers, "content-length": "0"}
        if length is None:
            fields["upload-defer-length"] = "1"
        else:
            fields["upload-length"] = str(length)
        if partial:
            fields["upload-concat"] = "partial"
        return await self._posted(name, fields, length)

    async def join(self, name: str, parts: Sequence[str], headers: Mapping[str, str]) -> Standing:
        """Make an upload of complete parts, trying once. Again is harmless.

        Args:
            name: what the stream will be called.
            parts: the paths of the parts, in order.
            headers: ``Upload-Metadata`` and what else is to be said.
        """
        urls = " ".join(urllib.parse.urlsplit(self.door.engine.base_url).path + part for part in parts)
        fields = {**_VERSION, **headers, "content-length": "0", "upload-concat": f"final;{urls}"}
        return await self._posted(name, fields, None)

    async def _posted(self, name: str, fields: Mapping[str, str], length: int | None) -> Standing:
        path = path_of(self.door.prefix, name)
        async with self.door.engine.exchange("POST", path, headers=fields, body=b"", silence=LONG_SILENCE) as answer:
            if answer.status // 100 != 2:
                error = _no_tus(answer) or refuse(await answer.refusal(name), now=time.time)
                location = answer.headers.get("location")
                if isinstance(error, ServerError) and error.slug == "key-in-use" and location:
                    raise KeyInUse(self._path(answer.url, location), error)
                raise error
            location = answer.headers.get("location")
            if location is None or "tus-resumable" not in answer.headers:
                raise NoTus
            return _standing(answer, self._path(answer.url, location), length)

    async def look(self, path: str, name: str) -> Standing:
        """Ask how far an upload is, trying once. Whoever else writes to it is ended by that.

        Raises:
            StreamNotFound, StreamGone: there is no such upload.
        """
        async with self.door.engine.exchange("HEAD", path, headers=_VERSION) as answer:
            if answer.status // 100 != 2:
                raise refuse(await answer.refusal(name), now=time.time)
            return _standing(answer, path, None)

    async def append(
        self,
        standing: Standing,
        name: str,
        body: AsyncIterable[bytes],
        *,
        size: int | None,
        length: int | None,
    ) -> Standing:
        """Send the next bytes, trying once.

        Args:
            standing: how far the upload is.
            name: the stream's name, for errors.
            body: the bytes.
            size: how many they are, or None if that shows at their end.
            length: how many the upload will have in all, if that is to be declared now.

        Raises:
            BodyRefused: send fewer bytes at a time.
            OffsetMismatch: they do not belong where the upload is.
        """
        headers = {**_VERSION, "content-type": tus.CONTENT_TYPE, "upload-offset": str(standing.offset)}
        if size is not None:
            headers["content-length"] = str(size)
        if length is not None and standing.length is None:
            headers["upload-length"] = str(length)
        async with self.door.engine.exchange(
            "PATCH", standing.path, headers=headers, body=body, silence=LONG_SILENCE
        ) as answer:
            if answer.status // 100 != 2:
                refusal = await answer.refusal(name, offset=standing.offset)
                error = refuse(refusal, now=time.time)
                if answer.status == 413 and isinstance(error, ServerError) and error.slug is None:
                    raise BodyRefused(error)
                raise error
            return _standing(answer, standing.path, standing.length if length is None else length)

    async def find(self, key: str) -> RemoteStream | None:
        """Return the caller's upload of this key, complete or not, trying once; None if there is none.

        Args:
            key: as it was given at the creation.
        """
        engine = self.door.engine
        async with engine.exchange("GET", f"{self.door.prefix}/{query(key=key)}") as answer:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise refuse(await answer.refusal(), now=time.time)
            try:
                return remote_from_json(json.loads(await answer.document()), engine.base_url)
            except ValueError as error:
                raise ClientError(f"{answer.url} does not tell of uploads by their keys.") from error

    def path_of(self, stream: RemoteStream) -> str:
        """Return the path of an upload that was found, from the server's base URL on."""
        return self._path(self.door.engine.base_url, stream.url or "")

    async def delete(self, path: str, name: str) -> None:
        """Give an upload up, trying once."""
        async with self.door.engine.exchange("DELETE", path, headers=_VERSION) as answer:
            if answer.status // 100 != 2 and answer.status not in {404, 410}:
                raise refuse(await answer.refusal(name), now=time.time)

    def _path(self, base: str, location: str) -> str:
        """Return the path of a Location, from the server's base URL on.

        Only the path is used: a server behind a proxy may not know by what name it was reached, and credentials must
        not be sent elsewhere. Nor may it know under which prefix it is.
        """
        split = urllib.parse.urlsplit(urllib.parse.urljoin(base, location))
        prefix = urllib.parse.urlsplit(self.door.engine.base_url).path
        path = split.path.removeprefix(prefix) if split.path.startswith(f"{prefix}/") else split.path
        return f"{path}?{split.query}" if split.query else path


def _no_tus(answer: Answer) -> NoTus | None:
    """A refusal without the protocol's field is none of the protocol's."""
    return NoTus() if answer.status in _NO_TUS and "tus-resumable" not in answer.headers else None


def _standing(answer: Answer, path: str, length: int | None) -> Standing:
    offset, declared = (_number(answer.headers.get(name, "")) for name in ("upload-offset", "upload-length"))
    length = length if declared is None else declared
    state = answer.headers.get("stream-state")
    return Standing(
        path,
        offset or 0,
        length,
        # A server that does not tell the state has completed what has all its bytes.
        complete=offset == length if state is None else state == "closed",
        most=_most(answer.headers.get("upload-limit", "")),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _most(value: str) -> int | None:
    """Return the most bytes of a request that ``Upload-Limit`` tells."""
    limits = Limits.parse(value) if value else None
    return None if limits is None else limits.max_append_size
