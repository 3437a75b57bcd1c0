"""One connection, many streams: several names, or all that begin with a prefix."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from fastapi import HTTPException, Request
from fastapi.responses import Response

from penstock.core.group import Ended, Group, Member, Selection
from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.fields import name_in
from penstock.doors.hooks import Authorize, authorized
from penstock.doors.live.creation import EVENT_FIELD
from penstock.doors.live.following import ending_of
from penstock.doors.live.positions import beginning, check_boundary
from penstock.doors.live.reading import fields_of, format_of
from penstock.doors.live.signals import closing_of
from penstock.doors.live.wishes import Wish
from penstock.doors.tails.patient import PatientBody
from penstock.doors.tails.telling import Unfinished
from penstock.errors import OffsetOutOfRange, Stopping, TooManyStreams
from penstock.model import Buffer, check_name
from penstock.protocols import sse
from penstock.protocols.framings import Ending, Runs, kind_of
from penstock.protocols.framings.groups import GroupFraming
from penstock.protocols.group_ids import GroupIdError, entry, group_id, parse_group_id, tag_of
from penstock.protocols.records import RecordTooLongError
from penstock.toolkit.problems import RequestError, bad_request

MOST: Final = 500
"""Streams of one group: their id must fit into a header field."""


def selected(request: Request) -> Selection | None:
    """Return which streams a request is for; None where it is for one.

    Raises:
        RequestError: it says it in two ways.
    """
    path: str = request.path_params["name"]
    names = request.query_params.getlist("name")
    prefix = path.removesuffix("*")
    if prefix != path and (not prefix or prefix.endswith("/")):
        if names:
            raise bad_request("Follow names, or a prefix, but not both.")
        return Selection(prefix=prefix)
    if path:
        return None
    if not names:
        raise bad_request("Name a stream, several (?name=a&name=b), or all of a prefix (rooms/*).")
    if len(names) > MOST:
        raise TooManyStreams(MOST)
    return Selection(names=tuple(dict.fromkeys(map(check_name, names))))


async def check_selection(request: Request, selection: Selection, authorize: Authorize | None) -> None:
    """Ask whether the request may follow these; of a prefix, each stream is asked for by itself, too.

    Raises:
        RequestError: ``forbidden`` (403).
    """
    if selection.prefix is not None:
        if selection.prefix:
            name_in_prefix(request, selection.prefix)
        await authorized(authorize, request, "list", selection.prefix)
    for name in selection.names:
        await authorized(authorize, request, "read", name)


def name_in_prefix(request: Request, prefix: str) -> None:
    """Check the name that a prefix is of, as that of any stream.

    Raises:
        InvalidName: it is none.
    """
    name_in(request)
    check_name(prefix[:-1])


async def open_group(
    service: StreamService,
    request: Request,
    selection: Selection,
    wish: Wish,
    resumes_at: str | None,
    authorize: Authorize | None,
) -> Group:
    """Open the streams where the reader wants to begin.

    Raises:
        RequestError: it asks for what is no place.
        OffsetOutOfRange: there is no such place in one of them.
    """
    if wish.wait is not None:
        raise bad_request("Several streams are followed, not polled.")
    known = None
    text = resumes_at or wish.offset
    if text not in {"now", "0"}:
        try:
            known = parse_group_id(text)
        except GroupIdError as error:
            raise bad_request(f"The place to go on is wrong: {error}.") from error

    async def begin(reader: Reader, first: bool) -> int | None:
        info = reader.info
        if selection.prefix is not None and not await _may_read(authorize, request, info.name):
            return None
        if known is not None:
            # Streams that are not in the id have come since, or were made anew.
            start = known.get(tag_of(info.incarnation), 0)
            return await check_boundary(reader, start)
        return await beginning(service, reader, wish, None) if first else 0

    return await service.group(selection, begin, most=MOST)


async def _may_read(authorize: Authorize | None, request: Request, name: str) -> bool:
    try:
        await authorized(authorize, request, "read", name)
    except (RequestError, HTTPException) as error:
        status = error.status if isinstance(error, RequestError) else error.status_code
        if status in {401, 403, 404}:
            return False
        raise
    return True


async def framed_group(
    group: Group, framing: GroupFraming, wish: Wish, heartbeat: float, *, ended: Callable[[Ending], None]
) -> AsyncGenerator[Buffer, None]:
    """Yield what comes of a group's streams, in buffers that hold whole records.

    Args:
        group: the streams, opened. They are closed at the end.
        framing: how it is written.
        wish: what the reader asks for.
        heartbeat: seconds of silence after which a sign of life is sent.
        ended: is told how it ended, before that is sent; nothing where the server stops.

    Raises:
        Unfinished: as of `framed`.
    """
    ids = _Ids(group)
    yield framing.opening(ids.now())
    ending = Ending("closed")
    runs: dict[str, Runs] = {}  # by incarnation
    try:
        async with aclosing(group.follow(heartbeat)) as items:
            async for item in items:
                if item is None:
                    yield framing.heartbeat()
                    continue
                member, what = item
                info = member.reader.info
                cut = runs.get(info.incarnation)
                if cut is None:
                    cut = runs[info.incarnation] = Runs(kind_of(info.content_type), member.start)
                offset, run = cut.rest() if isinstance(what, Ended) else cut.take(what.offset, bytes(what.data))
                if run and not (isinstance(what, Ended) and what.error):
                    field = info.attributes.get(EVENT_FIELD) if wish.event is None else wish.event
                    kind = kind_of(info.content_type)
                    yield framing.frame(member.name, kind, offset, run, ids.of(member), field or None)
                    ids.note(member, offset + len(run))
                if isinstance(what, Ended):
                    del runs[info.incarnation]
                    told = closing_of(info) if what.error is None else ending_of(what.error)
                    yield framing.tell({"name": member.name, **told.members()}, ids.now())
    except Stopping:
        yield framing.farewell()
        if framing.breaks_off:
            raise Unfinished("the streams go on") from None
        return
    except (RecordTooLongError, TooManyStreams, OffsetOutOfRange) as error:
        ending = Ending("open", None, str(error))
    ended(ending)
    yield framing.tell(ending.members(), ids.now())
    if framing.breaks_off and ending.state != "closed":
        raise Unfinished("the streams go on")


class _Ids:
    """The ids of a group: an entry for each stream, of which one changes at a time."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._entries: dict[str, str] = {}  # by incarnation

    def now(self) -> str:
        """Return the id of where the group stands."""
        self._refresh()
        return group_id(self._entries)

    def of(self, member: Member) -> Callable[[int], str]:
        """Return how an id follows from the offset that one stream has come to."""
        self._refresh()
        incarnation = member.reader.info.incarnation
        marked = {**self._entries, incarnation: "."}  # which is in no entry
        before, after = group_id(marked)[3:].split(".")
        return lambda offset: f"v1.{before}{entry(incarnation, offset)}{after}"

    def note(self, member: Member, offset: int) -> None:
        """Note that all up to an offset was sent."""
        incarnation = member.reader.info.incarnation
        self._entries[incarnation] = entry(incarnation, offset)

    def _refresh(self) -> None:
        """Let in those that are new, and out those that are gone."""
        present = {member.reader.info.incarnation: member for member in self._group.members.values()}
        if present.keys() != self._entries.keys():
            for incarnation, member in present.items():
                if incarnation not in self._entries:
                    self.note(member, member.start)
            for incarnation in self._entries.keys() - present.keys():
                del self._entries[incarnation]


async def read_group(
    service: StreamService,
    request: Request,
    selection: Selection,
    wish: Wish,
    authorize: Authorize | None,
    who: str | None,
    *,
    heartbeat: float,
    patience: float,
) -> Response:
    """Answer a GET of a group by ``who``, as far as the application told."""
    form = format_of(request)
    framing = GroupFraming("events" if form == sse.MEDIA_TYPE else "lines")
    resumes_at = request.headers.get("last-event-id") or None
    group = await open_group(service, request, selection, wish, resumes_at, authorize)
    if resumes_at and _is_over(group):
        group.close()
        return Response(status_code=204)  # tells an EventSource to stop
    body = framed_group(group, framing, wish, heartbeat, ended=lambda _: None)
    left = service.attendance.group(group, who)

    def release() -> None:
        left()
        group.close()

    return PatientBody(body, patience=patience, headers=fields_of(framing.media_type), release=release)


def _is_over(group: Group) -> bool:
    """Tell whether the reader has all that these streams will ever have."""
    members = group.members
    return group.selection.prefix is None and all(
        name in members and members[name].reader.info.closed and members[name].offset == members[name].reader.info.tail
        for name in group.selection.names
    )
