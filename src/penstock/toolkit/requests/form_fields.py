"""Where the files of a form go: into a folder, into streams, to a function. Each annotates a field of a model."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from starlette.concurrency import run_in_threadpool

from penstock.core.service import StreamService
from penstock.core.uninterrupted import uninterrupted
from penstock.core.writer import Draft
from penstock.errors import StreamGone, StreamNotFound
from penstock.model import StreamInfo
from penstock.toolkit.problems import RequestError
from penstock.toolkit.requests.forms import Part, UploadedFile
from penstock.toolkit.requests.sinks import FileSink

__all__ = ["Destination", "Held", "to_folder", "to_function", "to_stream"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_BINARY: JsonSchemaValue = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_MAX_SUFFIX = 16


class Held(Protocol[T_co]):
    """What a part became, kept aside until the whole form is there and right."""

    @property
    def value(self) -> T_co:
        """What it is; before `publish`, what it will be as far as that is known."""

    async def publish(self) -> None:
        """Show it."""

    async def discard(self) -> None:
        """Remove it, published or not."""


class Destination(ABC, Generic[T]):
    """Where the parts of a field go. A subclass of your own is as good as those in here.

    Args:
        max_size: the most bytes of a part; None for the limit of the form's files.
    """

    def __init__(self, max_size: int | None = None) -> None:
        self.max_size = max_size

    @abstractmethod
    async def take(self, part: Part) -> Held[T]:
        """Read the part to its end, and keep aside what it becomes. What raises leaves nothing behind."""

    def __get_pydantic_core_schema__(self, source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take the field's value as it is: it comes from `take`, not from the client."""
        if get_origin(source) is list:
            (item,) = get_args(source)
            return core_schema.list_schema(self.__get_pydantic_core_schema__(item, _handler))
        return core_schema.is_instance_schema(source) if isinstance(source, type) else core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Show the field as what the client sends."""
        return {"type": "array", "items": dict(_BINARY)} if schema["type"] == "list" else dict(_BINARY)


def to_folder(
    folder: str | os.PathLike[str],
    *,
    name: Callable[[Part], str] | None = None,
    overwrite: bool = False,
    fsync: bool = True,
    max_size: int | None = None,
) -> Destination[UploadedFile]:
    """Say that a field's files go into a folder.

    ::

        file: Annotated[UploadedFile, to_folder("/srv/in")]

    Args:
        folder: the folder; created where it is missing.
        name: gives each file's path within the folder. By default it is a random one, with the suffix of the name
            that the client gave: two clients then never mean the same file. ``lambda part: part.filename`` is safe,
            and so is ``part.path``, which keeps the folders of a folder that is sent as a whole. A name that is taken
            is refused (409) unless ``overwrite`` is set.
        overwrite: whether a file of the same name is replaced. It is not put back if the form is undone later.
        fsync: whether the files must survive a power cut.
        max_size: the most bytes of each file; None for the limit of the form's files.
    """
    return _Folder(Path(folder), name or _random_name, overwrite=overwrite, fsync=fsync, max_size=max_size)


def to_stream(
    streams: StreamService,
    *,
    prefix: str = "",
    name: Callable[[Part], str] | None = None,
    max_size: int | None = None,
) -> Destination[StreamInfo]:
    """Say that a field's files become streams.

    ::

        file: Annotated[StreamInfo, to_stream(streams, prefix="in/")]

    Args:
        streams: where to.
        prefix: what the streams' names begin with.
        name: gives the rest of each stream's name; by default a random one.
        max_size: the most bytes of each file; None for the limit of the form's files.
    """
    return _Streams(streams, prefix, name or _random_name, max_size)


def to_function(
    function: Callable[[Part], Awaitable[T]],
    *,
    undo: Callable[[T], Awaitable[None]] | None = None,
    max_size: int | None = None,
) -> Destination[T]:
    """Say that a field's parts go to an async function.

    ::

        rows: Annotated[int, to_function(import_csv)]

    Args:
        function: reads the part (``async for chunk in part``) and returns the field's value.
        undo: is given what the function returned if the form turns out to be wrong after it.
        max_size: the most bytes of each part; None for the limit of the form's files.
    """
    return _Function(function, undo, max_size)


class _Folder(Destination[UploadedFile]):
    def __init__(
        self, folder: Path, name: Callable[[Part], str], *, overwrite: bool, fsync: bool, max_size: int | None
    ) -> None:
        super().__init__(max_size)
        self._folder = folder
        self._name = name
        self._overwrite = overwrite
        self._fsync = fsync

    async def take(self, part: Part) -> Held[UploadedFile]:
        path = self._folder / _inside(self._name(part))
        await run_in_threadpool(path.parent.mkdir, parents=True, exist_ok=True)
        held = _HeldFile(FileSink(path, overwrite=self._overwrite, fsync=self._fsync), part)
        with _taken():
            await held.sink.__aenter__()
        try:
            await part.write_to(held.sink)
        except BaseException:
            await uninterrupted(held.discard())
            raise
        return held


class _HeldFile:
    def __init__(self, sink: FileSink, part: Part) -> None:
        self.sink = sink
        self._part = part
        self._published = False

    @property
    def value(self) -> UploadedFile:
        return self._part.saved(self.sink, {})

    async def publish(self) -> None:
        with _taken():
            await self.sink.publish()
        self._published = True
        await self.sink.__aexit__(None, None, None)

    async def discard(self) -> None:
        await self.sink.__aexit__(None, None, None)
        if self._published:
            await run_in_threadpool(self.sink.path.unlink, missing_ok=True)


class _Streams(Destination[StreamInfo]):
    def __init__(self, streams: StreamService, prefix: str, name: Callable[[Part], str], max_size: int | None) -> None:
        super().__init__(max_size)
        self._streams = streams
        self._prefix = prefix
        self._name = name

    async def take(self, part: Part) -> Held[StreamInfo]:
        draft = await self._streams.replace(self._prefix + self._name(part), part.spec)
        held = _HeldStream(self._streams, draft)
        try:
            await part.pump(draft.write)
        except BaseException:
            await uninterrupted(held.discard())
            raise
        return held


class _HeldStream:
    def __init__(self, streams: StreamService, draft: Draft) -> None:
        self.draft = draft
        self._streams = streams
        self._published = False

    @property
    def value(self) -> StreamInfo:
        return self.draft.info

    async def publish(self) -> None:
        await self.draft.publish()
        self._published = True

    async def discard(self) -> None:
        info = self.draft.info
        if self._published:
            with suppress(StreamNotFound, StreamGone):
                await self._streams.delete(info.name, incarnation=info.incarnation)
        else:
            await self._streams.discard(info)


class _Function(Destination[T]):
    def __init__(
        self,
        function: Callable[[Part], Awaitable[T]],
        undo: Callable[[T], Awaitable[None]] | None,
        max_size: int | None,
    ) -> None:
        super().__init__(max_size)
        self._function = function
        self._undo = undo

    async def take(self, part: Part) -> Held[T]:
        return _HeldResult(await self._function(part), self._undo)


class _HeldResult(Generic[T]):
    def __init__(self, value: T, undo: Callable[[T], Awaitable[None]] | None) -> None:
        self.value = value
        self._undo = undo

    async def publish(self) -> None:
        pass

    async def discard(self) -> None:
        if self._undo is not None:
            await self._undo(self.value)


@contextmanager
def _taken() -> Iterator[None]:
    """Tell a client that the name which its file would get is taken."""
    try:
        yield
    except FileExistsError:
        raise RequestError("file-exists", 409, "There is a file of that name already: choose another.") from None


def _random_name(part: Part) -> str:
    suffix = PurePath(part.filename).suffix
    return secrets.token_hex(16) + (suffix if suffix.isascii() and len(suffix) <= _MAX_SUFFIX else "")


def _inside(name: str) -> PurePath:
    path = PurePath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"not a path within the folder: {name!r}")
    return path
