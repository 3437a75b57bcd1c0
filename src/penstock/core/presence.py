"""Who is there: the readers and the producers of streams, counted in this process and asked for in the others.

Counting is all that costs anything while nobody asks: a number a stream. The other processes of the machine are asked
when somebody wants to know.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.core.group import Group

MOST_NAMES: Final = 200
"""Names of readers that a process tells."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is there of a stream.

    Attributes:
        readers: how many follow it.
        producers: how many long appends to it are under way.
        names: who the readers are, as far as the application told, each once; up to 200 a process.
    """

    readers: int = 0
    producers: int = 0
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class _Stream:
    readers: int = 0
    producers: int = 0
    names: Counter[str] = field(default_factory=Counter)


class Attendance:
    """Who is there in this process. For one event loop."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._groups: dict[Group, str | None] = {}

    def reader(self, name: str, who: str | None = None) -> Callable[[], None]:
        """Note a reader, and return what notes that it went; again is harmless."""
        stream = self._streams.setdefault(name, _Stream())
        stream.readers += 1
        if who is not None:
            stream.names[who] += 1

        def leave() -> None:
            stream.readers -= 1
            if who is not None:
                stream.names[who] -= 1
                stream.names += Counter()  # keeps what is positive
            self._forget(name, stream)

        return _once(leave)

    def producer(self, name: str) -> Callable[[], None]:
        """Note a producer, and return what notes that it went; again is harmless."""
        stream = self._streams.setdefault(name, _Stream())
        stream.producers += 1

        def leave() -> None:
            stream.producers -= 1
            self._forget(name, stream)

        return _once(leave)

    def group(self, group: Group, who: str | None = None) -> Callable[[], None]:
        """Note a reader of many streams, and return what notes that it went; again is harmless."""
        self._groups[group] = who

        def leave() -> None:
            self._groups.pop(group, None)

        return leave

    def _forget(self, name: str, stream: _Stream) -> None:
        if not stream.readers and not stream.producers and self._streams.get(name) is stream:
            del self._streams[name]

    def of(self, name: str) -> Presence:
        """Return who is there of a stream."""
        stream = self._streams.get(name, _Stream())
        names = set(stream.names)
        readers = stream.readers
        for group, who in self._groups.items():
            member = group.members.get(name)
            if member is not None and not member.ended:
                readers += 1
                names |= {who} if who is not None else set()
        return Presence(readers, stream.producers, tuple(sorted(names)[:MOST_NAMES]))

    def answer(self, question: bytes) -> bytes:
        """Answer another process: the question is a stream's name."""
        found = self.of(question.decode())
        return json.dumps([found.readers, found.producers, found.names]).encode()


def together(parts: Iterable[Presence | bytes]) -> Presence:
    """Add up what the processes know."""
    readers = producers = 0
    names: set[str] = set()
    for part in parts:
        found = part
        if isinstance(found, bytes):
            told = json.loads(found)
            found = Presence(told[0], told[1], tuple(told[2]))
        readers += found.readers
        producers += found.producers
        names |= set(found.names)
    return Presence(readers, producers, tuple(sorted(names)))


def _once(function: Callable[[], None]) -> Callable[[], None]:
    left = False

    def call() -> None:
        nonlocal left
        if not left:
            left = True
            function()

    return call
