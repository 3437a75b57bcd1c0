"""What all framings have in common; see `penstock.protocols.framings`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from penstock.protocols.records import has_records

Kind: TypeAlias = Literal["json", "text", "bytes"]
"""What a stream holds: JSON records, lines of text, or bytes without records."""


def kind_of(content_type: str) -> Kind:
    """Return what a stream of this content type holds."""
    if not has_records(content_type):
        return "bytes"
    return "text" if content_type.lstrip().lower().startswith("text/") else "json"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why nothing more comes: what `Framing.end` tells the reader.

    Attributes:
        state: ``closed``: the reader has it all. ``failed``: the stream broke, and this is not the whole. ``gone``: it
            was deleted or replaced. ``open``: the stream goes on, but this response does not.
        offset: where the reader stands, and can go on if the stream is open; None where there is nothing to go on with.
        reason: what happened, in a sentence; None of a stream that was closed.
        facts: more that a program can use, JSON values by name.
    """

    state: Literal["closed", "failed", "gone", "open"]
    offset: int | None = None
    reason: str | None = None
    facts: tuple[tuple[str, object], ...] = ()

    def members(self) -> dict[str, object]:
        """Return what there is to tell, by name."""
        told = {"state": self.state, "offset": self.offset, "reason": self.reason, **dict(self.facts)}
        return {name: value for name, value in told.items() if value is not None}


class Framing(Protocol):
    """How a stream is written for a transport. Values: frozen, hashable, equal if they write the same."""

    @property
    def media_type(self) -> str:
        """The content type of the output; of messages, the subprotocol."""

    @property
    def joins(self) -> bool:
        """Whether outputs may be joined; else each is a message of its own."""

    @property
    def breaks_off(self) -> bool:
        """Whether a body is broken off after an ending that is not ``closed``; else the ending tells enough."""

    def opening(self) -> bytes:
        """Return what comes first; it may be nothing."""

    def frame(self, offset: int, data: bytes) -> bytes:
        """Return a run in this format.

        Args:
            offset: of the first byte of ``data``, where a record begins.
            data: whole records, each with its LF; the last one of a stream that ended may be without. Not empty. Any
                bytes of a stream without records.
        """

    def heartbeat(self) -> bytes:
        """Return what shows that the line is alive; it may be nothing, where the transport has signs of its own."""

    def farewell(self) -> bytes:
        """Return what a server says that stops while the stream goes on; it may be nothing."""

    def end(self, ending: Ending) -> bytes:
        """Return what comes last."""


def json_line(value: Mapping[str, object]) -> bytes:
    """Return compact JSON, without a line end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")


def lines_of(data: bytes) -> list[bytes]:
    """Return the records of a run, without their LF."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines
