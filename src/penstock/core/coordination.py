"""Rules for writers who coordinate, as the Durable Streams protocol has them.

Appends whose answers tell a producer exactly where it stands, and who closed the stream; a writer's own sequence
(``Stream-Seq``); creations that may be repeated; forks. All of it comes to what `penstock.core.rules` make of a
stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.core import rules
from penstock.core.ports import Change, View
from penstock.core.rules import Condition
from penstock.errors import (
    EpochNotBegun,
    ForkOutOfRange,
    ForksRemain,
    SequenceRegression,
    StreamClosed,
    StreamExists,
    StreamFailed,
    StreamNotFound,
)
from penstock.model import Buffer, Origin, Producer, ProducerState, StreamInfo, StreamSpec

SEQUENCE: Final = "stream_seq"
"""The attribute that holds the last ``Stream-Seq`` of a stream: one sequence for all of its writers."""

CLOSED_BY: Final = "closed_by"
"""The attribute that tells which append closed a stream: the producer's id, epoch and sequence."""

FORK: Final = "fork"
"""The attribute of a fork that holds what was asked for when it was created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What a fork is to begin with.

    Attributes:
        source: the source, as it was when it was looked at: its bytes do not change.
        offset: the offset at which the two diverge, or None for the source's tail.
        asked: what was asked for, for the comparison with a repetition.
    """

    source: StreamInfo
    offset: int | None
    asked: Mapping[str, Any]


def append(
    view: View,
    name: str,
    data: Sequence[Buffer],
    *,
    now: float,
    check: Condition,
    producer: Producer | None = None,
    sequence: str | None = None,
    close: bool = False,
) -> Change:
    """More bytes at the tail, perhaps the last ones.

    The order in which it is refused is the protocol's: closed, another content type, the producer, the sequence.

    Args:
        view: the state.
        name: the stream's name.
        data: the bytes; none with ``close`` is a plain close.
        now: the time.
        check: looks at the stream, and raises where the bytes do not fit into it.
        producer: who appends. A repetition changes nothing and succeeds; its `Change.producer` is the last append that
            was accepted.
        sequence: the writer's own sequence, which must be greater than the last one, byte by byte.
        close: close the stream in the same commit.
    """
    info = rules.present(view, name, now)
    if info.failure is not None:
        raise StreamFailed(name, info.tail, info.failure)
    if info.closed:
        return _closed_already(info, view.producer, producer, plain=close and not rules.size_of(data))
    rules.check_open_to_all(info)
    if data:
        check(info)
    if producer is not None:
        repeated = _repeated(info, view.producer, producer)
        if repeated is not None:
            return repeated
    attributes = info.attributes
    if sequence is not None:
        last = attributes.get(SEQUENCE)
        if last is not None and sequence.encode() <= last.encode():
            raise SequenceRegression(name, sequence, last)
        attributes = {**attributes, SEQUENCE: sequence}
    if close and producer is not None:
        attributes = {**attributes, CLOSED_BY: [producer.id, producer.epoch, producer.sequence]}
    if attributes is not info.attributes:
        info = replace(info, attributes=attributes)
    return rules.grown(info, data, now=now, close=close, producer=producer)


def _closed_already(info: StreamInfo, last: ProducerState | None, producer: Producer | None, *, plain: bool) -> Change:
    """Only the append that closed the stream may be repeated, and a plain close by nobody in particular."""
    if producer is None:
        again = plain
    else:
        again = info.attributes.get(CLOSED_BY) == [producer.id, producer.epoch, producer.sequence]
    if not again:
        raise StreamClosed(info.name, info.tail)
    return Change(info, duplicate=True, producer=last, offset=info.tail)


def _repeated(info: StreamInfo, last: ProducerState | None, producer: Producer) -> Change | None:
    if last is None:
        rules.check_first(info.name, producer)
        return None
    if producer.epoch > last.producer.epoch and producer.sequence != 0:
        raise EpochNotBegun(info.name, producer.id, producer.sequence)
    offset = rules.repetition(info.name, producer, last)
    return None if offset is None else Change(info, duplicate=True, producer=last, offset=offset)


def create(
    view: View,
    name: str,
    spec: StreamSpec,
    *,
    incarnation: str,
    now: float,
    same: Condition,
    data: Sequence[Buffer] = (),
    close: bool = False,
    fork: Fork | None = None,
) -> Change:
    """A new stream, or the one that is there if it is what would be created.

    Args:
        view: the state.
        name: the stream's name.
        spec: what is said about it.
        incarnation: the new one.
        now: the time.
        same: looks at the stream that is there, and raises `StreamExists` if it is another one.
        data: the first bytes.
        close: create it closed.
        fork: what it is a fork of.

    Raises:
        StreamExists: there is another stream of that name.
        ForksRemain: the name belongs to a deleted stream whose bytes forks still read, or so does the source.
        StreamNotFound: the source is gone.
        ForkOutOfRange: the fork would begin past the source's tail.
    """
    current = rules.living(view.current, now)
    if current is not None:
        if current.deleted:
            raise ForksRemain(name)
        rules.check_open_to_all(current)
        if current.closed != close:
            raise StreamExists(name)
        same(current)
        return Change(current, duplicate=True, offset=current.tail)
    if fork is None:
        return rules.create(view, name, spec, incarnation=incarnation, now=now, data=data, close=close)
    source = _source(view, fork.source, now)
    start = source.tail if fork.offset is None else fork.offset
    if start > source.tail:
        raise ForkOutOfRange(source.name, start, source.tail)
    spec = replace(spec, attributes={**spec.attributes, FORK: dict(fork.asked)})
    origin = Origin(source.name, source.incarnation)
    begun = replace(rules.new(name, spec, incarnation, now), start=start, tail=start, origin=origin)
    return rules.grown(begun, data, now=now, close=close, producer=None)


def _source(view: View, known: StreamInfo, now: float) -> StreamInfo:
    """Return the source as it is at the moment of the commit."""
    source = rules.living(view.shown(known.name), now)
    if source is None or source.incarnation != known.incarnation:
        raise StreamNotFound(known.name)
    if source.deleted:
        raise ForksRemain(known.name)
    rules.check_open_to_all(source)  # which goes with its writer, and could take the fork's beginning along
    return source
