"""Appends that are never written twice, however often they have to be sent."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from penstock.client.engine import Engine
from penstock.client.errors import ClientError, Unreachable
from penstock.client.paths import path_of
from penstock.client.remote import remote_from_headers
from penstock.client.retry import Backoff, NotNow, refuse
from penstock.errors import InvalidRecord, PenstockError, ProducerOutOfSequence
from penstock.model import Appended
from penstock.protocols.records import json_record, text_record

RecordLike: TypeAlias = "str | bytes | dict[str, Any] | list[Any] | int | float | bool | None"
"""A line of text (``str``, ``bytes``), or what becomes one JSON text."""

RecordType: TypeAlias = Literal["text", "json", "auto"]
"""What records are: lines of text, JSON texts, or whichever fits the first one's Python type."""

TEXT: Final = "text/plain; charset=utf-8"
LINES: Final = "application/x-ndjson"
_MAX_BATCH_RECORDS: Final = 1000
_MAX_BATCH_BYTES: Final = 1024 * 1024
_MAX_HELD_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LiveDoor:
    """Where records are appended.

    Attributes:
        engine: the connections.
        prefix: the door's path.
        backoff: when to try again.
    """

    engine: Engine
    prefix: str
    backoff: Backoff


def encode_record(record: RecordLike, kind: RecordType = "auto") -> tuple[str, bytes]:
    """Return the media type that a record is sent as, and the record with its line end.

    Text and bytes are lines; with ``kind="json"`` they are JSON texts. Anything else becomes a JSON text.

    Raises:
        InvalidRecord: it has a line end in it, or JSON cannot express it.
    """
    try:
        if isinstance(record, str | bytes):
            data = record.encode() if isinstance(record, str) else record
            return (LINES, json_record(data)) if kind == "json" else (TEXT, text_record(data))
        if kind == "text":
            raise InvalidRecord(f"A record of a text stream is text, not {type(record).__name__}.")
        data = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        return LINES, json_record(data)
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"This cannot be a record: {error}.") from error


class Sender:
    """Sends appends to one stream, one at a time, each until the server has it.

    A producer's id and sequence number go with each, so that the server knows a repetition (whose first answer was
    lost) from a new append.
    """

    def __init__(self, door: LiveDoor, name: str, headers: dict[str, str]) -> None:
        self._door = door
        self._path = path_of(door.prefix, name)
        self._name = name
        self._headers = headers
        self._turn = asyncio.Lock()
        self._begin_anew()

    @property
    def idle(self) -> bool:
        """Whether nothing is being sent."""
        return not self._turn.locked()

    async def send(self, content_type: str | None, body: bytes, *, lines: int = 1, close: bool = False) -> Appended:
        """Append ``body``, whose media type says whether it is one record or several; None goes with an empty one.

        Several lines of text go as a body of records that are numbered one by one, of which a repetition leaves out
        those that are there.

        Raises:
            PenstockError: what the server refused it for, or the last failure where no retry was left: then it may
                have been appended or not.
        """

        async def attempt() -> Appended:
            return await self._once(content_type, body, lines, close=close)

        async with self._turn:
            for renewed in (False, True):
                self._in_doubt = False
                try:
                    appended = await self._door.backoff.persist(attempt)
                except ProducerOutOfSequence as error:
                    # A new stream of the same name has not heard of us. It gets the append as a new producer's, except
                    # where an earlier try may have reached it.
                    unheard_of = error.expected == 0 and not self._in_doubt
                    self._begin_anew()
                    if renewed or not unheard_of:
                        raise
                except PenstockError as error:
                    if self._in_doubt or isinstance(error, Unreachable):
                        self._begin_anew()
                    raise
                except BaseException:
                    self._begin_anew()
                    raise
                else:
                    self._sequence += lines
                    return appended
            raise AssertionError("unreachable")

    def _begin_anew(self) -> None:
        """Become another producer. Needed where an append's fate is unknown: its number must not be used again."""
        self._producer = secrets.token_hex(8)
        self._sequence = 0
        self._in_doubt = False

    async def _once(self, content_type: str | None, body: bytes, lines: int, *, close: bool) -> Appended:
        headers = {
            **self._headers,
            "producer-id": self._producer,
            "producer-epoch": "0",
            "producer-seq": str(self._sequence),
        }
        if content_type is not None:
            headers["content-type"] = content_type
        if close:
            headers["stream-closed"] = "true"
        try:
            path = self._path if lines == 1 else f"{self._path}?stream"
            async with self._door.engine.exchange("POST", path, headers=headers, body=body) as answer:
                if answer.status not in {200, 201}:
                    refusal = await answer.refusal(
                        self._name, content_type=content_type, producer=self._producer, sequence=self._sequence
                    )
                    raise refuse(refusal, now=time.time)
                document = json.loads(await answer.document())
                info = remote_from_headers(self._name, answer.url, answer.headers)
                return Appended(info, int(document["offset"]), bool(document.get("duplicate")))
        except (Unreachable, NotNow):
            self._in_doubt = True
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError("The server took the record, but did not say so as a penstock server does.") from error


class Appender:
    """Appends records live: each goes out as soon as the one before it is safe, and what waits goes out together.

    Use it as an async context manager. `append` returns when the record is on its way, not when it is safe; `flush`
    and the end of the block wait for that. After an error the block's end raises it, and nothing more is sent.

    Records that wait go out many in one request.

    Args:
        sender: sends to the stream.
        kind: what the records are.
        close: whether to close the stream at the end of the block. Where the block ends by an exception, it is not
            closed: a stream that breaks off must not look complete.

    Attributes:
        offset: the offset after the last record that is safe, or None before the first.
        count: how many records are safe.
    """

    def __init__(self, sender: Sender, *, kind: RecordType = "auto", close: bool = False) -> None:
        self._sender = sender
        self._kind = kind
        self._close = close
        self._type: str | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._error: BaseException | None = None
        self._work_is_there = asyncio.Event()
        self._room_is_there = asyncio.Event()
        self._all_is_safe = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.offset: int | None = None
        self.count = 0

    async def __aenter__(self) -> Self:
        self._all_is_safe.set()
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):
                await self.flush()
            if error is None and self._close:
                self.offset = (await self._sender.send(None, b"", close=True)).offset
        except PenstockError:
            if error is None:
                raise
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])

    async def append(self, record: RecordLike) -> None:
        """Send a record; wait only while much is under way already.

        Raises:
            InvalidRecord: it cannot be a record of this kind; the others go on.
            PenstockError: an earlier record could not be appended.
        """
        content_type, line = encode_record(record, self._kind)
        if self._type is None:
            self._type, self._kind = content_type, "text" if content_type == TEXT else "json"
        while self._size >= _MAX_HELD_BYTES and self._error is None:
            self._room_is_there.clear()
            await self._room_is_there.wait()
        self._raise_error()
        self._waiting.append(line)
        self._size += len(line)
        self._all_is_safe.clear()
        self._work_is_there.set()

    async def flush(self) -> None:
        """Wait until every record is safe.

        Raises:
            PenstockError: one could not be appended.
        """
        await self._all_is_safe.wait()
        self._raise_error()

    async def _work(self) -> None:
        try:
            while True:
                await self._work_is_there.wait()
                self._work_is_there.clear()
                while self._waiting:
                    batch = self._batch()
                    lines = len(batch) if self._type == TEXT else 1
                    appended = await self._sender.send(self._type, b"".join(batch), lines=lines)
                    self.offset = appended.offset
                    self.count += len(batch)
                    self._size -= sum(map(len, batch))
                    self._room_is_there.set()
                self._all_is_safe.set()
        except BaseException as error:
            self._error = error
            self._room_is_there.set()
            self._all_is_safe.set()
            if not isinstance(error, Exception):
                raise

    def _batch(self) -> list[bytes]:
        """Take what waits, as far as it can go out in one request."""
        batch = [self._waiting.popleft()]
        size = len(batch[0])
        while self._waiting and len(batch) < _MAX_BATCH_RECORDS and size + len(self._waiting[0]) <= _MAX_BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        return batch

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
