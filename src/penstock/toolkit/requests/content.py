"""What arrives and can be put somewhere: the whole body of a request, or a part of a form."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from penstock.core.digests import Hasher
from penstock.core.rules import Condition
from penstock.core.service import StreamService
from penstock.model import Buffer, StreamInfo, StreamSpec
from penstock.toolkit.requests.bodies import left_closed, pump
from penstock.toolkit.requests.integrity import hashed
from penstock.toolkit.requests.item_formats import (
    csv_items,
    items_of,
    json_array_items,
    length_prefixed_items,
    ndjson_items,
)
from penstock.toolkit.requests.items import MAX_ITEM, Items, OnError
from penstock.toolkit.requests.sinks import FileSink, SavedFile

F = TypeVar("F", bound=SavedFile)
T = TypeVar("T")


class Content(ABC, Generic[F]):
    """Bytes that arrive once, and where they can go."""

    @property
    @abstractmethod
    def spec(self) -> StreamSpec:
        """What there is to say of the content as a stream, by what the client said of it."""

    @abstractmethod
    def _arriving(self) -> AsyncIterator[bytes]:
        """Begin to read, and return what arrives."""

    @abstractmethod
    def saved(self, sink: FileSink, digests: Mapping[str, bytes]) -> F:
        """Describe the file that the content became."""

    async def save(
        self,
        path: str | os.PathLike[str],
        *,
        fsync: bool = False,
        overwrite: bool = True,
        mode: int = 0o666,
        digests: Iterable[str] = (),
    ) -> F:
        """Write the content to a file, which is there once it is whole. Otherwise nothing is left.

        Args:
            path: the destination; its folder must exist. Never take it from the client as it is; a part's
                ``folder / part.filename`` stays within the folder, but it is the client who chose the name.
            fsync: whether it must survive a power cut.
            overwrite: whether it may take the place of a file.
            mode: the permissions, from which the process's umask is taken.
            digests: which digests of the file to compute meanwhile: ``sha-256``, ``sha-512``.

        Raises:
            StorageFull: there is no room on the disk (507).
            FileExistsError: there is a file, and it must not be overwritten.
            OSError: the file cannot be written.
        """
        hasher = Hasher(digests)
        async with FileSink(path, fsync=fsync, overwrite=overwrite, mode=mode) as sink:
            await self.write_to(sink, hasher)
            await sink.publish()
        return self.saved(sink, hasher.digests())

    async def into(
        self,
        streams: StreamService,
        name: str,
        *,
        spec: StreamSpec | None = None,
        condition: Condition | None = None,
        digests: Iterable[str] = (),
    ) -> StreamInfo:
        """Make the content the stream of that name, as a PUT does: a closed stream that is there stays until the end.

        A name that showed nothing shows the growing stream at once. If the content is cut, nothing is left.

        Args:
            streams: where the stream is.
            name: its name.
            spec: what is to be said about it; by default `spec`.
            condition: see `StreamService.replace`.
            digests: which digests of the stream to compute meanwhile.

        Raises:
            StreamIsOpen: the name shows a stream that is still being written.
            StorageFull: there is no room on the disk.
        """
        hasher = Hasher(digests)
        async with await streams.replace(name, spec or self.spec, condition=condition) as draft:
            await self.pump(draft.write, hasher)
            return await draft.publish(hasher.digests())

    async def write_to(self, sink: FileSink, hasher: Hasher | None = None) -> None:
        """Write the content to a file that is open, and take its digests meanwhile."""
        content = self._arriving()
        async with left_closed(hashed(content, hasher) if hasher else content) as chunks:
            async for chunk in chunks:
                await sink.write((chunk,))
        await sink.flush()

    async def pump(self, write: Callable[[Sequence[Buffer]], Awaitable[None]], hasher: Hasher | None = None) -> int:
        """Hand the content to an async function, in batches that are large when it comes fast, and return its size.

        While one batch is being written, the next one arrives.

        Args:
            write: is given some buffers.
            hasher: takes digests of the same bytes, at the same time.
        """
        return await pump(self._arriving(), write, hasher)

    # -- its items ------------------------------------------------------------------------------------------------

    @overload
    def items(self, item: type[T], *, on_error: OnError = ..., max_item: int = ...) -> Items[T]: ...
    @overload
    def items(self, item: Any = None, *, on_error: OnError = ..., max_item: int = ...) -> Items[Any]: ...
    def items(self, item: Any = None, *, on_error: OnError = "stop", max_item: int = MAX_ITEM) -> Items[Any]:
        """Return the items of the content, in the format that its ``Content-Type`` tells: see `items_of`.

        Args:
            item: their type: a model, a dataclass, a TypedDict, whatever pydantic knows, or a msgspec ``Struct``.
                Without one, they are what the format gives.
            on_error: what becomes of items that are not valid.
            max_item: the most bytes of one.

        Raises:
            RequestError: ``unsupported-media-type`` (415).
        """
        return items_of(self._arriving(), self.spec.content_type, item, on_error=on_error, max_item=max_item)

    @overload
    def ndjson(self, item: type[T], *, on_error: OnError = ..., max_item: int = ...) -> Items[T]: ...
    @overload
    def ndjson(self, item: Any = None, *, on_error: OnError = ..., max_item: int = ...) -> Items[Any]: ...
    def ndjson(self, item: Any = None, *, on_error: OnError = "stop", max_item: int = MAX_ITEM) -> Items[Any]:
        """Return the items of one JSON text a line, whatever the ``Content-Type``; see `items`."""
        return ndjson_items(self._arriving(), item, on_error=on_error, max_item=max_item)

    @overload
    def json_array(self, item: type[T], *, on_error: OnError = ..., max_item: int = ...) -> Items[T]: ...
    @overload
    def json_array(self, item: Any = None, *, on_error: OnError = ..., max_item: int = ...) -> Items[Any]: ...
    def json_array(self, item: Any = None, *, on_error: OnError = "stop", max_item: int = MAX_ITEM) -> Items[Any]:
        """Return the elements of one JSON array, whatever the ``Content-Type``; see `items`."""
        return json_array_items(self._arriving(), item, on_error=on_error, max_item=max_item)

    @overload
    def csv(self, item: type[T], **options: Any) -> Items[T]: ...
    @overload
    def csv(self, item: Any = None, **options: Any) -> Items[Any]: ...
    def csv(self, item: Any = None, **options: Any) -> Items[Any]:
        """Return the rows of a table, whatever the ``Content-Type``; see `csv_items` for the options."""
        return csv_items(self._arriving(), item, **options)

    @overload
    def length_prefixed(self, item: type[T], **options: Any) -> Items[T]: ...
    @overload
    def length_prefixed(self, item: None = None, **options: Any) -> Items[bytes]: ...
    def length_prefixed(self, item: Any = None, **options: Any) -> Items[Any]:
        """Return records that come after their length; see `length_prefixed_items` for the options."""
        return length_prefixed_items(self._arriving(), item, **options)
