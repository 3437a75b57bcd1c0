"""How much of a stream is kept: by age, bytes or lines, or the last value of each key.

For a stream to be looked up by time it has *marks*, set by appends in the same commit: where a span of bytes begins,
when the first of it came, and until when the last. There are at most `_MOST_MARKS`: those near the end are of a second
each, those further back are joined to longer ones, so that they cost little however long the stream lives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any, Final, TypeAlias

from penstock.core.lines import line_from, lines_back
from penstock.core.ports import Reader
from penstock.model import COMPACTED, RETAINED, Retention, StreamInfo, StreamSpec

MARKS: Final = "marks"
"""The attribute that has the marks."""

Mark: TypeAlias = tuple[float, int, float]
"""When the first bytes of a span came (Unix seconds), their offset, and a time before which all of them had come."""

_MOST_MARKS: Final = 64
_BETWEEN: Final = 1.0
"""Seconds from one mark to the next."""


def attributes_of(spec: StreamSpec) -> Mapping[str, Any]:
    """Return the attributes that a stream begins with."""
    own: dict[str, Any] = {}
    if spec.retention is not None:
        own[RETAINED] = spec.retention.members()
    if spec.compact_by is not None:
        own[COMPACTED] = spec.compact_by
    if spec.timed or (spec.retention is not None and spec.retention.age is not None):
        own[MARKS] = []
    return {**spec.attributes, **own} if own else spec.attributes


def marked(info: StreamInfo, now: float) -> Mapping[str, Any]:
    """Return the attributes with a mark at the tail, where the stream has marks and it is time for one."""
    marks = info.attributes.get(MARKS)
    if marks is None or (marks and now < marks[-1][0] + _BETWEEN):
        return info.attributes
    since = max((at for at, mark in enumerate(marks) if mark[1] <= info.start), default=0)
    kept = [*marks[since:], (round(now, 3), info.tail, round(now + _BETWEEN, 3))]
    if len(kept) > _MOST_MARKS:
        at = _least_needed(kept, now)
        kept[at - 1 : at + 1] = [(*kept[at - 1][:2], kept[at][2])]
    return {**info.attributes, MARKS: kept}


def _least_needed(marks: Sequence[Mark], now: float) -> int:
    """Return which mark to join to the one before it: that with the shortest span together, for how old it is."""

    def span(at: int) -> float:
        return (marks[at][2] - marks[at - 1][0]) / (now - marks[at][0] + 1)

    return min(range(1, len(marks) - 1), key=span)


def offset_at(info: StreamInfo, when: float) -> int | None:
    """Return an offset from which on everything is that was appended since a time; None if the stream has no marks.

    A little more may be: the whole span that goes on at that time.
    """
    marks = info.attributes.get(MARKS)
    if marks is None:
        return None
    later = [offset for _, offset, until in marks if until > when]
    return max(info.start, later[0]) if later else info.tail


def trim_time(info: StreamInfo, age: float) -> float | None:
    """Return when the oldest part of a stream that has a mark after it becomes too old."""
    if info.tail == info.start:
        return None
    marks = info.attributes.get(MARKS, ())
    ends = [until for (_, _, until), after in pairwise(marks) if after[1] > info.start]
    return (ends[0] if ends else info.modified_at + _BETWEEN) + age


async def cut_of(reader: Reader, retention: Retention, now: float) -> int:
    """Return up to where a stream is to be dropped: so that what is kept is no more than wanted, in whole lines."""
    info = reader.info
    cut = info.start
    if retention.age is not None:
        cut = max(cut, offset_at(info, now - retention.age) or 0)
    if retention.bytes is not None:
        cut = max(cut, info.tail - retention.bytes)
    if retention.lines and cut > info.start:
        cut = await line_from(reader, cut, info.tail)
    if retention.records is not None and info.tail:
        cut = max(cut, await lines_back(reader, info.tail, retention.records, cut))
    return cut


def keys_of(lines: Sequence[bytes], member: str) -> set[str]:
    """Return the keys of some JSON records."""
    return {key for key, _ in (_key_of(line, member) for line in lines) if key is not None}


def last_values(lines: Sequence[bytes], member: str, newer: AbstractSet[str]) -> list[bytes]:
    """Return which of a stream's first records must be kept so that each key keeps its last value; in order.

    Args:
        lines: the records.
        member: of the records, whose value is the key. Records without one are kept. One that has nothing else says
            that there is no value any more: it goes, with those before it.
        newer: the keys of the records that come after these.
    """
    kept: dict[object, bytes] = {}
    for number, line in enumerate(lines):
        key, last = _key_of(line, member)
        identity: object = number if key is None else key
        kept.pop(identity, None)  # so that it stands where it was said last
        if not last:
            kept[identity] = line
    return [line for identity, line in kept.items() if identity not in newer]


def _key_of(line: bytes, member: str) -> tuple[str | None, bool]:
    """Return a record's key, as JSON, and whether it has nothing else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None, False
    if not isinstance(record, dict) or member not in record:
        return None, False
    return json.dumps(record[member], sort_keys=True), len(record) == 1
