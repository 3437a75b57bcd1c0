"""The plainest of appends without the framework: a POST of a record to a stream that is there.

The server makes objects of a request, FastAPI finds the route, makes others, and passes the request and the answer
through its middlewares: together that took nine tenths of the time of a small append. This knows one kind of request
and one kind of answer, for a server that asks it (`penstock.server.quick`). Whatever it does not know for certain, a
field that may mean something or an append that is refused, goes the long way, by which it is decided and answered as
ever: a refused append has changed nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from penstock.core.service import Append, StreamService
from penstock.doors.live.appending import LARGE, RecordFormat
from penstock.errors import PenstockError
from penstock.model import Appended
from penstock.protocols.dates import format_date
from penstock.toolkit.responses.stream_fields import state_fields

STATE: Final = "penstock.quick"
"""Where the server finds it in the state that a lifespan gives (ASGI specification, "Lifespan State")."""

_MEANINGLESS: Final = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language"})
"""Fields of a request that say nothing about an append."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ ]?([0-9]{1,5})\r\n", re.IGNORECASE)
_LONGEST_HEAD: Final = 1024
_MOST_HEADS: Final = 4096

Done: TypeAlias = Callable[[Appended | BaseException], None]
"""Is told what became of an append."""


class Plain(NamedTuple):
    """What a request that is as plain as can be says of an append: to which stream, and how its body makes records.

    The stream's name is kept as JSON writes it, too.
    """

    name: str
    quoted_name: str
    format: RecordFormat


class QuickRequest(NamedTuple):
    """A request whose head is known, and where its body begins and ends in what was received."""

    plain: Plain
    start: int
    stop: int


class QuickAppends:
    """Appends to a live door that lets anybody append.

    A client sends the same head again and again, but for the length. So heads are taken apart once, by who does that
    anyway, and then recognised.

    Args:
        service: the streams.
        prefix: where the live door is mounted.
    """

    def __init__(self, service: StreamService, prefix: str = "/live") -> None:
        self._service = service
        self._prefix = f"{prefix}/".encode()
        self._begin = b"POST " + self._prefix
        self._heads: dict[bytes, Plain] = {}
        self._waiting: list[tuple[Append, Done]] = []
        self._appending: asyncio.Task[None] | None = None

    def known(self, data: bytes) -> QuickRequest | None:
        """Return the request that ``data`` begins with, if that has a head which was learned."""
        split = self._split(data)
        if split is None:
            return None
        head, start, length = split
        plain = self._heads.get(head)
        return None if plain is None else QuickRequest(plain, start, start + length)

    def learn(self, data: bytes, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Remember the head that ``data`` begins with, if it is that of a plain request.

        Args:
            data: what was received.
            target: what it asks for, as somebody understood who can tell,
            fields: and its header fields, with their names in lower case.
        """
        split, plain = self._split(data), self._plain(target, fields)
        if split is None or plain is None:
            return
        head, _, length = split
        # Each line is one of the fields that were understood: nothing is folded, and nothing comes before.
        whole = head.startswith(b"POST " + target + b" HTTP/1.1\r\n") and head.count(b"\n") == len(fields) + 2
        if whole and 0 < length <= LARGE:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[head] = plain

    def _split(self, data: bytes) -> tuple[bytes, int, int] | None:
        """Return a head without its length, where it ends, and the length; None of what is no short head."""
        if not data.startswith(self._begin):
            return None
        start = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD) + 4
        length = _LENGTH.search(data, 0, start)
        return (
            None if length is None else (data[: length.start(1)] + data[length.end(1) : start], start, int(length[1]))
        )

    def _plain(self, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> Plain | None:
        if not target.startswith(self._prefix) or not target.isascii() or b"%" in target or b"?" in target:
            return None
        types = [value for name, value in fields if name == b"content-type"]
        lengths = [value for name, value in fields if name == b"content-length"]
        others = {name: value for name, value in fields if name not in {b"content-type", b"content-length"}}
        if others.pop(b"connection", b"keep-alive").lower() != b"keep-alive" or not _MEANINGLESS.issuperset(others):
            return None
        if len(types) != 1 or len(lengths) != 1:
            return None
        name = target[len(self._prefix) :].decode()
        try:
            return Plain(name, json.dumps(name), RecordFormat.of(types[0].decode("latin-1")))
        except PenstockError:
            return None

    def append(self, plain: Plain, body: bytes, done: Done) -> None:
        """Append the record, or the lines, that a body is. ``done`` may be called at once.

        What comes while others are being committed is appended together.
        """
        try:
            (data,) = plain.format.whole(body, batch=False)
        except PenstockError as error:
            done(error)
            return
        self._waiting.append((Append(plain.name, data, plain.format.stream_type), done))
        if self._appending is None:
            self._appending = asyncio.get_running_loop().create_task(self._append_all())

    async def _append_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            outcomes: Sequence[Appended | BaseException]
            try:
                outcomes = await self._service.append_each([append for append, _ in waiting])
            except BaseException as error:  # noqa: BLE001 - who waits has to hear of it
                outcomes = [error] * len(waiting)
            for (_, done), outcome in zip(waiting, outcomes, strict=True):
                done(outcome)
        self._appending = None

    def answer(self, plain: Plain, appended: Appended) -> bytes:
        """Return the answer to an append: see `penstock.doors.live.appending.content_of`."""
        body = f'{{"name":{plain.quoted_name},"offset":{appended.offset},"duplicate":false}}'
        fields = "".join([f"{field}: {value}\r\n" for field, value in state_fields(appended.info).items()])
        return (
            f"HTTP/1.1 200 OK\r\n{fields}content-length: {len(body)}\r\ncontent-type: application/json\r\n"
            f"date: {format_date(time.time())}\r\n\r\n{body}"
        ).encode()
