"""Counters that the processes of a folder share: by them, each knows at once that what a name shows has not changed.

A file of numbers, mapped into memory, and a name's place in it is its hash. Who commits makes a number odd before, and
even after the commit; it only grows. So whoever finds an even number, then reads from the catalog, and later finds the
same number, has read what is there now. A process that ends in the middle of a commit leaves an odd number behind,
on which only who holds the lock to commit relies. Names that share a place cost each other some reading.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PLACES: Final = 4096
_ALL: Final = _PLACES
"""The place that changes with each commit."""

_SIZE: Final = 8 * (_PLACES + 1)


class Generations:
    """The counters. All but `of`, which is for anybody, is for who holds the lock to commit. Each step is quick."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            missing = _SIZE - os.fstat(descriptor).st_size
            if missing > 0:  # written, not only made longer: a disk that is full must not be found out by a signal
                os.pwrite(descriptor, bytes(missing), _SIZE - missing)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._numbers = memoryview(self._map).cast("Q")

    def of(self, name: str) -> int | None:
        """Return a number that stays the same as long as what the name shows does; None while it is uncertain."""
        number = self._numbers[_place_of(name)]
        return None if number % 2 else number

    def last(self, name: str) -> int:
        """Return a number that stays the same as long as no commit is begun that may change the name's streams."""
        return self._numbers[_place_of(name)]

    def last_of_all(self) -> int:
        """Return a number that stays the same as long as no commit is begun."""
        return self._numbers[_ALL]

    def begin(self, names: Iterable[str]) -> set[int]:
        """Note that a commit may change the streams of names, and return their places, for `end`."""
        places = {_ALL, *map(_place_of, names)}
        for place in places:
            self._numbers[place] += 1 + self._numbers[place] % 2
        return places

    def end(self, places: Iterable[int]) -> None:
        """Note that the commit is through."""
        for place in places:
            self._numbers[place] += 1

    def close(self) -> None:
        """Release the mapping."""
        self._numbers.release()
        self._map.close()


def _place_of(name: str) -> int:
    return zlib.crc32(name.encode()) % _PLACES
