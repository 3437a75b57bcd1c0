"""Requests as plain as can be, answered without the framework, for a server that asks (`penstock.server.quick`).

The server makes objects of a request, FastAPI finds the route, makes others, and passes the request and the answer
through its middlewares: that is nine tenths of the time of a small request. A `QuickDoor` knows one kind of request and
one kind of answer. Whatever it does not know for certain, a field that may mean something or a request that is to be
refused, goes the long way, by which it is decided and answered as ever.

A client sends the same head again and again, but for a number or two. So heads are taken apart once, by who does that
anyway, and then recognised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from penstock.model import Buffer

STATE: Final = "penstock.quick"
"""Where the server finds the doors in the state that a lifespan gives (ASGI specification, "Lifespan State")."""

_MEANINGLESS: Final = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language"})
"""Fields of a request that say nothing that changes the answer."""

_LONGEST_HEAD: Final = 1024
_MOST_HEADS: Final = 4096

T = TypeVar("T")


class Exchange(Protocol):
    """A request that is to be answered, once, by one of these."""

    def answer(self, head: bytes, body: Buffer = b"") -> None:
        """Send an answer: its status line and fields with the empty line after them, and its content."""

    def refuse(self, error: BaseException | None = None) -> None:
        """Let the request go the long way; where an error tells that it may have had its effect, only to say that."""


class Plain(NamedTuple, Generic[T]):
    """What a plain request says.

    Attributes:
        name: of the stream,
        quoted: the same as JSON writes it,
        meaning: what the door made of the fields.
    """

    name: str
    quoted: str
    meaning: T


class QuickRequest(NamedTuple, Generic[T]):
    """A request whose head is known.

    Attributes:
        plain: what it says,
        numbers: but for the numbers in its head that may differ from one request to the next, as they stand there.
        start: where its content begins in what was received,
        stop: and where that ends.
    """

    plain: Plain[T]
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
        self._method = method.encode()
        self._prefix = f"{prefix}/".encode()
        self._beginning = self._method + b" " + self._prefix
        self._numbers = numbers
        self._heads: dict[bytes, Plain[T]] = {}

    # -- for the server -----------------------------------------------------------------------------------------------

    def known(self, data: bytes) -> QuickRequest[T] | None:
        """Return the request that ``data`` begins with, if that has a head which was learned."""
        if not data.startswith(self._beginning):
            return None
        start = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD) + 4
        field = self._numbers.search(data, 0, start)
        plain = self._heads.get(_without(data[:start], field))
        if plain is None:
            return None
        numbers = () if field is None else field.groups()[1:]
        return QuickRequest(plain, numbers, start, start + self.length(numbers))

    def learn(self, data: bytes, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Remember the head that ``data`` begins with, if it is that of a plain request.

        Args:
            data: what was received.
            target: what it asks for, as somebody understood who can tell,
            fields: and its header fields, with their names in lower case.
        """
        if not data.startswith(self._beginning):
            return
        head = data[: data.find(b"\r\n\r\n", 0, _LONGEST_HEAD) + 4]
        # Each line is one of the fields that were understood: nothing is folded, and nothing comes before.
        whole = head.startswith(self._method + b" " + target + b" HTTP/1.1\r\n")
        if (
            not whole
            or head.count(b"\n") != len(fields) + 2
            or not target.isascii()
            or b"%" in target
            or b"?" in target
        ):
            return
        others = {field: value for field, value in fields if field not in _MEANINGLESS}
        if others.pop(b"connection", b"keep-alive").lower() != b"keep-alive":
            return
        count = sum(field not in _MEANINGLESS and field != b"connection" for field, _ in fields)
        meaning = self.meaning(others) if count == len(others) else None
        if meaning is not None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            name = target[len(self._prefix) :].decode()
            self._heads[_without(head, self._numbers.search(head))] = Plain(name, json.dumps(name), meaning)

    # -- for the doors ------------------------------------------------------------------------------------------------

    def meaning(self, fields: dict[bytes, bytes]) -> T | None:
        """Return what the fields mean, but for those that mean nothing; None if the request is not plain."""
        raise NotImplementedError

    def length(self, numbers: Sequence[bytes]) -> int:
        """Return how many bytes of content a request has, by the numbers in its head."""
        raise NotImplementedError

    def take(self, request: QuickRequest[T], body: bytes, exchange: Exchange) -> None:
        """Carry out a request, and have it answered, now or later."""
        raise NotImplementedError


def _without(head: bytes, field: re.Match[bytes] | None) -> bytes:
    """Return a head without the numbers that may differ."""
    return head if field is None else head[: field.start(1)] + head[field.end(1) :]
