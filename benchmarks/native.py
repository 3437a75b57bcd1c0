"""The native load generators: compiled when they are first needed, where there is a C compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

_SOURCES = Path(__file__).parent / "native"
_BUILT = Path(__file__).parent / "results" / "native"


class MissingError(Exception):
    """Something that a benchmark needs is not there; the text says how to install it."""


@cache
def program(name: str) -> str:
    """Return the path of a load generator."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingError("a C compiler: apt-get install gcc libc6-dev")
    _BUILT.mkdir(parents=True, exist_ok=True)
    source, built = _SOURCES / f"{name}.c", _BUILT / name
    if not built.exists() or built.stat().st_mtime < max(path.stat().st_mtime for path in _SOURCES.iterdir()):
        subprocess.run([compiler, "-O2", "-pthread", "-o", built, source], check=True)
    return str(built)


def run(name: str, *arguments: object, timeout: float = 120.0) -> dict[str, Any]:
    """Run a load generator, and return what it measured."""
    done = subprocess.run(
        [program(name), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )
    if not done.stdout:
        raise RuntimeError(f"{name} {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
