"""The rules for writers who coordinate: who may append when, and what each is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.core import coordination, rules
from penstock.core.coordination import Fork
from penstock.core.ports import Change, View
from penstock.errors import (
    ContentTypeMismatch,
    EpochNotBegun,
    ForkOutOfRange,
    ForksRemain,
    ProducerFenced,
    ProducerOutOfSequence,
    SequenceRegression,
    StreamBusy,
    StreamClosed,
    StreamExists,
    StreamFailed,
    StreamGone,
    StreamNotFound,
)
from penstock.model import Origin, Producer, ProducerState, StreamInfo, StreamSpec

OPEN = StreamInfo(name="s", incarnation="i", tail=3, modified_at=1.0)


def nothing(_: StreamInfo | None) -> None:
    pass


def mismatch(_: StreamInfo | None) -> None:
    raise ContentTypeMismatch("s", "a", "b")


def append(info: StreamInfo | None, *data: bytes, last: Producer | None = None, **options: Any) -> Change:
    known = None if last is None else ProducerState(last, 2)
    return coordination.append(View(info, info, known), "s", data, now=2.0, **{"check": nothing, **options})


def create(info: StreamInfo | None, **options: Any) -> Change:
    view = View(info, info, None, options.pop("shown", lambda _: None))
    return coordination.create(view, "s", StreamSpec(), incarnation="new", now=2.0, **{"same": nothing, **options})


def test_an_append_moves_the_tail_and_keeps_the_sequence() -> None:
    change = append(OPEN, b"ab", b"c", sequence="09")
    assert (change.offset, change.duplicate) == (6, False)
    assert change.info is not None
    assert change.info.attributes == {"stream_seq": "09"}
    assert append(change.info, b"x", sequence="10").offset == 7


@pytest.mark.parametrize(("last", "next_"), [("2", "10"), ("a", "a"), ("b", "B"), ("\u00ff", "~")])
def test_a_sequence_must_grow_byte_by_byte(last: str, next_: str) -> None:
    info = replace(OPEN, attributes={"stream_seq": last})
    with pytest.raises(SequenceRegression):
        append(info, b"x", sequence=next_)
    assert append(info, b"x").offset == 4


def test_a_producer_is_answered_where_it_stands() -> None:
    p = Producer("p", 1, 5)
    assert append(OPEN, b"x", producer=Producer("p", 0, 0)).producer == ProducerState(Producer("p", 0, 0), 4)
    assert append(OPEN, b"x", last=p, producer=Producer("p", 1, 6)).producer == ProducerState(Producer("p", 1, 6), 4)
    again = append(OPEN, b"x", last=p, producer=Producer("p", 1, 2))
    assert (again.duplicate, again.producer, again.offset) == (True, ProducerState(p, 2), 2)
    assert append(OPEN, b"x", last=p, producer=Producer("p", 2, 0)).offset == 4
    with pytest.raises(ProducerFenced):
        append(OPEN, b"x", last=p, producer=Producer("p", 0, 6))
    with pytest.raises(EpochNotBegun):
        append(OPEN, b"x", last=p, producer=Producer("p", 2, 1))
    for producer, expected in ((Producer("p", 1, 7), 6),):
        with pytest.raises(ProducerOutOfSequence) as caught:
            append(OPEN, b"x", last=p, producer=producer)
        assert caught.value.expected == expected
    with pytest.raises(ProducerOutOfSequence):
        append(OPEN, b"x", producer=Producer("p", 0, 1))


def test_a_repetition_is_recognised_before_its_sequence_is_looked_at() -> None:
    info = replace(OPEN, attributes={"stream_seq": "5"})
    p = Producer("p", 0, 0)
    assert append(info, b"x", last=p, producer=p, sequence="5").duplicate


def test_only_who_closed_the_stream_may_repeat_that() -> None:
    p = Producer("p", 0, 0)
    closed = append(OPEN, b"x", producer=p, close=True).info
    assert closed is not None
    assert closed.closed
    assert append(closed, b"other", last=p, producer=p, close=True).duplicate
    assert append(closed, last=p, producer=p, close=True).duplicate
    assert append(closed, close=True).duplicate
    for data, options in (
        ((b"x",), {}),
        ((b"x",), {"close": True}),
        ((), {"close": True, "producer": Producer("q", 0, 0)}),
    ):
        with pytest.raises(StreamClosed):
            append(closed, *data, **options)
    with pytest.raises(StreamClosed):
        append(closed, b"x", last=p, producer=Producer("p", 0, 1))


def test_refusals_come_in_the_order_of_the_protocol() -> None:
    closed = replace(OPEN, closed=True, attributes={"stream_seq": "5"})
    with pytest.raises(StreamClosed):
        append(closed, b"x", check=mismatch, sequence="1")
    with pytest.raises(ContentTypeMismatch):
        append(replace(closed, closed=False), b"x", check=mismatch, sequence="1", producer=Producer("p", 0, 7))
    with pytest.raises(ProducerOutOfSequence):
        append(replace(closed, closed=False), b"x", sequence="1", producer=Producer("p", 0, 7))
    assert append(OPEN, check=mismatch, close=True).offset == 3  # without bytes there is nothing to mismatch


@pytest.mark.parametrize(
    ("info", "error"),
    [
        (None, StreamNotFound),
        (replace(OPEN, ttl=1.0), StreamNotFound),
        (replace(OPEN, deleted=True), StreamGone),
        (replace(OPEN, provisional=True), StreamBusy),
        (replace(OPEN, upload=True), StreamBusy),
        (replace(OPEN, closed=True, failure="x"), StreamFailed),
    ],
)
def test_there_must_be_a_stream_to_append_to(info: StreamInfo | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        append(info, b"x")


def test_a_creation_may_be_repeated() -> None:
    change = create(None, data=[b"abc"], close=True)
    assert change.info is not None
    assert (change.info.incarnation, change.info.tail, change.info.closed) == ("new", 3, True)
    again = create(change.info, close=True)
    assert (again.duplicate, again.info) == (True, change.info)
    with pytest.raises(StreamExists):
        create(change.info, close=False)
    with pytest.raises(ForksRemain):
        create(replace(OPEN, deleted=True))
    with pytest.raises(StreamBusy):
        create(replace(OPEN, provisional=True))


def test_a_fork_begins_where_it_is_asked_to() -> None:
    source = replace(OPEN, name="source", content_type="text/plain", tail=9)
    asked = {"from": "source"}

    def fork(offset: int | None, now_shown: StreamInfo | None = source, data: bytes = b"") -> Change:
        wanted = Fork(source=source, offset=offset, asked=asked)
        return create(None, fork=wanted, shown={"source": now_shown}.get, data=[data])

    info = fork(5, data=b"xy").info
    assert info is not None
    assert (info.start, info.tail, info.origin) == (5, 7, Origin("source", "i"))
    assert info.attributes == {"fork": asked}
    at_tail = fork(None, replace(source, tail=11)).info  # the tail at the moment of the commit
    assert at_tail is not None
    assert (at_tail.start, at_tail.tail) == (11, 11)
    with pytest.raises(ForkOutOfRange):
        fork(10)
    for gone in (None, replace(source, incarnation="other"), replace(source, ttl=0.5)):
        with pytest.raises(StreamNotFound):
            fork(5, gone)
    with pytest.raises(ForksRemain):
        fork(5, replace(source, deleted=True))
    with pytest.raises(StreamBusy):
        fork(5, replace(source, provisional=True))


def test_a_stream_that_is_read_all_the_time_is_renewed_now_and_then() -> None:
    info = replace(OPEN, ttl=100.0, modified_at=1000.0)

    def renew(info: StreamInfo, now: float) -> Change:
        return rules.renew(View(info, info), now=now)

    renewed = renew(info, 1050.0)
    assert renewed.info is not None
    assert not renewed.duplicate
    assert renewed.info.deadline is not None
    assert 1150.0 <= renewed.info.deadline <= 1151.0
    assert renew(renewed.info, 1050.9).duplicate
    assert renewed.info.deadline >= 1050.9 + 100
    assert not renew(renewed.info, 1051.5).duplicate
    for other in (replace(info, ttl=None), replace(info, deleted=True)):
        assert renew(other, 1050.0).duplicate
    assert renew(info, 1100.0).duplicate  # its time has come
