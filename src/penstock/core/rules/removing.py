"""Removing streams, and the beginnings of streams."""

from __future__ import annotations

from dataclasses import replace

from penstock.core.ports import Change, View
from penstock.core.retention import trim_time
from penstock.core.rules.appending import append
from penstock.core.rules.state import Condition, living, present
from penstock.errors import OffsetOutOfRange
from penstock.model import StreamInfo


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


def _removed(view: View, info: StreamInfo) -> Change:
    """A stream that others begin with is not removed: it keeps its bytes for them, and its name."""
    return Change(replace(info, deleted=True) if view.forks(info.incarnation) else None)


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
