"""Streams that are shown once they are complete: replacements, written in one go, and uploads, which outlive that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock.core.ports import Change, View
from penstock.core.rules.state import Condition, check_open, check_writer, grow, living, new, present, size_of
from penstock.errors import ForksRemain, LengthMismatch, NotAnUpload, OffsetMismatch, StreamGone, StreamIsOpen
from penstock.model import Buffer, StreamInfo, StreamSpec


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
    whole = grow(_begun(view, name, spec, incarnation, now, condition), size_of(data), now=now, close=True)
    return Change(_kept(whole, digests), data=data, offset=whole.tail)


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
    check_open(info)
    if not info.upload:
        raise NotAnUpload(name)
    if offset is not None and offset != info.tail:
        raise OffsetMismatch(name, offset, info.tail)
    if length is not None and (length < info.tail or info.length not in {None, length}):
        raise LengthMismatch(name, length if info.length is None else info.length, max(length, info.tail))
    known = info.length if length is None else length
    return Change(replace(info, writer=writer, length=known), offset=info.tail)


def shorten(view: View, name: str, *, ttl: float, now: float, incarnation: str) -> Change:
    """Let a part go sooner, because what it was for is done."""
    info = present(view, name, now, incarnation)
    if not info.upload or (info.upload_ttl is not None and info.upload_ttl <= ttl):
        return Change(info, duplicate=True, offset=info.tail)
    return Change(replace(info, upload_ttl=ttl), offset=info.tail)


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
        check_writer(info, writer)
    current = living(view.current, now)
    if current is not None and current.incarnation != incarnation:
        _check_replaceable(current, name, condition)
    elif condition is not None and not info.published:
        condition(None)
    whole = grow(info, joined or 0, now=now, close=True)
    if metadata is not None:
        whole = replace(whole, metadata=metadata)
    return Change(_kept(whole, digests), offset=whole.tail)


def complete_part(view: View, name: str, *, incarnation: str, now: float, writer: str | None) -> Change:
    """End a part of an upload: it is closed, but goes on to be hidden, and to expire as uploads do."""
    info = _unfinished(view, name, incarnation, now)
    check_writer(info, writer)
    return Change(replace(grow(info, 0, now=now, close=True), writer=None), offset=info.tail)


def discard(view: View) -> Change:
    """Remove a replacement that will not be completed, if it is still there."""
    if view.target is None or not view.target.provisional:
        return Change(view.target, duplicate=True)
    return Change(None)


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


def _unfinished(view: View, name: str, incarnation: str, now: float) -> StreamInfo:
    """The replacement or upload that is to be completed."""
    info = view.target
    if info is None or info.expired(now):
        raise StreamGone(name, incarnation)
    check_open(info)
    return info


def _kept(info: StreamInfo, digests: Mapping[str, bytes]) -> StreamInfo:
    """A replacement that is complete: what its name shows from now on, whoever wrote it."""
    return replace(info, published=True, provisional=False, upload=False, writer=None, digests=digests)
