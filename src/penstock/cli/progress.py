"""Progress bars: on a terminal, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.client import Progress


@contextmanager
def progress_bar(label: str, *, show: bool) -> Iterator[Progress]:
    """Show how far a transfer is, on the standard error output if that is a terminal.

    Args:
        label: what is transferred.
        show: False to show nothing anyway.
    """
    if not show or not sys.stderr.isatty():
        yield _nothing
        return
    # Not at the top: it takes a while, and in a pipe nobody sees it.
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(label), total=None)
        yield lambda done, total, /: bar.update(task, completed=done, total=total)


def _nothing(done: int, total: int | None, /) -> None:
    return
