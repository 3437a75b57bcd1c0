"""The items of a body, one after another: parsed, validated, and never all in memory.

::

    async for reading in body.ndjson(Reading):
        ...
    async for batch in body.csv(Row, on_error="skip").batches(1000):
        await insert(batch)
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from pydantic import ValidationError

from penstock.toolkit.problems import RequestError
from penstock.toolkit.requests.bodies import left_closed
from penstock.toolkit.requests.parsers import Parser
from penstock.toolkit.requests.splitting import Found, SplitError, Splitter

__all__ = ["MAX_ITEM", "InvalidItem", "Items", "OnError"]

T = TypeVar("T")

MAX_ITEM: Final = 1024 * 1024
"""Bytes that one item may have, unless it is said otherwise."""

_SLICE: Final = 64 * 1024
_REPORTED: Final = 100


class InvalidItem(RequestError):
    """An item that is not valid: ``invalid-record`` (422).

    Attributes:
        number: which item it is, from 1.
        offset: the byte of the (decoded) body at which it begins.
        reason: what is wrong with it, in words.
        errors: what is wrong with which of its fields, where that is known: ``loc``, ``msg`` and ``type`` each.
    """

    def __init__(self, number: int, offset: int, reason: str, errors: Sequence[Any] = ()) -> None:
        self.number = number
        self.offset = offset
        self.reason = reason
        self.errors = errors
        detail = f"Record {number}, at byte {offset}: {reason}"
        super().__init__("invalid-record", 422, detail, record=number, offset=offset)
        if errors:
            self.facts["errors"] = list(errors)


OnError: TypeAlias = Literal["stop", "skip"] | Callable[[InvalidItem], Awaitable[None] | None]
"""What becomes of an item that is not valid: it ends the reading; it is left out; or it is left out and a function is
told, which may raise."""


class Items(Generic[T]):
    """An async iterator of a body's items, in order, as they arrive.

    Args:
        chunks: the body.
        splitter: finds the records.
        parser: makes items of them.
        on_error: what becomes of items that are not valid. Where it can no longer be told where the next item begins,
            the reading ends in any case.
        max_item: the most bytes of an item, for what is told of it.
        syntax_stops: whether an item whose syntax is wrong means that the borders found cannot be trusted.

    Attributes:
        count: how many records were seen, valid or not.
        skipped: how many of them were not valid.
        errors: what was wrong with the first hundred of those.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        splitter: Splitter,
        parser: Parser[T],
        *,
        on_error: OnError = "stop",
        max_item: int = MAX_ITEM,
        syntax_stops: bool = False,
    ) -> None:
        self.count = 0
        self.skipped = 0
        self.errors: list[InvalidItem] = []
        self._chunks = chunks
        self._splitter = splitter
        self._parser = parser
        self._on_error = on_error
        self._max_item = max_item
        self._syntax_stops = syntax_stops

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the items.

        Raises:
            InvalidItem: one of them is not valid (422), and the policy is to stop.
            RequestError: ``too-large`` (413) for an item that is too long; ``invalid-record`` (422) and
                ``body-incomplete`` (400) for a body of another form than it should have.
        """
        async with aclosing(self._parsed()) as lists:
            async for items in lists:
                for item in items:
                    yield item

    async def batches(self, size: int) -> AsyncGenerator[list[T], None]:
        """Yield the items in lists of ``size``, the last one perhaps shorter: for bulk inserts.

        Where reading ends with an error, what came before it was yielded first.
        """
        gathered: list[T] = []
        try:
            async with aclosing(self._parsed()) as lists:
                async for items in lists:
                    gathered += items
                    while len(gathered) >= size:
                        yield gathered[:size]
                        del gathered[:size]
        except RequestError:
            if gathered:
                yield gathered
            raise
        if gathered:
            yield gathered

    async def _parsed(self) -> AsyncGenerator[list[T], None]:
        async with left_closed(self._chunks) as chunks:
            async for chunk in chunks:
                # In slices, so that no step keeps the event loop for more than a few milliseconds.
                for start in range(0, len(chunk), _SLICE):
                    async for items in self._step(self._splitter.feed, chunk[start : start + _SLICE]):
                        yield items
                    await asyncio.sleep(0)
            async for items in self._step(self._splitter.finish):
                yield items

    async def _step(self, split: Callable[..., None], *data: bytes) -> AsyncIterator[list[T]]:
        found: Found = []
        error: SplitError | None = None
        try:
            split(*data, found)
        except SplitError as broken:
            error = broken
        if found:
            parse = self._parser.parse
            try:
                items = [parse(record) for _, record in found]
                self.count += len(items)
            except self._parser.refusals:
                async for items in self._one_by_one(found):
                    yield items
            else:
                yield items
        if error is not None:
            raise self._unsplittable(error)

    async def _one_by_one(self, found: Found) -> AsyncIterator[list[T]]:
        items: list[T] = []
        for offset, record in found:
            self.count += 1
            try:
                items.append(self._parser.parse(record))
            except self._parser.refusals as error:
                invalid = InvalidItem(self.count, offset, *_told(error))
                stop = self._on_error == "stop" or (self._syntax_stops and self._parser.broken(error))
                if stop:
                    if items:
                        yield items
                    raise invalid from None
                await self._leave_out(invalid)
        if items:
            yield items

    async def _leave_out(self, invalid: InvalidItem) -> None:
        self.skipped += 1
        if len(self.errors) < _REPORTED:
            self.errors.append(invalid)
        if callable(self._on_error):
            result = self._on_error(invalid)
            if inspect.isawaitable(result):
                await result

    def _unsplittable(self, error: SplitError) -> RequestError:
        number, where = self.count + 1, f"Record {self.count + 1}, at byte {error.offset}"
        if error.kind == "malformed":
            return InvalidItem(number, error.offset, f"{error}.")
        if error.kind == "incomplete":
            return RequestError("body-incomplete", 400, f"{where}: {error}.", record=number, offset=error.offset)
        return RequestError(
            "too-large",
            413,
            f"{where}: {error}; {self._max_item} bytes is the most here.",
            record=number,
            offset=error.offset,
            max_size=self._max_item,
        )


def _told(error: Exception) -> tuple[str, Sequence[Any]]:
    """Say what is wrong with an item, without repeating what it holds."""
    if not isinstance(error, ValidationError):
        return f"{error}.", ()
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    first = errors[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where + ': ' if where else ''}{first['msg']}{more}.", errors[:_REPORTED]
