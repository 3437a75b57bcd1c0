"""What this process committed last to the streams that are followed here, kept for a moment.

A follower who is told that this process has changed its stream need not ask the catalog, by way of two threads, for
what the process had in its hands just now. It is given that only where it goes on exactly at its offset, and with
nothing of another process in between; otherwise it reads, as ever.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from penstock.model import StreamInfo
from penstock.stores.local.batch import Applied

_MOST = 32 * 1024
"""Bytes that are kept for a stream."""

_EACH = 256
"""Bytes that a commit counts for, whatever it appended."""


@dataclass(slots=True)
class _Recollection:
    """The latest commits to a stream: the offset before each, its bytes, and the state after it."""

    readers: int = 0
    commits: deque[tuple[int, bytes, StreamInfo]] = field(default_factory=deque)
    size: int = 0


class Recollections:
    """The latest commits of this process. `note` is called by the committer's thread, the rest on the event loop.

    Each step is one operation of a dictionary or a deque, which the interpreter does not interrupt.
    """

    def __init__(self) -> None:
        self._by_incarnation: dict[str, _Recollection] = {}

    def begin(self, incarnation: str) -> None:
        """Begin to keep what is committed to a stream, for one more reader."""
        self._by_incarnation.setdefault(incarnation, _Recollection()).readers += 1

    def end(self, incarnation: str) -> None:
        """One reader less."""
        recollection = self._by_incarnation[incarnation]
        recollection.readers -= 1
        if not recollection.readers:
            del self._by_incarnation[incarnation]

    def note(self, applied: Applied) -> None:
        """Keep what a commit did."""
        for incarnation in applied.removed:
            self._forget(self._by_incarnation.get(incarnation))
        change, info = applied.change, applied.change.info
        recollection = None if info is None else self._by_incarnation.get(info.incarnation)
        if recollection is None or info is None or change.duplicate:
            return
        if info.deleted:
            self._forget(recollection)
            return
        data = b"".join(change.data)
        if len(data) > _MOST:
            self._forget(recollection)
            return
        recollection.commits.append((info.tail - len(data), data, info))
        recollection.size += len(data) + _EACH
        while recollection.size > _MOST:
            recollection.size -= len(recollection.commits.popleft()[1]) + _EACH

    def _forget(self, recollection: _Recollection | None) -> None:
        if recollection is not None:
            recollection.commits.clear()
            recollection.size = 0

    def recall(self, incarnation: str, offset: int) -> tuple[StreamInfo, bytes] | None:
        """Return the state after the last commit, and the bytes from ``offset`` up to it; None if that is not known."""
        parts: list[bytes] = []
        at, last = offset, None
        for start, data, info in list(self._by_incarnation[incarnation].commits):
            if last is None and start != offset:
                continue
            if start != at or start + len(data) != info.tail:
                return None
            parts.append(data)
            at, last = info.tail, info
        return None if last is None else (last, b"".join(parts))
