"""What a reader asks for in the query of its request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Query
from starlette.requests import HTTPConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Where a reader begins, and how records are written for it.

    Attributes:
        offset: where to begin: a number of bytes, or ``first``, or ``now``.
        last: how many records back to begin, or None.
        since: the time of the records to begin with, or None.
        event: the member of records that is their event's type; empty for none, None for what the stream says.
        envelope: whether NDJSON records come with their offsets.
        wait: seconds to wait for the first record, and then answer with what is there; None to follow.
    """

    offset: str = "now"
    last: int | None = None
    since: str | None = None
    event: str | None = None
    envelope: bool = False
    wait: float | None = None


def wish(
    connection: HTTPConnection,
    offset: Annotated[str, Query(description="Where to begin: a number of bytes, `first` or `now`")] = "now",
    last: Annotated[int | None, Query(ge=0, le=1_000_000, description="How many records back to begin")] = None,
    since: Annotated[
        str | None,
        Query(max_length=40, description="When that was appended to begin with: a date-time, or seconds (-60: ago)"),
    ] = None,
    event: Annotated[
        str | None, Query(max_length=200, description="The member of JSON records that is their event's type")
    ] = None,
    wait: Annotated[
        float | None, Query(ge=0, le=60, description="Do not follow: wait this many seconds for the first record")
    ] = None,
) -> Wish:
    """Return the wish of a request: a dependency."""
    return Wish(
        offset=offset, last=last, since=since, event=event, envelope="envelope" in connection.query_params, wait=wait
    )
