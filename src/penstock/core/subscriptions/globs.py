"""Patterns over names: ``*`` is one segment, ``**`` any number of them, also none."""

from __future__ import annotations

from collections.abc import Sequence


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name is of a pattern."""
    return _matches(pattern.split("/"), name.split("/"))


def _matches(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Go through the pattern once, and keep which beginnings of the name it has matched: no pattern takes long."""
    reached = {0}
    for part in pattern:
        if part == "**":
            reached = set(range(min(reached), len(segments) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(segments) and part in {"*", segments[at]}}
        if not reached:
            return False
    return len(segments) in reached


def literal_prefix(pattern: str) -> str:
    """Return what all names of a pattern begin with, so that only those are looked at."""
    literal: list[str] = []
    for part in pattern.split("/"):
        if part in {"*", "**"}:
            # The names of "a/**" are those below "a/", and "a" itself.
            return "/".join(literal) if part == "**" else "".join(f"{each}/" for each in literal)
        literal.append(part)
    return pattern
