"""Ids that resume many streams at once: one text with the offset of each.

An id is ``v1.`` and an entry a stream, in base64url: six bytes (five of the stream's incarnation, one with the length
of the offset) and the offset in three, six or nine bytes. Entries are multiples of three bytes, so their texts join,
and that of one stream can be replaced by itself: 12 characters for one of up to 16 MiB, 16 for up to 256 TiB.
"""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Final

__all__ = ["GroupIdError", "entry", "group_id", "parse_group_id", "tag_of"]

_VERSION: Final = "v1."
_TAG: Final = 5


class GroupIdError(ValueError):
    """A text that is no id of a group."""


def tag_of(incarnation: str) -> bytes:
    """Return what an incarnation is known by in ids: five bytes of it."""
    return bytes.fromhex(incarnation[: 2 * _TAG])


def entry(incarnation: str, offset: int) -> str:
    """Return a stream's part of an id."""
    size = 3 if offset < 1 << 24 else 6 if offset < 1 << 48 else 9
    return urlsafe_b64encode(tag_of(incarnation) + bytes((size,)) + offset.to_bytes(size, "big")).decode()


def group_id(entries: Mapping[str, str]) -> str:
    """Return the id of a group out of its streams' entries."""
    return _VERSION + "".join(entries.values())


def parse_group_id(text: str) -> dict[bytes, int]:
    """Return the offset of each stream, by its tag (`tag_of`).

    Raises:
        GroupIdError: it is no such id.
    """
    if not text.startswith(_VERSION):
        raise GroupIdError("an id of several streams begins with v1.")
    try:
        data = b64decode(text[len(_VERSION) :], altchars=b"-_", validate=True)
    except ValueError as error:
        raise GroupIdError("the id of several streams is damaged") from error
    offsets: dict[bytes, int] = {}
    at = 0
    while at < len(data):
        stop = at + _TAG + 1 + (data[at + _TAG] if at + _TAG < len(data) else 0)
        if stop > len(data) or (stop - at - _TAG - 1) not in {3, 6, 9}:
            raise GroupIdError("the id of several streams is damaged")
        offsets[data[at : at + _TAG]] = int.from_bytes(data[at + _TAG + 1 : stop], "big")
        at = stop
    return offsets
