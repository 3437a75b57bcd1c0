"""What the client logs on the way (retries), as lines for the person at the terminal."""

from __future__ import annotations

import logging
import sys


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"penstock: {record.getMessage()}\n")
        sys.stderr.flush()


def show_warnings(*, show: bool) -> None:
    """Show the client's warnings on the standard error output from now on, or keep them back."""
    logger = logging.getLogger("penstock.client")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines(logging.WARNING))
    logger.setLevel(logging.WARNING if show else logging.ERROR)
