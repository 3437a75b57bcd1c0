"""Formats that a stream of items can have: how the whole begins and ends, and how an item is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pydantic_core import to_json

from penstock.protocols import sse
from penstock.toolkit.responses.endings import End, StreamEnd

RETRY = 1000
"""Milliseconds after which the reader of a server that stops comes back."""


class Format(Protocol):
    """How items become bytes. One object for each response: it may have a state."""

    media_type: str
    live: bool
    """Whether it is for following, without an end: never cached, with a heartbeat, ended when the server stops."""

    def begin(self) -> bytes:
        """Return what comes before the first item; called once, before any item."""

    def item(self, item: Any) -> bytes:
        """Return an item."""

    def end(self, end: StreamEnd) -> bytes:
        """Return what comes after the last item."""

    def farewell(self, end: StreamEnd) -> bytes | None:
        """Return what a stream ends with that is stopped before its end; None where it would look complete."""

    def failure(self, error: Exception, told: object = None) -> bytes:
        """Return what tells the reader that the rest is missing; nothing where the format has no place for it.

        Args:
            error: what happened.
            told: what the application wants to be told, if not what this format tells otherwise.
        """

    def heartbeat(self) -> bytes:
        """Return what keeps the connection busy without meaning anything; nothing where there is no such thing."""


class _Plain:
    """Items one after another."""

    live = False

    def begin(self) -> bytes:
        return b""

    def end(self, end: StreamEnd) -> bytes:
        return b""

    def farewell(self, end: StreamEnd) -> bytes | None:
        return None

    def failure(self, error: Exception, told: object = None) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


class Raw(_Plain):
    """Bytes and text as they are; text is written as UTF-8."""

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type

    def item(self, item: bytes | bytearray | memoryview | str) -> bytes:
        """Return bytes as they are, and text as UTF-8."""
        return item.encode() if isinstance(item, str) else bytes(item)


class NDJSON(_Plain):
    """One JSON text a line, of whatever pydantic can write: dicts, models, dataclasses, dates...

    Args:
        report: whether a failure is told in a last line, ``{"error": "..."}``.
        end: whether the last line is ``{"end": {"reason": "complete", "items": 3, "bytes": 45}}`` (`StreamEnd`), so
            that a reader who has it has all. A function makes another record of that.
        live: whether it is for following. Then a heartbeat is an empty line, and there is an ``end`` by default: with
            the reason ``stopping`` when the server stops. Without one, the body is broken off then.
    """

    media_type = "application/x-ndjson"

    def __init__(self, *, report: bool = False, end: End | None = None, live: bool = False) -> None:
        self._report = report
        self._end = live if end is None else end
        self.live = live

    def item(self, item: Any) -> bytes:
        """Return a line."""
        return to_json(item) + b"\n"

    def end(self, end: StreamEnd) -> bytes:
        """Return the record of the end, if there is to be one."""
        return b"" if self._end is False else self.item({"end": end} if self._end is True else self._end(end))

    def farewell(self, end: StreamEnd) -> bytes | None:
        """Return the record of the end, which says that it is none; without one, there is nothing to say it."""
        return self.end(end) or None

    def failure(self, error: Exception, told: object = None) -> bytes:
        """Return the last line, if failures are to be told."""
        return self.item({"error": _text(error) if told is None else told}) if self._report else b""

    def heartbeat(self) -> bytes:
        """Return an empty line."""
        return b"\n" if self.live else b""


class JSONArray(_Plain):
    """One JSON array of all items."""

    media_type = "application/json"

    def __init__(self) -> None:
        self._separator = b"["

    def item(self, item: Any) -> bytes:
        """Return an item with what separates it from the one before."""
        written = self._separator + to_json(item)
        self._separator = b","
        return written

    def end(self, end: StreamEnd) -> bytes:
        """Close the array, which may be empty."""
        return b"]" if self._separator == b"," else b"[]"


class CSV(_Plain):
    """Rows of comma-separated values (RFC 4180), with a header line where the columns are known.

    Args:
        columns: the header. Rows that are mappings are written in its order; without it, in the order of the first one.
    """

    media_type = "text/csv; charset=utf-8; header=present"

    def __init__(self, columns: Iterable[str] | None = None) -> None:
        self._columns = None if columns is None else list(columns)
        self._line = io.StringIO()
        self._writer = csv.writer(self._line)  # the dialect of RFC 4180: lines end in CRLF
        self._begun = False

    def begin(self) -> bytes:
        """Return the header, if it is known already."""
        if self._columns is None:
            return b""
        self._begun = True
        return self._row(self._columns)

    def item(self, item: Mapping[str, Any] | Iterable[Any]) -> bytes:
        """Return a row."""
        if not isinstance(item, Mapping):
            return self._row(item)
        if self._columns is None:
            self._columns = list(item)
        header = b"" if self._begun else self._row(self._columns)
        self._begun = True
        return header + self._row(item.get(column) for column in self._columns)

    def _row(self, values: Iterable[Any]) -> bytes:
        self._writer.writerow(values)
        line = self._line.getvalue()
        self._line.seek(0)
        self._line.truncate()
        return line.encode()


class Events(_Plain):
    """Server-sent events. An item is an `Event` of the protocols, FastAPI's ``ServerSentEvent``, text, or JSON.

    Args:
        end: whether the last event is ``end``, with ``{"reason": "complete", "items": 3, "bytes": 45}`` (`StreamEnd`)
            as its data, so that its reader knows that it need not come back. A function makes other data of that.
        retry: milliseconds after which the reader of a server that stops comes back.
    """

    media_type = sse.MEDIA_TYPE
    live = True

    def __init__(self, *, end: End = False, retry: int = RETRY) -> None:
        self._end = end
        self._retry = retry

    def item(self, item: Any) -> bytes:
        """Return an event."""
        if isinstance(item, (str, bytes)):
            return sse.encode(item)
        if hasattr(item, "raw_data"):  # FastAPI's: with it, strings are JSON unless they are given as raw data
            return _fastapi_event(item)
        if isinstance(item, sse.Event):
            return sse.encode(item.data, id=item.id or None, event=item.event, retry=item.retry)
        return sse.encode(to_json(item))

    def end(self, end: StreamEnd) -> bytes:
        """Return the event ``end``, if there is to be one."""
        if self._end is False:
            return b""
        return sse.encode(to_json(end if self._end is True else self._end(end)), event="end")

    def farewell(self, end: StreamEnd) -> bytes | None:
        """Tell when to come back, and the event ``end``, if there is to be one, that there may be more."""
        return sse.encode(retry=self._retry) + self.end(end)

    def failure(self, error: Exception, told: object = None) -> bytes:
        """Return the event ``error``, by which a reader tells a failure from a cut line."""
        return sse.encode(to_json({"error": type(error).__name__} if told is None else told), event="error")

    def heartbeat(self) -> bytes:
        """Return a comment."""
        return sse.comment()


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _fastapi_event(item: Any) -> bytes:
    comment = b"" if item.comment is None else sse.comment(item.comment)
    data = item.raw_data if item.data is None else to_json(item.data)
    if data is None and item.event is None and item.id is None and item.retry is None:
        return comment
    return comment + sse.encode(data, id=item.id, event=item.event, retry=item.retry)
