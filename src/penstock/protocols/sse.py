"""Server-sent events (WHATWG HTML, section 9.2 "Server-sent events"): ``text/event-stream``, written and read."""

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["FAREWELL", "MEDIA_TYPE", "Decoder", "Event", "EventTooLargeError", "comment", "encode"]

MEDIA_TYPE: Final = "text/event-stream"
"""Always UTF-8; a charset parameter is not needed."""

_BREAKS_FIELD: Final = re.compile(r"[\r\n\0]")
_BOM: Final = b"\xef\xbb\xbf"
# Eighteen digits of milliseconds are longer than any connection; int() of thousands of them would be slow.
_RETRY: Final = re.compile(rb"[0-9]{1,18}")


def encode(
    data: bytes | str | None = None,
    *,
    id: int | str | None = None,  # noqa: A002 -- the field's own name
    event: str | None = None,
    retry: int | None = None,
) -> bytes:
    r"""Write one event.

    Args:
        data: The message; bytes must be UTF-8, which is not checked. Every CR, LF and CRLF in it starts another
            ``data`` line and is read back as LF. An empty message is one, too; without any (None) browsers
            dispatch nothing, but do keep ``id`` and ``retry``.
        id: What the client sends as ``Last-Event-ID`` when it reconnects. An empty text resets it.
        event: The event's type; browsers take none for ``message``.
        retry: How long clients wait before they reconnect, in milliseconds.

    Returns:
        The event's bytes, its closing empty line included.

    Raises:
        ValueError: ``id`` or ``event`` holds CR, LF or NUL, which would break out of its field or have it
            ignored; ``retry`` is negative; or a text holds a lone surrogate, which UTF-8 cannot express.
    """
    parts: list[bytes] = []
    if event is not None:
        parts.append(_field("event", event))
    if id is not None:
        parts.append(_field("id", str(id)))
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry must not be negative: {retry}")
        parts.append(b"retry: %d\n" % retry)
    if data is not None:
        raw = data.encode() if isinstance(data, str) else data
        parts.append(_lines(b"data: ", raw))
    parts.append(b"\n")
    return b"".join(parts)


def comment(text: str = "") -> bytes:
    """Write a comment, which readers ignore: an empty one keeps an idle connection alive.

    Args:
        text: The comment; each of its lines becomes a comment line.

    Returns:
        The comment's bytes and an empty line, so that it may stand between any two events.
    """
    return _lines(b": ", text.encode()) + b"\n" if text else b":\n\n"


def _field(name: str, value: str) -> bytes:
    if _BREAKS_FIELD.search(value):
        raise ValueError(f"an SSE {name} cannot hold CR, LF or NUL: {value!r}")
    return f"{name}: {value}\n".encode()


def _lines(prefix: bytes, text: bytes) -> bytes:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # The space after the colon is always written: a reader removes one, which may not be the text's own.
    return prefix + text.replace(b"\n", b"\n" + prefix) + b"\n"


FAREWELL: Final = comment("the server is stopping: come back in a moment")
"""What a server says that stops while there may be more: it is no event, so that a reader reconnects at its id."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as a reader gets it.

    Attributes:
        data: The message, its lines joined with LF.
        event: The event's type; ``message`` if the server named none.
        id: The last event id as of this event, which may have come with an earlier one.
        retry: The reconnection time in milliseconds that came with this event, if one did.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


class EventTooLargeError(ValueError):
    """One event is larger than the decoder was told to hold."""


class Decoder:
    """Reads an event stream from chunks of any size, as browsers do (section 9.2.6).

    What was not closed by an empty line when the stream ends is never returned, nor does its id count: so a
    reader that reconnects with `last_event_id` misses nothing. Invalid UTF-8 reads as U+FFFD.

    Args:
        last_event_id: The id to begin with, when this stream continues an earlier one.
        max_event: Bytes that one event may take, and so what the decoder holds at most.

    Attributes:
        last_event_id: The id to reconnect with: that of the last event that was closed by an empty line,
            with data or without.
        retry: The reconnection time in milliseconds that the server gave last; None before it gave one.
    """

    __slots__ = (
        "_at_start",
        "_data",
        "_id",
        "_max_event",
        "_partial",
        "_retry",
        "_size",
        "_skip_lf",
        "_type",
        "last_event_id",
        "retry",
    )

    def __init__(self, last_event_id: str = "", *, max_event: int = 16 * 1024 * 1024) -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._max_event = max_event
        self._at_start = True
        self._skip_lf = False  # the last chunk ended in CR: a LF that comes next belongs to it
        self._partial: list[bytes] = []  # chunks of the line that has not ended
        self._size = 0  # bytes held: of that line, and of the data lines before it
        self._id = last_event_id
        self._type = ""
        self._data: list[str] = []
        self._retry: int | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete.

        Args:
            chunk: Bytes as they arrived, cut anywhere.

        Returns:
            The events, in order; often none.

        Raises:
            EventTooLargeError: One event takes more than ``max_event`` bytes. The decoder is of no use then.
        """
        if self._at_start:
            chunk = b"".join((*self._partial, chunk))
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._partial = [chunk]
                return []
            self._at_start, self._partial = False, []
            chunk = chunk.removeprefix(_BOM)
        if not chunk:
            return []
        if self._skip_lf and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        # A CR ends its line at once, without waiting for the LF that may follow it in the next chunk.
        self._skip_lf = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        events: list[Event] = []
        if lines and self._partial:
            self._size -= sum(map(len, self._partial))
            lines[0] = b"".join((*self._partial, lines[0]))
            self._partial.clear()
        for line in lines:
            if line:
                self._take_line(line)
            elif (dispatched := self._dispatch()) is not None:
                events.append(dispatched)
        if rest:
            self._partial.append(rest)
            self._hold(len(rest))
        return events

    def _hold(self, size: int) -> None:
        self._size += size
        if self._size > self._max_event:
            raise EventTooLargeError(f"an event is larger than {self._max_event} bytes")

    def _take_line(self, line: bytes) -> None:
        # A comment is a line whose field name is empty, which like all unknown names is ignored.
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._hold(len(value) + 1)
            self._data.append(value.decode(errors="replace"))
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif name == b"event":
            self._type = value.decode(errors="replace")
        elif name == b"retry" and _RETRY.fullmatch(value):
            self.retry = self._retry = int(value)

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        completed = None
        if self._data:
            completed = Event("\n".join(self._data), self._type or "message", self._id, self._retry)
        self._type, self._data, self._retry, self._size = "", [], None, 0
        return completed
