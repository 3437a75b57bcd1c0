"""From a stream's name to its address, and from a name to a safe file name."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from penstock.model import check_name

_MAX_FILE_NAME_BYTES: Final = 255
_UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def path_of(prefix: str, name: str) -> str:
    """Return the path of a stream below a door.

    Args:
        prefix: the door's path, ``/files``.
        name: the stream's name.

    Raises:
        InvalidName: nothing can be called that.
    """
    return f"{prefix}/{urllib.parse.quote(check_name(name), safe='/')}"


def query(**values: str | int | None) -> str:
    """Return a query string with its question mark, without the values that are None."""
    given = {key: value for key, value in values.items() if value is not None}
    return f"?{urllib.parse.urlencode(given)}" if given else ""


def file_name_for(name: str) -> str:
    """Return a name for a local file to keep a stream in: what comes last in the stream's name, made harmless.

    The name comes from elsewhere, so it must not lead out of the folder it is joined to, nor hide the file (no leading
    dot), nor hold what some file systems refuse.
    """
    last = _UNSAFE.sub("_", name.rpartition("/")[2]).lstrip(".").strip()
    if not last:
        return "stream"
    while len(last.encode()) > _MAX_FILE_NAME_BYTES - 16:  # room for what a partial download puts behind it
        stem, dot, suffix = last.rpartition(".")
        last = stem[:-1] + dot + suffix if stem and len(suffix) < 32 else last[:-1]
    return last
