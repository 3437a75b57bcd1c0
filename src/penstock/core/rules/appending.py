"""Creating streams, appending to them, and ending them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from penstock.core.ports import Change, View
from penstock.core.rules.state import (
    check_open_to_all,
    check_writer,
    ended,
    grow,
    grown,
    later,
    living,
    new,
    present,
    size_of,
)
from penstock.errors import (
    ContentTypeMismatch,
    ForksRemain,
    OffsetMismatch,
    ProducerFenced,
    ProducerOutOfSequence,
    StreamBusy,
    StreamClosed,
    StreamExists,
    StreamFailed,
)
from penstock.model import STOPPED, Buffer, Producer, ProducerState, StreamSpec


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
        check_writer(info, writer)
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


def stop(view: View, name: str, reason: str, *, now: float, incarnation: str | None = None) -> Change:
    """Close a stream because a reader has enough; its producer is told why. One that has ended stays as it is."""
    info = present(view, name, now, incarnation)
    if info.closed:
        return Change(info, duplicate=True, offset=info.tail)
    check_open_to_all(info)
    stopped = replace(info, attributes={**info.attributes, STOPPED: reason})
    return Change(grow(stopped, 0, now=now, close=True), offset=info.tail)


def fail(view: View, name: str, reason: str, *, now: float, incarnation: str | None = None) -> Change:
    """Say that an open stream broke: it ends, and its bytes are not the whole. Again is harmless."""
    info = present(view, name, now, incarnation)
    if info.failure is not None:
        return Change(info, duplicate=True, offset=info.tail)
    if info.closed:
        raise StreamClosed(name, info.tail)
    # What nobody sees yet still goes with its writer.
    provisional = not info.published
    failed = replace(info, closed=True, failure=reason, provisional=provisional, modified_at=later(info, now))
    return Change(failed, offset=info.tail)


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
