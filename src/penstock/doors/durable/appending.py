"""POST: appends, closes, or both. It is the door's busiest road: one look at the fields, one commit, one answer."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from penstock.core import coordination, rules
from penstock.core.ports import Change, View
from penstock.core.service import StreamService
from penstock.doors.durable.answers import answer
from penstock.errors import ContentTypeMismatch, InvalidRecord
from penstock.model import StreamInfo
from penstock.protocols import durable
from penstock.protocols.records import RecordError, json_records
from penstock.toolkit.problems import bad_request
from penstock.toolkit.requests.bodies import whole

_LARGE = 64 * 1024


async def append(service: StreamService, request: Request, name: str, max_size: int) -> Response:
    """Append the body, or close the stream, or both, in one commit (PROTOCOL.md section 5.2).

    Raises:
        MalformedError, RequestError, InvalidRecord: the request is wrong.
        StreamError: it cannot be appended.
    """
    fields = {key: value.decode("latin-1") for key, value in request.scope["headers"]}
    producer = durable.producer(fields.get(b"producer-id"), fields.get(b"producer-epoch"), fields.get(b"producer-seq"))
    close = durable.closes(fields.get(b"stream-closed"))
    sequence = fields.get(b"stream-seq")
    body = await whole(request, max_size)
    declared = fields.get(b"content-type", "")
    if not body and not close:
        raise bad_request(
            "The body is empty: there is nothing to append. To close the stream, say Stream-Closed: true."
        )
    if body and not declared:
        raise bad_request("Content-Type must say what the body is: what the stream holds.")
    try:
        data = await messages(declared, body)
    except InvalidRecord:
        await _check_writable(service, name)
        raise
    if body and not data:
        raise bad_request("The array is empty: there is nothing to append.")
    now = service.now()

    def fits(info: StreamInfo | None) -> None:
        if info is not None:
            check_type(info, declared)

    def decide(view: View) -> Change:
        return coordination.append(
            view, name, data, now=now, check=fits, producer=producer, sequence=sequence, close=close
        )

    change = await service.commit(
        name, decide, producer=None if producer is None else producer.id, size=rules.size_of(data)
    )
    told = {"stream-next-offset": durable.offset(change.offset)}
    if change.info is not None and change.info.closed:
        told["stream-closed"] = "true"
    if change.producer is not None:
        told["producer-epoch"] = str(change.producer.producer.epoch)
        told["producer-seq"] = str(change.producer.producer.sequence)
    return answer(200 if producer is not None and data and not change.duplicate else 204, told)


async def messages(declared: str, body: bytes) -> list[bytes]:
    """Return what a body of a declared type appends: of JSON its messages, one a line, of anything else itself.

    Raises:
        InvalidRecord: it is not JSON.
    """
    if not body:
        return []
    if not durable.same_type(declared, durable.JSON):
        return [body]
    try:
        # To check a large one takes long enough to keep others waiting.
        return await asyncio.to_thread(json_records, body) if len(body) > _LARGE else json_records(body)
    except RecordError as error:
        raise InvalidRecord(str(error)) from error


def check_type(info: StreamInfo, declared: str) -> None:
    """Refuse what does not fit into a stream.

    Raises:
        ContentTypeMismatch: the stream holds another type.
    """
    # JSON is stored otherwise than it comes, so into bytes that are said to be JSON it does not fit.
    fits = durable.is_json(info) == durable.same_type(declared, durable.JSON)
    if not fits or not durable.same_type(declared, durable.media_type(info)):
        raise ContentTypeMismatch(info.name, declared, durable.media_type(info))


async def _check_writable(service: StreamService, name: str) -> None:
    """Let the state of the stream come before what is wrong with the body: it says whether to go on trying."""
    info = await service.info(name)
    coordination.append(View(info, info), name, (), now=service.now(), check=lambda _: None, producer=None, close=False)
