"""Numbers of bytes as people write them."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_UNITS: Final = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)


class Size(click.ParamType):  # type: ignore[type-arg]  # older ones cannot be subscripted
    """A number of bytes: ``1000000``, ``100MB`` (millions), ``64MiB`` (times 1,024 x 1,024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        match = _SIZE.fullmatch(str(value).strip())
        size = 0 if match is None else int(float(match[1]) * _UNITS[(match[2] or "").lower()])
        if size < 1:
            self.fail(f"{value!r} is no number of bytes, such as 1000000, 100MB or 64MiB.", param, ctx)
        return size
