"""What an application adds to a door: who may do what, and what happens when an upload begins and when it is complete.

Every door that takes uploads, whatever its protocol, goes through the same two places, in this order:

1. `Hooks.authorized` on *every* request, before anything of its body is read. So a token that changes or expires in the
   middle of an upload counts from the next request on.
2. `Hooks.begun` before a stream is created: it finds the caller, asks ``on_create``, and holds the upload to its
   limits. What it returns is what is to be created: the hook may have changed the name, the type, the metadata and the
   limit.
3. `penstock.doors.finishing.Finishing`: `expect` before the commit that completes a stream, and `answer` (an upload
   that resumes) or `tell` (one in a single request) when it is complete and durable, and before the client hears of it.
   Where the hook returns a response, that is the client's answer. What it raises is raised: then the client hears of
   that, and nothing of the stream is lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.service import StreamService
from penstock.errors import StreamNotFound
from penstock.model import OCTETS, StreamInfo, check_name
from penstock.toolkit.hooks import called
from penstock.toolkit.problems import RequestError

Action: TypeAlias = Literal["read", "write", "delete", "list", "stop"]

Authorize: TypeAlias = Callable[[Request, Action, str], Awaitable[bool | None] | bool | None]
"""Is asked on every request, before anything is done, or read of the body.

It is given the request, the action, and the stream's name (for ``list``, the prefix). It refuses with False (403) or by
raising FastAPI's HTTPException. It may be a plain function, which runs in a thread, or an async one.
"""

Owner: TypeAlias = Callable[[Request], Awaitable[str | None] | str | None]
"""Tells who is calling: a text that stays the same whatever token the caller has today, or None for nobody.

Uploads belong to their owner: nobody else can resume them or find them by their keys. A quota is an owner's. It may
raise FastAPI's HTTPException, and may be a plain function, which runs in a thread, or an async one.
"""

Protocol: TypeAlias = Literal["plain", "form", "tus", "resumable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload that is about to be created.

    Attributes:
        name: what its stream is to be called: as the URL says, or chosen by the server.
        protocol: how it is uploaded: as one body, in a form, by tus, or by the IETF's resumable uploads.
        content_type: the media type of the bytes.
        length: how many bytes there will be, where the client says so.
        metadata: text that the client sends along, by name.
        key: by what the client wants to find the upload again, unique among its owner's, or None.
        owner: the caller, as the door's ``owner`` tells.
        max_size: the most bytes that it may have, or None for no limit.
        part: whether it is a part, of which tus clients upload several at once, and then have them joined. Its name is
            never shown; the upload that it becomes a part of is asked about too, with a name and metadata of its own.
    """

    name: str
    protocol: Protocol
    content_type: str = OCTETS
    length: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    owner: str | None = None
    max_size: int | None = None
    part: bool = False


OnCreate: TypeAlias = Callable[[NewUpload, Request], Awaitable[NewUpload | None] | NewUpload | None]
"""Is asked before an upload is created, and before anything of its body is read.

It returns None to let it be, or another `NewUpload` (`dataclasses.replace`), whose ``name``, ``content_type``,
``metadata`` and ``max_size`` count. It refuses by raising FastAPI's HTTPException. It may be a plain function, which
runs in a thread, or an async one.
"""

OnComplete: TypeAlias = Callable[[StreamInfo, Request], Awaitable[Response | None] | Response | None]
"""Is told of a stream that was completed through the door, once it is durable and before the client hears of it.

It may return the response to the client that uploaded, one that is held in memory (at most 64 KiB). Of an upload that
resumes, the answer is kept with the stream: a client that did not hear it asks again, and gets it again. Where it
raises, the client hears of the error, and the hook is asked again: when the client comes back, or by the server alone,
with a request that is made up of what was kept of the last one (`penstock.doors.outbox`). So it may be told of a stream
twice, whose ``incarnation`` tells. An HTTPException of less than 500 is an answer: only the client may ask again.
"""

Quota: TypeAlias = int | Callable[[str], Awaitable[int | None] | int | None]
"""How many bytes an owner's streams may have together, unfinished uploads with their whole length among them.

A number for every owner, or a function that is given the owner, and returns a number, or None for no limit.
"""

MAX_SIZE = "max_size"
"""The attribute that holds the most bytes that an upload may have."""

MOST_ANSWERED = 64 * 1024
"""The most bytes of the body of a response that ``on_complete`` returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The hooks of one router. Each may be left out.

    Attributes:
        service: the streams.
        authorize: see `Authorize`.
        owner: see `Owner`.
        on_create: see `OnCreate`.
        on_complete: see `OnComplete`.
        max_size: the most bytes of an upload, or None for no limit.
        quota: see `Quota`; it needs an ``owner``.
    """

    service: StreamService
    authorize: Authorize | None = None
    owner: Owner | None = None
    on_create: OnCreate | None = None
    on_complete: OnComplete | None = None
    max_size: int | None = None
    quota: Quota | None = None

    async def authorized(self, request: Request, action: Action, name: str) -> None:
        """Ask whether a request may go on; see `authorized`."""
        await authorized(self.authorize, request, action, name)

    async def owner_of(self, request: Request) -> str | None:
        """Return who is calling, or None: nobody, or nobody asks."""
        return None if self.owner is None else await called(self.owner, request)

    async def owned(self, info: StreamInfo, request: Request) -> StreamInfo:
        """Return an upload if it is the caller's.

        Raises:
            StreamNotFound: it is somebody else's; that it is there is not told.
        """
        if self.owner is not None and await self.owner_of(request) != info.owner:
            raise StreamNotFound(info.name)
        return info

    async def begun(self, new: NewUpload, request: Request, *, counted: int = 0) -> NewUpload:
        """Ask about an upload that is to be created, and return what is to be made of it.

        Args:
            new: what the client says; ``owner`` and ``max_size`` are set here.
            request: the request.
            counted: how many of its bytes the owner has already, as parts that it is made of.

        Raises:
            RequestError: ``too-large``, ``quota-exceeded`` (413).
            InvalidName: the hook chose a name that is none.
        """
        upload = replace(new, owner=await self.owner_of(request), max_size=self.max_size)
        if self.on_create is not None:
            changed = await called(self.on_create, upload, request)
            if changed is not None:
                upload = replace(changed, owner=upload.owner, key=upload.key, length=upload.length, part=upload.part)
                check_name(upload.name)
        check_size(upload.length, upload.max_size)
        left = await self._left(upload.owner)
        if left is None:
            return upload
        if left + counted < (upload.length or 0):
            raise RequestError(
                "quota-exceeded",
                413,
                f"The upload has {upload.length} bytes, and {left} are left of what you may store.",
                left=left,
            )
        # One whose length is not known yet has to do with what is left at its beginning.
        return replace(
            upload, max_size=left + counted if upload.max_size is None else min(upload.max_size, left + counted)
        )

    async def _left(self, owner: str | None) -> int | None:
        """Return how many bytes an owner may still store, or None for no limit."""
        if self.quota is None or owner is None:
            return None
        quota = self.quota if isinstance(self.quota, int) else await called(self.quota, owner)
        return None if quota is None else max(0, quota - (await self.service.usage(owner)).size)

    async def completed(self, info: StreamInfo, request: Request) -> Response | None:
        """Tell that a stream is complete, and return the answer to the client, or None for the door's own."""
        return await completed(self.on_complete, info, request)


def check_size(size: int | None, max_size: int | None) -> None:
    """Refuse an upload that is to be larger than it may be.

    Raises:
        RequestError: ``too-large`` (413).
    """
    if size is not None and max_size is not None and size > max_size:
        raise RequestError(
            "too-large",
            413,
            f"The upload would have {size} bytes, and at most {max_size} are allowed here.",
            max_size=max_size,
        )


Identify: TypeAlias = Callable[[Request], Awaitable[str | None] | str | None]
"""Says who a reader is, in a short text that others may be shown; None for nobody in particular."""


async def identified(identify: Identify | None, request: Request) -> str | None:
    """Ask who a reader is."""
    who = None if identify is None else await called(identify, request)
    return None if who is None else str(who)[:200]


async def authorized(authorize: Authorize | None, request: Request, action: Action, name: str) -> None:
    """Ask whether a request may go on.

    Raises:
        RequestError: ``forbidden`` (403).
    """
    if authorize is None:
        return
    if await called(authorize, request, action, name) is False:
        raise RequestError("forbidden", 403, f"You may not {action} {name!r}.")


async def completed(on_complete: OnComplete | None, info: StreamInfo, request: Request) -> Response | None:
    """Tell that a stream is complete, and return the hook's answer to the client, or None.

    Raises:
        TypeError: the hook returned something else, or a response that is not held in memory, or too large a one.
    """
    answer = None if on_complete is None else await called(on_complete, info, request)
    if answer is None:
        return None
    if not isinstance(answer, Response) or not isinstance(getattr(answer, "body", None), bytes):
        raise TypeError(f"on_complete must return a Response whose body is in memory, or None: not {answer!r}")
    if len(answer.body) > MOST_ANSWERED:
        raise TypeError(f"on_complete returned a body of {len(answer.body)} bytes; {MOST_ANSWERED} are the most.")
    return answer
