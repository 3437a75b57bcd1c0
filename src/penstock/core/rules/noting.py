"""What is noted of a stream without a change of the stream itself; and claims and leases, which are such notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.core.ports import Change, View
from penstock.core.rules.appending import fail
from penstock.core.rules.state import check_open, living, present
from penstock.model import StreamInfo


def annotate(
    view: View, name: str, attributes: Mapping[str, object], *, now: float, incarnation: str | None = None
) -> Change:
    """Set some attributes, and remove those that are to be None. It is no change of the stream itself."""
    info = present(view, name, now, incarnation)
    merged = {key: value for key, value in {**info.attributes, **attributes}.items() if value is not None}
    return Change(replace(info, attributes=merged), offset=info.tail)


def add_digest(view: View, algorithm: str, digest: bytes) -> Change:
    """Keep a digest of a complete stream that was computed later. It is no change of the stream itself."""
    info = view.target
    if info is None or not info.complete:
        return Change(info, duplicate=True)
    return Change(replace(info, digests={**info.digests, algorithm: digest}), offset=info.tail)


def renew(view: View, *, now: float) -> Change:
    """Put off a stream's expiry because it was read.

    It is put off by a hundredth more than the time to live, so that a stream that is read all the time is not written
    each time: `StreamInfo.renewed_at` is how long there is nothing to do.
    """
    info = living(view.target, now)
    if info is None or info.deleted or info.ttl is None or now <= info.renewed_at:
        return Change(view.target, duplicate=True)
    return Change(replace(info, renewed_at=now + info.ttl / 100), offset=info.tail)


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
    check_open(info)
    return annotate(view, name, lease(by, until), now=now, incarnation=incarnation)


def lapse(view: View, name: str, *, now: float, incarnation: str) -> Change:
    """Say of a stream that its producer is gone, if that is still so."""
    info = present(view, name, now, incarnation)
    if not lapsed(info, now):
        return Change(info, duplicate=True, offset=info.tail)
    return fail(
        view, name, "its producer is gone: nothing was heard of it for too long", now=now, incarnation=incarnation
    )
