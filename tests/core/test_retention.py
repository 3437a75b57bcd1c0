"""What of a stream is kept: the marks, the limits, and the last value of each key."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import rules
from penstock.core.ports import View
from penstock.core.retention import MARKS, attributes_of, keys_of, last_values, marked, offset_at
from penstock.errors import OffsetMismatch, OffsetOutOfRange
from penstock.model import Retention, StreamInfo, StreamSpec

TIMED = StreamInfo(name="s", incarnation="i", attributes={MARKS: []})


def appended(info: StreamInfo, size: int, now: float) -> StreamInfo:
    change = rules.append(View(info, info), "s", [b"x" * size], now=now)
    assert change.info is not None
    return change.info


@given(st.lists(st.tuples(st.floats(0, 5000), st.integers(1, 100)), min_size=1, max_size=400), st.floats(0, 1))
def test_a_time_gives_a_place_before_which_nothing_is_younger(steps: list[tuple[float, int]], part: float) -> None:
    info, now = TIMED, 1000.0
    history: list[tuple[float, int]] = []  # when each byte range came, and where it began
    for pause, size in steps:
        now += pause
        history.append((now, info.tail))
        info = appended(info, size, now)
    when = 1000 + part * (now - 1000)
    offset = offset_at(info, when)
    assert offset is not None
    first_since = next((start for time, start in history if time >= when), info.tail)
    assert offset <= first_since
    assert len(info.attributes[MARKS]) <= 64


def test_marks_are_close_together_near_the_end_and_the_first_stays() -> None:
    info = TIMED
    for second in range(5000):
        info = appended(info, 10, 1000.0 + second)
    marks = info.attributes[MARKS]
    assert marks[0][:2] == (1000.0, 0)
    assert marks[-1][0] == 5999.0
    for ago in (10, 100, 1000):
        offset = offset_at(info, 6000.0 - ago)
        assert offset is not None
        exact = (5000 - ago) * 10
        assert exact - ago * 10 * 0.25 - 20 <= offset <= exact


def test_appends_within_a_second_share_a_mark_and_other_streams_have_none() -> None:
    info = appended(appended(TIMED, 1, 1000.0), 1, 1000.9)
    assert info.attributes[MARKS] == [(1000.0, 0, 1001.0)]
    plain = StreamInfo(name="s", incarnation="i", attributes={"other": 1})
    assert appended(plain, 1, 1000.0).attributes is plain.attributes
    assert offset_at(plain, 1000.0) is None
    assert marked(plain, 5.0) is plain.attributes


def test_what_is_to_be_kept_is_said_at_the_beginning() -> None:
    spec = StreamSpec(retention=Retention(age=60, records=5), compact_by="id", attributes={"a": 1})
    assert attributes_of(spec) == {
        "a": 1,
        "retention": {"age": 60, "records": 5, "lines": True},
        "compact": "id",
        "marks": [],
    }
    info = StreamInfo(name="s", incarnation="i", attributes=attributes_of(spec))
    assert (info.retention, info.shrinks) == (spec.retention, True)
    assert attributes_of(StreamSpec(attributes={"a": 1})) == {"a": 1}


def test_age_sets_when_to_look_again() -> None:
    info = StreamInfo(name="s", incarnation="i", attributes=attributes_of(StreamSpec(retention=Retention(age=60))))
    info = appended(info, 10, 1000.0)
    assert info.trim_at == 1061.0
    info = appended(appended(info, 10, 1030.0), 10, 1050.0)
    assert info.trim_at == 1061.0
    change = rules.trim(View(info, info), "s", 10, now=1061.0)
    assert change.info is not None
    assert (change.info.start, change.info.trim_at) == (10, 1091.0)
    change = rules.trim(View(info, info), "s", 30, now=1200.0)
    assert change.info is not None
    assert (change.info.start, change.info.trim_at) == (30, None)
    assert rules.trim(View(change.info, change.info), "s", 30, now=1200.0).duplicate


@pytest.mark.parametrize("start", [4, 31])
def test_nothing_is_dropped_twice_or_before_it_is_there(start: int) -> None:
    info = StreamInfo(name="s", incarnation="i", start=5, tail=30)
    with pytest.raises(OffsetOutOfRange):
        rules.trim(View(info, info), "s", start, now=1.0)


def test_compaction_appends_and_drops_in_one_step_unless_something_came_meanwhile() -> None:
    info = StreamInfo(name="s", incarnation="i", tail=30, attributes={"compact": "id"})
    change = rules.compact(View(info, info), "s", b"kept\n", now=1.0, offset=30, start=20)
    assert change.info is not None
    assert (change.info.start, change.info.tail, list(change.data)) == (20, 35, [b"kept\n"])
    grown = replace(info, tail=31)
    with pytest.raises(OffsetMismatch):
        rules.compact(View(grown, grown), "s", b"kept\n", now=1.0, offset=30, start=20)


RECORDS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 4), st.integers(0, 99)).map(lambda pair: {"id": pair[0], "value": pair[1]}),
        st.integers(0, 4).map(lambda key: {"id": key}),
        st.just({"other": 1}),
        st.just([1]),
    ),
    max_size=30,
)


@given(RECORDS, st.data())
def test_each_key_keeps_its_last_value(records: list[object], data: st.DataObject) -> None:
    lines = [json.dumps(record).encode() for record in records]
    cut = data.draw(st.integers(0, len(lines)))
    kept = last_values(lines[:cut], "id", keys_of(lines[cut:], "id"))

    def state(from_lines: list[bytes]) -> tuple[dict[int, object], int]:
        values: dict[int, object] = {}
        keyless = 0
        for line in from_lines:
            record = json.loads(line)
            if not isinstance(record, dict) or "id" not in record:
                keyless += 1
            elif len(record) == 1:
                values.pop(record["id"], None)
            else:
                values[record["id"]] = record
        return values, keyless

    # In the stream, what is appended once more comes after the rest.
    assert state([*lines[cut:], *kept]) == state(lines)
