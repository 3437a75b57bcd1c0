"""The ``penstock`` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit with one of the codes of `penstock.cli.exits`.

    Args:
        arguments: what comes after the program's name; from ``sys.argv`` if not given.
    """
    try:
        from penstock.cli.program import run
    except ImportError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write(f"penstock: the command needs {error.name}: pip install 'penstock[cli]'\n")
        sys.exit(1)
    run(sys.argv[1:] if arguments is None else arguments)
