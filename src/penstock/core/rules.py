"""The rules of streams: pure decisions.

Each takes the state (`View`) and a request, and returns the `Change` or raises. They live here once, whatever protocol
asks and whatever store applies. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from penstock.core.ports import Change, View
from penstock.core.retention import attributes_of, marked, trim_time
from penstock.errors import (
    ContentTypeMismatch,
    ForksRemain,
    LengthMismatch,
    NotAnUpload,
    OffsetMismatch,
    OffsetOutOfRange,
    ProducerFenced,
    ProducerOutOfSequence,
    StreamBusy,
    StreamClosed,
    StreamExists,
    StreamFailed,
    StreamGone,
    StreamIsOpen,
    StreamNotFound,
    StreamStopped,
    WriterEvicted,
)
from penstock.model import STOPPED, Buffer, Producer, ProducerState, StreamInfo, StreamSpec

Condition: TypeAlias = Callable[[StreamInfo | None], None]
"""Looks at what the name shows, and raises if the change must not be made (`PreconditionFailed`, usually)."""


def size_of(data: Sequence[Buffer]) -> int:
    """Return how many bytes the buffers hold together."""
    return sum(map(len, data))


def living(info: StreamInfo | None, now: float) -> StreamInfo | None:
    """Return the stream, or None if there is none or its time has come: an expired stream counts as absent at once."""
    return None if info is None or info.expired(now) else info


def create(
    view: View,
    name: str,
    spec: StreamSpec,
    *,
    incarnation: str,
    now: float,
    data: Sequence[Buffer] = (),
    close: bool = False,
    producer: Producer | None = None,
) -> Change:
    """A new stream, perhaps with its first bytes, perhaps complete at once."""
    current = living(view.current, now)
    if current is not None:
        raise ForksRemain(name) if current.deleted else StreamExists(name)
    if producer is not None:
        check_first(name, producer)
    return grown(new(name, spec, incarnation, now), data, now=now, close=close, producer=producer)


def append(
    view: View,
    name: str,
    data: Sequence[Buffer],
    *,
    now: float,
    offset: int | None = None,
    producer: Producer | None = None,
    close: bool = False,
    content_type: str | None = None,
    incarnation: str | None = None,
    writer: str | None = None,
) -> Change:
    """More bytes at the tail, perhaps the last ones.

    Args:
        view: the state.
        name: the stream's name.
        data: the bytes; none with ``close`` is a plain close.
        now: the time.
        offset: where the appender believes the tail to be, or None for wherever it is.
        producer: who appends; a repetition of an accepted append changes nothing and succeeds.
        close: close the stream in the same commit.
        content_type: what the appender believes the stream to hold, or None.
        incarnation: the incarnation that the appender means, or None for whichever there is.
        writer: who appends to an upload: only who took it over last may.
    """
    info = present(view, name, now, incarnation)
    if producer is not None and view.producer is not None:
        first = repetition(name, producer, view.producer)
        if first is not None:
            return Change(info, duplicate=True, offset=first)
    elif producer is not None:
        check_first(name, producer)
    if info.failure is not None:
        raise StreamFailed(name, info.tail, info.failure)
    if info.closed:
        if close and not size_of(data) and offset in {None, info.tail}:
            return Change(info, duplicate=True, offset=info.tail)
        raise ended(info)
    if info.provisional and incarnation is None:
        raise StreamBusy(name)
    if info.upload:
        _check_writer(info, writer)
    if content_type is not None and content_type != info.content_type:
        raise ContentTypeMismatch(name, content_type, info.content_type)
    if offset is not None and offset != info.tail:
        raise OffsetMismatch(name, offset, info.tail)
    return grown(info, data, now=now, close=close, producer=producer)


def append_records(
    view: View,
    name: str,
    data: Buffer,
    count: int,
    skip: Callable[[int], Buffer],
    *,
    now: float,
    producer: Producer,
    close: bool = False,
    content_type: str | None = None,
    incarnation: str | None = None,
) -> Change:
    """Records that their producer numbers one by one: those that it had sent before are left out.

    Args:
        view: the state.
        name: the stream's name.
        data: the records.
        count: how many there are, at least one.
        skip: returns the records without so many of the first ones.
        now: the time.
        producer: who appends; its sequence is the number of the first record.
        close: close the stream in the same commit.
        content_type: what the appender believes the stream to hold, or None.
        incarnation: the incarnation that the appender means, or None for whichever there is.
    """
    known = view.producer
    done = 0
    if known is not None and known.producer.epoch == producer.epoch:
        done = max(0, min(known.producer.sequence + 1 - producer.sequence, count))
    last = replace(producer, sequence=producer.sequence + count - 1)
    # All of them known: the last one's is a repetition, too. Else the first new one must be the next in sequence.
    first = last if done == count else replace(producer, sequence=producer.sequence + done)
    rest = skip(done) if done else data
    change = append(
        view,
        name,
        (rest,),
        now=now,
        producer=first,
        close=close,
        content_type=content_type,
        incarnation=incarnation,
    )
    return numbered(change, last)


def numbered(change: Change, last: Producer) -> Change:
    """Let a change of several records count up to their producer's last one."""
    if change.producer is None:
        return change
    return change._replace(producer=ProducerState(last, change.producer.offset))


def begin_replacement(
    view: View,
    name: str,
    spec: StreamSpec,
    *,
    incarnation: str,
    now: float,
    condition: Condition | None,
    shown: bool = True,
) -> Change:
    """A stream that becomes what its name shows once it is complete.

    Where the name shows nothing yet, the new stream is published at once, so that it can be read as it grows, if it is
    to be ``shown``; where it shows a closed stream, that stays until `publish`. Either way it is provisional: it goes
    if its writer goes.
    """
    return Change(_begun(view, name, spec, incarnation, now, condition, shown=shown))


def begin_upload(
    view: View,
    name: str,
    spec: StreamSpec,
    *,
    incarnation: str,
    now: float,
    ttl: float | None,
    condition: Condition | None,
    shown: bool = True,
) -> Change:
    """A stream that is written by one request after another, and outlives each of them; otherwise as a replacement.

    One that is not to be ``shown`` is a part, to be joined with others: its name never shows it.
    """
    begun = _begun(view, name, spec, incarnation, now, condition, shown=shown)
    return Change(replace(begun, provisional=False, upload=True, upload_ttl=ttl))


def take_over(
    view: View,
    name: str,
    *,
    now: float,
    writer: str | None,
    offset: int | None = None,
    length: int | None = None,
    incarnation: str | None = None,
) -> Change:
    """Make ``writer`` the only one who may append to an upload, or nobody until the next one takes over.

    Args:
        view: the state.
        name: the stream's name.
        now: the time.
        writer: who is to append from now on.
        offset: where the writer believes the tail to be. One who is wrong evicts nobody.
        length: the final size where the writer knows it by now; it may be said again.
        incarnation: the incarnation that is meant, or None for what the name shows.
    """
    info = present(view, name, now, incarnation)
    _check_open(info)
    if not info.upload:
        raise NotAnUpload(name)
    if offset is not None and offset != info.tail:
        raise OffsetMismatch(name, offset, info.tail)
    if length is not None and (length < info.tail or info.length not in {None, length}):
        raise LengthMismatch(name, length if info.length is None else info.length, max(length, info.tail))
    known = info.length if length is None else length
    return Change(replace(info, writer=writer, length=known), offset=info.tail)


def annotate(
    view: View, name: str, attributes: Mapping[str, object], *, now: float, incarnation: str | None = None
) -> Change:
    """Set some attributes, and remove those that are to be None. It is no change of the stream itself."""
    info = present(view, name, now, incarnation)
    merged = {key: value for key, value in {**info.attributes, **attributes}.items() if value is not None}
    return Change(replace(info, attributes=merged), offset=info.tail)


def shorten(view: View, name: str, *, ttl: float, now: float, incarnation: str) -> Change:
    """Let a part go sooner, because what it was for is done."""
    info = present(view, name, now, incarnation)
    if not info.upload or (info.upload_ttl is not None and info.upload_ttl <= ttl):
        return Change(info, duplicate=True, offset=info.tail)
    return Change(replace(info, upload_ttl=ttl), offset=info.tail)


CLAIM = "claim"
"""The attribute that `claim` sets."""


def claim(view: View, name: str, *, by: str, until: float, now: float, incarnation: str) -> Change:
    """Let one process at a time do what is to be done once with a stream: the first that asks, until its time is over.

    Args:
        view: the state.
        name: the stream's name.
        by: who asks; the one who has it may ask again, for more time.
        until: when it is over, if it is not asked for again (Unix seconds).
        now: the time.
        incarnation: which incarnation.
    """
    info = present(view, name, now, incarnation)
    held = info.attributes.get(CLAIM)
    if held is not None and held["by"] != by and held["until"] > now:
        return Change(info, duplicate=True, offset=info.tail)
    return annotate(view, name, {CLAIM: {"by": by, "until": until}}, now=now, incarnation=incarnation)


LEASE = "lease"
"""The attribute by which a stream depends on its producer: see `lease`."""


def lease(by: str, until: float) -> Mapping[str, object]:
    """Return the attributes of a stream whose producer has to say that it is there before ``until`` (Unix seconds)."""
    return {LEASE: {"by": by, "until": until}}


def lapsed(info: StreamInfo, now: float) -> bool:
    """Tell whether a stream's producer is gone: its lease is over, and the stream is still open."""
    held = info.attributes.get(LEASE)
    return held is not None and not info.closed and bool(held["until"] <= now)


def extend_lease(view: View, name: str, *, by: str, until: float, now: float, incarnation: str) -> Change:
    """Let a producer say that it is there."""
    info = present(view, name, now, incarnation)
    _check_open(info)
    return annotate(view, name, lease(by, until), now=now, incarnation=incarnation)


def lapse(view: View, name: str, *, now: float, incarnation: str) -> Change:
    """Say of a stream that its producer is gone, if that is still so."""
    info = present(view, name, now, incarnation)
    if not lapsed(info, now):
        return Change(info, duplicate=True, offset=info.tail)
    return fail(
        view, name, "its producer is gone: nothing was heard of it for too long", now=now, incarnation=incarnation
    )


def publish(
    view: View,
    name: str,
    *,
    incarnation: str,
    now: float,
    digests: Mapping[str, bytes],
    condition: Condition | None,
    writer: str | None = None,
    metadata: Mapping[str, str] | None = None,
    joined: int | None = None,
) -> Change:
    """Complete a replacement or an upload: it is closed and kept, and its name shows it, all in one step.

    The condition is asked again, because what the name shows may have changed while the bytes arrived. ``metadata``
    takes the place of what was known at the beginning. With ``joined``, an upload that is empty gets that many bytes of
    its parts in the same step.
    """
    info = _unfinished(view, name, incarnation, now)
    if joined is not None and info.tail:
        raise OffsetMismatch(name, 0, info.tail)
    if joined is None and info.upload:
        _check_writer(info, writer)
    current = living(view.current, now)
    if current is not None and current.incarnation != incarnation:
        _check_replaceable(current, name, condition)
    elif condition is not None and not info.published:
        condition(None)
    whole = _grow(info, joined or 0, now=now, close=True)
    if metadata is not None:
        whole = replace(whole, metadata=metadata)
    return Change(_kept(whole, digests), offset=whole.tail)


def complete_part(view: View, name: str, *, incarnation: str, now: float, writer: str | None) -> Change:
    """End a part of an upload: it is closed, but goes on to be hidden, and to expire as uploads do."""
    info = _unfinished(view, name, incarnation, now)
    _check_writer(info, writer)
    return Change(replace(_grow(info, 0, now=now, close=True), writer=None), offset=info.tail)


def put(
    view: View,
    name: str,
    spec: StreamSpec,
    *,
    incarnation: str,
    now: float,
    data: Sequence[Buffer],
    digests: Mapping[str, bytes],
    condition: Condition | None,
) -> Change:
    """A whole small stream in one step: what `begin_replacement`, appends and `publish` come to."""
    whole = _grow(_begun(view, name, spec, incarnation, now, condition), size_of(data), now=now, close=True)
    return Change(_kept(whole, digests), data=data, offset=whole.tail)


def fail(view: View, name: str, reason: str, *, now: float, incarnation: str | None = None) -> Change:
    """Say that an open stream broke: it ends, and its bytes are not the whole. Again is harmless."""
    info = present(view, name, now, incarnation)
    if info.failure is not None:
        return Change(info, duplicate=True, offset=info.tail)
    if info.closed:
        raise StreamClosed(name, info.tail)
    # What nobody sees yet still goes with its writer.
    provisional = not info.published
    failed = replace(info, closed=True, failure=reason, provisional=provisional, modified_at=_later(info, now))
    return Change(failed, offset=info.tail)


def delete(
    view: View, name: str, *, now: float, incarnation: str | None = None, condition: Condition | None = None
) -> Change:
    """Remove a stream. Of one that is not there, no condition is asked: that comes first (RFC 9110 section 13.2.1)."""
    info = present(view, name, now, incarnation)
    if condition is not None:
        condition(living(view.current, now))
    return _removed(view, info)


def expire(view: View, *, now: float) -> Change:
    """Remove a stream whose time has come, if it is still so."""
    if view.target is None or not view.target.expired(now):
        return Change(view.target, duplicate=True)
    return _removed(view, view.target)


def reap(view: View) -> Change:
    """Remove a stream that was deleted, and was kept for its forks, if those are gone."""
    if view.target is None or not view.target.deleted or view.forks(view.target.incarnation):
        return Change(view.target, duplicate=True)
    return Change(None)


def renew(view: View, *, now: float) -> Change:
    """Put off a stream's expiry because it was read.

    It is put off by a hundredth more than the time to live, so that a stream that is read all the time is not written
    each time: `StreamInfo.renewed_at` is how long there is nothing to do.
    """
    info = living(view.target, now)
    if info is None or info.deleted or info.ttl is None or now <= info.renewed_at:
        return Change(view.target, duplicate=True)
    return Change(replace(info, renewed_at=now + info.ttl / 100), offset=info.tail)


def discard(view: View) -> Change:
    """Remove a replacement that will not be completed, if it is still there."""
    if view.target is None or not view.target.provisional:
        return Change(view.target, duplicate=True)
    return Change(None)


def add_digest(view: View, algorithm: str, digest: bytes) -> Change:
    """Keep a digest of a complete stream that was computed later. It is no change of the stream itself."""
    info = view.target
    if info is None or not info.complete:
        return Change(info, duplicate=True)
    return Change(replace(info, digests={**info.digests, algorithm: digest}), offset=info.tail)


def _begun(
    view: View,
    name: str,
    spec: StreamSpec,
    incarnation: str,
    now: float,
    condition: Condition | None,
    *,
    shown: bool = True,
) -> StreamInfo:
    current = living(view.current, now)
    _check_replaceable(current, name, condition)
    return replace(new(name, spec, incarnation, now), published=shown and current is None, provisional=True)


def _check_replaceable(current: StreamInfo | None, name: str, condition: Condition | None) -> None:
    """An upload that is not complete holds its name for nobody.

    Whoever sends anew what was cut, because nobody told where to go on, need not wait for what is left of that.
    """
    if current is not None and current.deleted:
        raise ForksRemain(name)
    unfinished = current is not None and current.upload
    if condition is not None:
        condition(None if unfinished else current)
    if current is not None and not current.closed and not unfinished:
        raise StreamIsOpen(name)


def _removed(view: View, info: StreamInfo) -> Change:
    """A stream that others begin with is not removed: it keeps its bytes for them, and its name."""
    return Change(replace(info, deleted=True) if view.forks(info.incarnation) else None)


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


def _unfinished(view: View, name: str, incarnation: str, now: float) -> StreamInfo:
    """The replacement or upload that is to be completed."""
    info = view.target
    if info is None or info.expired(now):
        raise StreamGone(name, incarnation)
    _check_open(info)
    return info


def _check_open(info: StreamInfo) -> None:
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


def _grow(info: StreamInfo, size: int, *, now: float, close: bool) -> StreamInfo:
    """The one place where a tail moves."""
    tail = info.tail + size
    if info.length is not None and (tail > info.length or (close and tail < info.length)):
        raise LengthMismatch(info.name, info.length, tail)
    grown = info.grown(tail, closed=close, modified_at=_later(info, now))
    return _timed(info, grown) if size and info.attributes else grown


def _timed(before: StreamInfo, after: StreamInfo) -> StreamInfo:
    """Note when it was, and when what came is too old to be kept."""
    now = after.modified_at
    attributes = marked(before, now)
    retention = after.retention
    age = None if retention is None else retention.age
    timed = after if attributes is after.attributes else replace(after, attributes=attributes)
    return timed if age is None or after.trim_at is not None else replace(timed, trim_at=trim_time(timed, age))


def stop(view: View, name: str, reason: str, *, now: float, incarnation: str | None = None) -> Change:
    """Close a stream because a reader has enough; its producer is told why. One that has ended stays as it is."""
    info = present(view, name, now, incarnation)
    if info.closed:
        return Change(info, duplicate=True, offset=info.tail)
    check_open_to_all(info)
    stopped = replace(info, attributes={**info.attributes, STOPPED: reason})
    return Change(_grow(stopped, 0, now=now, close=True), offset=info.tail)


def trim(view: View, name: str, start: int, *, now: float, incarnation: str | None = None) -> Change:
    """Drop what is before an offset. It is no change of what is kept."""
    info = present(view, name, now, incarnation)
    if info.origin is not None or not info.start <= start <= info.tail:
        raise OffsetOutOfRange(name, start, info.tail, "is no place to cut at")
    trimmed = replace(info, start=start)
    age = None if info.retention is None else info.retention.age
    trimmed = replace(trimmed, trim_at=None if age is None else trim_time(trimmed, age))
    if trimmed == info:
        return Change(info, duplicate=True, offset=info.tail)
    return Change(trimmed, offset=info.tail)


def compact(
    view: View, name: str, data: bytes, *, now: float, offset: int, start: int, incarnation: str | None = None
) -> Change:
    """Append once more what still counts of a stream's beginning, and drop that, in one step.

    Args:
        view: the state.
        name: the stream's name.
        data: what is appended.
        now: the time.
        offset: the tail of the state that ``data`` was made of: it may not have moved.
        start: what is before it is dropped.
        incarnation: the incarnation that is meant, or None for what the name shows.
    """
    change = append(view, name, (data,), now=now, offset=offset, incarnation=incarnation)
    info = change.info
    assert info is not None  # noqa: S101 - appends leave a stream behind
    return change._replace(info=replace(info, start=start))


def grown(info: StreamInfo, data: Sequence[Buffer], *, now: float, close: bool, producer: Producer | None) -> Change:
    """Bytes, close and producer in one change."""
    grown = _grow(info, size_of(data), now=now, close=close)
    state = None if producer is None else ProducerState(producer, grown.tail)
    return Change(grown, data=data, producer=state, offset=grown.tail)


def _kept(info: StreamInfo, digests: Mapping[str, bytes]) -> StreamInfo:
    """A replacement that is complete: what its name shows from now on, whoever wrote it."""
    return replace(info, published=True, provisional=False, upload=False, writer=None, digests=digests)


def _later(info: StreamInfo, now: float) -> float:
    """A clock that was set back must not make a stream look older than it was."""
    return max(info.modified_at, now)


def _check_writer(info: StreamInfo, writer: str | None) -> None:
    """Let only the last writer of an upload append: what an earlier one still sends comes too late."""
    if writer is None:
        raise StreamBusy(info.name)
    if writer != info.writer:
        raise WriterEvicted(info.name)


def check_first(name: str, producer: Producer) -> None:
    """Let a producer that is not known begin at the beginning only.

    Raises:
        ProducerOutOfSequence: it does not.
    """
    if producer.sequence != 0:
        raise ProducerOutOfSequence(name, producer.id, producer.sequence, 0)


def repetition(name: str, producer: Producer, last: ProducerState) -> int | None:
    """Return the offset that a repeated append was answered with, or None for a new one."""
    known = last.producer
    if producer.epoch < known.epoch:
        raise ProducerFenced(name, producer.id, producer.epoch, known.epoch)
    if producer.epoch > known.epoch:
        check_first(name, producer)
        return None
    if producer.sequence <= known.sequence:
        return last.offset
    if producer.sequence != known.sequence + 1:
        raise ProducerOutOfSequence(name, producer.id, producer.sequence, known.sequence + 1)
    return None
