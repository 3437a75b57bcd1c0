"""Who is there of a stream, as a server tells it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is there of a stream.

    Attributes:
        state: the stream's: ``open``, ``closed`` or ``failed``.
        readers: how many follow it, alone or among others.
        names: of those that the application gives names, each once.
        producers: how many long appends are under way.
        modified_at: when it last changed, in Unix seconds.
        quiet_after: after how many seconds of silence its producer counts as gone; None for never.
        vanished: whether that is so.
    """

    state: str
    readers: int
    names: tuple[str, ...]
    producers: int
    modified_at: float
    quiet_after: float | None
    vanished: bool


def presence_from_json(document: Mapping[str, Any]) -> Presence:
    """Read the JSON of the live door.

    Raises:
        ValueError: it tells nothing of the kind.
    """
    try:
        return Presence(
            state=str(document["state"]),
            readers=int(document["readers"]),
            names=tuple(map(str, document["names"])),
            producers=int(document["producers"]),
            modified_at=dt.datetime.fromisoformat(document["modified_at"]).timestamp(),
            quiet_after=document["quiet_after"],
            vanished=bool(document["vanished"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the JSON of who is there: {error!r}") from error
