"""Reading a fork: what comes before its start is the origin's."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from penstock.core.ports import Reader
from penstock.errors import OffsetOutOfRange
from penstock.model import Buffer, StreamInfo


class ForkReader:
    """See `Reader`. It is what it looks like: one stream.

    Args:
        own: the fork's own bytes.
        origin: the origin's, which may be a fork in its turn. Both are closed with this one.
    """

    def __init__(self, own: Reader, origin: Reader) -> None:
        self._own = own
        self._origin = origin

    @property
    def info(self) -> StreamInfo:
        """See `Reader.info`."""
        return self._own.info

    @property
    def origin(self) -> Reader:
        """The reader of what comes before `StreamInfo.start`."""
        return self._origin

    async def refresh(self) -> StreamInfo:
        """See `Reader.refresh`."""
        return await self._own.refresh()

    async def read(self, start: int, stop: int) -> Buffer:
        """See `Reader.read`. The beginning may have been dropped from the origin since.

        Raises:
            OffsetOutOfRange: it was.
        """
        border = self._own.info.start
        if start >= border:
            return await self._own.read(start, stop)
        if start < beginning(self._origin):
            raise dropped(self.info, start, beginning(self._origin))
        return await self._origin.read(start, min(stop, border))

    def close(self) -> None:
        """See `Reader.close`."""
        self._own.close()
        self._origin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_offset(reader: Reader, offset: int) -> None:
    """Refuse to read from an offset where there is nothing.

    Raises:
        OffsetOutOfRange: it is past the tail, or before the first byte that is kept.
    """
    info = reader.info
    if not 0 <= offset <= info.tail:
        raise OffsetOutOfRange(info.name, offset, info.tail)
    if info.start and offset < beginning(reader):
        raise dropped(info, offset, beginning(reader))


def dropped(info: StreamInfo, offset: int, start: int) -> OffsetOutOfRange:
    """Return the error for an offset before what is kept."""
    return OffsetOutOfRange(info.name, offset, info.tail, "is before what is kept", start=start)


def beginning(reader: Reader) -> int:
    """Return the offset of the first byte that can be read."""
    return beginning(reader.origin) if isinstance(reader, ForkReader) else reader.info.start
