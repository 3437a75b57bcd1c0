"""Requests as plain as can be, answered without the framework, for a server that asks (`penstock.server.quick`).

The server makes objects of a request, FastAPI finds the route, makes others, and passes the request and the answer
through its middlewares: that is nine tenths of the time of a small request. A `QuickDoor` knows one kind of request and
one kind of answer. Whatever it does not know for certain, a field that may mean something or a request that is to be
refused, goes the long way, by which it is decided and answered as ever.

A client sends the same fields again and again, but for a number or two. So heads are taken apart once, by who does that
anyway, and then recognised.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from penstock.errors import PenstockError
from penstock.model import Buffer

STATE: Final = "penstock.quick"
"""Where the server finds the doors in the state that a lifespan gives (ASGI specification, "Lifespan State")."""

_MEANINGLESS: Final = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language"})
"""Fields of a request that say nothing that changes the answer."""

CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ ]?(([0-9]{1,5}))\r\n", re.IGNORECASE)
"""Of short content: for `QuickDoor`."""

_LONGEST_HEAD: Final = 1024
_MOST_HEADS: Final = 1024
_MOST_TOGETHER: Final = 128

T = TypeVar("T")
Item = TypeVar("Item")


class Exchange(Protocol):
    """A request that is to be answered, once, by one of these."""

    def answer(self, head: bytes, body: Buffer = b"") -> None:
        """Send an answer: its status line and fields with the empty line after them, and its content."""

    def refuse(self, error: BaseException | None = None) -> None:
        """Let the request go the long way; where an error tells that it may have had its effect, only to say that."""


class QuickRequest(NamedTuple, Generic[T]):
    """A request whose fields are known.

    Attributes:
        name: of the stream,
        meaning: what the door made of the fields,
        numbers: but for the numbers among them that may differ from one request to the next, as they stand there.
        start: where its content begins in what was received,
        stop: and where that ends.
    """

    name: str
    meaning: T
    numbers: Sequence[bytes]
    start: int
    stop: int


class QuickDoor(Generic[T]):
    """One kind of request.

    Args:
        method: its method.
        prefix: where the door is mounted.
        numbers: the field with numbers in it, from the line end before it to the one after it. Its first group is what
            may differ, the others are the numbers in there.
    """

    def __init__(self, method: str, prefix: str, numbers: re.Pattern[bytes]) -> None:
        # Names that stand in URLs and in JSON as they are (RFC 3986 section 3.3).
        plain = rb"[-A-Za-z0-9._~!$&()*+,;=:@/]+"
        self._line = re.compile(rb"%b %b/(%b) HTTP/1\.1(?=\r\n)" % (method.encode(), re.escape(prefix).encode(), plain))
        self._numbers = numbers
        self._meanings: dict[bytes, T] = {}

    # -- for the server -----------------------------------------------------------------------------------------------

    def known(self, data: bytes) -> QuickRequest[T] | None:
        """Return the request that ``data`` begins with, if it has fields which were learned."""
        line = self._line.match(data)
        if line is None:
            return None
        start = data.find(b"\r\n\r\n", line.end(), _LONGEST_HEAD) + 4
        field = self._numbers.search(data, line.end(), start)
        meaning = self._meanings.get(_without(data, line.end(), start, field))
        if meaning is None:
            return None
        numbers = () if field is None else field.groups()[1:]
        return QuickRequest(line[1].decode(), meaning, numbers, start, start + self.length(numbers))

    def learn(self, data: bytes, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Remember the fields of the head that ``data`` begins with, if it is that of a plain request.

        Args:
            data: what was received.
            target: what it asks for, as somebody understood who can tell,
            fields: and its header fields, with their names in lower case.
        """
        line = self._line.match(data)
        if line is None or line[0].split(b" ")[1] != target:
            return
        start = data.find(b"\r\n\r\n", line.end(), _LONGEST_HEAD) + 4
        # Each line is one of the fields that were understood: nothing is folded, and nothing comes before.
        whole = data.count(b"\n", line.end(), start) == len(fields) + 2
        telling = [(name, value) for name, value in fields if name not in _MEANINGLESS]
        told = dict(telling)
        keeps_alive = told.pop(b"connection", b"keep-alive").lower() == b"keep-alive"
        if not whole or not keeps_alive or len({name for name, _ in telling}) != len(telling):
            return
        field = self._numbers.search(data, line.end(), start)
        meaning = self.meaning(told, numbered=field is not None)
        if meaning is not None:
            if len(self._meanings) >= _MOST_HEADS:
                self._meanings.clear()
            self._meanings[_without(data, line.end(), start, field)] = meaning

    # -- for the doors ------------------------------------------------------------------------------------------------

    def meaning(self, fields: dict[bytes, bytes], *, numbered: bool) -> T | None:
        """Return what a request means; None if it is not plain.

        Args:
            fields: its fields, but for those that mean nothing.
            numbered: whether there is the field with the numbers among them, of the form that the door knows.
        """
        raise NotImplementedError

    def length(self, numbers: Sequence[bytes]) -> int:
        """Return how many bytes of content a request has, by the numbers in its head."""
        raise NotImplementedError

    def take(self, request: QuickRequest[T], body: bytes, exchange: Exchange) -> None:
        """Carry out a request, and have it answered, now or later."""
        raise NotImplementedError


class CommittingDoor(QuickDoor[T], Generic[T, Item]):
    """A door whose requests change something. Those that come while others are being committed are committed together.

    Args:
        method: as of `QuickDoor`.
        prefix: as of `QuickDoor`.
    """

    def __init__(self, method: str, prefix: str) -> None:
        super().__init__(method, prefix, CONTENT_LENGTH)
        self._waiting: list[tuple[Item, Exchange]] = []
        self._committing: asyncio.Task[None] | None = None

    def length(self, numbers: Sequence[bytes]) -> int:
        """See `QuickDoor.length`."""
        return int(numbers[0])

    def take(self, request: QuickRequest[T], body: bytes, exchange: Exchange) -> None:
        """See `QuickDoor.take`."""
        try:
            item = self.prepare(request, body)
        except PenstockError:
            exchange.refuse()
            return
        self._waiting.append((item, exchange))
        if self._committing is None:
            self._committing = asyncio.get_running_loop().create_task(self._commit_all())

    async def _commit_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
            outcomes: Sequence[Any]
            try:
                outcomes = await self.commit([item for item, _ in waiting])
            except BaseException as error:  # noqa: BLE001 - who waits has to hear of it
                outcomes = [error] * len(waiting)
            for (item, exchange), outcome in zip(waiting, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    exchange.refuse(outcome)
                else:
                    exchange.answer(self.answer(item, outcome))
        self._committing = None

    def prepare(self, request: QuickRequest[T], body: bytes) -> Item:
        """Return what is to be committed; raise a `PenstockError` to let the request go the long way."""
        raise NotImplementedError

    async def commit(self, items: Sequence[Item]) -> Sequence[Any]:
        """Return what came of each, or the error that it failed with."""
        raise NotImplementedError

    def answer(self, item: Item, outcome: Any) -> bytes:
        """Return the whole answer."""
        raise NotImplementedError


def _without(data: bytes, begin: int, end: int, field: re.Match[bytes] | None) -> bytes:
    """Return a part of some data without the numbers that may differ."""
    return data[begin:end] if field is None else data[begin : field.start(1)] + data[field.end(1) : end]
