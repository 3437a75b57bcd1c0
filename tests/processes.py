"""What Linux tells about the processes of a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

AVAILABLE = sys.platform == "linux"


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def workers(pid: int) -> list[int]:
    """Return the worker processes of a server's parent process."""
    return [child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def anonymous(pid: int) -> int:
    """Return how many bytes of anonymous memory a process has: what it allocated, without the files that it maps."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process refer to."""
    return sorted(target for _, target in _targets(pid))


def owner_of(connections: dict[int, int], pids: list[int]) -> dict[int, int]:
    """Tell which process accepted which connection.

    Args:
        connections: keys, and for each the local port of the client's end.
        pids: the processes.
    """
    holders = {target[8:-1]: pid for pid in pids for _, target in _targets(pid) if target.startswith("socket:[")}
    owners: dict[int, int] = {}  # by the client's port
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        # Other servers' connections, ended ones too, may have a client's port of the same number.
        if fields[9] in holders:
            owners[int(fields[2].rpartition(":")[2], 16)] = holders[fields[9]]
    return {key: owners[port] for key, port in connections.items() if port in owners}


def _targets(pid: int) -> Iterator[tuple[int, str]]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield int(link.name), str(link.readlink())


def runs(pid: int) -> bool:
    """Tell whether a process has not ended yet; who has ended and was not waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
