"""Writing a stream progressively: whatever contiguous prefix arrived is there, and can be read while it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from penstock.core import rules
from penstock.core.ports import Change, Decide, View
from penstock.core.rules import Condition
from penstock.core.uninterrupted import uninterrupted
from penstock.model import Buffer, StreamInfo

if TYPE_CHECKING:
    from penstock.core.service.writing import Writing

_NOTHING: Mapping[str, bytes] = {}


class Writer:
    """Progressive appends to one incarnation of a stream.

    Each `write` is seen by readers at once. What was written is acknowledged by `flush` and `close` only: those make it
    durable, and return when it is.
    """

    def __init__(self, service: Writing, info: StreamInfo, writer: str | None = None) -> None:
        self._service = service
        self._info = info
        self._writer = writer

    @property
    def info(self) -> StreamInfo:
        """The stream after the last write."""
        return self._info

    async def write(self, data: Sequence[Buffer]) -> None:
        """Append at the tail that this writer knows.

        Raises:
            OffsetMismatch: somebody else appended.
            StreamGone: the stream was deleted.
            StorageFull: nothing of ``data`` was kept.
        """
        await self._append(data, durable=False)

    async def flush(self) -> StreamInfo:
        """Make durable what was written."""
        return await self._append((), durable=True)

    async def close(self) -> StreamInfo:
        """Make durable what was written, and close the stream in the same commit."""
        return await self._append((), durable=True, close=True)

    async def _append(self, data: Sequence[Buffer], *, durable: bool, close: bool = False) -> StreamInfo:
        info, now = self._info, self._service.now()

        def decide(view: View) -> Change:
            return rules.append(
                view,
                info.name,
                data,
                now=now,
                offset=info.tail,
                close=close,
                incarnation=info.incarnation,
                writer=self._writer,
            )

        return await self._commit(decide, size=rules.size_of(data), durable=durable)

    async def _commit(self, decide: Decide, *, size: int = 0, durable: bool = True) -> StreamInfo:
        change = await self._service.commit(
            self._info.name, decide, incarnation=self._info.incarnation, size=size, durable=durable
        )
        if change.info is not None:
            self._info = change.info
        return self._info

    async def _publish(
        self,
        digests: Mapping[str, bytes],
        condition: Condition | None,
        metadata: Mapping[str, str] | None = None,
    ) -> StreamInfo:
        info, now = self._info, self._service.now()

        def decide(view: View) -> Change:
            return rules.publish(
                view,
                info.name,
                incarnation=info.incarnation,
                now=now,
                digests=digests,
                condition=condition,
                writer=self._writer,
                metadata=metadata,
            )

        return await self._commit(decide)


class Draft(Writer):
    """A stream that its name shows once it is complete; see `StreamService.replace`.

    A context manager: left without `publish`, it discards what was written.
    """

    def __init__(self, service: Writing, info: StreamInfo, condition: Condition | None) -> None:
        super().__init__(service, info)
        self._condition = condition
        self._published = False

    async def publish(
        self, digests: Mapping[str, bytes] = _NOTHING, *, metadata: Mapping[str, str] | None = None
    ) -> StreamInfo:
        """Close the stream, make it durable, and let its name show it, in one commit.

        Args:
            digests: what is known of the whole.
            metadata: takes the place of what was known at the beginning; None leaves that.

        Raises:
            PreconditionFailed: what the name shows does not meet the condition any more.
            LengthMismatch: it is shorter than declared.
        """
        result = await self._publish(digests, self._condition, metadata)
        self._published = True
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._published:
            await uninterrupted(self._service.discard(self._info))
