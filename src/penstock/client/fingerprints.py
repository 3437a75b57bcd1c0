"""By what a file is known again: so that an upload goes on only with the very bytes that it began with."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

_SAMPLE: Final = 64 * 1024
"""Bytes that are read of a file at its beginning, in its middle and at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What tells one state of a file from any other, without reading all of it.

    Attributes:
        device: the file system's number.
        inode: the file's number there.
        size: how many bytes it has.
        modified: when it was last changed (nanoseconds since 1970).
        sample: a digest of some of its bytes.
    """

    device: int
    inode: int
    size: int
    modified: int
    sample: str

    @classmethod
    def of(cls, path: Path, size: int | None = None) -> Self:
        """Look at a file.

        Args:
            path: where it is.
            size: how many of its first bytes count; None for all there are.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            counted = state.st_size if size is None else min(size, state.st_size)
            digest = hashlib.sha256()
            for start in (0, (counted - _SAMPLE) // 2, counted - _SAMPLE):
                file.seek(max(0, start))
                digest.update(file.read(min(_SAMPLE, counted)))
        return cls(
            device=state.st_dev,
            inode=state.st_ino,
            size=counted,
            modified=state.st_mtime_ns,
            sample=digest.hexdigest(),
        )

    @classmethod
    def from_json(cls, document: Any) -> Self | None:
        """Return the fingerprint that was kept as JSON, or None if it was not."""
        try:
            return cls(**document)
        except TypeError:
            return None

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can keep."""
        return asdict(self)

    def begins(self, path: Path) -> bool:
        """Tell whether a file is the same one, with the same first bytes: nothing but more was added to it.

        Raises:
            OSError: it cannot be read.
        """
        now = type(self).of(path, self.size)
        return (now.device, now.inode, now.size, now.sample) == (self.device, self.inode, self.size, self.sample)
