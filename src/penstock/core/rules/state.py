"""What all rules go by: which stream a change is about, what it is ready for, and how it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from penstock.core.ports import Change, View
from penstock.core.retention import attributes_of, marked, trim_time
from penstock.errors import (
    LengthMismatch,
    StreamBusy,
    StreamClosed,
    StreamFailed,
    StreamGone,
    StreamNotFound,
    StreamStopped,
    WriterEvicted,
)
from penstock.model import Buffer, Producer, ProducerState, StreamInfo, StreamSpec

Condition: TypeAlias = Callable[[StreamInfo | None], None]
"""Looks at what the name shows, and raises if the change must not be made (`PreconditionFailed`, usually)."""


def size_of(data: Sequence[Buffer]) -> int:
    """Return how many bytes the buffers hold together."""
    return sum(map(len, data))


def living(info: StreamInfo | None, now: float) -> StreamInfo | None:
    """Return the stream, or None if there is none or its time has come: an expired stream counts as absent at once."""
    return None if info is None or info.expired(now) else info


def present(view: View, name: str, now: float, incarnation: str | None = None) -> StreamInfo:
    """Return the stream that a change is about.

    Raises:
        StreamNotFound: there is none.
        StreamGone: it is deleted, or another incarnation than the one that is meant.
    """
    info = living(view.target, now)
    if info is None:
        raise StreamNotFound(name) if incarnation is None else StreamGone(name, incarnation)
    if incarnation not in {None, info.incarnation}:
        raise StreamGone(name, incarnation or "")
    if info.deleted:
        raise StreamGone(name, info.incarnation)
    return info


def check_open(info: StreamInfo) -> None:
    """Refuse a stream that has ended, well or badly."""
    if info.failure is not None:
        raise StreamFailed(info.name, info.tail, info.failure)
    if info.closed:
        raise StreamClosed(info.name, info.tail)


def ended(info: StreamInfo) -> StreamClosed:
    """Return the error for an append to a stream that is closed: it tells whether a reader had asked for that."""
    if info.stopped is None:
        return StreamClosed(info.name, info.tail)
    return StreamStopped(info.name, info.tail, info.stopped)


def check_open_to_all(info: StreamInfo) -> None:
    """Refuse a stream that is still one upload's.

    Raises:
        StreamBusy: it is.
    """
    if info.provisional or info.upload:
        raise StreamBusy(info.name)


def check_writer(info: StreamInfo, writer: str | None) -> None:
    """Let only the last writer of an upload append: what an earlier one still sends comes too late."""
    if writer is None:
        raise StreamBusy(info.name)
    if writer != info.writer:
        raise WriterEvicted(info.name)


def new(name: str, spec: StreamSpec, incarnation: str, now: float) -> StreamInfo:
    """Return a stream as it is created, without bytes."""
    return StreamInfo(
        name=name,
        incarnation=incarnation,
        content_type=spec.content_type,
        length=spec.length,
        metadata=spec.metadata,
        created_at=now,
        modified_at=now,
        ttl=spec.ttl,
        expires_at=spec.expires_at,
        owner=spec.owner,
        key=spec.key,
        attributes=attributes_of(spec),
    )


def grown(info: StreamInfo, data: Sequence[Buffer], *, now: float, close: bool, producer: Producer | None) -> Change:
    """Bytes, close and producer in one change."""
    grown = grow(info, size_of(data), now=now, close=close)
    state = None if producer is None else ProducerState(producer, grown.tail)
    return Change(grown, data=data, producer=state, offset=grown.tail)


def grow(info: StreamInfo, size: int, *, now: float, close: bool) -> StreamInfo:
    """The one place where a tail moves."""
    tail = info.tail + size
    if info.length is not None and (tail > info.length or (close and tail < info.length)):
        raise LengthMismatch(info.name, info.length, tail)
    grown = info.grown(tail, closed=close, modified_at=later(info, now))
    return _timed(info, grown) if size and info.attributes else grown


def later(info: StreamInfo, now: float) -> float:
    """A clock that was set back must not make a stream look older than it was."""
    return max(info.modified_at, now)


def _timed(before: StreamInfo, after: StreamInfo) -> StreamInfo:
    """Note when it was, and when what came is too old to be kept."""
    now = after.modified_at
    attributes = marked(before, now)
    retention = after.retention
    age = None if retention is None else retention.age
    timed = after if attributes is after.attributes else replace(after, attributes=attributes)
    return timed if age is None or after.trim_at is not None else replace(timed, trim_at=trim_time(timed, age))
