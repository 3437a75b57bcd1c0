"""Progress bars: on a terminal, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from penstock.client import Progress

_MAX_LABEL: Final = 40


@contextmanager
def progress_bar(label: str, *, show: bool) -> Iterator[Progress]:
    """Show how far a transfer is, on the standard error output if that is a terminal.

    Args:
        label: what is transferred.
        show: False to show nothing anyway.
    """
    with progress_bars(show=show) as bars, bars.bar(label) as progress:
        yield progress


@contextmanager
def progress_bars(*, show: bool, files: int = 1, size: int | None = None) -> Iterator[Bars]:
    """Show how far several transfers are, one below the other, and all of them together.

    Args:
        show: False to show nothing.
        files: how many there will be.
        size: how many bytes in all, where that is known.
    """
    if not show or not sys.stderr.isatty():
        yield Bars(None)
        return
    # Not at the top: it takes a while, and in a pipe nobody sees it.
    from rich.console import Console
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
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        yield Bars(display, files, size)


class Bars:
    """The bars of several transfers, and, of more than one, that of all of them.

    Args:
        display: what shows them; None shows nothing.
        files: how many transfers there will be.
        size: how many bytes in all, where that is known.
    """

    def __init__(self, display: Any, files: int = 1, size: int | None = None) -> None:
        self._display = display
        self._files = files
        self._size = size
        self._ended = 0
        self._sent = 0
        self._all = None
        if display is not None and files > 1:
            self._all = display.add_task(self._summary(), total=size)

    @contextmanager
    def bar(self, label: str) -> Iterator[Progress]:
        """Show a transfer until the end of the block, and yield what is to be told how far it is."""
        if self._display is None:
            yield _nothing
            return
        bar = _Bar(self._display, label)

        def progress(done: int, total: int | None, /) -> None:
            before = bar.done or 0
            bar.show(done, total)
            self._add(done - before)

        try:
            yield progress
        finally:
            bar.remove()
            self._ended += 1
            self._add(0)

    def _add(self, count: int) -> None:
        self._sent += count
        if self._all is not None:
            self._display.update(self._all, completed=self._sent, description=self._summary())

    def _summary(self) -> str:
        return f"{self._ended} of {self._files} files"


class _Bar:
    def __init__(self, display: Any, label: str) -> None:
        from rich.markup import escape

        short = label if len(label) <= _MAX_LABEL else f"…{label[1 - _MAX_LABEL :]}"
        self.done: int | None = None
        self._display = display
        self._task = display.add_task(escape(short), total=None)

    def show(self, done: int, total: int | None) -> None:
        if self.done is None or done < self.done:
            # Where it goes on from was not sent now, and tells nothing of the rate.
            self._display.reset(self._task, completed=done, total=total)
        self.done = done
        self._display.update(self._task, completed=done, total=total)

    def remove(self) -> None:
        self._display.remove_task(self._task)


def _nothing(done: int, total: int | None, /) -> None:
    return
