"""Records in by POST: one or several, all or nothing."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from fastapi import Request

from penstock.core.service import StreamService
from penstock.doors.fields import check_coding, content_type_of
from penstock.doors.live.creation import live_spec
from penstock.errors import InvalidRecord
from penstock.model import Appended, Producer
from penstock.protocols import durable
from penstock.protocols.json_lines import Lines, json_lines, text_lines
from penstock.protocols.records import RecordError, json_record, json_records, text_record
from penstock.toolkit.problems import RequestError, bad_request
from penstock.toolkit.requests.bodies import whole

NDJSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain; charset=utf-8"
ACCEPTED: Final = f"application/json, {NDJSON}, text/plain"

MAX_APPEND: Final = 4 * 1024 * 1024
"""The most bytes of one append: it is held in memory, because it is all or nothing."""

LARGE: Final = 64 * 1024
"""Bytes from which on it takes long enough to check them to keep others waiting."""

_CHARSET: Final = re.compile(r'(?:^|;)[ \t]*charset="?([^ \t;"]+)', re.IGNORECASE)


async def append(service: StreamService, request: Request, name: str, *, batch: bool) -> Appended:
    """Append the records of a body together, or none of them.

    Args:
        service: the streams.
        request: whose body it is.
        name: the stream.
        batch: whether a JSON array is a record for each of its elements.
    """
    check_coding(request)
    body = await whole(request, MAX_APPEND)
    close = closes(request)
    producer = producer_of(request)
    if close and not body:  # whatever type it is declared to be: some clients declare one of nothing
        return await service.append(name, (), close=True, producer=producer)
    format_ = RecordFormat.of(content_type_of(request))
    if len(body) > LARGE:
        data = await asyncio.to_thread(format_.whole, body, batch=batch)
    else:
        data = format_.whole(body, batch=batch)
    return await service.append(
        name,
        data,
        close=close,
        producer=producer,
        content_type=format_.stream_type,
        create=live_spec(request, format_.stream_type, service, format_.attributes),
    )


class RecordFormat:
    """How a body's content type makes records of it.

    Attributes:
        stream_type: the content type of the stream that they are appended to.
        attributes: what else is said of a stream that they create: the Durable Streams door shows JSON as JSON.
    """

    def __init__(self, media_type: str, charset: str) -> None:
        self.stream_type = TEXT if media_type == "text/plain" else NDJSON
        self.attributes = durable.stored_as(durable.JSON)[1] if self.stream_type == NDJSON else {}
        self._media_type = media_type
        self._charset = charset

    @classmethod
    def of(cls, content_type: str) -> RecordFormat:
        """Return the format of a content type.

        Raises:
            RequestError: the type has no records.
        """
        media_type, _, parameters = content_type.partition(";")
        media_type = media_type.strip().lower()
        if media_type in {"application/ndjson", "application/jsonl"}:
            media_type = NDJSON
        if media_type not in {"application/json", NDJSON, "text/plain"}:
            raise RequestError(
                "unsupported-media-type",
                415,
                f"{media_type} has no records. Send {ACCEPTED.replace(', text', ' or text')}.",
                {"accept-post": ACCEPTED},
            )
        charset = _CHARSET.search(parameters)
        return cls(media_type, "utf-8" if charset is None else charset[1])

    def whole(self, body: bytes, *, batch: bool) -> list[bytes]:
        """Return the records of a whole body, each ended by a newline.

        Raises:
            InvalidRecord: the body is not what its type says.
        """
        try:
            if self._media_type == NDJSON:
                return [json_lines(body).data]
            if self._media_type == "text/plain":
                return [text_record(body, self._charset)]
            return json_records(body) if batch else [json_record(body)]
        except RecordError as error:
            raise InvalidRecord(str(error)) from error

    def lines(self, data: bytes) -> Lines:
        """Return the records of some whole lines of a body.

        Raises:
            BadLineError: a line is none; it has those before it.
        """
        return text_lines(data, self._charset) if self.stream_type == TEXT else json_lines(data)

    @property
    def has_lines(self) -> bool:
        """Whether a body's records end where its lines do."""
        return self._media_type != "application/json"


def content_of(name: str, appended: Appended) -> dict[str, Any]:
    """Return what an append came to, for JSON."""
    return {"name": name, "offset": appended.offset, "duplicate": appended.duplicate}


def closes(request: Request) -> bool:
    """Tell whether the stream is to be closed with the append."""
    value = request.headers.get("stream-closed", "false").lower()
    if value not in {"true", "false"}:
        raise bad_request("Stream-Closed must be true or false.")
    return value == "true"


def producer_of(request: Request) -> Producer | None:
    """Return who appends, if the request says so."""
    names = ("producer-id", "producer-epoch", "producer-seq")
    values = [request.headers.get(name) for name in names]
    if not any(values):
        return None
    identity, epoch, sequence = values
    if not identity or len(identity) > 256 or not is_number(epoch) or not is_number(sequence):
        raise bad_request(
            "Producer-Id (up to 256 characters), Producer-Epoch and Producer-Seq (whole numbers) go together."
        )
    return Producer(identity, int(epoch or 0), int(sequence or 0))


def is_number(value: str | None) -> bool:
    """Tell whether a text is a whole number that JavaScript, too, counts exactly: of up to 15 digits."""
    return value is not None and value.isascii() and value.isdigit() and len(value) <= 15
