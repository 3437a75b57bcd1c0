"""File systems of a size of their own, for tests of what happens when they are full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import missing, tool


@contextmanager
def small_disk(point: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size, such as ``28m``, at a folder that is created."""
    point.mkdir()
    command = [tool("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        missing("the right to mount a file system")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", point], check=True)
