"""Records of a stream as they come, across as many connections as it takes."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock.client.appending import LiveDoor
from penstock.client.engine import Answer
from penstock.client.errors import ClientError, Unreachable
from penstock.client.paths import path_of, query
from penstock.client.retry import Backoff, Failures, NotNow, refuse
from penstock.errors import OffsetOutOfRange, StreamFailed, StreamGone, StreamNotFound
from penstock.protocols.sse import MEDIA_TYPE, Decoder, Event, EventTooLargeError

_LONGEST: Final = 64 * 1024 * 1024  # a record has at most 16 MiB, which base64 makes longer


@dataclass(frozen=True, slots=True)
class Record:
    """A record, or a piece of a stream that has none.

    Attributes:
        offset: the offset after it: where to go on.
        data: the record: JSON as it was appended, a line of text without its end, or bytes.
        whole: whether it is a record; False for a piece of a stream without records.
    """

    offset: int
    data: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Closed:
    """How a stream ended that was read to its end.

    Attributes:
        offset: its tail.
        reason: why a reader had it stopped; None where its producer closed it.
    """

    offset: int
    reason: str | None = None


class Records:
    """The records of a stream from a place on, as `items` yields them.

    What there is comes by polls, of which each tells where the next one begins; so a reader that begins now, some
    records back or at a time knows its offset before it follows, and no connection that breaks costs it a record.

    Args:
        door: where to read.
        name: the stream's name.
        patience: when to try again once the stream is being followed.
        place: where to begin, as the door's query says it.
        follow: whether to go on as the stream grows, until it is closed.
        ended: is told how the stream ended, if it was read to its end.
    """

    def __init__(
        self,
        door: LiveDoor,
        name: str,
        patience: Backoff,
        place: dict[str, str | int | None],
        *,
        follow: bool,
        ended: Callable[[Closed], None],
    ) -> None:
        self._door = door
        self._name = name
        self._path = path_of(door.prefix, name)
        self._patience = patience
        self._place = place
        self._follow = follow
        self._ended = ended
        self._offset: int | None = None  # where it goes on, once that is known
        self._incarnation = ""
        self._failure: str | None = None
        self._stop: int | None = None  # where the stream ended when it was first asked for

    async def items(self) -> AsyncGenerator[Record, None]:
        """Yield the records as they arrive. Close the generator to close the connection."""
        failures = Failures(self._door.backoff)
        more = True
        while more:
            try:
                async for record in self._request(wait=0):
                    failures.forget()
                    yield record
                more = self._offset is None or (self._stop is not None and self._offset < self._stop)
            except (Unreachable, NotNow) as error:
                await failures.add(error)
        if not self._follow:
            if self._failure is not None:
                raise StreamFailed(self._name, self._offset or 0, self._failure)
            return
        failures = Failures(self._patience)
        while True:
            try:
                async for record in self._request(wait=None):
                    failures.forget()
                    yield record
            except _End as end:
                self._ended(end.how)
                return
            except (Unreachable, NotNow) as error:
                await failures.add(error)
            else:
                await failures.add(Unreachable(f"The connection ended at offset {self._offset} of {self._name!r}."))

    async def _request(self, *, wait: int | None) -> AsyncGenerator[Record, None]:
        place = self._place if self._offset is None else {"offset": self._offset}
        path = self._path + query(**place, wait=wait, event="")
        async with self._door.engine.exchange("GET", path, headers={"accept": MEDIA_TYPE}) as answer:
            await self._check(answer)
            before = self._offset
            if answer.status == 200:
                async for event in _events(answer):
                    if event.event in {"end", "error"}:
                        self._take_end(json.loads(event.data))
                    record = _record(event)
                    self._offset = record.offset
                    yield record
            if wait is not None:
                self._offset = _number(answer, "stream-next-offset")
                if before == self._offset:
                    self._stop = before  # it has come as far as there are whole records

    async def _check(self, answer: Answer) -> None:
        """Look at the head of an answer: it must be of the stream that is being read."""
        if answer.status not in {200, 204}:
            error = refuse(await answer.refusal(self._name, offset=self._offset or 0), now=time.time)
            if self._incarnation and _is_anothers(error):
                raise StreamGone(self._name, self._incarnation)
            raise error
        incarnation = answer.headers.get("stream-incarnation", "")
        if self._incarnation and incarnation != self._incarnation:
            raise StreamGone(self._name, self._incarnation)
        self._incarnation = incarnation
        failure = answer.headers.get("stream-failure")
        self._failure = None if failure is None else urllib.parse.unquote(failure)
        if self._stop is None:
            self._stop = _number(answer, "stream-tail")

    def _take_end(self, told: dict[str, Any]) -> None:
        """Raise what the last event says."""
        offset, reason = int(told.get("offset", self._offset or 0)), told.get("reason")
        if told["state"] == "closed":
            raise _End(Closed(offset, reason))
        if told["state"] == "failed":
            raise StreamFailed(self._name, offset, str(reason or "no reason was given"))
        if told["state"] == "gone":
            raise StreamGone(self._name, self._incarnation)
        if "start" in told:
            at, start = self._offset or 0, int(told["start"])
            raise OffsetOutOfRange(self._name, at, max(at, start), "has been dropped", start=start)
        raise ClientError(f"The server ended the reading of {self._name!r}: {reason or 'it gave no reason'}")


class _End(Exception):
    def __init__(self, how: Closed) -> None:
        self.how = how
        super().__init__()


def _is_anothers(error: Exception) -> bool:
    """Tell whether this is said of a place that was one: then the name shows no stream any more, or another one."""
    if isinstance(error, OffsetOutOfRange):
        return error.start <= error.offset  # else it was dropped
    return isinstance(error, StreamNotFound)


async def _events(answer: Answer) -> AsyncGenerator[Event, None]:
    if not answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
        raise ClientError(f"{answer.url} is not the live door of a penstock server.")
    decoder = Decoder(max_event=_LONGEST)
    async for piece in answer.pieces():
        try:
            events = decoder.feed(piece)
        except EventTooLargeError as error:
            raise ClientError(f"The answer of {answer.url} cannot be read: {error}") from error
        for event in events:
            yield event


def _record(event: Event) -> Record:
    if event.event == "bytes":
        return Record(int(event.id), base64.b64decode(event.data), whole=False)
    # There is no LF within a record: one that is read was a CR, which ends the lines of events, too.
    return Record(int(event.id), event.data.replace("\n", "\r").encode())


def _number(answer: Answer, field: str) -> int:
    value = answer.headers.get(field, "")
    if not value.isascii() or not value.isdigit():
        raise ClientError(f"{answer.url} is not the live door of a penstock server: it does not tell {field}.")
    return int(value)


def begins(start: int | None, last: int | None, since: str | float | None) -> dict[str, str | int | None]:
    """Return the door's query for a place to begin: at most one of these; none is the tail.

    Raises:
        ValueError: there are several, or one that is no place.
    """
    given = [value for value in (start, last, since) if value is not None]
    if len(given) > 1:
        raise ValueError("start, last and since all say where to begin: give one of them")
    if any(isinstance(value, int) and value < 0 for value in (start, last)):
        raise ValueError("an offset, or a number of records, cannot be negative")
    if start is not None:
        return {"offset": start}
    return {"last": last} if last is not None else {"since": str(since)} if since is not None else {"offset": "now"}
